"""The options of [aws], and what is wrong with them together."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen

from pgproxy.aws.identity import IdentityPattern
from pgproxy.config.aws_kinds import (
    ISSUER,
    LOCAL_ISSUER,
    NAMESPACE,
    REGION,
    SERVER_ID,
    SecretSource,
    SecretSources,
    Text,
    Texts,
    Verifier,
    Verifiers,
)
from pgproxy.config.kinds import Choice, Seconds, UserNames, Whole, option
from pgproxy.config.problems import Report, dotted

if TYPE_CHECKING:
    from pgproxy.config.model import Config

Metrics = Literal["off", "api", "emf"]


@frozen(kw_only=True)
class AwsIam:
    """
    IAM instead of passwords: of clients, towards servers, or both.

    A client sends its token as its password, over TLS. docs/aws.md says how each of the three kinds is made,
    what it proves and what it doesn't.
    """

    client_users: frozenset[str] = field(
        default=frozenset(),
        metadata=option(
            UserNames(may_be_none=True),
            "The users who log in by a token, over TLS, and by nothing else. `proxy.auth` is for all others.",
        ),
    )
    verifiers: tuple[Verifier, ...] = field(
        default=(),
        metadata=option(
            Verifiers(),
            "What tokens are taken. rds-db: a token for the RDS host itself, which RDS verifies; "
            "sts-caller-identity: a signed request that STS verifies; web-identity: a JWT of "
            "sts:GetWebIdentityToken, verified with the issuer's keys.",
        ),
    )
    server_id: str = field(
        default="",
        metadata=option(
            Text("letters, digits and . _ : / -", SERVER_ID),
            "What this proxy (or all that share it) is called in tokens: the signed header "
            "X-PgProxy-Server-ID, or the audience of a JWT. Tokens for others are refused. Needed for "
            "sts-caller-identity and web-identity.",
        ),
    )
    sts_regions: tuple[str, ...] = field(
        default=(),
        metadata=option(
            Texts("an array of regions like eu-central-1", (REGION,)),
            "The regions whose STS a signed request may be for. Without it, the region of pgproxy.",
        ),
    )
    issuers: tuple[str, ...] = field(
        default=(),
        metadata=option(
            Texts("an array of https:// URLs (http:// on a loopback address)", (ISSUER, LOCAL_ISSUER)),
            "Whose JWTs are taken: an account's issuer, as iam:GetOutboundWebIdentityFederationInfo gives "
            "it. Its keys are read from /.well-known/jwks.json behind it.",
        ),
    )
    identities: Mapping[str, frozenset[str]] = field(
        factory=dict,
        metadata=option(
            UserNames(),
            "Which users an ARN may be, for sts-caller-identity and web-identity: "
            '`"arn:aws:iam::123456789012:role/app-*" = "app"`. A `*` stands for any characters but / and :, '
            "in the last part only; partition and account are taken as they are. For JWTs a claim "
            "may follow: "
            '`"arn:aws:iam::123456789012:role/* principal_tags/team=payments" = "app"`, or `org_id=...`.',
            entries="ARNs",
        ),
    )
    max_token_age: float = field(
        default=900.0,
        metadata=option(
            Whole(10, 3600),
            "How many seconds a token is taken after it was made, even if it says more. Whoever gets hold of "
            "one can use it as long.",
        ),
    )
    server_users: frozenset[str] = field(
        default=frozenset(),
        metadata=option(
            UserNames(may_be_none=True),
            "The users as whom pgproxy logs in to servers with tokens of its own, made with its role. They "
            'need GRANT rds_iam, and the role rds-db:connect. Every target needs `tls = "verify-full"` then.',
        ),
    )


@frozen(kw_only=True)
class AwsCloudWatch:
    """Metrics for CloudWatch, under RDS Proxy's names."""

    send: Metrics = field(
        default="off",
        metadata=option(
            Choice(("off", "api", "emf")),
            "api: by cloudwatch:PutMetricData. emf: as lines of the log in the embedded metric format, for "
            "whatever takes the log to CloudWatch.",
        ),
    )
    namespace: str = field(
        default="pgproxy",
        metadata=option(
            Text("a CloudWatch namespace; those that begin with AWS/ are AWS's", NAMESPACE), "Where."
        ),
    )
    proxy_name: str = field(
        default="pgproxy",
        metadata=option(
            Text("letters, digits and . _ : / -", SERVER_ID),
            "The dimension ProxyName. What several proxies of one name send adds up.",
        ),
    )
    interval: float = field(
        default=60.0, metadata=option(Seconds(3600, positive=True), "Seconds between two times.")
    )


