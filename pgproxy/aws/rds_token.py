"""
Tokens for logins at RDS: what can be said of one before RDS is asked, which alone can verify it.

Documentation: Amazon RDS User Guide, "IAM database authentication".
"""

from __future__ import annotations

import re
from collections.abc import Collection

from attrs import field, frozen

from pgproxy.aws.presigned import TokenUnfit, expiry, read_query, region_of_credential

MAX_TOKEN = 8192
"""Characters; they have one to three thousand."""
LIFETIME = 900.0
"""Seconds that RDS takes one."""

_form = re.compile(r"(?P<host>[A-Za-z0-9.-]{1,253}):(?P<port>[0-9]{1,5})/\?(?P<query>[^?#\s]+)")
_rds_host = re.compile(r"[^.]+(?:\.[^.]+)*\.([a-z]{2,4}(?:-[a-z]+)+-[0-9]+)\.rds\.amazonaws\.com(?:\.cn)?")


@frozen
class RdsToken:
    """What a token says."""

    host: str
    port: int
    user: str
    region: str
    parameters: dict[str, str] = field(repr=False)


def is_rds_token(token: str) -> bool:
    """Say whether it is meant as one."""
    return "Action=connect" in token and "/?" in token


def parse(token: str) -> RdsToken:
    """Read a token. Raises `TokenUnfit`."""
    form = _form.fullmatch(token) if len(token) <= MAX_TOKEN else None
    if form is None:
        raise TokenUnfit("it is malformed")
    parameters = read_query(form["query"], frozenset({"Action", "DBUser"}))
    if parameters["Action"] != "connect":
        raise TokenUnfit("its Action is not connect")
    if parameters["X-Amz-SignedHeaders"] != "host":
        raise TokenUnfit("it does not sign the host, and that alone")
    region = region_of_credential(parameters, "rds-db")
    return RdsToken(form["host"].lower(), int(form["port"]), parameters["DBUser"], region, parameters)


def check(
    token: RdsToken, user: str, hosts: Collection[tuple[str, int]], now: float, max_age: float
) -> float:
    """
    Check all that can be checked before RDS does; give the time until which RDS takes it.

    `hosts` are the names and ports that the database is known by. Raises `TokenUnfit`.
    """
    if token.user != user:
        raise TokenUnfit("it is for another database user")
    if (token.host, token.port) not in {(name.lower(), port) for name, port in hosts}:
        raise TokenUnfit(
            f"it is for {token.host}:{token.port}, where this database is not, so nobody here can verify it"
        )
    if region_of(token.host) not in ("", token.region):
        raise TokenUnfit("it is signed for another region than its host is in")
    return expiry(token.parameters, now, max_age)


def region_of(host: str) -> str:
    """Give the region in the name of an RDS host, "" where there is none."""
    form = _rds_host.fullmatch(host.lower())
    return form[1] if form is not None else ""
