"""Whom a key of the map means, by ARN and by what AWS says of a JWT's bearer."""

from __future__ import annotations

from typing import Any

import pytest

from pgproxy.aws.arn import Arn
from pgproxy.aws.identity import IdentityPattern

WHO = Arn.parse("arn:aws:iam::123456789012:role/app-1")
ROLES = "arn:aws:iam::123456789012:role/*"
TEAM = {"principal_tags": {"team": "payments", "a/b": "x=y z"}, "org_id": "o-1"}


@pytest.mark.parametrize(
    ("key", "claims", "means"),
    [
        (ROLES, {}, True),
        (f"{ROLES} principal_tags/team=payments", TEAM, True),
        (f"{ROLES} principal_tags/a/b=x=y z", TEAM, True),
        (f"{ROLES} org_id=o-1", TEAM, True),
        (f"{ROLES} principal_tags/team=payments", {}, False),
        (f"{ROLES} principal_tags/team=payments", {"request_tags": {"team": "payments"}}, False),
        (f"{ROLES} principal_tags/team=payments", {"principal_tags": {"team": "Payments"}}, False),
        (f"{ROLES} principal_tags/team=payments", {"principal_tags": {"team": ["payments"]}}, False),
        (f"{ROLES} principal_tags/team=payments", {"principal_tags": "team=payments"}, False),
        (f"{ROLES} org_id=o-1", {"org_id": None, "principal_tags": {"org_id": "o-1"}}, False),
        ("arn:aws:iam::999999999999:role/* principal_tags/team=payments", TEAM, False),
        ("arn:aws:iam::123456789012:role/db-* principal_tags/team=payments", TEAM, False),
    ],
)
def test_whom_a_key_means(key: str, claims: dict[str, Any], means: bool) -> None:
    assert IdentityPattern.parse(key).matches(WHO, claims) is means


@pytest.mark.parametrize(
    "claim",
    [
        *("", "principal_tags", "principal_tags/team", "principal_tags/=x", "principal_tags/team="),
        *("org_id/x=o", "org_id=o-*", "principal_tags/*=payments", "request_tags/team=payments"),
        *("sub=me", " org_id=o"),
    ],
)
def test_what_is_no_claim(claim: str) -> None:
    with pytest.raises(ValueError, match="behind the ARN"):
        IdentityPattern.parse(f"{ROLES} {claim}")
