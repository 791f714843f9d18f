"""The console, and those who say more to it than they should."""

from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.fix_pgproxy import Pgproxy, PgproxyFactory
from tests.raw import Raw, client, message

MANY = 1000
SOMEBODY_LONG = "x" * 60
"""SHOW CONFIG has over 64 KB with so many of these: long answers that take little work."""


@pytest.fixture
def proxy(pgproxy: PgproxyFactory) -> Pgproxy:
    users = ["other", *(f"{SOMEBODY_LONG}{number:03}" for number in range(MANY))]
    return pgproxy(auth="trust", proxy={"stats_users": users})


@pytest.fixture
def raw(proxy: Pgproxy) -> Iterator[Raw]:
    with client(proxy.port, user="other", database="pgproxy") as connected:
        yield connected


def test_many_commands_in_one_query(raw: Raw) -> None:
    raw.send(message("Q", b"show version;" * MANY + b"\0"))
    assert raw.tags() == "TDC" * MANY + "Z"


def test_many_queries_at_once(raw: Raw) -> None:
    raw.send(message("Q", b"show version\0") * MANY)
    assert [raw.tags() for _ in range(MANY)] == ["TDCZ"] * MANY


def test_who_does_not_read_is_ended(proxy: Pgproxy, raw: Raw) -> None:
    # The answer is over 64 MB: far more than is held for anybody, and than sockets take.
    with suppress(ConnectionError):
        raw.send(message("Q", b"show config;" * MANY + b"\0"))
    proxy.await_event("client_closed", reason="protocol_violation")
    with pytest.raises((EOFError, ConnectionError)):
        raw.until("Z")
