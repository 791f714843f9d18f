"""
Presigned requests (Signature Version 4 in the query), as far as somebody without the key can check them.

Documentation: IAM User Guide, "Signature Version 4", "Query parameters".
"""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Mapping
from time import strptime
from urllib.parse import unquote_to_bytes

MAX_EXPIRES = 900
"""Seconds: what AWS's own tokens are good for at most."""
MAX_AHEAD = 300.0
"""Seconds that the clock of who signs may be ahead of ours: AWS's."""

SIGNING = frozenset(
    {
        "X-Amz-Algorithm",
        "X-Amz-Credential",
        "X-Amz-Date",
        "X-Amz-Expires",
        "X-Amz-SignedHeaders",
        "X-Amz-Security-Token",
        "X-Amz-Signature",
    }
)
_REQUIRED = SIGNING - {"X-Amz-Security-Token"}
_name_form = re.compile(r"[A-Za-z-]{1,64}")
_value_form = re.compile(r"(?:[A-Za-z0-9._~!*'();:@,/$+-]|%[0-9A-Fa-f]{2})*")
_date_form = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_credential_form = re.compile(
    r"[A-Za-z0-9]{1,128}/([0-9]{8})/([a-z0-9-]{1,64})/([a-z0-9-]{1,64})/aws4_request"
)


class TokenUnfit(Exception):
    """A token that lets nobody in; the text says why, and holds nothing of what makes it secret."""


def read_query(query: str, own: frozenset[str]) -> dict[str, str]:
    """
    Read the parameters of a presigned request: the signature's and the request's `own`, each once, no others.

    Raises `TokenUnfit`.
    """
    found: dict[str, str] = {}
    for part in query.split("&"):
        name, equals, value = part.partition("=")
        if not equals or not _name_form.fullmatch(name) or not _value_form.fullmatch(value):
            raise TokenUnfit("its query is malformed")
        if name in found:
            raise TokenUnfit(f"it has {name} twice")
        if name not in SIGNING | own:
            raise TokenUnfit(f"it has the parameter {name}, which such a request has not")
        try:
            found[name] = unquote_to_bytes(value).decode("utf-8")
        except UnicodeDecodeError:
            raise TokenUnfit(f"its {name} is not UTF-8") from None
    missing = sorted((_REQUIRED | own) - set(found))
    if missing:
        raise TokenUnfit(f"it lacks {missing[0]}")
    if found["X-Amz-Algorithm"] != "AWS4-HMAC-SHA256":
        raise TokenUnfit("it is not signed with AWS4-HMAC-SHA256")
    if not re.fullmatch(r"[0-9a-f]{64}", found["X-Amz-Signature"]):
        raise TokenUnfit("its signature is malformed")
    return found


def region_of_credential(parameters: Mapping[str, str], service: str) -> str:
    """Give the region that it is signed for. Raises `TokenUnfit` where it is for another service."""
    form = _credential_form.fullmatch(parameters["X-Amz-Credential"])
    if form is None or form[1] != parameters["X-Amz-Date"][:8]:
        raise TokenUnfit("its X-Amz-Credential is malformed")
    if form[3] != service:
        raise TokenUnfit(f"it is signed for {form[3]}, not for {service}")
    return form[2]


def expiry(parameters: Mapping[str, str], now: float, max_age: float) -> float:
    """
    Give the time until which it is good, in seconds since 1970 as `now` is.

    `max_age` is for how many seconds we take it at most. Raises `TokenUnfit` where that is over.
    """
    date, expires = parameters["X-Amz-Date"], parameters["X-Amz-Expires"]
    if not _date_form.fullmatch(date) or not re.fullmatch(r"[0-9]{1,6}", expires):
        raise TokenUnfit("its times are malformed")
    if int(expires) > MAX_EXPIRES:
        raise TokenUnfit(f"it says that it is good for {expires} s; at most {MAX_EXPIRES} are allowed")
    try:
        made = timegm(strptime(date, "%Y%m%dT%H%M%SZ"))
    except ValueError:
        raise TokenUnfit("its times are malformed") from None
    if made > now + MAX_AHEAD:
        raise TokenUnfit("it is from the future; check the clocks")
    end = made + min(int(expires), max_age)
    if now >= end:
        raise TokenUnfit("it has expired")
    return end
