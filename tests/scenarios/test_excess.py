"""Clients and servers that go on and on: what they cost is bounded, and so is how long they last."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from pgproxy.demo.ports import free_port
from pgproxy.demo.postgres import Postgres
from pgproxy.wire import messages
from tests.activity import running
from tests.faults import Liar, exactly
from tests.fix_pgproxy import Pgproxy, PgproxyFactory
from tests.raw import SYNC, bind, client, execute, message, parse

GREETING = (
    messages.authentication(0)
    + messages.parameter_status(b"server_version", b"15.0")
    + messages.parameter_status(b"client_encoding", b"UTF8")
    + messages.backend_key_data(4711, b"key!")
    + messages.ready_for_query(b"I")
)
COMPLAINT = messages.error_response({"S": "FATAL", "V": "FATAL", "C": "58000", "M": "something is wrong"})


def ends_behind_its_login(peer: socket.socket) -> None:
    peer.sendall(GREETING)
    exactly(peer, 1)


def complains_all_the_time(peer: socket.socket) -> None:
    peer.sendall(GREETING)
    # Its first question is answered; then nobody has it.
    peer.recv(65536)
    while True:
        peer.sendall(COMPLAINT * 100)


@pytest.mark.parametrize("script", [ends_behind_its_login, complains_all_the_time])
def test_a_server_that_is_no_use_is_not_tried_for_ever(
    pgproxy: PgproxyFactory, script: Callable[[socket.socket], None]
) -> None:
    with Liar(script) as server:
        proxy = pgproxy(server=server, auth="trust", proxy={"connection_borrow_timeout": 3})
        with pytest.raises(psycopg.OperationalError):
            proxy.connect().execute("select 1")
    events = [event["event"] for event in proxy.log()]
    assert events.count("server_opened") < 60
    assert events.count("server_says") <= 20 * events.count("server_opened")


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_long_pipeline_is_held_back_not_ended(
    pgproxy: PgproxyFactory, postgres: Postgres, mode: str
) -> None:
    count = 13_000
    batch = parse("select 1") + bind() + execute() + SYNC
    proxy = pgproxy(server=postgres, auth="trust", pool_mode=mode)
    with client(proxy.port) as raw, ThreadPoolExecutor(1) as threads:
        sent = threads.submit(raw.send, message("Q", b"select pg_sleep(1)\0") + batch * count)
        assert raw.tags() == "TDCZ"
        for _ in range(count):
            assert raw.tags() == "12DCZ"
        sent.result()


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_the_limit_of_a_query_holds_for_who_has_taken_its_leave(
    pgproxy: PgproxyFactory, postgres: Postgres, mode: str
) -> None:
    proxy = pgproxy(
        server=postgres,
        auth="trust",
        pool_mode=mode,
        pool_size=1,
        proxy={"query_timeout": 1, "cancel_timeout": 5},
    )
    with client(proxy.port) as raw:
        raw.send(message("Q", b"select pg_sleep(600) /* left */\0") + messages.TERMINATE)
        assert running(postgres, "/* left */")
    with proxy.connect() as connection:
        assert connection.execute("select 1").fetchone() == (1,)


def test_notices_for_nobody_end_what_says_them(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(server=postgres, auth="trust", pool_size=1)
    loop = b"do $$begin loop raise notice 'x'; perform pg_sleep(0.01); end loop; end$$ /* said */\0"
    with client(proxy.port) as raw:
        raw.send(message("Q", loop) + messages.TERMINATE)
    with proxy.connect() as connection:
        assert connection.execute("select 1").fetchone() == (1,)


def asked(proxy: Pgproxy, port: int, times: int) -> bytes:
    """Ask for a page so often at once, then read what comes."""
    with socket.create_connection(("127.0.0.1", port), 20) as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        request = b"GET /uplot.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
        last = b"GET /uplot.js HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        peer.sendall(request * (times - 1) + last)
        said = b""
        while data := peer.recv(1 << 20):
            said += data
    return said


def test_no_answers_are_made_for_who_does_not_read_them(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    port = free_port()
    proxy = pgproxy(server=postgres, auth="trust", extra=f'[http]\nlisten = "127.0.0.1:{port}"\n')
    one = len(asked(proxy, port, 1))
    assert one * 3 - 100 < len(asked(proxy, port, 3)) < one * 3 + 100
    assert len(asked(proxy, port, 1000)) < 100 * one


def test_long_startup_messages_leave_nothing_behind(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(server=postgres)

    def resident() -> int:
        with open(f"/proc/{proxy.pid}/statm") as statm:
            return int(statm.read().split()[1]) * 4096

    before = resident()
    for number in range(300):
        names = b"".join(b"%c%c\0\0" % (a, b) for a in range(0x30, 0x60) for b in range(0x30, 0x60))
        body = b"user\0nobody%d\0" % number + names[:9000] + b"\0"
        with socket.create_connection(("127.0.0.1", proxy.port), 20) as peer:
            peer.sendall(struct.pack(">II", len(body) + 8, 3 << 16) + body)
            peer.recv(100)
    assert resident() - before < 40 << 20
