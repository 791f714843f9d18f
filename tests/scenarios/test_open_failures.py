"""A server that can't be opened: client and log are told at which stage, whom it concerns, and what to do."""

from __future__ import annotations

import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import attrs
import pytest

from pgproxy.demo.ports import free_port
from pgproxy.demo.postgres import Postgres
from pgproxy.demo.process import wait_until
from pgproxy.wire import messages
from tests.faults import Liar, Listener, Relay
from tests.fix_pgproxy import WORKERS, HasPort, Pgproxy, PgproxyFactory, toml
from tests.fix_postgres import PASSWORDS, PostgresFactory
from tests.fix_tls import Tls
from tests.raw import Raw, client, message, startup
from tests.tls_front import TlsFront, server_context

OK = messages.authentication(0)
KEY = messages.backend_key_data(1, b"abcd")
READY = messages.ready_for_query(b"I")


@attrs.frozen
class Port:
    """Where a server is."""

    port: int


class Script(Listener):
    """Does with each connection what a test says."""

    def __init__(self, serve: Callable[[socket.socket], object]) -> None:
        self._script = serve
        super().__init__()

    def serve(self, peer: socket.socket) -> None:
        self._script(peer)


def until_the_end(peer: socket.socket, *said: bytes) -> None:
    for piece in said:
        peer.recv(1000)
        peer.sendall(piece)
    while peer.recv(1000):
        pass


def start(pgproxy: PgproxyFactory, server: HasPort, tls: str = "disable", **more: Any) -> Pgproxy:
    proxy = {
        "connect_timeout": more.pop("connect_timeout", 10),
        "connection_borrow_timeout": more.pop("connection_borrow_timeout", 1),
    }
    target = {"tls": tls, **more.pop("target", {})}
    users = more.pop("users", PASSWORDS)
    return pgproxy(server=server, pool_size=3, auth="trust", users=users, proxy=proxy, target=target, **more)


def refused(proxy: Pgproxy, user: str = "app", database: str = "app", **settings: str) -> dict[str, str]:
    """Give what a client is told."""
    with Raw(proxy.port) as raw:
        raw.send(startup(protocol=3 << 16, user=user, database=database, **settings))
        fields = raw.error()
        assert fields["S"] == "FATAL"
        assert raw.ended()
        return fields


def waited(proxy: Pgproxy, user: str = "app") -> dict[str, str]:
    """Give what the log says of a failure that is worth waiting for; the client is told in the end."""
    fields = refused(proxy, user)
    assert fields["C"] == "08000" and fields["M"] == "Timed-out waiting to acquire database connection."
    failed = [event for event in proxy.log() if event["event"] == "server_open_failed"]
    event = next(event for event in failed if event["text"] in fields["D"] and event["detail"] in fields["D"])
    assert "server_open_failed" in fields["H"]
    return {"C": event["sqlstate"], "M": event["text"], "D": event["detail"]}


def serves(proxy: Pgproxy) -> bool:
    """Say whether a client is let in."""
    with Raw(proxy.port) as raw:
        raw.send(startup(user="app", database="app"))
        while (tag := raw.message()[0]) not in "EZ":
            pass
        return tag == "Z"


def logged(proxy: Pgproxy, fields: dict[str, str]) -> tuple[str, str, bool]:
    """Give stage, scope and passing of what the log says; it says what the client was told."""
    said = (fields["C"], fields["M"], fields.get("D", ""))
    (event, *_) = [
        event
        for event in proxy.log()
        if event["event"] == "server_open_failed"
        and (event["sqlstate"], event["text"], event["detail"]) == said
    ]
    assert event["host"]
    return event["stage"], event["scope"], event["passing"]


# Look-up and connect.


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 64])
def test_a_name_that_does_not_resolve(pgproxy: PgproxyFactory, host: str) -> None:
    port = free_port()
    config = toml(
        {"listen": f"127.0.0.1:{port}", "auth": "trust", "connection_borrow_timeout": 1},
        {"server": f"{host}:5432", "tls": "disable"},
    )
    proxy = pgproxy(config=config, port=port)
    fields = refused(proxy)
    # Where there are no name servers, nobody can tell that there is no such name.
    temporary = "emporary" in fields["D"]
    assert fields["C"] == ("08000" if temporary else "08001") and host in fields["D"]
    assert "annot look up the database's server" in fields["M"] + fields["D"]
    event = [event for event in proxy.log() if event["event"] == "server_open_failed"][-1]
    assert (event["stage"], event["scope"], event["passing"]) == ("look_up", "target", temporary)


