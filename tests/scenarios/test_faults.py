"""What goes wrong on the servers' side ends one connection, is said where it can be, and the next works."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterator

import pytest

from pgproxy.demo.postgres import Postgres
from pgproxy.wire import messages
from pgproxy.wire.startup import cancel_request
from tests.activity import running
from tests.faults import CANCEL_REQUEST, Liar, Relay
from tests.fix_pgproxy import Pgproxy, PgproxyFactory
from tests.fix_postgres import PASSWORDS
from tests.raw import SYNC, Raw, client, extended, message, startup


@pytest.fixture
def relay(postgres: Postgres) -> Iterator[Relay]:
    with Relay(postgres.port) as relay:
        yield relay


@pytest.fixture(params=["transaction", "session"])
def proxy(pgproxy: PgproxyFactory, relay: Relay, request: pytest.FixtureRequest) -> Pgproxy:
    return start(pgproxy, relay, request.param)


def start(pgproxy: PgproxyFactory, relay: Relay | Liar, mode: str = "transaction", **proxy: float) -> Pgproxy:
    return pgproxy(
        server=relay,
        pool_mode=mode,
        pool_size=1,
        auth="trust",
        users=PASSWORDS,
        target={"tls": "disable"},
        proxy={"connect_timeout": 3, "cancel_timeout": 3, **proxy},
    )


def works(proxy: Pgproxy) -> None:
    with client(proxy.port, user="app", database="app") as after:
        assert after.value("select 42") == "42"


def test_a_server_that_goes_in_mid_row(proxy: Pgproxy, relay: Relay) -> None:
    with client(proxy.port) as raw:
        assert raw.value("select 1") == "1"
        left = itertools.count(200_000, -1)
        relay.fault = lambda data: data if next(left) > 199_999 else data[: len(data) // 2] and None
        raw.send(message("Q", b"select repeat('x', 3000000)\0"))
        with pytest.raises((EOFError, ConnectionError)):
            raw.until("Z")
    relay.fault = lambda data: data
    works(proxy)


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_server_that_goes_between_two_rows(pgproxy: PgproxyFactory, relay: Relay, mode: str) -> None:
    proxy = start(pgproxy, relay, mode)
    with client(proxy.port) as raw:
        assert raw.value("select 1") == "1"
        time.sleep(0.1)
        relay.fault = lambda data: None
        raw.send(extended("select 1"), SYNC)
        fields = raw.error()
        assert (fields["S"], fields["C"]) == ("ERROR" if mode == "transaction" else "FATAL", "08006")
        relay.fault = lambda data: data
        if mode == "transaction":
            assert raw.tags() == "Z" and raw.value("select 2") == "2"
        else:
            assert raw.ended()
    works(proxy)


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_server_that_goes_in_a_transaction(pgproxy: PgproxyFactory, relay: Relay, mode: str) -> None:
    proxy = start(pgproxy, relay, mode)
    with client(proxy.port) as raw:
        raw.query("begin")
        relay.cut()
        if mode == "transaction":
            raw.send(message("Q", b"select 1\0"))
            assert raw.error()["C"] == "08006"
            assert raw.until("Z")[-1] == ("Z", b"E")
        else:
            assert raw.error()["C"] == "08006"
            assert raw.ended()
    works(proxy)


def test_an_idle_server_that_goes(pgproxy: PgproxyFactory, relay: Relay) -> None:
    proxy = start(pgproxy, relay)
    with client(proxy.port) as raw:
        for _ in range(3):
            assert raw.value("select 1") == "1"
            relay.cut()
            time.sleep(0.2)


NONSENSE = {
    "an unknown message": b"!\0\0\0\4",
    "a length of 0": b"D\0\0\0\0",
    "a length of -1": b"D\xff\xff\xff\xff",
    "a message of login": messages.authentication(0),
    "text": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a long ReadyForQuery": b"Z\0\x10\0\0",
}


@pytest.mark.parametrize("nonsense", NONSENSE.values(), ids=NONSENSE.keys())
@pytest.mark.parametrize("instead", [True, False], ids=["instead", "behind"])
def test_a_server_that_speaks_nonsense(proxy: Pgproxy, relay: Relay, nonsense: bytes, instead: bool) -> None:
    with client(proxy.port) as raw:
        assert raw.value("select 1") == "1"
        time.sleep(0.1)
        relay.fault = lambda data: nonsense if instead else data + nonsense
        raw.send(message("Q", b"select 1\0"))
        try:
            while True:
                tag, payload = raw.message()
                if tag == "E":
                    assert messages.read_error_fields(payload)["C"] in ("08P01", "08006")
                    break
                if tag == "Z" and not instead:
                    break
        except EOFError:
            pass
    relay.fault = lambda data: data
    works(proxy)


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_an_answer_that_nobody_asked_for_is_nobodys(pgproxy: PgproxyFactory, relay: Relay, mode: str) -> None:
    """A ReadyForQuery too many is not taken for the answer to the cleaning, or to the next client's query."""
    proxy = start(pgproxy, relay, mode)
    once = iter([True])
    for number in range(5):
        with client(proxy.port) as raw:
            raw.send(message("Q", b"select 1\0"))
            raw.until("Z")
            if number == 1:
                relay.fault = lambda data: (
                    data + (messages.ready_for_query(b"I") if next(once, False) else b"")
                )
                raw.send(message("Q", b"select 1\0"))
                raw.until("Z")
            raw.send(message("X"))
        with client(proxy.port) as other:
            for turn in range(3):
                assert other.value(f"select {number * 10 + turn}") == str(number * 10 + turn)


