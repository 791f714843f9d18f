"""TLS on both legs: modes, certificates, channel binding, reload."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
import time
from itertools import islice
from pathlib import Path
from struct import pack
from typing import Any

import psycopg
import pytest

from pgproxy.demo.postgres import Postgres
from pgproxy.demo.process import wait_until
from pgproxy.link.records import Records
from tests.activity import running
from tests.faults import Listener
from tests.fix_pgproxy import Pgproxy, PgproxyFactory
from tests.fix_tls import Certificate, Tls, TlsPostgres
from tests.key_updates import key_updates, logging_keys
from tests.raw import Raw, message, startup

SSL_REQUEST = pack(">II", 8, 80877103)


def client_leg(certificate: Certificate, mode: str = "require", **more: Any) -> str:
    lines = {"mode": mode, "certificate": certificate.certificate, "key": certificate.key, **more}
    return "[proxy.tls]\n" + "".join(f'{name} = "{value}"\n' for name, value in lines.items())


def is_tls(connection: psycopg.Connection[Any]) -> bool:
    return bool(connection.pgconn.ssl_in_use)


@pytest.mark.parametrize("negotiation", ["postgres", "direct"])
def test_a_client_that_verifies_all(
    pgproxy: PgproxyFactory, postgres: Postgres, tls: Tls, negotiation: str
) -> None:
    proxy = pgproxy(server=postgres, extra=client_leg(tls.server))
    with proxy.connect(
        sslmode="verify-full", sslrootcert=str(tls.ca), sslnegotiation=negotiation, channel_binding="require"
    ) as connection:
        assert is_tls(connection)
        assert connection.execute("select repeat('x', 300000)").fetchone() == ("x" * 300_000,)


def test_channel_binding_is_told_apart_from_its_absence(
    pgproxy: PgproxyFactory, postgres: Postgres, tls: Tls
) -> None:
    proxy = pgproxy(server=postgres, extra=client_leg(tls.server, "allow"))
    for parameters in (
        {"sslmode": "disable"},
        {"sslmode": "require", "channel_binding": "disable"},
        {"sslmode": "require", "channel_binding": "require"},
    ):
        with proxy.connect(**parameters) as connection:
            assert is_tls(connection) is (parameters["sslmode"] == "require")


def test_off_and_require(pgproxy: PgproxyFactory, postgres: Postgres, tls: Tls) -> None:
    off = pgproxy(server=postgres)
    with pytest.raises(psycopg.OperationalError, match="does not support SSL"):
        off.connect(sslmode="require")
    required = pgproxy(server=postgres, extra=client_leg(tls.server))
    with pytest.raises(psycopg.OperationalError, match="pgproxy requires TLS connections"):
        required.connect(sslmode="disable")


def certificates(pgproxy: PgproxyFactory, postgres: Postgres, tls: Tls, names: str = "") -> Pgproxy:
    extra = client_leg(tls.server, client_ca=tls.ca) + names
    return pgproxy(server=postgres, auth="cert", extra=extra)


def test_client_certificates(pgproxy: PgproxyFactory, postgres: Postgres, tls: Tls) -> None:
    proxy = certificates(pgproxy, postgres, tls)
    own = {"sslmode": "require", "sslcert": str(tls.client.certificate), "sslkey": str(tls.client.key)}
    with proxy.connect(**own, password="") as connection:
        assert connection.execute("select current_user").fetchone() == ("app",)
    with pytest.raises(psycopg.OperationalError, match="certificate authentication failed"):
        proxy.connect(**own, user="other")
    with pytest.raises(psycopg.OperationalError):
        proxy.connect(sslmode="require", sslcert=str(tls.stranger.certificate), sslkey=str(tls.stranger.key))
    with pytest.raises(psycopg.OperationalError):
        proxy.connect(sslmode="require", sslcert="/nowhere")


def test_certificate_names(pgproxy: PgproxyFactory, postgres: Postgres, tls: Tls) -> None:
    proxy = certificates(pgproxy, postgres, tls, '[proxy.certificate_names]\n"app" = ["other"]\n')
    own = {"sslmode": "require", "sslcert": str(tls.client.certificate), "sslkey": str(tls.client.key)}
    with proxy.connect(**own, user="other", password="") as connection:
        assert connection.execute("select current_user").fetchone() == ("other",)
    with pytest.raises(psycopg.OperationalError, match="certificate authentication failed"):
        proxy.connect(**own, user="app")


def test_a_certificate_and_a_password(pgproxy: PgproxyFactory, postgres: Postgres, tls: Tls) -> None:
    extra = client_leg(tls.server, client_ca=tls.ca, client_certificate="require")
    proxy = pgproxy(server=postgres, extra=extra)
    own = {"sslmode": "require", "sslcert": str(tls.client.certificate), "sslkey": str(tls.client.key)}
    with proxy.connect(**own) as connection:
        assert is_tls(connection)
    with pytest.raises(psycopg.OperationalError):
        proxy.connect(sslmode="require", sslcert="/nowhere")


def test_plaintext_behind_the_request_for_tls(pgproxy: PgproxyFactory, postgres: Postgres, tls: Tls) -> None:
    proxy = pgproxy(server=postgres, auth="trust", extra=client_leg(tls.server))
    with Raw(proxy.port) as raw:
        raw.send(SSL_REQUEST + startup(user="app"))
        assert raw.error()["C"] == "08P01"
        assert raw.ended()
    with Raw(proxy.port) as raw:
        raw.send(SSL_REQUEST)
        assert raw.exactly(1) == b"S"
        raw.send(startup(user="app", database="app"))
        assert raw.alerted()
    with proxy.connect(sslmode="require") as connection:
        connection.execute("select 1")


def test_direct_tls_needs_alpn(pgproxy: PgproxyFactory, postgres: Postgres, tls: Tls) -> None:
    proxy = pgproxy(server=postgres, auth="trust", extra=client_leg(tls.server))
    context = ssl.create_default_context(cafile=str(tls.ca))
    with Raw(proxy.port) as raw:
        raw.start_tls(context)
        assert raw.ended()
    context.set_alpn_protocols(["postgresql"])
    with Raw(proxy.port) as raw:
        raw.start_tls(context)
        raw.log_in()
        assert raw.value("select 1") == "1"


def test_nobody_is_sent_tickets(pgproxy: PgproxyFactory, postgres: Postgres, tls: Tls) -> None:
    """As PostgreSQL sends none; they come behind the handshake, so an answer is read first."""
    proxy = pgproxy(server=postgres, extra=client_leg(tls.server))
    context = ssl.create_default_context(cafile=str(tls.ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["postgresql"])
    with (
        Raw(proxy.port) as raw,
        context.wrap_socket(raw.socket, server_hostname="localhost") as direct,
    ):
        direct.sendall(startup(user="postgres", database="postgres"))
        assert direct.recv(1) == b"R"
        assert direct.session is None or not direct.session.has_ticket


@pytest.mark.parametrize("first", [b"\x16\x03\x01\x02\x00\x01" + b"x" * 100, SSL_REQUEST])
def test_who_resets_at_the_first_word_is_forgotten(
    pgproxy: PgproxyFactory, postgres: Postgres, tls: Tls, first: bytes
) -> None:
    proxy = pgproxy(
        server=postgres,
        auth="trust",
        proxy={"max_client_connections": 50, "stats_users": ["other"]},
        extra=client_leg(tls.server, "allow"),
    )
    before = len(os.listdir(f"/proc/{proxy.pid}/fd"))
    for _ in range(200):
        with Raw(proxy.port) as raw:
            raw.send(first)
            raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))
    with proxy.connect(user="other", dbname="pgproxy", autocommit=True) as console:
        lists: dict[str, int] = dict(console.execute("show lists").fetchall())
    assert (lists["login_clients"], lists["used_clients"]) == (0, 1)
    # What it opens once for all is not counted.
    assert wait_until(lambda: len(os.listdir(f"/proc/{proxy.pid}/fd")) < before + 10, 10)


@pytest.mark.parametrize("answered", [False, True])
def test_who_says_nothing_but_new_keys_is_ended(
    pgproxy: PgproxyFactory, postgres: Postgres, tls: Tls, tmp_path: Path, answered: bool
) -> None:
    proxy = pgproxy(
        server=postgres,
        auth="trust",
        # Longer than the client waits: it is not this that ends it.
        proxy={"login_timeout": 300},
        extra=client_leg(tls.server, "allow"),
    )
    context = logging_keys(ssl.create_default_context(cafile=str(tls.ca)), tmp_path / "keys")
    context.set_alpn_protocols(["postgresql"])
    with (
        Raw(proxy.port) as raw,
        context.wrap_socket(raw.socket, server_hostname="localhost") as direct,
    ):
        records = islice(key_updates(direct, tmp_path / "keys", answered), 10_000)
        with contextlib.suppress(ConnectionError):
            socket.socket.sendall(direct, b"".join(records))
            while socket.socket.recv(direct, 65536):
                pass
    with proxy.connect() as other:
        assert other.execute("select 1").fetchone() == (1,)


class Sealing:
    """TLS 1.3 with what is said in the caller's hands: several records can be sent as one."""

    def __init__(self, raw: Raw, ca: Path) -> None:
        self.raw = raw
        context = ssl.create_default_context(cafile=str(ca))
        self.records = Records(context, False, "localhost")
        raw.send(SSL_REQUEST)
        assert raw.exactly(1) == b"S"
        came = b""
        while not self.records.shake_hands(came):
            raw.send(self.records.outgoing.read())
            came = raw.socket.recv(16384)

    def answer(self, end: bytes = b"Z\0\0\0\5I") -> bytes:
        heard = b""
        while not heard.endswith(end):
            came = self.raw.socket.recv(16384)
            assert came, heard
            heard += self.records.open(came)
        return heard


