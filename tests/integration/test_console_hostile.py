"""The console, and those who say more to it than they should."""

from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.fix_pgproxy import Pgproxy, PgproxyFactory
from tests.raw import Raw, client, message

MANY = 1000


@pytest.fixture
def proxy(pgproxy: PgproxyFactory) -> Pgproxy:
    return pgproxy(auth="trust", proxy={"stats_users": ["other"]})


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
    # The answers to each are over 3 MB: together far more than is held for anybody, and than sockets take.
    query = message("Q", b"show config;" * MANY + b"\0")
    with suppress(ConnectionError):
        for _ in range(20):
            raw.send(query)
    proxy.await_event("client_closed", reason="protocol_violation")
    with pytest.raises((EOFError, ConnectionError)):
        for _ in range(20):
            raw.until("Z")
