"""Clients and servers that go on and on: what they cost is bounded, and so is how long they last."""

from __future__ import annotations

import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from pgproxy.demo.ports import free_port
from pgproxy.demo.postgres import Postgres
from pgproxy.wire import messages
from tests.activity import running
from tests.faults import Liar
from tests.fix_pgproxy import PgproxyFactory
from tests.raw import SYNC, Raw, bind, client, execute, message, parse, startup

GREETING = (
    messages.authentication(0)
    + messages.parameter_status(b"server_version", b"15.0")
    + messages.parameter_status(b"client_encoding", b"UTF8")
    + messages.backend_key_data(4711, b"key!")
    + messages.ready_for_query(b"I")
)
NO_ANSWER = messages.error_response({"S": "ERROR", "V": "ERROR", "C": "42501", "M": "no"})
NO_ANSWER += messages.ready_for_query(b"I")
COMPLAINT = messages.error_response({"S": "ERROR", "V": "ERROR", "C": "58000", "M": "something is wrong"})


def ends_behind_its_login(peer: socket.socket) -> None:
    peer.sendall(GREETING)
    peer.recv(65536)
    peer.sendall(NO_ANSWER)


def complains_all_the_time(peer: socket.socket) -> None:
    peer.sendall(GREETING)
    # Our first question is answered; then nobody has it.
    peer.recv(65536)
    peer.sendall(NO_ANSWER)
    while True:
        peer.sendall(COMPLAINT * 100)


def test_a_server_that_ends_behind_its_login_is_not_tried_for_ever(pgproxy: PgproxyFactory) -> None:
    with Liar(ends_behind_its_login) as server:
        proxy = pgproxy(
            server=server, auth="trust", target={"tls": "disable"}, proxy={"connection_borrow_timeout": 5}
        )
        for _ in range(10):
            with Raw(proxy.port) as raw:
                raw.send(startup(user="app", database="app"), message("Q", b"select 1\0"))
                # Whether the query had reached it is chance: then the client may go on.
                assert raw.error()["C"] in ("08006", "08007")
    opened = [event["event"] for event in proxy.log()].count("server_opened")
    assert opened < 10 * 25


def test_a_server_that_complains_while_nobody_has_it_is_closed(pgproxy: PgproxyFactory) -> None:
    with Liar(complains_all_the_time) as server:
        proxy = pgproxy(
            server=server, auth="trust", target={"tls": "disable"}, proxy={"connection_borrow_timeout": 5}
        )
        with Raw(proxy.port) as raw:
            # Whether it is let in before that is chance.
            raw.send(startup(user="app", database="app"))
            proxy.await_event("server_spoke_nonsense")
        events = [event["event"] for event in proxy.log()]
    assert events.count("server_says") <= 10 * (1 + events.count("server_spoke_nonsense"))


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


def asked(port: int, times: int) -> bytes:
    """Ask for a page so often at once, then read what comes."""
    said = b""
    with socket.create_connection(("127.0.0.1", port), 20) as peer, suppress(ConnectionResetError):
        peer.sendall(b"GET /uplot.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * times)
        while data := peer.recv(1 << 20):
            said += data
    return said


def test_one_request_is_answered_on_a_connection(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    port = free_port()
    pgproxy(server=postgres, auth="trust", extra=f'[http]\nlisten = "127.0.0.1:{port}"\n')
    said = asked(port, 1000)
    assert said.count(b"HTTP/1.1 200 OK\r\n") == 1 and b"\r\nConnection: close\r\n" in said


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


def test_a_name_that_is_no_text_is_the_servers_to_judge(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(server=postgres, auth="trust")
    for name in (b"\xff\xfe", b"\xff" * 60):
        body = b"user\0" + name + b"\0database\0app\0\0"
        with Raw(proxy.port) as raw:
            raw.send(struct.pack(">II", len(body) + 8, 3 << 16) + body)
            raw.send(message("Q", b"select 1\0"))
            assert raw.error()["S"] == "FATAL"


def test_what_nests_in_a_statement_keeps_nobody_out(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(server=postgres, auth="trust")
    with client(proxy.port) as raw:
        for word in (b"explain ", b"prepare x as ", b"explain (analyze) ("):
            raw.send(message("Q", word * 2000 + b"select 1\0"))
            assert raw.error()["C"] == "42601"
            assert raw.tags() == "Z"


def test_thousands_of_named_messages_in_a_batch(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(server=postgres, auth="trust")
    with client(proxy.port) as raw:
        raw.send(message("C", b"Sx\0") * 5000 + SYNC)
        assert raw.tags() == "3" * 5000 + "Z"
        raw.send(parse("select 1", "y") + (message("C", b"Sx\0") + parse("select 1", "x")) * 1000 + SYNC)
        assert raw.tags() == "1" + "31" * 1000 + "Z"