def test_an_error_without_sqlstate(proxy: Pgproxy, relay: Relay) -> None:
    with client(proxy.port) as raw:
        assert raw.value("select 1") == "1"
        time.sleep(0.1)
        bare = message("E", b"SFATAL\0Mwithout a code\0\0")
        relay.fault = lambda data: bare
        raw.send(message("Q", b"select 1\0"))
        assert raw.error()["M"] == "without a code"
    relay.fault = lambda data: data
    works(proxy)


def login(peer: socket.socket, *then: bytes) -> None:
    peer.sendall(b"".join(then))
    while peer.recv(1000):
        pass


OK = messages.authentication(0)
KEY = messages.backend_key_data(1, b"abcd")
READY = messages.ready_for_query(b"I")
LIES = {
    "closes at once": None,
    "says nothing": (),
    "an error without anything": (b"E\0\0\0\5\0",),
    "an error without SQLSTATE": (message("E", b"SFATAL\0Mno\0\0"),),
    "an unknown message": (b"!\0\0\0\4",),
    "a message of 2 GB": (b"E\x7f\xff\xff\xff",),
    "ready before it has let us in": (READY,),
    "ready in a transaction": (OK, KEY, messages.ready_for_query(b"T")),
    "bytes behind the first ready": (OK, KEY, READY, READY),
    "settings without end": (OK, messages.parameter_status(b"a", b"b") * 5000),
    "a setting that is none": (OK, message("S", b"a")),
    "a key that is none": (OK, message("K", b"abc")),
    "let in twice": (OK, OK),
    "an unknown method": (messages.authentication(7),),
    "cleartext without TLS": (messages.authentication(3),),
    "md5 with a short salt": (messages.authentication(5, b"ab"),),
    "SASL without mechanisms": (messages.authentication(10, b"\0"),),
    "SASL of a kind we don't know": (messages.authentication(10, b"OAUTHBEARER\0\0"),),
    "SASL goes on before it began": (messages.authentication(11, b"r=x,s=AAAA,i=4096"),),
    "let in without proving itself": (messages.authentication(10, b"SCRAM-SHA-256\0\0"), OK, KEY, READY),
}


@pytest.mark.parametrize("said", LIES.values(), ids=LIES.keys())
def test_a_server_that_lies_at_login(pgproxy: PgproxyFactory, said: tuple[bytes, ...] | None) -> None:
    def script(peer: socket.socket) -> None:
        if said is not None:
            login(peer, *said)

    with Liar(script) as liar:
        proxy = start(pgproxy, liar, connect_timeout=1, connection_borrow_timeout=1)
        with Raw(proxy.port) as raw:
            raw.send(startup(user="app", database="app"))
            fields = raw.error()
            assert fields["S"] == "FATAL" and fields["C"] in ("08000", "08001", "08P01", "28000")
            assert raw.ended()
        # The next one gets its own answer: nothing hangs on to the one slot of the pool.
        with Raw(proxy.port) as raw:
            raw.send(startup(user="app", database="app"))
            assert raw.error()["S"] == "FATAL"


