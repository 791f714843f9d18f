"""Who is meant by a pattern: nobody of another account, whatever they are called."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.aws.arn import Arn, ArnPattern

names = st.text("abc-_.+=,@XY", min_size=1, max_size=20)
accounts = st.text("0123456789", min_size=12, max_size=12)
partitions = st.sampled_from(["aws", "aws-cn", "aws-us-gov"])
roles = st.builds("arn:{}:iam::{}:role/{}".format, partitions, accounts, names)
sessions = st.builds("arn:{}:sts::{}:assumed-role/{}/{}".format, partitions, accounts, names, names)
users = st.builds("arn:{}:iam::{}:user/{}".format, partitions, accounts, names)
arns = st.one_of(roles, sessions, users)
last_parts = st.text("abc-*", min_size=1, max_size=8)


def matches(pattern: str, arn: str) -> bool:
    return ArnPattern.parse(pattern).matches(Arn.parse(arn))


@given(arns)
def test_an_identity_matches_itself(text: str) -> None:
    assert str(Arn.parse(text)) == text
    assert matches(text, text)


@given(arns, accounts, partitions)
def test_another_account_never_matches(text: str, account: str, partition: str) -> None:
    own = Arn.parse(text)
    for wildcard in (text, text.rpartition("/")[0] + "/*"):
        other = Arn(partition, own.service, account, own.resource)
        expected = (partition, account) == (own.partition, own.account)
        assert ArnPattern.parse(wildcard).matches(other) == expected


@given(partitions, accounts, last_parts, arns)
def test_a_wildcard_stays_in_its_part(partition: str, account: str, last: str, text: str) -> None:
    pattern = ArnPattern.parse(f"arn:{partition}:iam::{account}:role/{last}")
    arn = Arn.parse(text)
    if pattern.matches(arn):
        role = arn.role or arn
        assert (role.partition, role.account) == (partition, account)
        name = role.resource.removeprefix("role/")
        assert "/" not in name and ":" not in name
        assert re.fullmatch(".*".join(map(re.escape, last.split("*"))), name)


@given(st.text())
def test_any_text_is_an_identity_or_none(text: str) -> None:
    for read in (Arn.parse, ArnPattern.parse):
        try:
            read(text)
        except ValueError as error:
            assert str(error)


@pytest.mark.parametrize(
    ("pattern", "arn", "expected"),
    [
        ("arn:aws:iam::123456789012:role/app-*", "arn:aws:iam::123456789012:role/app-1", True),
        ("arn:aws:iam::123456789012:role/app-*", "arn:aws:sts::123456789012:assumed-role/app-1/i-0", True),
        ("arn:aws:iam::123456789012:role/app-*", "arn:aws:sts::999999999999:assumed-role/app-1/i-0", False),
        ("arn:aws:iam::123456789012:role/app-*", "arn:aws:sts::123456789012:assumed-role/x/app-1", False),
        ("arn:aws:iam::123456789012:role/*", "arn:aws:iam::123456789012:role/path/app", False),
        ("arn:aws:iam::123456789012:role/path/*", "arn:aws:iam::123456789012:role/path/app", True),
        ("arn:aws:iam::123456789012:role/*", "arn:aws:iam::123456789012:user/app", False),
        ("arn:aws:iam::123456789012:user/app", "arn:aws:iam::123456789012:user/app2", False),
        ("arn:aws:iam::123456789012:user/a.p", "arn:aws:iam::123456789012:user/axp", False),
        (
            "arn:aws:sts::123456789012:assumed-role/admin/alice",
            "arn:aws:sts::123456789012:assumed-role/admin/bob",
            False,
        ),
        (
            "arn:aws:sts::123456789012:assumed-role/admin/*",
            "arn:aws:sts::123456789012:assumed-role/admin/bob",
            True,
        ),
    ],
)
def test_cases(pattern: str, arn: str, expected: bool) -> None:
    assert matches(pattern, arn) is expected


@pytest.mark.parametrize(
    "pattern",
    [
        "*",
        "arn:aws:iam::*:role/app",
        "arn:aws:iam::12345678901*:role/app",
        "arn:*:iam::123456789012:role/app",
        "arn:aws:*::123456789012:role/app",
        "arn:aws:iam::123456789012:*",
        "arn:aws:iam::123456789012:*/app",
        "arn:aws:iam::123456789012:role/*/app",
        "arn:aws:iam::123456789012:role/a?p",
        "arn:aws:iam::123456789012:role/",
        "arn:aws:iam::123456789012:root",
        "arn:aws:iam:eu-west-1:123456789012:role/app",
        "arn:aws:iam::123456789012:role/app\n",
        " arn:aws:iam::123456789012:role/app",
        "arn:aws:sts::123456789012:assumed-role/*/alice",
        "arn:aws:sts::123456789012:assumed-role/admin",
    ],
)
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"wildcards|this is not"):
        ArnPattern.parse(pattern)
