"""Answers of name servers: addresses and times to live, chains, troubles, and anything at all."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.names import dns

from pgproxy.watch.discovery.records import (
    LARGEST,
    Addresses,
    NotOurs,
    Trouble,
    Truncated,
    Unanswered,
    can_be_asked,
    question,
    read,
)

NAME = "db.example"
NUMBER = 4711


def answer(
    *records: tuple[str, Any, int],
    name: str = NAME,
    number: int = NUMBER,
    code: int = dns.OK,
    truncated: bool = False,
    kind: int = dns.A,
) -> bytes:
    message = dns.Message(number, answer=1, rCode=code, trunc=truncated)
    message.addQuery(name, kind)
    for owner, payload, ttl in records:
        message.answers.append(dns.RRHeader(owner, payload.TYPE, ttl=ttl, payload=payload))
    data: bytes = message.toStr()
    return data


def a(address: str, ttl: int = 5, owner: str = NAME) -> tuple[str, Any, int]:
    return owner, dns.Record_A(address, ttl), ttl


def cname(to: str, ttl: int = 5, owner: str = NAME) -> tuple[str, Any, int]:
    return owner, dns.Record_CNAME(to, ttl), ttl


def trouble(data: bytes) -> Trouble:
    with pytest.raises(Unanswered) as caught:
        read(data, NAME, "A", NUMBER)
    return caught.value.trouble


def test_addresses_in_order_each_once_with_the_least_ttl() -> None:
    data = answer(a("10.0.0.2", 9), a("10.0.0.1", 7), a("10.0.0.2", 8))
    assert read(data, NAME, "A", NUMBER) == Addresses(("10.0.0.1", "10.0.0.2"), 7)


def test_the_least_ttl_of_the_chain_holds() -> None:
    data = answer(
        cname("writer.example", 3),
        cname("i-1.example", 30, "WRITER.example"),
        a("10.0.0.1", 60, "i-1.EXAMPLE"),
    )
    assert read(data, NAME, "A", NUMBER) == Addresses(("10.0.0.1",), 3)


def test_records_of_other_names_are_not_ours() -> None:
    data = answer(a("10.9.9.9", owner="evil.example"), cname("writer.example", 4))
    assert read(data, NAME, "A", NUMBER) == Addresses((), 4, "writer.example")


def test_addresses_of_the_other_kind_are_passed_over() -> None:
    data = answer((NAME, dns.Record_AAAA("2001:db8::1", 5), 5))
    assert trouble(data) is Trouble.NO_ADDRESS


def test_an_ipv6_address() -> None:
    data = answer((NAME, dns.Record_AAAA("2001:db8:0::1", 5), 5), kind=dns.AAAA)
    assert read(data, NAME, "AAAA", NUMBER) == Addresses(("2001:db8::1",), 5)


def test_a_ttl_of_0_is_0_and_one_that_is_too_high_is_too() -> None:
    assert read(answer(a("10.0.0.1", 0)), NAME, "A", NUMBER).ttl == 0
    assert read(answer(a("10.0.0.1", 2**31)), NAME, "A", NUMBER).ttl == 0


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (dns.ENAME, Trouble.NO_SUCH_NAME),
        (dns.ESERVER, Trouble.SERVER_FAILED),
        (dns.EREFUSED, Trouble.REFUSED),
        (dns.ENOTIMP, Trouble.REFUSED),
        (dns.EFORMAT, Trouble.REFUSED),
        (dns.OK, Trouble.NO_ADDRESS),
    ],
)
def test_codes(code: int, expected: Trouble) -> None:
    assert trouble(answer(code=code)) is expected


def test_rings_and_long_chains() -> None:
    assert trouble(answer(cname(NAME))) is Trouble.LONG_CHAIN
    assert trouble(answer(cname("b.example"), cname(NAME, owner="b.example"))) is Trouble.LONG_CHAIN
    names = [NAME, *(f"n{number}.example" for number in range(20))]
    chain = [cname(other, owner=one) for one, other in pairwise(names)]
    assert trouble(answer(*chain)) is Trouble.LONG_CHAIN


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"short",
        question(NAME, "A", NUMBER),
        answer(a("10.0.0.1"), number=NUMBER + 1),
        answer(a("10.0.0.1"), name="other.example"),
        answer(a("10.0.0.1"), kind=dns.AAAA),
    ],
    ids=["nothing", "short", "a question", "another number", "another name", "another type"],
)
def test_what_is_no_answer_to_our_question_is_passed_over(data: bytes) -> None:
    with pytest.raises(NotOurs):
        read(data, NAME, "A", NUMBER)


def test_truncated() -> None:
    with pytest.raises(Truncated):
        read(answer(a("10.0.0.1"), truncated=True), NAME, "A", NUMBER)


def test_what_cannot_be_read() -> None:
    whole = answer(a("10.0.0.1"), a("10.0.0.2"))
    assert trouble(whole[:-3]) is Trouble.UNREADABLE
    assert trouble(whole + bytes(LARGEST)) is Trouble.UNREADABLE
    assert trouble(whole[:6] + b"\xff\xff" + whole[8:]) is Trouble.UNREADABLE
    loop = answer()[:12] + b"\xc0\x0c\x00\x01\x00\x01"
    assert trouble(loop) is Trouble.UNREADABLE


@given(st.binary(max_size=600))
def test_anything_behind_a_header_is_read_or_not(rest: bytes) -> None:
    for head in (NUMBER.to_bytes(2, "big") + b"\x81\x80", answer()[:6]):
        _read_or_not(head + rest)


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=12))
def test_an_answer_that_was_spoilt_is_read_or_not(changes: Sequence[tuple[int, int]]) -> None:
    data = bytearray(
        answer(cname("b.example"), a("10.0.0.1", owner="b.example"), a("10.0.0.2", owner="b.example"))
    )
    for place, byte in changes:
        data[place % len(data)] = byte
    _read_or_not(bytes(data))


def _read_or_not(data: bytes) -> None:
    try:
        found = read(data, NAME, "A", NUMBER)
    except (NotOurs, Truncated, Unanswered):
        return
    assert bool(found.addresses) != bool(found.onward)
    assert 0 <= found.ttl < 2**31
    assert not found.onward or can_be_asked(found.onward)
