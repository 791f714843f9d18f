"""
Tokens of sts:GetWebIdentityToken: JWTs for this proxy, signed by the account's issuer; what they must say.

Whose signature it is, `keys` finds out. Documentation: IAM User Guide, "Understanding token
claims"; RFC 7519.
"""

from __future__ import annotations

import json
import math
import re
from base64 import urlsafe_b64decode
from collections.abc import Collection, Mapping
from typing import Any

from attrs import frozen

from pgproxy.aws.arn import Arn
from pgproxy.aws.presigned import TokenUnfit

MAX_TOKEN = 8192
ALGORITHMS = ("RS256", "ES384")
"""What STS signs with."""
MAX_AHEAD = 60.0
"""Seconds that the issuer's clock may be ahead of ours."""
_AWS = "https://sts.amazonaws.com/"
"""The claim that holds AWS's own."""
_form = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


@frozen
class Proven:
    """What a token says whose signature is right."""

    arn: Arn
    claims: Mapping[str, Any]
    """AWS's own, of whose it is."""
    expires: float
    """Seconds since 1970."""


@frozen
class Unverified:
    """Where to look for the key of a token; nothing of it is proved."""

    issuer: str
    key: str
    algorithm: str


def is_jwt(token: str) -> bool:
    """Say whether it is meant as a JWT."""
    return token.startswith("eyJ") and token.count(".") == 2


def whose(token: str, issuers: Collection[str]) -> Unverified:
    """Say whose key is to be tried. Raises `TokenUnfit`."""
    if len(token) > MAX_TOKEN:
        raise TokenUnfit(f"it has more than {MAX_TOKEN} characters")
    if not _form.fullmatch(token):
        raise TokenUnfit("it is malformed")
    head, claims, _signature = token.split(".")
    header, body = _json(head), _json(claims)
    algorithm, key, issuer = header.get("alg"), header.get("kid"), body.get("iss")
    if algorithm not in ALGORITHMS:
        raise TokenUnfit(f"it is not signed with {' or '.join(ALGORITHMS)}")
    if "crit" in header or not isinstance(key, str) or not 0 < len(key) <= 256:
        raise TokenUnfit("its header is not one of STS's")
    if issuer not in issuers:
        raise TokenUnfit("it is of an issuer that is not in aws.iam.issuers")
    return Unverified(str(issuer), key, algorithm)


def _json(part: str) -> dict[str, Any]:
    try:
        values = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError):
        raise TokenUnfit("it is malformed") from None
    if not isinstance(values, dict):
        raise TokenUnfit("it is malformed")
    return values


def check(claims: Mapping[str, Any], issuer: str, audience: str, now: float, max_age: float) -> Proven:
    """
    Check what a token says whose signature is right.

    `now` is in seconds since 1970; `max_age` is for how many seconds we take it at most. Raises `TokenUnfit`.
    """
    if claims.get("iss") != issuer:
        raise TokenUnfit("it is of another issuer")
    # One for several audiences could be replayed here by each of them.
    if claims.get("aud") not in (audience, [audience]):
        raise TokenUnfit("it is for another audience than aws.iam.server_id")
    made, expires = _time(claims, "iat"), _time(claims, "exp")
    if made > now + MAX_AHEAD or ("nbf" in claims and _time(claims, "nbf") > now + MAX_AHEAD):
        raise TokenUnfit("it is from the future; check the clocks")
    end = min(expires, made + max_age)
    if now >= end:
        raise TokenUnfit("it has expired")
    subject = claims.get("sub")
    try:
        arn = Arn.parse(subject) if isinstance(subject, str) else None
    except ValueError:
        arn = None
    if arn is None:
        raise TokenUnfit("its subject is neither a role nor a user")
    own = claims.get(_AWS)
    if not isinstance(own, Mapping):
        own = {}
    if own.get("aws_account", arn.account) != arn.account:
        raise TokenUnfit("its subject is of another account than it says")
    return Proven(arn, own, end)


def _time(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TokenUnfit(f"its {name} is missing or malformed")
    return float(value)
