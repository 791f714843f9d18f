"""
Tokens that are a presigned sts:GetCallerIdentity: STS verifies the signature, and says whose it is.

The request has a signed header with the proxy's own id, which is put in here, not taken from the client: what
was signed for somebody else, STS refuses. Where the request goes to is chosen from a list, never by the
client.

What such a token does not do: ask IAM whether this identity may (GetCallerIdentity needs no permission; who
may be which user is the map's), or be used up (whoever has it can use it until it expires).

Documentation: AWS STS API Reference, GetCallerIdentity; aws-iam-authenticator and Vault do the same.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection, Mapping
from urllib.parse import quote, urlsplit

from attrs import field, frozen

from pgproxy.aws.arn import Arn
from pgproxy.aws.presigned import TokenUnfit, expiry, read_query, region_of_credential

PREFIX = "pgproxy-aws-v1."
HEADER = "x-pgproxy-server-id"
MAX_URL = 4096
"""Characters: aws-iam-authenticator's."""
_GLOBAL = "sts.amazonaws.com"
_VERSION = "2011-06-15"


@frozen
class Request:
    """What STS is asked."""

    host: str
    query: str = field(repr=False)
    """In the canonical form."""
    expires: float
    """Seconds since 1970: until then the answer holds."""


def is_caller_identity(token: str) -> bool:
    """Say whether it is meant as such a token."""
    return token.startswith(PREFIX)


def wrap(url: str) -> str:
    """Make the token of a presigned URL."""
    return PREFIX + urlsafe_b64encode(url.encode()).decode().rstrip("=")


def url(region: str) -> str:
    """Give the URL to sign, of a region's STS."""
    suffix = "amazonaws.com.cn" if _is_china(region) else "amazonaws.com"
    return f"https://sts.{region}.{suffix}/?Action=GetCallerIdentity&Version={_VERSION}"


def hosts(regions: Collection[str]) -> dict[str, str]:
    """Give the hosts of STS for these regions, plain, FIPS and dual-stack, each with its region."""
    found = {_GLOBAL: "us-east-1"} if not any(map(_is_china, regions)) else {}
    for region in regions:
        suffix = "amazonaws.com.cn" if _is_china(region) else "amazonaws.com"
        dual = "api.amazonwebservices.com.cn" if _is_china(region) else "api.aws"
        for name in ("sts", "sts-fips"):
            found[f"{name}.{region}.{suffix}"] = region
            found[f"{name}.{region}.{dual}"] = region
    return found


def _is_china(region: str) -> bool:
    return region.startswith("cn-")


def parse(token: str, allowed: Mapping[str, str], now: float, max_age: float) -> Request:
    """Check a token as far as that is possible before STS does. Raises `TokenUnfit`."""
    body = token.removeprefix(PREFIX)
    if len(body) > MAX_URL * 4 // 3 + 4:
        raise TokenUnfit(f"it has more than {MAX_URL} characters")
    try:
        url = urlsafe_b64decode(body + "=" * (-len(body) % 4)).decode("ascii")
        parts = urlsplit(url)
    except ValueError:
        raise TokenUnfit("it is malformed") from None
    if wrap(url) != token:
        raise TokenUnfit("it is malformed")
    if len(url) > MAX_URL:
        raise TokenUnfit(f"it has more than {MAX_URL} characters")
    if parts.scheme != "https" or not url.startswith(f"https://{parts.netloc}/?"):
        raise TokenUnfit("its URL is not https://HOST/?QUERY")
    if parts.netloc not in allowed or parts.path != "/" or parts.fragment or "#" in url:
        raise TokenUnfit("it is not for an STS of one of the regions that are taken here")
    parameters = read_query(parts.query, frozenset({"Action", "Version"}))
    if parameters["Action"] != "GetCallerIdentity" or parameters["Version"] != _VERSION:
        raise TokenUnfit("it is no GetCallerIdentity")
    if parameters["X-Amz-SignedHeaders"] != f"host;{HEADER}":
        raise TokenUnfit(f"it does not sign host and {HEADER}, and these alone")
    if region_of_credential(parameters, "sts") != allowed[parts.netloc]:
        raise TokenUnfit("it is signed for another region than its host is in")
    expires = expiry(parameters, now, max_age)
    # What STS reads is what was read here: written anew, in the one form that is signed.
    query = "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in sorted(parameters.items()))
    return Request(parts.netloc, query, expires)


def read_answer(status: int, body: bytes) -> Arn:
    """Take STS's word. Raises `TokenUnfit` where it refuses, ValueError where it makes no sense."""
    if 400 <= status < 500 and status != 429:
        raise TokenUnfit(f"STS refuses it ({_code(body)})")
    if status != 200:
        raise ValueError(f"STS answers with the status {status}")
    try:
        values = json.loads(body)
        result = values["GetCallerIdentityResponse"]["GetCallerIdentityResult"]
        arn, account = result["Arn"], result["Account"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("the answer of STS makes no sense") from None
    if not isinstance(arn, str):
        raise ValueError("the answer of STS makes no sense")
    try:
        found = Arn.parse(arn)
    except ValueError:
        raise TokenUnfit("it is of somebody who is neither a role nor a user") from None
    if found.account != account:
        raise ValueError("the answer of STS contradicts itself")
    return found


def _code(body: bytes) -> str:
    try:
        code = json.loads(body)["Error"]["Code"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "it does not say why"
    return code[:64] if isinstance(code, str) and code.isalnum() else "it does not say why"