@pytest.mark.parametrize("tls", ["prefer", "require"])
def test_an_error_that_is_said_in_clear_before_tls(pgproxy: PgproxyFactory, tls: str) -> None:
    """Nobody knows who has said it, so it isn't passed on."""
    said = b"SFATAL\0VFATAL\0C28P01\0Mlog in at evil.example\0\0"
    with Liar(lambda peer: login(peer, message("E", said))) as liar:
        waits = {"connection_borrow_timeout": 0.5}
        proxy = pgproxy(server=liar, auth="trust", proxy=waits, target={"tls": tls})
        with Raw(proxy.port) as raw:
            raw.send(startup(user="app", database="app"))
            fields = raw.error()
            assert fields["C"] == "08000" and "TLS" in fields["D"] and "evil" not in str(fields)
            assert raw.ended()


def test_iterations_without_end_are_refused(pgproxy: PgproxyFactory) -> None:
    def script(peer: socket.socket) -> None:
        peer.sendall(messages.authentication(10, b"SCRAM-SHA-256\0\0"))
        nonce = peer.recv(1000).partition(b"r=")[2]
        peer.sendall(messages.authentication(11, b"r=" + nonce + b"x,s=QUFBQUFBQUE=,i=2147483647"))
        while peer.recv(1000):
            pass

    with Liar(script) as liar:
        proxy = start(pgproxy, liar, connect_timeout=20)
        with Raw(proxy.port) as raw:
            raw.send(startup(user="app", database="app"))
            assert raw.error()["C"] == "28000"


def test_every_byte_apart(pgproxy: PgproxyFactory, relay: Relay, postgres: Postgres) -> None:
    """However the network cuts what a server says, clients see the same."""
    proxy = start(pgproxy, relay)

    def slowly(data: bytes) -> bytes:
        for place in range(len(data) - 1):
            peer = relay._open[-2]
            peer.sendall(data[place : place + 1])
        return data[-1:]

    with client(proxy.port) as raw:
        raw.value("select 1")
        relay.fault = slowly
        for peer in relay._open:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.send(extended("select generate_series(1, 5)"), SYNC, extended("select 1/0"), SYNC)
        assert raw.tags() == "12TDDDDDCZ"
        assert raw.tags() == "1EZ"
        assert raw.value("select 'intact'") == "intact"


def test_a_cancel_request_that_is_late_hits_nobody_else(pgproxy: PgproxyFactory, relay: Relay) -> None:
    """The server is not handed on while a cancel request is on its way, however long that takes."""
    proxy = start(pgproxy, relay)
    relay.cancel_delay = 1.0
    with client(proxy.port) as careless, client(proxy.port) as innocent:
        careless.send(message("Q", b"select pg_sleep(0.2)\0"))
        time.sleep(0.1)
        with Raw(proxy.port) as canceller:
            canceller.send(cancel_request(int.from_bytes(careless.key[:4], "big"), careless.key[4:]))
            assert careless.tags() == "TDCZ"
            innocent.send(message("Q", b"select pg_sleep(1.5)\0"))
            assert innocent.tags() == "TDCZ"


class DeafOnce(Relay):
    """Takes the first cancel request, with no effect: as a server does between two statements."""

    deaf = False

    def serve(self, peer: socket.socket) -> None:
        if not self.deaf and peer.recv(8, socket.MSG_PEEK)[4:] == CANCEL_REQUEST:
            self.deaf = True
            return
        super().serve(peer)


def test_a_cancel_request_that_comes_between_two_statements_is_said_again(
    pgproxy: PgproxyFactory, postgres: Postgres
) -> None:
    with DeafOnce(postgres.port) as relay:
        proxy = start(pgproxy, relay, cancel_timeout=15)
        gone = Raw(proxy.port)
        gone.log_in()
        gone.send(message("Q", b"select pg_sleep(600) /* deaf */\0"))
        running(postgres, "deaf */")
        gone.socket.close()
        works(proxy)
        assert relay.deaf
        assert not proxy.closings()