def test_a_closed_port(pgproxy: PgproxyFactory) -> None:
    proxy = start(pgproxy, Port(free_port()))
    fields = waited(proxy)
    assert fields["C"] == "08001" and fields["M"] == "cannot connect to the database's server"
    assert "Connection refused" in fields["D"]
    assert logged(proxy, fields) == ("connect", "target", True)


def test_a_connection_that_is_not_taken(pgproxy: PgproxyFactory) -> None:
    with ExitStack() as sockets:
        deaf = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        # What the kernel would take for it is used up.
        for _ in range(4):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        proxy = start(pgproxy, Port(deaf.getsockname()[1]), connect_timeout=0.5)
        fields = waited(proxy)
    assert fields["D"].endswith("no answer within 0.5 s (connect_timeout) while waiting for a connection.")
    assert logged(proxy, fields) == ("connect", "target", True)


# TLS.


@pytest.mark.parametrize("said", [(), (b"S",)], ids=["before the answer", "in the handshake"])
def test_tls_that_does_not_come(pgproxy: PgproxyFactory, said: tuple[bytes, ...]) -> None:
    with Script(lambda peer: until_the_end(peer, *said)) as deaf:
        proxy = start(pgproxy, deaf, "require", connect_timeout=0.5)
        fields = waited(proxy)
    assert fields["C"] == "08001" and fields["M"] == "cannot agree on TLS with the database's server"
    assert fields["D"].endswith("no answer within 0.5 s (connect_timeout) while waiting for TLS.")
    assert logged(proxy, fields) == ("tls", "target", True)


@pytest.mark.parametrize("said", [b"", b"S"], ids=["before the answer", "in the handshake"])
def test_a_server_that_goes_before_tls_is_settled(pgproxy: PgproxyFactory, said: bytes) -> None:
    def script(peer: socket.socket) -> None:
        peer.recv(1000)
        peer.sendall(said)
        if said:
            peer.recv(1000)

    with Script(script) as rude:
        proxy = start(pgproxy, rude, "require")
        fields = waited(proxy)
    assert fields["C"] == "08001" and "ended" in fields["D"]
    assert logged(proxy, fields) == ("tls", "target", True)


def test_a_server_that_refuses_in_clear(pgproxy: PgproxyFactory) -> None:
    with Script(lambda peer: until_the_end(peer, message("E", b"could not fork\0"))) as poor:
        proxy = start(pgproxy, poor, "prefer")
        fields = waited(proxy)
    assert logged(proxy, fields) == ("tls", "target", True)