@frozen(kw_only=True)
class Aws:
    """
    What AWS is used for. Without this table nothing of it is loaded; it takes the extra `pgproxy[aws]`.

    Credentials are found as boto3 finds them: environment, shared files, container or instance role.
    """

    region: str = field(
        default="",
        metadata=option(
            Text("a region like eu-central-1", REGION),
            "The region; without it what AWS_REGION or the shared files say, else the instance's.",
        ),
    )
    secrets: tuple[SecretSource, ...] = field(
        default=(),
        metadata=option(
            SecretSources(),
            "The secrets in Secrets Manager that hold users and passwords: JSON with `username` and "
            "`password`. Users in users_file are not taken from there.",
        ),
    )
    refresh_interval: float = field(
        default=300.0,
        metadata=option(
            Seconds(86_400, positive=True),
            "Seconds after which secrets are read again, give or take a tenth. When a login fails that of "
            "its user is read at once.",
        ),
    )
    previous_password_time: float = field(
        default=900.0,
        metadata=option(
            Seconds(7 * 86_400),
            "For how many seconds after the current version of a secret was made, or was seen to become "
            "current, clients may still log in with the password before (AWSPREVIOUS).",
        ),
    )
    iam: AwsIam = field(factory=AwsIam)
    cloudwatch: AwsCloudWatch = field(factory=AwsCloudWatch)


def check_aws(config: Config, report: Report) -> None:
    """Report what is wrong with [aws] as a whole."""
    if config.aws is None:
        return
    missing = [name for name in ("boto3", "jwt") if find_spec(name) is None]
    if missing:
        report.add("aws", f"needs {' and '.join(missing)}, not installed here", "pip install 'pgproxy[aws]'")
    iam = config.aws.iam
    _check_identities(iam, report)
    for verifier in ("sts-caller-identity", "web-identity"):
        if verifier in iam.verifiers and not iam.server_id:
            report.add(
                "aws.iam.server_id",
                f'is missing, and "{verifier}" takes only tokens that are made for this proxy',
                "give it a name that no other service has, like pgproxy.prod.example.com",
            )
    if "web-identity" in iam.verifiers and not iam.issuers:
        report.add("aws.iam.issuers", "is missing", '"web-identity" needs to know whose keys sign the tokens')
    if iam.client_users:
        if not iam.verifiers:
            report.add("aws.iam.verifiers", "is missing", "aws.iam.client_users can't log in without one")
        if config.proxy.tls.mode == "off":
            report.add(
                "proxy.tls.mode",
                'is "off", but tokens are taken over TLS only, and aws.iam.client_users log in by tokens',
                'set it to "allow" or "require"',
            )
    elif iam.verifiers:
        report.add("aws.iam.client_users", "is missing", "name the users who log in by tokens")
    if iam.server_users or "rds-db" in iam.verifiers:
        for name, target in config.targets.items():
            if target.tls != "verify-full":
                report.add(
                    dotted("targets", name, "tls"),
                    f'is "{target.tls}", but IAM tokens are shown only to servers that prove their name',
                    'set it to "verify-full", with the authorities of RDS in ca',
                )


def _check_identities(iam: AwsIam, report: Report) -> None:
    mapped: set[str] = set()
    for text, users in iam.identities.items():
        path = dotted("aws", "iam", "identities", text)
        try:
            pattern = IdentityPattern.parse(text)
        except ValueError as error:
            report.add(path, str(error), "write it like arn:aws:iam::123456789012:role/NAME")
        else:
            if pattern.needs_claims and "web-identity" not in iam.verifiers:
                report.add(path, "only JWTs make claims", 'add "web-identity" to aws.iam.verifiers')
        others = sorted(users - iam.client_users)
        if others:
            report.add(path, f"{', '.join(others)}: not in aws.iam.client_users", "add who is missing there")
        mapped |= users
    unmapped = sorted(iam.client_users - mapped)
    if unmapped and iam.verifiers and "rds-db" not in iam.verifiers:
        report.add(
            "aws.iam.identities", f"nobody may be {', '.join(unmapped)}", "add an ARN for each of them"
        )
