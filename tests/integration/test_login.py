"""Who may in, and how pgproxy gets in at the server: libpq on the one leg, PostgreSQL on the other."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from pgproxy.auth.secrets import format_secret, md5_hash, scram_verifier
from pgproxy.demo.postgres import Postgres
from pgproxy.link.checking import FRESH, MANY
from tests.fix_pgproxy import Pgproxy, PgproxyFactory, Toml
from tests.fix_postgres import PASSWORDS, PostgresFactory
from tests.raw import Raw, message, startup

SCRAM = format_secret(scram_verifier("app-password", b"0123456789abcdef", 4096))


def words(error: pytest.ExceptionInfo[psycopg.OperationalError]) -> str:
    """What was said, without where it was said."""
    return str(error.value).partition("FATAL:")[2].strip()


def stored(postgres: Postgres, user: str) -> str:
    """The secret as the server has it."""
    ((secret,),) = postgres.execute(f"select rolpassword from pg_authid where rolname = '{user}'")
    return str(secret)


@pytest.mark.parametrize("mode", ["session", "transaction"])
@pytest.mark.parametrize(
    ("auth", "user"),
    [
        ("scram-sha-256", "app"),
        ("md5", "app"),
        ("md5", "md5user"),
        ("scram-sha-256", "cleartext"),
        ("trust", "app"),
    ],
)
def test_by_password(pgproxy: PgproxyFactory, postgres: Postgres, mode: str, auth: str, user: str) -> None:
    # The cleartext user's server asks for the password in clear, which is refused on a leg without TLS.
    refused = user == "cleartext"
    proxy = pgproxy(server=postgres, pool_mode=mode, auth=auth)
    if refused:
        with pytest.raises(psycopg.OperationalError, match="pgproxy cannot log in to the server"):
            proxy.connect(user=user)
        return
    with proxy.connect(user=user) as connection:
        assert connection.execute("select current_user").fetchone() == (user,)


def test_scram_by_pass_through(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    """With nothing but the server's own verifier stored, the key that the client's login reveals is used."""
    proxy = pgproxy(server=postgres, users={"app": stored(postgres, "app")})
    with proxy.connect() as connection:
        assert connection.execute("select current_user").fetchone() == ("app",)


def test_a_verifier_that_is_not_the_servers(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(server=postgres, users={"app": SCRAM})
    with pytest.raises(psycopg.OperationalError) as error:
        proxy.connect()
    assert "pgproxy cannot log in to the server as user" in words(error)
    assert "users file" in words(error)


def test_md5_by_its_hash(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    secret = format_secret(md5_hash("md5user", PASSWORDS["md5user"]))
    assert secret == stored(postgres, "md5user")
    proxy = pgproxy(server=postgres, auth="md5", users={"md5user": secret})
    with proxy.connect(user="md5user") as connection:
        assert connection.execute("select current_user").fetchone() == ("md5user",)


@pytest.mark.parametrize("auth", ["md5", "scram-sha-256"])
def test_who_is_refused_learns_nothing(pgproxy: PgproxyFactory, postgres: Postgres, auth: str) -> None:
    users = {"app": "app-password", "verified": SCRAM, "hashed": "md5" + "0" * 32}
    proxy = pgproxy(server=postgres, auth=auth, users=users)
    said = set()
    for user, database in (
        ("app", "app"),
        ("verified", "app"),
        ("hashed", "app"),
        ("nobody", "app"),
        ("app", "nowhere"),
        ("nobody", "nowhere"),
    ):
        with pytest.raises(psycopg.OperationalError) as error:
            proxy.connect(user=user, password="wrong", dbname=database)
        said.add(words(error).replace(user, "USER"))
    assert said == {'password authentication failed for user "USER"'}


def test_unknown_users_are_asked_the_same(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(server=postgres, users={"known": SCRAM})

    def asked(user: str) -> list[bytes]:
        with Raw(proxy.port) as raw:
            raw.send(startup(user=user, database="app"))
            mechanisms = raw.message()[1]
            raw.send(message("p", b"SCRAM-SHA-256\0" + b"\0\0\0\x18" + b"n,,n=,r=abcdefghijklmnop"))
            challenge = raw.message()[1]
            fields = dict(part.split(b"=", 1) for part in challenge[4:].split(b","))
            return [mechanisms, fields[b"s"], fields[b"i"]]

    for known, unknown in zip(asked("known"), asked("unknown"), strict=True):
        assert len(known) == len(unknown)
    assert asked("unknown") == asked("unknown")
    assert asked("unknown") != asked("somebody else")


def test_a_database_is_unknown_only_to_who_may_in(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(server=postgres, extra='[databases.app]\ntarget = "main"\n')
    with pytest.raises(psycopg.OperationalError, match='database "other" does not exist'):
        proxy.connect(dbname="other")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        proxy.connect(dbname="other", password="wrong")


@pytest.mark.parametrize(
    "answer",
    [
        message("p", b"no mechanism"),
        message("p", b"SCRAM-SHA-1\0\0\0\0\0"),
        message("p", b"SCRAM-SHA-256\0\0\0\0\x05n,,n="),
        message("p", b"x" * 60_000),
        b"p\0\1\0\0",
        b"p\0\0\0\3",
        message("Q", b"select 1\0"),
        message("p", b""),
    ],
    ids=range(8),
)
@pytest.mark.parametrize("auth", ["md5", "scram-sha-256"])
def test_malformed_answers(pgproxy: PgproxyFactory, postgres: Postgres, auth: str, answer: bytes) -> None:
    proxy = pgproxy(server=postgres, auth=auth, pool_size=1, users={"app": "app-password", "md5user": "x"})
    with Raw(proxy.port) as raw:
        raw.send(startup(user="app", database="app"))
        raw.until("R")
        raw.send(answer)
        fields = raw.error()
        assert fields["S"] == "FATAL" and fields["C"] in ("08P01", "28P01")
        assert raw.ended()
    with proxy.connect() as connection:
        connection.execute("select 1")


AUTH_QUERY = """
[proxy.auth_query]
user = "boss"
"""


def asking(pgproxy: PgproxyFactory, postgres: Postgres, **more: object) -> Pgproxy:
    return pgproxy(server=postgres, users={"boss": PASSWORDS["boss"]}, extra=AUTH_QUERY)


def test_auth_query(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = asking(pgproxy, postgres)
    for _ in range(2):
        with proxy.connect() as connection:
            assert connection.execute("select current_user").fetchone() == ("app",)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        proxy.connect(password="wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        proxy.connect(user="nobody", password="x")


def test_auth_query_honours_valid_until(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    postgres.execute(
        "drop role if exists expired", "create role expired login password 'x' valid until '2020-01-01'"
    )
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        asking(pgproxy, postgres).connect(user="expired", password="x")


def test_auth_query_takes_nothing_from_the_startup_message(
    pgproxy: PgproxyFactory, postgres: Postgres
) -> None:
    """A search_path of the client's must not choose which function the side query calls."""
    postgres.execute(
        "create schema if not exists evil",
        "create or replace function evil.now() returns timestamptz language sql"
        " as $$ select 'epoch'::timestamptz $$",
        "drop role if exists late",
        "create role late login password 'x' valid until '2020-01-01'",
        "grant all on schema evil to public",
        dbname="app",
    )
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        asking(pgproxy, postgres).connect(
            user="late",
            password="x",
            options="-c search_path=evil,pg_catalog -c default_transaction_read_only=off",
        )