def test_who_leaves_while_it_waits_takes_nobody_along(
    pgproxy: PgproxyFactory, postgres: Postgres, tls: Tls
) -> None:
    """Its query, its Terminate and the end of its TLS come in one read, as a server becomes free."""
    proxy = pgproxy(
        server=postgres, auth="trust", proxy={"pool_size": 1}, extra=client_leg(tls.server, "allow")
    )
    with Raw(proxy.port) as first, Raw(proxy.port) as raw, Raw(proxy.port) as third:
        for plain in (first, third):
            plain.send(startup(user="app", database="app"))
            plain.until("Z")
        leaving = Sealing(raw, tls.ca)
        raw.send(leaving.records.seal(startup(user="app", database="app")))
        leaving.answer()
        first.send(message("Q", b"select pg_sleep(0.5)\0"))
        running(postgres, "select pg_sleep(0.5)")
        os.kill(proxy.pid, signal.SIGSTOP)
        try:
            last = leaving.records.seal(message("Q", b"select 2\0") + message("X"))
            assert not leaving.records.say_end()
            raw.send(last, leaving.records.outgoing.read())
            third.send(message("Q", b"select 3\0"))
            time.sleep(0.8)
        finally:
            os.kill(proxy.pid, signal.SIGCONT)
        for plain in (first, third):
            assert "D" in dict(plain.until("Z"))


