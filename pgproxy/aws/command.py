"""
`pgproxy token`: makes a token to log in with, of any of the three kinds, and writes it to standard output.

Applications make them themselves, with any AWS SDK; docs/aws.md says how. This is for people:
PGPASSWORD="$(pgproxy token sts --server-id ID --region REGION)" psql "host=... user=... sslmode=verify-full"
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from pgproxy.aws.caller_identity import HEADER, url, wrap

ABOUT = (
    "Make a token to log in with, with the credentials that boto3 finds, and write it to standard output. "
    "Whoever has it can log in for a quarter of an hour."
)
_EXPIRES = 900


def define(parser: argparse.ArgumentParser) -> None:
    """Give the sub-command its options."""
    kinds = parser.add_subparsers(title="kinds", metavar="KIND", required=True)
    sts = kinds.add_parser("sts", help="a signed sts:GetCallerIdentity, for sts-caller-identity")
    web = kinds.add_parser("web", help="a JWT of sts:GetWebIdentityToken, for web-identity")
    rds = kinds.add_parser("rds", help="a token for an RDS host, for rds-db")
    for one in (sts, web):
        one.add_argument("--server-id", required=True, help="aws.iam.server_id of the proxy")
    rds.add_argument("--host", required=True, help="the RDS host that is behind the proxy, not the proxy")
    rds.add_argument("--port", type=int, default=5432, help="its port (%(default)s)")
    rds.add_argument("--user", required=True, help="the database user")
    for one, make in ((sts, _sts), (web, _web), (rds, _rds)):
        one.add_argument("--region", help="without it the one that boto3 finds")
        one.set_defaults(run=_run, make=make)


def _run(arguments: argparse.Namespace) -> int:
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        print("boto3 is not installed: pip install 'pgproxy[aws]'", file=sys.stderr)
        return 1
    session = boto3.session.Session(region_name=arguments.region or os.environ.get("AWS_REGION"))
    if session.region_name is None:
        print("no region is known: give one with --region, or set AWS_REGION", file=sys.stderr)
        return 1
    if session.get_credentials() is None:
        print("no credentials are found: configure them as for the AWS CLI", file=sys.stderr)
        return 1
    try:
        print(arguments.make(session, arguments))
    except (BotoCoreError, ClientError) as error:
        print(f"AWS makes no token: {error}", file=sys.stderr)
        return 1
    return 0


def _sts(session: Any, arguments: argparse.Namespace) -> str:
    return caller_identity_token(session, arguments.server_id)


def caller_identity_token(session: Any, server_id: str) -> str:
    """Make a token for sts-caller-identity, with a boto3 session's credentials and region."""
    from botocore.auth import SigV4QueryAuth
    from botocore.awsrequest import AWSRequest

    region = session.region_name
    credentials = session.get_credentials()
    request = AWSRequest("GET", url(region), headers={HEADER: server_id})
    SigV4QueryAuth(credentials.get_frozen_credentials(), "sts", region, _EXPIRES).add_auth(request)
    return wrap(str(request.url))


def _web(session: Any, arguments: argparse.Namespace) -> str:
    client = session.client("sts")
    answer = client.get_web_identity_token(
        Audience=[arguments.server_id], SigningAlgorithm="ES384", DurationSeconds=300
    )
    return str(answer["WebIdentityToken"])


def _rds(session: Any, arguments: argparse.Namespace) -> str:
    client = session.client("rds")
    return str(client.generate_db_auth_token(arguments.host, arguments.port, arguments.user))