def test_a_cancel_request_that_gets_lost_costs_the_server(
    pgproxy: PgproxyFactory, relay: Relay, postgres: Postgres
) -> None:
    proxy = start(pgproxy, relay, cancel_timeout=0.5)
    relay.cancel_delay = 60.0
    with client(proxy.port) as careless, client(proxy.port) as innocent:
        before = careless.value("select pg_backend_pid()")
        careless.send(message("Q", b"select pg_sleep(3) /* careless */\0"))
        running(postgres, "careless */")
        with Raw(proxy.port) as canceller:
            canceller.send(cancel_request(int.from_bytes(careless.key[:4], "big"), careless.key[4:]))
            assert careless.tags() == "TDCZ"
            assert innocent.value("select pg_backend_pid()") != before
    assert proxy.closings() == ["cancel_timeout"]


def test_a_cleaning_that_does_not_end(pgproxy: PgproxyFactory, relay: Relay) -> None:
    """The cleaning's answer never comes; its server is given up, and another one serves who waits."""
    proxy = start(pgproxy, relay, "session", cancel_timeout=0.5)
    relay.fault = lambda data: b"" if b"DISCARD" in data else data
    with client(proxy.port) as raw:
        before = raw.value("select pg_backend_pid()")
    with client(proxy.port) as other:
        assert other.value("select pg_backend_pid()") != before
    assert proxy.closings() == ["cleaning_timeout"]


def test_a_server_that_hangs_while_it_is_opened(pgproxy: PgproxyFactory) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as deaf:

        class Deaf:
            port: int = deaf.getsockname()[1]

        waits = {"connect_timeout": 0.5, "connection_borrow_timeout": 1}
        proxy = pgproxy(server=Deaf(), pool_size=1, auth="trust", proxy=waits)
        for _ in range(2):
            with Raw(proxy.port) as raw:
                raw.send(startup(user="app", database="app"))
                fields = raw.error()
                assert fields["C"] == "08000" and "connect_timeout" in fields["D"]


def test_a_question_that_is_not_answered(pgproxy: PgproxyFactory, relay: Relay) -> None:
    """What the proxy itself asks has an end, too: the server is given up, and its client is told."""
    proxy = start(pgproxy, relay, cancel_timeout=0.5)
    with client(proxy.port) as raw:
        assert raw.value("select 1") == "1"
        relay.fault = lambda data: b"" if b"session_authorization" in data else data
        raw.query("set work_mem = '9MB'")
        assert raw.error()["C"] == "08006"
        relay.fault = lambda data: data
    with client(proxy.port) as again:
        assert again.value("show work_mem") == "4MB"
    assert proxy.closings() == ["question_timeout"]


def test_a_notice_that_comes_in_two_behind_an_answer(pgproxy: PgproxyFactory, relay: Relay) -> None:
    """A server is not let go in the middle of a message: its rest would be missing in the client's stream."""
    proxy = start(pgproxy, relay)
    notice = message("N", b"SNOTICE\0VNOTICE\0C00000\0M" + b"n" * 3000 + b"\0\0")
    rest = b""

    def split(data: bytes) -> bytes:
        nonlocal rest
        if b"halved" in data:
            rest = notice[1000:]
            return data + notice[:1000]
        passed, rest = rest + data, b""
        return passed

    with client(proxy.port) as raw, client(proxy.port) as other:
        relay.fault = split
        raw.query("select 'halved'")
        assert [tag for tag, _ in raw.query("select 2")] == ["N", "T", "D", "C", "Z"]
        assert other.value("select 3") == "3"


def test_a_cancel_request_that_comes_to_nothing_is_sent_again(
    pgproxy: PgproxyFactory, relay: Relay, postgres: Postgres
) -> None:
    """As one does that reaches the server between two queries."""
    proxy = start(pgproxy, relay, cancel_timeout=20)
    relay.cancels_lost = 1
    with client(proxy.port) as vanishes:
        vanishes.send(message("Q", b"select pg_sleep(600) /* vanishes */\0"))
        running(postgres, "vanishes */")
    works(proxy)
    assert not relay.cancels_lost
    sent = [event for event in proxy.log() if event["event"] == "cancel_sent"]
    assert len(sent) == 2
    assert not proxy.closings()