def test_a_server_without_tls(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = start(pgproxy, postgres, "require")
    fields = refused(proxy)
    assert fields["C"] == "08001" and "the server has no TLS" in fields["D"] and "ssl" in fields["H"]
    assert logged(proxy, fields) == ("tls", "target", False)


CERTIFICATES = {
    "of another authority": ("impostor", "verify-ca", "certificate verify failed"),
    "of another name": ("wrong_name", "verify-full", "certificate is not valid for"),
}


@pytest.mark.parametrize(("shown", "mode", "why"), CERTIFICATES.values(), ids=CERTIFICATES.keys())
def test_a_certificate(
    pgproxy: PgproxyFactory, postgres: Postgres, tls: Tls, shown: str, mode: str, why: str
) -> None:
    certificate = getattr(tls, shown)
    context = server_context(certificate.certificate, certificate.key)
    with TlsFront(postgres.port, context) as front:
        proxy = start(pgproxy, front, mode, target={"ca": str(tls.ca)})
        fields = refused(proxy)
    assert fields["C"] == "08001" and why in fields["D"] and "ca" in fields["H"]
    assert logged(proxy, fields) == ("tls", "target", False)


def test_no_tls_in_common(pgproxy: PgproxyFactory, postgres: Postgres, tls: Tls) -> None:
    context = server_context(tls.server.certificate, tls.server.key)
    with pytest.warns(DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with TlsFront(postgres.port, context) as front:
        proxy = start(pgproxy, front, "require")
        fields = refused(proxy)
    assert logged(proxy, fields) == ("tls", "target", False)


# Login.


def test_a_login_that_is_not_answered(pgproxy: PgproxyFactory) -> None:
    with Script(until_the_end) as deaf:
        proxy = start(pgproxy, deaf, connect_timeout=0.5)
        fields = waited(proxy)
    assert fields["C"] == "08001" and fields["M"] == 'cannot log in to the server of database "app"'
    assert fields["D"].endswith("no answer within 0.5 s (connect_timeout) while waiting for the login.")
    assert logged(proxy, fields) == ("login", "parameters", True)


def test_a_server_that_goes_during_login(pgproxy: PgproxyFactory) -> None:
    with Liar(lambda peer: None) as rude:
        proxy = start(pgproxy, rude)
        fields = waited(proxy)
    assert logged(proxy, fields) == ("login", "parameters", True)


@pytest.mark.parametrize(
    "settings", [{"options": "-c post_auth_delay=30"}, {"application_name": "x" * 9960}], ids=["slow", "long"]
)
def test_parameters_that_no_server_opens_with(
    pgproxy: PgproxyFactory, postgres: Postgres, settings: dict[str, str]
) -> None:
    """Who asks for a pause in the login, or for more than a startup packet holds, keeps nobody else out."""
    proxy = start(pgproxy, postgres, connect_timeout=6, connection_borrow_timeout=40)
    assert serves(proxy)
    with Raw(proxy.port) as raw:
        raw.send(startup(protocol=3 << 16, user="app", **settings))
        proxy.await_event("server_open_failed", scope="parameters", passing=True)
        began = time.monotonic()
        for name in ("first", "second", "third"):
            with Raw(proxy.port) as other:
                other.log_in(user="other", application_name=name)
        assert time.monotonic() - began < 5, "they have waited for its next try"


def test_a_walsender_is_not_tried_without_a_pause(
    pgproxy: PgproxyFactory, postgres_factory: PostgresFactory
) -> None:
    server = postgres_factory()
    proxy = start(pgproxy, server, connection_borrow_timeout=2)
    server.stop()
    fields = refused(proxy, replication="database")
    assert fields["C"] == "08000"
    assert 1 < sum(event["event"] == "server_open_failed" for event in proxy.log()) < 10


def test_a_server_that_is_no_postgresql(pgproxy: PgproxyFactory) -> None:
    with Script(lambda peer: until_the_end(peer, b"HTTP/1.1 400 Bad Request\r\n\r\n")) as web:
        proxy = start(pgproxy, web)
        fields = refused(proxy)
    assert "broke the protocol" in fields["D"] and "PostgreSQL" in fields["H"]
    assert logged(proxy, fields) == ("login", "parameters", False)


def test_a_wrong_password(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = start(pgproxy, postgres, users={"app": "not the server's"})
    fields = refused(proxy)
    assert fields["C"] == "28P01" and fields["R"] == "auth_failed"
    assert logged(proxy, fields) == ("login", "pool", False)


def test_no_password(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = start(pgproxy, postgres, users={})
    fields = refused(proxy)
    assert fields["C"] == "28000" and "users file" in fields["H"]
    assert logged(proxy, fields) == ("login", "pool", False)


def test_an_unknown_database(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = start(pgproxy, postgres)
    fields = refused(proxy, database="nowhere")
    assert fields["C"] == "3D000" and fields["M"] == 'database "nowhere" does not exist'
    assert logged(proxy, fields) == ("login", "pool", False)


def test_a_parameter_that_is_none(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = start(pgproxy, postgres)
    fields = refused(proxy, work_mem="much")
    assert fields["C"] == "22023"
    assert logged(proxy, fields) == ("login", "parameters", False)


def test_all_connections_in_use(pgproxy: PgproxyFactory, postgres_factory: PostgresFactory) -> None:
    """The server's language doesn't matter, nor does it to whom the slots that are left belong."""
    server = postgres_factory(max_connections=4, superuser_reserved_connections=1, max_wal_senders=0)
    proxy = start(pgproxy, server)
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(server.connect(user="app", password=PASSWORDS["app"], dbname="app"))
        fields = waited(proxy)
        assert fields["C"] == "53300"
        assert logged(proxy, fields) == ("login", "target", True)
        held.enter_context(server.admin())
        fields = waited(proxy)
        assert fields["C"] == "53300"
        assert logged(proxy, fields) == ("login", "target", True)
    # The next attempt comes within 2 s.
    assert wait_until(lambda: serves(proxy), 30)


@pytest.mark.parametrize("limited", ["role other", "database app"])
def test_a_connection_limit(pgproxy: PgproxyFactory, postgres_factory: PostgresFactory, limited: str) -> None:
    server = postgres_factory()
    server.execute(f"alter {limited} connection limit 0")
    proxy = start(pgproxy, server)
    fields = waited(proxy, user="other")
    assert fields["C"] == "53300"
    assert logged(proxy, fields) == ("login", "pool", True)


def test_a_server_that_is_not_up_yet(pgproxy: PgproxyFactory, postgres_factory: PostgresFactory) -> None:
    """A standby without hot_standby takes connections only to say that it is starting up."""
    server = postgres_factory()
    proxy = start(pgproxy, server)
    server.stop()
    server.settings["hot_standby"] = False
    (server.data / "standby.signal").touch()
    told: list[dict[str, str]] = []
    served: list[Any] = []

    def meanwhile() -> None:
        wait_until(lambda: says_why(server), 20)
        told.append(waited(proxy))
        with Raw(proxy.port) as raw:
            raw.send(startup(user="app", database="app"))
            # As pg_ctl promote does it.
            (server.data / "promote").touch()
            server._running().send_signal(signal.SIGUSR1)
            served.append(raw.until("Z"))

    client_of_it = threading.Thread(target=meanwhile)
    client_of_it.start()
    server.start()
    client_of_it.join()
    (fields,) = told
    assert fields["C"] == "57P03"
    assert served, "who waits is served when it has come up"
    assert logged(proxy, fields) == ("login", "target", True)
    with client(proxy.port) as after:
        assert after.value("select 1") == "1"


def says_why(server: Postgres) -> bool:
    """Say whether a server takes connections to refuse them."""
    try:
        with Raw(server.port) as raw:
            raw.send(startup(user="app", database="app"))
            return raw.error()["C"] == "57P03"
    except ConnectionError:
        return False


# Opening.


def test_an_opening_question_that_is_not_answered(pgproxy: PgproxyFactory) -> None:
    def script(peer: socket.socket) -> None:
        peer.sendall(OK + KEY + READY)
        until_the_end(peer)

    with Liar(script) as liar:
        proxy = start(pgproxy, liar, connect_timeout=0.5)
        fields = waited(proxy)
    assert fields["C"] == "08001"
    assert logged(proxy, fields) == ("opening", "parameters", True)


@pytest.mark.parametrize(
    ("answer", "stage", "scope"),
    [
        (1, "opening", "parameters"),
        (2, "opening", "parameters"),
        (3, "init_query", "parameters"),
        (4, "init_query", "parameters"),
    ],
)
def test_a_server_that_ends_just_when_it_has_answered(
    pgproxy: PgproxyFactory, postgres: Postgres, answer: int, stage: str, scope: str
) -> None:
    """As in a shutdown: its last word comes along with an answer. Who waits is served by the next one."""
    last_word = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0"
    with Relay(postgres.port) as relay:
        answers = 0
        # Threads themselves: the number of one that has ended is given to another.
        ending: set[threading.Thread] = set()

        def fault(data: bytes) -> bytes | None:
            nonlocal answers
            if threading.current_thread() in ending:
                return None
            answers += data.endswith(READY)
            if not data.endswith(READY) or answers != answer:
                return data
            ending.add(threading.current_thread())
            threading.Timer(0.1, relay.cut).start()
            return data + message("E", last_word)

        relay.fault = fault
        init_query = {"init_query": "set work_mem = '7MB'"}
        proxy = start(pgproxy, relay, target=init_query, connection_borrow_timeout=10)
        with client(proxy.port) as waiting:
            assert waiting.value("show work_mem") == "7MB"
    event = next(event for event in proxy.log() if event["event"] == "server_open_failed")
    assert (event["stage"], event["scope"], event["passing"]) == (stage, scope, True)


def test_a_notice_behind_an_answer(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    """It is no reason to give a server up, nor is a setting that has changed by a reload."""
    more = message("N", b"SWARNING\0C01000\0Mhello\0\0") + messages.parameter_status(b"work_mem", b"7MB")
    with Relay(postgres.port) as relay:
        relay.fault = lambda data: data + more if data.endswith(READY) else data
        proxy = start(pgproxy, relay, target={"init_query": "set work_mem = '7MB'"})
        for _ in range(2):
            with client(proxy.port) as served:
                assert served.value("show work_mem") == "7MB"
        # As long as the relay is there: its end takes the server with it.
        assert not [event for event in proxy.log() if event["event"] == "server_open_failed"]
        assert not proxy.closings()
        assert len([event for event in proxy.log() if event["event"] == "server_opened"]) == 1 or WORKERS > 1