def test_auth_query_on_a_server_that_hangs(
    pgproxy: PgproxyFactory, postgres_factory: PostgresFactory
) -> None:
    """Some logins wait for it in vain; none of them for ever, and what is known otherwise goes on."""
    server = postgres_factory()
    users = {"boss": PASSWORDS["boss"], "app": "another-password"}
    proxy = pgproxy(server=server, users=users, extra=AUTH_QUERY, proxy={"connect_timeout": 1})
    server.pause()
    try:
        with ThreadPoolExecutor(6) as threads:
            # With several workers each asks for one at a time, and all may be at the same.
            nobody = {"user": "nobody", "password": "x", "connect_timeout": 60}
            logins = [threads.submit(proxy.connect, **nobody) for _ in range(6)]
        for login in logins:
            with pytest.raises(psycopg.OperationalError, match="cannot be looked up now"):
                login.result()
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            proxy.connect(password="wrong")
    finally:
        server.unpause()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        proxy.connect(user="nobody", password="x")


def test_a_user_of_a_strange_name(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    name = 'it\'s "odd" %s $1; --'
    quoted = '"' + name.replace('"', '""') + '"'
    postgres.execute(f"drop role if exists {quoted}", f"create role {quoted} login password 'x'")
    with asking(pgproxy, postgres).connect(user=name, password="x") as connection:
        assert connection.execute("select current_user").fetchone() == (name,)


def test_auth_query_needs_a_password_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "users.txt").write_text('"boss" "md5' + "0" * 32 + '"\n')
    (tmp_path / "pgproxy.toml").write_text(
        f'[proxy]\nusers_file = "users.txt"\n{AUTH_QUERY}\n[targets.main]\nserver = "127.0.0.1:1"\n'
    )
    command = [
        str(Path(sys.executable).with_name("twistd")),
        *("-n", "--pidfile=", "pgproxy", "--check", "--config", str(tmp_path / "pgproxy.toml")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "proxy.auth_query.user" in done.stderr and "no plain password" in done.stderr


def shown(proxy: Pgproxy, user: bytes, database: bytes) -> list[tuple[str, bytes]]:
    """Try a login by SCRAM with a wrong password; give what comes, without what is random."""
    with Raw(proxy.port) as raw:
        body = b"user\0" + user + b"\0database\0" + database + b"\0\0"
        raw.send((len(body) + 8).to_bytes(4, "big") + (3 << 16).to_bytes(4, "big") + body)
        seen = [raw.message()]
        if seen[0][0] == "R":
            first = b"n,,n=,r=abcdefghijklmnop"
            raw.send(message("p", b"SCRAM-SHA-256\0" + len(first).to_bytes(4, "big") + first))
            tag, payload = raw.message()
            words = payload[4:].split(b",")
            seen.append((tag, words[2]))
            nonce = words[0]
            raw.send(message("p", b"c=biws," + nonce + b",p=" + b"A" * 43 + b"="))
            tag, payload = raw.message()
            seen.append((tag, payload.replace(b'"' + user + b'"', b"")))
        assert raw.ended()
        return seen


def test_auth_query_tells_nothing_about_users_and_databases(
    pgproxy: PgproxyFactory, postgres: Postgres
) -> None:
    """Whoever can't log in is shown the same, whatever there is and is not."""
    proxy = asking(pgproxy, postgres)
    postgres.execute(
        "drop database if exists closed",
        "create database closed",
        "alter database closed allow_connections false",
    )
    usual = shown(proxy, b"app", b"app")
    assert [tag for tag, _ in usual] == ["R", "R", "E"] and b"28P01" in usual[-1][1]
    for user, database in (
        (b"nobody", b"app"),
        (b"app", b"nowhere"),
        (b"nobody", b"nowhere"),
        (b"app", b"closed"),
        (b"app", b"host=127.0.0.1 port=1"),
        (b"app", "d\u00e9j\u00e0".encode()),
    ):
        assert shown(proxy, user, database) == usual
    # The name is said again as far as it can be printed.
    for user, database in ((b"bad\xff", b"app"), (b"app", b"bad\xff")):
        assert [tag for tag, _ in shown(proxy, user, database)] == ["R", "R", "E"]
    with proxy.connect() as connection:
        assert connection.execute("select 1").fetchone() == (1,)


def test_new_defaults_in_a_storm_of_logins(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    """What is set past the proxy is seen by who comes a moment later, what is set through it at once."""
    proxy = pgproxy(server=postgres, auth="trust", proxy={"workers": 1})

    def seen() -> str:
        with proxy.connect() as connection:
            ((value,),) = connection.execute("show work_mem").fetchall()
            return str(value)

    def set_to(megabytes: int) -> str:
        return f"alter role app in database app set work_mem = '{megabytes}MB'"

    try:
        with proxy.connect(user="boss", autocommit=True) as boss:
            for megabytes in range(5, 25, 2):
                for _ in range(MANY):
                    seen()
                postgres.execute(set_to(megabytes))
                time.sleep(FRESH)
                assert seen() == f"{megabytes}MB"
                for _ in range(MANY):
                    seen()
                boss.execute(set_to(megabytes + 1))
                assert seen() == f"{megabytes + 1}MB"
    finally:
        postgres.execute("alter role app in database app reset work_mem")


def test_a_login_that_is_too_slow(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(server=postgres, proxy={"login_timeout": 1})
    with Raw(proxy.port) as raw:
        raw.send(startup(user="app", database="app"))
        raw.until("R")
        # No first word of the client's: it is asked for one, and says nothing more.
        raw.send(message("p", b"SCRAM-SHA-256\0\xff\xff\xff\xff"))
        raw.until("R")
        assert raw.error()["C"] == "57014"
        assert raw.ended()
    proxy.await_event("client_closed", reason="login_timeout")


def test_a_login_that_is_too_slow_because_of_the_look_up(
    pgproxy: PgproxyFactory, postgres_factory: PostgresFactory
) -> None:
    server = postgres_factory()
    users = {"boss": PASSWORDS["boss"]}
    limits: dict[str, Toml] = {"connect_timeout": 3, "login_timeout": 1}
    proxy = pgproxy(server=server, users=users, extra=AUTH_QUERY, proxy=limits)
    server.pause()
    try:
        with Raw(proxy.port) as raw:
            raw.send(startup(user="app", database="app"))
            fields = raw.error()
            assert (fields["S"], fields["C"]) == ("FATAL", "57014")
            assert fields["M"] == "canceling authentication due to timeout"
            assert fields["H"] == "pgproxy's login_timeout is 1 s."
            assert raw.ended()
        proxy.await_event("client_closed", reason="login_timeout")
    finally:
        server.unpause()
    # The look-up has its answer by now, or soon; the one it was for has gone.
    with proxy.connect() as connection:
        assert connection.execute("select 1").fetchone() == (1,)


def test_stopping_does_not_wait_for_look_ups(
    pgproxy: PgproxyFactory, postgres_factory: PostgresFactory
) -> None:
    server = postgres_factory()
    users = {"boss": PASSWORDS["boss"]}
    limits: dict[str, Toml] = {"connect_timeout": 60, "login_timeout": 120}
    proxy = pgproxy(server=server, users=users, extra=AUTH_QUERY, proxy=limits)
    server.pause()
    waiting = [Raw(proxy.port) for _ in range(10)]
    try:
        for number, raw in enumerate(waiting):
            raw.send(startup(user=f"user{number}", database="app"))
        time.sleep(0.5)
        proxy.stop()
    finally:
        server.unpause()
        for raw in waiting:
            raw.socket.close()


def test_auth_query_that_fails(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(server=postgres, users={"boss": "not the password"}, extra=AUTH_QUERY)
    with pytest.raises(psycopg.OperationalError, match="cannot be looked up now"):
        proxy.connect()
    assert any("auth_query as boss" in event.get("detail", "") for event in proxy.log())


def test_no_secret_is_in_the_log(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = asking(pgproxy, postgres)
    with proxy.connect():
        pass
    for user in ("app", "nobody"):
        with pytest.raises(psycopg.OperationalError):
            proxy.connect(user=user, password="a-wrong-secret")
    proxy.stop()
    for secret in (*PASSWORDS.values(), "a-wrong-secret", stored(postgres, "app")):
        assert secret not in proxy.text()