def test_what_is_no_tls_behind_a_startup_message(
    pgproxy: PgproxyFactory, postgres: Postgres, tls: Tls
) -> None:
    proxy = pgproxy(server=postgres, auth="trust", extra=client_leg(tls.server))
    with Raw(proxy.port) as raw:
        sealing = Sealing(raw, tls.ca)
        raw.send(sealing.records.seal(startup(user="app", database="app")), b"\x17\3\3\0\x20" + b"x" * 32)
        with contextlib.suppress(ConnectionError):
            while raw.socket.recv(16384):
                pass


def test_an_old_tls_is_refused(pgproxy: PgproxyFactory, postgres: Postgres, tls: Tls) -> None:
    proxy = pgproxy(server=postgres, auth="trust", extra=client_leg(tls.server))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(tls.ca)
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with Raw(proxy.port) as raw:
        raw.send(SSL_REQUEST)
        assert raw.exactly(1) == b"S"
        with pytest.raises(OSError):
            raw.start_tls(context)


def test_certificates_are_read_again_and_nobody_is_dropped(
    pgproxy: PgproxyFactory, postgres: Postgres, tls: Tls, tmp_path: Path
) -> None:
    pem, key = tmp_path / "now.pem", tmp_path / "now-key.pem"

    def put(certificate: Certificate) -> None:
        shutil.copy(certificate.certificate, pem)
        shutil.copy(certificate.key, key)

    put(tls.server)
    proxy = pgproxy(server=postgres, extra=client_leg(Certificate(pem, key)))
    new = {"sslmode": "verify-full", "sslrootcert": str(tls.other_ca)}
    with proxy.connect(sslmode="verify-full", sslrootcert=str(tls.ca)) as old:
        old.execute("set work_mem = '9MB'")
        old.commit()
        with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
            proxy.connect(**new)
        put(tls.impostor)
        proxy.reload()
        await_event(proxy, "reloaded")
        with proxy.connect(**new, channel_binding="require") as connection:
            connection.execute("select 1")
        assert old.execute("select 1").fetchone() == (1,)
        key.write_text("no key")
        proxy.expect_errors()
        proxy.reload()
        refused = await_event(proxy, "reload_refused")
        assert str(key) in refused["why"]
        with proxy.connect(**new) as connection:
            connection.execute("select 1")
        assert old.execute("select 1").fetchone() == (1,)


def await_event(proxy: Pgproxy, name: str) -> dict[str, Any]:
    for _ in range(200):
        for event in proxy.log():
            if event["event"] == name:
                return event
        time.sleep(0.05)
    raise AssertionError(f"no event {name}:\n{proxy.text()}")


SERVER_LEG = {
    "disable": ("disable", None, False),
    "prefer": ("prefer", None, True),
    "require": ("require", None, True),
    "verify-ca": ("verify-ca", "ca", True),
    "verify-full": ("verify-full", "ca", True),
}


