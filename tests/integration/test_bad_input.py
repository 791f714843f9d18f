"""
Bad input ends one connection, with the right SQLSTATE where it can still be read; the next client works.

Every case runs with a pool of one server, so that a server lost or left dirty would be noticed.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from struct import pack

import pytest

from pgproxy.demo.postgres import Postgres
from tests.fix_pgproxy import Pgproxy, PgproxyFactory
from tests.raw import SYNC, Raw, bind, client, execute, extended, message, parse, startup

SSL_REQUEST = pack(">II", 8, 80877103)
GSS_REQUEST = pack(">II", 8, 80877104)


@pytest.fixture(scope="module", params=["transaction", "session"])
def shared(pgproxy_of_module: PgproxyFactory, postgres: Postgres, request: pytest.FixtureRequest) -> Pgproxy:
    return pgproxy_of_module(server=postgres, pool_mode=request.param, pool_size=1, auth="trust")


@pytest.fixture
def proxy(shared: Pgproxy) -> Iterator[Pgproxy]:
    yield shared
    with client(shared.port, user="boss", database="app") as after:
        assert after.value("select 1") == "1"


BEFORE_LOGIN = {
    "length 0": (pack(">II", 0, 3 << 16), "08P01"),
    "length 7": (pack(">II", 7, 3 << 16), "08P01"),
    "length -1": (b"\xff\xff\xff\xff" + b"x" * 10, "08P01"),
    "length 10,001": (pack(">II", 10_001, 3 << 16) + b"x" * 100, "08P01"),
    "length 256 MB": (pack(">II", 256 << 20, 3 << 16), "08P01"),
    "no terminator": (pack(">II", 14, 3 << 16) + b"user\0a", "08P01"),
    "names without values": (pack(">II", 14, 3 << 16) + b"user\0\0", "08P01"),
    "protocol 2": (pack(">II", 8, 2 << 16), "0A000"),
    "protocol 4": (pack(">II", 8, 4 << 16), "0A000"),
    "no user": (startup(database="app"), "28000"),
    "plaintext behind SSLRequest": (SSL_REQUEST + startup(user="boss"), "08P01"),
    "plaintext behind GSSENCRequest": (GSS_REQUEST + startup(user="boss"), "08P01"),
    "SSLRequest of a wrong length": (pack(">III", 12, 80877103, 0), "08P01"),
    "HTTP": (b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", "08P01"),
}


@pytest.mark.parametrize(("data", "sqlstate"), BEFORE_LOGIN.values(), ids=BEFORE_LOGIN.keys())
def test_before_login(proxy: Pgproxy, data: bytes, sqlstate: str) -> None:
    with Raw(proxy.port) as raw:
        raw.send(data)
        fields = raw.error()
        assert (fields["S"], fields["C"]) == ("FATAL", sqlstate)
        assert raw.ended()


def test_encryption_asked_for_twice(proxy: Pgproxy) -> None:
    with Raw(proxy.port) as raw:
        raw.send(SSL_REQUEST)
        assert raw.exactly(1) == b"N"
        raw.send(SSL_REQUEST)
        assert raw.error()["C"] == "08P01"


def test_gss_then_tls_then_plain(proxy: Pgproxy) -> None:
    with Raw(proxy.port) as raw:
        for request in (GSS_REQUEST, SSL_REQUEST):
            raw.send(request)
            assert raw.exactly(1) == b"N"
        raw.log_in(user="boss", database="app")
        assert raw.value("select 7") == "7"


def test_direct_tls_where_there_is_no_tls(proxy: Pgproxy) -> None:
    with Raw(proxy.port) as raw:
        raw.send(b"\x16\x03\x01\x00\x10" + b"x" * 16)
        assert raw.ended()


AFTER_LOGIN = {
    "length 3": b"Q\0\0\0\3",
    "length 0": b"Q\0\0\0\0",
    "length -1": b"Q\xff\xff\xff\xff",
    "length over 1 GB": b"Q\x40\0\0\0",
    "long Execute": b"E" + pack(">I", 10_001),
    "long Sync": b"S" + pack(">I", 100_000),
    "unknown type": message("!"),
    "a type of the server's": message("Z", b"I"),
    "a password nobody asked for": message("p", b"secret\0"),
    "zeros": b"\0" * 20,
    "startup again": startup(user="boss"),
}


@pytest.mark.parametrize("data", AFTER_LOGIN.values(), ids=AFTER_LOGIN.keys())
@pytest.mark.parametrize("before", [b"", message("Q", b"begin\0")], ids=["idle", "in transaction"])
def test_after_login(proxy: Pgproxy, data: bytes, before: bytes) -> None:
    with client(proxy.port, user="boss", database="app") as raw:
        if before:
            raw.send(before)
            raw.until("Z")
        raw.send(data)
        fields = raw.error()
        assert (fields["S"], fields["C"]) == ("FATAL", "08P01")
        assert raw.ended()


def test_out_of_order_is_answered_as_postgresql_does(proxy: Pgproxy) -> None:
    with client(proxy.port, user="boss", database="app") as raw:
        raw.send(execute("nowhere"), SYNC)
        assert raw.error()["C"] == "34000"
        raw.until("Z")
        raw.send(bind("nothing"), SYNC)
        assert raw.error()["C"] == "26000"
        raw.until("Z")
        assert raw.value("select 1") == "1"


LEAVES = {
    "after half a header": b"Q\0\0",
    "after half a query": b"Q\0\0\1\0select",
    "with a transaction open": message("Q", b"begin; create table left_behind ()\0"),
    "with a query under way": message("Q", b"select pg_sleep(600)\0"),
    "in mid-result": message("Q", b"select repeat('x', 1000) from generate_series(1, 100000)\0"),
    "with a batch open": extended("select 1"),
    "with a portal open": message("Q", b"begin\0") + parse("select 1") + bind(portal="p"),
    "waiting for copy data": message("Q", b"copy t from stdin\0"),
    "in mid-copy": message("Q", b"copy t from stdin\0") + message("d", b"1\n"),
    "in the middle of a row": message("Q", b"copy t from stdin\0") + b"d\0\0\1\0half",
    "in an extended copy": extended("copy t from stdin") + SYNC + message("d", b"1\n"),
    "with much sent ahead": message("Q", b"select 1\0") * 1000,
}


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("data", LEAVES.values(), ids=LEAVES.keys())
def test_a_client_that_vanishes(proxy: Pgproxy, data: bytes, reset: bool) -> None:
    with client(proxy.port, user="boss", database="app") as setup:
        setup.query("drop table if exists t; create table t (a int)")
        setup.send(message("X"))
    with client(proxy.port, user="boss", database="app") as raw:
        raw.send(data)
        raw.socket.settimeout(0.2)
        try:
            raw.exactly(1)
        except (TimeoutError, EOFError):
            pass
        if reset:
            raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))
    with client(proxy.port, user="boss", database="app") as after:
        assert after.value("select count(*) from t") == "0"
        assert after.value("select count(*) from pg_class where relname = 'left_behind'") == "0"


def test_a_client_that_says_terminate_gets_what_it_asked_for_done(proxy: Pgproxy) -> None:
    with client(proxy.port, user="boss", database="app") as raw:
        raw.query("drop table if exists done; create table done (a int)")
        raw.send(message("Q", b"insert into done select 1 from pg_sleep(0.3)\0"), message("X"))
    with client(proxy.port, user="boss", database="app") as after:
        assert after.value("select count(*) from done") == "1"


def test_late_copy_data_is_thrown_away(proxy: Pgproxy) -> None:
    with client(proxy.port, user="boss", database="app") as raw:
        raw.query("drop table if exists t; create table t (a int)")
        raw.send(message("Q", b"copy t from stdin\0"), message("d", b"no number\n"))
        assert raw.error()["C"] == "22P02"
        raw.until("Z")
        row = message("d", b"x" * 100_000)
        raw.send(row[:50_000])
        raw.send(row[50_000:], message("c"), message("Q", b"select 5\0"))
        assert raw.tags() == "TDCZ"


@pytest.mark.parametrize(
    "said", [message("P", b"\0select 1\0\0\0"), message("C", b"Snone\0"), message("D", b"Snone\0")]
)
def test_what_is_never_answered_is_bounded(pgproxy: PgproxyFactory, postgres: Postgres, said: bytes) -> None:
    """Behind an error nothing is answered until there is a Sync, and none comes."""
    proxy = pgproxy(server=postgres, pool_mode="transaction", pool_size=1, auth="trust")
    with Raw(proxy.port) as raw:
        raw.log_in(user="boss", database="app")
        raw.send(message("P", b"\0selec\0\0\0"), message("H"))
        assert raw.error()["C"] == "42601"
        raw.send(said * 24_000)
        assert raw.error()["C"] == "08P01"
    with Raw(proxy.port) as raw:
        raw.log_in(user="boss", database="app")
        assert raw.value("select 1") == "1"