@pytest.mark.parametrize(("mode", "ca", "encrypted"), SERVER_LEG.values(), ids=SERVER_LEG.keys())
def test_the_servers_leg(
    pgproxy: PgproxyFactory, tls_postgres: TlsPostgres, tls: Tls, mode: str, ca: str | None, encrypted: bool
) -> None:
    target = {"tls": mode} | ({"ca": str(tls.ca)} if ca else {})
    proxy = pgproxy(server=tls_postgres, target=target)
    with proxy.connect() as connection:
        assert connection.execute("select length(repeat('x', 3000000))").fetchone() == (3_000_000,)
        assert connection.execute("select length(%s)", ("y" * 3_000_000,)).fetchone() == (3_000_000,)
        if tls_postgres.native:
            row = connection.execute("select ssl from pg_stat_ssl where pid = pg_backend_pid()").fetchone()
            assert row == (encrypted,)
    assert [e["tls"] for e in proxy.log() if e["event"] == "server_opened"] == [encrypted]


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
def test_a_server_of_another_authority(
    pgproxy: PgproxyFactory, tls_postgres: TlsPostgres, tls: Tls, mode: str
) -> None:
    proxy = pgproxy(server=tls_postgres, target={"tls": mode, "ca": str(tls.other_ca)})
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        proxy.connect()


def test_a_server_of_another_name(pgproxy: PgproxyFactory, postgres: Postgres, tls: Tls) -> None:
    from tests.tls_front import TlsFront, server_context

    with TlsFront(postgres.port, server_context(tls.wrong_name.certificate, tls.wrong_name.key)) as front:
        proxy = pgproxy(server=front, target={"tls": "verify-ca", "ca": str(tls.ca)})
        with proxy.connect() as connection:
            connection.execute("select 1")
        proxy = pgproxy(server=front, target={"tls": "verify-full", "ca": str(tls.ca)})
        with pytest.raises(psycopg.OperationalError, match="certificate is not valid for"):
            proxy.connect()


def test_a_server_that_resets_where_tls_begins(pgproxy: PgproxyFactory) -> None:
    class Resetting(Listener):
        def serve(self, peer: socket.socket) -> None:
            peer.recv(8)
            peer.sendall(b"S")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))
            peer.close()

    with Resetting() as server:
        proxy = pgproxy(
            server=server, auth="trust", target={"tls": "require"}, proxy={"connection_borrow_timeout": 1}
        )
        before = len(os.listdir(f"/proc/{proxy.pid}/fd"))
        with pytest.raises(psycopg.OperationalError):
            proxy.connect()
        assert wait_until(lambda: len(os.listdir(f"/proc/{proxy.pid}/fd")) < before + 10, 10)


def test_a_server_without_tls(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    with pgproxy(server=postgres, target={"tls": "prefer"}).connect() as connection:
        connection.execute("select 1")
    with pytest.raises(psycopg.OperationalError, match="the server has no TLS"):
        pgproxy(server=postgres, target={"tls": "require"}).connect()


def test_a_password_in_clear_over_tls(pgproxy: PgproxyFactory, tls_postgres: TlsPostgres, tls: Tls) -> None:
    proxy = pgproxy(server=tls_postgres, target={"tls": "verify-full", "ca": str(tls.ca)})
    with proxy.connect(user="cleartext") as connection:
        assert connection.execute("select current_user").fetchone() == ("cleartext",)


def test_a_cancel_request_goes_by_tls_too(
    pgproxy: PgproxyFactory, tls_postgres: TlsPostgres, tls: Tls
) -> None:
    import threading

    proxy = pgproxy(
        server=tls_postgres, target={"tls": "require"}, extra=client_leg(tls.server), pool_mode="transaction"
    )
    with proxy.connect(sslmode="require", autocommit=True) as connection:

        def cancel_it() -> None:
            running(tls_postgres.server, "by tls */")
            connection.cancel_safe()

        threading.Thread(target=cancel_it).start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("select pg_sleep(600) /* by tls */")
        assert connection.execute("select 1").fetchone() == (1,)


def test_much_data_over_tls_on_both_legs(
    pgproxy: PgproxyFactory, tls_postgres: TlsPostgres, tls: Tls
) -> None:
    proxy = pgproxy(server=tls_postgres, target={"tls": "require"}, extra=client_leg(tls.server))
    with proxy.connect(sslmode="require") as connection, connection.cursor() as cursor:
        cursor.execute("create temp table t (a text)")
        with cursor.copy("copy t from stdin") as copy:
            for number in range(200):
                copy.write(f"{number:05d}" * 10_000 + "\n")
        with cursor.copy("copy t to stdout") as copy:
            rows = [bytes(row) for row in copy]
        assert b"".join(rows) == b"".join(f"{n:05d}".encode() * 10_000 + b"\n" for n in range(200))
