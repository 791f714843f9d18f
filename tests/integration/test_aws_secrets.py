"""Users whose passwords are in Secrets Manager, and what they notice of a rotation: nothing."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest

from pgproxy.demo.ports import free_port
from pgproxy.demo.postgres import Postgres
from pgproxy.demo.process import tail, wait_until
from tests.fix_aws import Door, Mood, Vault
from tests.fix_pgproxy import Pgproxy, PgproxyFactory
from tests.fix_tls import Tls

_CLIENTS = 3


def aws(*sources: str, **more: object) -> str:
    lines = ["[aws]", f"secrets = {json.dumps(sources)}"]
    return "\n".join([*lines, *(f"{name} = {json.dumps(value)}" for name, value in more.items()), ""])


def log_in(proxy: Pgproxy, user: str, password: str) -> str:
    with proxy.connect(user=user, password=password, dbname="postgres") as connection:
        return str(connection.execute("select current_user").fetchone()[0])  # type: ignore[index]


@pytest.mark.parametrize("auth", ["scram-sha-256", "md5"])
@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_a_user_of_a_secret(
    pgproxy: PgproxyFactory, postgres: Postgres, vault: Vault, auth: str, mode: str
) -> None:
    arn = vault.add("sm_plain", f"plain/{auth}/{mode}")
    proxy = pgproxy(users={}, auth=auth, pool_mode=mode, extra=aws(arn), env=vault.environment)
    assert log_in(proxy, "sm_plain", "first-password") == "sm_plain"
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        log_in(proxy, "sm_plain", "wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        log_in(proxy, "nobody", "first-password")
    assert "first-password" not in proxy.text()


def test_the_console_names_secrets_and_shows_none(
    pgproxy: PgproxyFactory, postgres: Postgres, vault: Vault
) -> None:
    arn = vault.add("sm_shown", "shown/by/the/console")
    proxy = pgproxy(users={}, proxy={"admin_users": ["sm_shown"]}, extra=aws(arn), env=vault.environment)
    with proxy.connect(
        user="sm_shown", password="first-password", dbname="pgproxy", autocommit=True
    ) as console:
        [(name, source, since, state)] = console.execute("show secrets").fetchall()
    assert (name, source, state) == (arn, "Secrets Manager", "known")
    assert str(since).endswith("UTC")


class Load:
    """Clients that log in again and again, each to a server of its own, with the password of the secret."""

    def __init__(self, proxy: Pgproxy, login: Callable[[], tuple[str, str]]) -> None:
        self.logins = 0
        self.failures: list[str] = []
        self._proxy = proxy
        self._login = login
        self._read: dict[int, int] = {}
        """By client, how many times it has read the secret."""
        self._over = threading.Event()

    def run(self, number: int) -> None:
        """Go on until it is over; a password that was read is used for a while, as applications do."""
        turn = 0
        while not self._over.is_set():
            self._read[number] = self._read.get(number, 0) + 1
            user, password = self._login()
            for _ in range(2):
                turn += 1
                try:
                    # Other startup parameters are another server.
                    with self._proxy.connect(
                        user=user, password=password, dbname="postgres", application_name=f"{number}.{turn}"
                    ) as connection:
                        assert connection.execute("select current_user").fetchone() == (user,)
                except psycopg.Error as error:
                    self.failures.append(f"{user}: {error}")
                self.logins += 1

    @contextmanager
    def going_on(self) -> Iterator[None]:
        with ThreadPoolExecutor(_CLIENTS) as threads:
            running = [threads.submit(self.run, number) for number in range(_CLIENTS)]
            try:
                yield
            finally:
                self._over.set()
            for one in running:
                one.result()

    def goes_on(self) -> None:
        """
        Wait until each client has logged in with what it has read since now.

        Else one that is slow could still have the password of two rotations ago, and be refused rightly.
        """
        before = dict(self._read)
        assert wait_until(
            lambda: all(self._read.get(number, 0) >= before.get(number, 0) + 2 for number in range(_CLIENTS)),
            60,
        )


@pytest.mark.parametrize(("auth", "workers"), [("scram-sha-256", 2), ("md5", 1)])
def test_rotations_under_load(
    pgproxy: PgproxyFactory, postgres: Postgres, vault: Vault, auth: str, workers: int
) -> None:
    """Nobody's login fails in any moment of a rotation, and no server that works is closed for it."""
    arn = vault.add("sm_rotated", f"rotated/{auth}/{workers}")
    rotation = vault.rotation(arn)
    # As for the clock, the secret is read anew only because logins fail.
    proxy = pgproxy(
        users={}, auth=auth, proxy={"workers": workers}, extra=aws(arn), env=vault.environment, pool_size=8
    )
    stays = proxy.connect(user="sm_rotated", password="first-password", dbname="postgres", autocommit=True)
    stays.execute("listen something")
    pid = stays.execute("select pg_backend_pid()").fetchone()
    load = Load(proxy, lambda: ("sm_rotated", vault.password(arn)))
    with load.going_on():
        for _ in range(2):
            for step in rotation.steps():
                load.goes_on()
                step()
        load.goes_on()
    assert load.failures == [], tail(proxy.log_file, 100)
    assert load.logins > 50
    assert stays.execute("select pg_backend_pid()").fetchone() == pid
    stays.close()
    text = proxy.text()
    assert "server_refused_key" in text
    assert not any(password in text for password in ("first-password", vault.password(arn)))


@pytest.mark.one_process("rotations go on while some wait in a worker that may not read the secret anew yet")
def test_rotations_between_two_users(pgproxy: PgproxyFactory, postgres: Postgres, vault: Vault) -> None:
    """With alternating users the user itself changes: both are known, from the moment they are there."""
    arn = vault.add("sm_twin", "twins")
    vault.add_role("sm_twin_clone", "unknown")
    rotation = vault.rotation(arn, alternating=True)
    proxy = pgproxy(users={}, extra=aws(arn), env=vault.environment, pool_size=8)

    def login() -> tuple[str, str]:
        values = json.loads(
            vault.client.get_secret_value(SecretId=arn, VersionStage="AWSCURRENT")["SecretString"]
        )
        return values["username"], values["password"]

    load = Load(proxy, login)
    users = set()
    with load.going_on():
        for _ in range(3):
            for step in rotation.steps():
                load.goes_on()
                step()
            users.add(login()[0])
        load.goes_on()
    assert load.failures == [], tail(proxy.log_file, 100)
    assert users == {"sm_twin", "sm_twin_clone"}


def test_each_moment(pgproxy: PgproxyFactory, postgres: Postgres, vault: Vault) -> None:
    """What is old and what is new let in, each for as long as it is meant to."""
    arn = vault.add("sm_moments", "moments")
    rotation = vault.rotation(arn)
    proxy = pgproxy(users={}, extra=aws(arn, previous_password_time=0), env=vault.environment)
    old = "first-password"
    assert log_in(proxy, "sm_moments", old)
    rotation.create()
    new = vault.password(arn, "AWSPENDING")
    assert log_in(proxy, "sm_moments", new) and log_in(proxy, "sm_moments", old)
    rotation.set()
    assert log_in(proxy, "sm_moments", new) and log_in(proxy, "sm_moments", old)
    rotation.test()
    rotation.finish()
    assert log_in(proxy, "sm_moments", new)
    # A login that fails has the secret read anew; with no time for the one before that is its end.
    for password in ("wrong", old):
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            log_in(proxy, "sm_moments", password)


@pytest.mark.parametrize("source", ["prefix:many/", "tag:pgproxy=tests"])
def test_many_secrets(pgproxy: PgproxyFactory, postgres: Postgres, vault: Vault, source: str) -> None:
    kind = source.partition(":")[0]
    for number in range(3):
        tags = [{"Key": "pgproxy", "Value": "tests"}]
        vault.add(f"sm_{kind}_{number}", f"many/{kind}/{number}", Tags=tags)
    vault.add(f"sm_{kind}_other", f"Many/{kind}", Tags=[{"Key": "pgproxy", "Value": "other"}])
    proxy = pgproxy(users={}, extra=aws(source), env=vault.environment)
    for number in range(3):
        assert log_in(proxy, f"sm_{kind}_{number}", "first-password")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        log_in(proxy, f"sm_{kind}_other", "first-password")
    # One that is made later is found when its user comes.
    vault.add(f"sm_{kind}_later", f"many/{kind}/later", Tags=tags)
    assert log_in(proxy, f"sm_{kind}_later", "first-password")


@pytest.mark.parametrize("mood", ["refuses", "hangs", "errs", "throttles", "denies", "babbles"])
def test_without_aws(
    pgproxy: PgproxyFactory, postgres: Postgres, vault: Vault, door: Door, mood: Mood
) -> None:
    arn = vault.add("sm_alone", f"alone/{mood}")
    proxy = pgproxy(users={}, extra=aws(arn, refresh_interval=1), env=vault.environment)
    assert log_in(proxy, "sm_alone", "first-password")
    proxy.await_everywhere("secrets_read", failing=0)
    door.be(mood)
    proxy.await_event("secret_unread", secret=arn, in_force="what was read before")
    for number in range(5):
        with proxy.connect(
            user="sm_alone", password="first-password", dbname="postgres", application_name=str(number)
        ) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
    # Whether this one is wrong nobody knows.
    with pytest.raises(psycopg.OperationalError, match="cannot be read now"):
        log_in(proxy, "sm_alone", "wrong")
    proxy.await_everywhere("secret_unread", secret=arn)
    door.be("open")
    proxy.await_everywhere("secret_read_again", secret=arn)
    assert log_in(proxy, "sm_alone", "first-password")


def test_a_rotation_with_a_slow_aws(
    pgproxy: PgproxyFactory, postgres: Postgres, vault: Vault, door: Door
) -> None:
    arn = vault.add("sm_slow", "slow")
    rotation = vault.rotation(arn)
    proxy = pgproxy(users={}, extra=aws(arn), env=vault.environment, pool_size=8)
    assert log_in(proxy, "sm_slow", "first-password")
    door.be("slow")
    load = Load(proxy, lambda: ("sm_slow", vault.password(arn)))
    with load.going_on():
        for step in rotation.steps():
            load.goes_on()
            step()
        load.goes_on()
    assert load.failures == [], tail(proxy.log_file, 100)


@pytest.mark.parametrize("mood", ["refuses", "errs", "hangs", "denies"])
def test_a_rotation_while_aws_is_away(
    pgproxy: PgproxyFactory, postgres: Postgres, vault: Vault, door: Door, mood: Mood
) -> None:
    """Whoever needs a server for which no password is known waits until it can be."""
    arn = vault.add("sm_away", f"away/{mood}")
    rotation = vault.rotation(arn)
    proxy = pgproxy(users={}, extra=aws(arn), env=vault.environment)
    stays = proxy.connect(user="sm_away", password="first-password", dbname="postgres", autocommit=True)
    proxy.await_everywhere("secrets_read", failing=0)
    with stays, ThreadPoolExecutor(1) as threads:
        rotation.create()
        door.be(mood)
        rotation.set()
        late = threads.submit(
            proxy.connect,
            user="sm_away",
            password="first-password",
            dbname="postgres",
            application_name="late",
            connect_timeout=60,
        )
        proxy.await_event("server_open_failed", stage="login", passing=True)
        # Who has a server notices nothing.
        assert stays.execute("select 1").fetchone() == (1,)
        assert not late.done()
        door.be("open")
        with late.result(60) as connection:
            assert connection.execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize("auth", ["trust", "cert"])
def test_without_a_password_of_the_client(
    pgproxy: PgproxyFactory, postgres: Postgres, vault: Vault, tls: Tls, auth: str
) -> None:
    """Who is let in otherwise gets servers by the secret all the same."""
    arn = vault.add("sm_trusted", f"trusted/{auth}")
    certificate = {"tls.mode": "require", "tls.client_ca": str(tls.ca)} if auth == "cert" else {}
    if auth == "cert":
        certificate |= {"tls.certificate": str(tls.server.certificate), "tls.key": str(tls.server.key)}
    proxy = pgproxy(
        users={},
        auth=auth,
        proxy=certificate,
        extra='[proxy.certificate_names]\napp = "sm_trusted"\n' + aws(arn),
        env=vault.environment,
    )
    files = {"sslcert": str(tls.client.certificate), "sslkey": str(tls.client.key)} if auth == "cert" else {}
    vault.rotation(arn).rotate()
    with proxy.connect(user="sm_trusted", password="", dbname="postgres", **files) as connection:
        assert connection.execute("select current_user").fetchone() == ("sm_trusted",)


@pytest.mark.parametrize("mood", ["refuses", "hangs", "denies", "babbles"])
def test_a_start_without_aws(
    pgproxy: PgproxyFactory, postgres: Postgres, vault: Vault, door: Door, mood: Mood
) -> None:
    """It waits, and says so; who is in the users file is served meanwhile."""
    arn = vault.add("sm_start", f"start/{mood}")
    door.be(mood)
    proxy = pgproxy(extra=aws(arn), env=vault.environment)
    with proxy.connect() as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError, match="cannot be read now"):
        log_in(proxy, "sm_start", "first-password")
    waits = proxy.await_event("waiting_for_secrets")
    assert "Secrets Manager" in waits["remedy"]
    door.be("open")
    proxy.await_everywhere("secrets_read", failing=0)
    assert log_in(proxy, "sm_start", "first-password")


def test_the_end_while_aws_hangs(
    pgproxy: PgproxyFactory, postgres: Postgres, vault: Vault, door: Door
) -> None:
    """Nobody waits for the threads that ask it."""
    arn = vault.add("sm_end", "end")
    door.be("hangs")
    proxy = pgproxy(extra=aws(arn), env=vault.environment)
    assert wait_until(lambda: door.asked > 0, 20)
    with proxy.connect() as connection:
        connection.execute("select 1")
    assert proxy.stop() in (0, -signal.SIGTERM)
    # It was still hanging when the process ended.
    assert not any(event["event"] in ("secret_unread", "waiting_for_secrets") for event in proxy.log())


def test_a_secret_that_is_deleted(pgproxy: PgproxyFactory, postgres: Postgres, vault: Vault) -> None:
    """That is the owner's word: nobody gets in by it any more. Who is in stays in."""
    arn = vault.add("sm_deleted", "deleted")
    proxy = pgproxy(users={}, extra=aws(arn, refresh_interval=1), env=vault.environment)
    with proxy.connect(user="sm_deleted", password="first-password", dbname="postgres") as stays:
        vault.client.delete_secret(SecretId=arn)
        assert "ResourceNotFound" in proxy.await_event("secret_unread", secret=arn)["why"]
        proxy.await_everywhere("secret_unread", secret=arn)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            log_in(proxy, "sm_deleted", "first-password")
        assert stays.execute("select 1").fetchone() == (1,)
    vault.client.restore_secret(SecretId=arn)
    proxy.await_everywhere("secret_read_again", secret=arn)
    assert log_in(proxy, "sm_deleted", "first-password")


def test_secrets_that_are_none(pgproxy: PgproxyFactory, postgres: Postgres, vault: Vault) -> None:
    good = vault.add("sm_good", "wrong/good")
    text = '{"username": "sm_bad", "passwort": "hidden-word"}'
    bad = vault.client.create_secret(Name="wrong/bad", SecretString=text)["ARN"]
    broken = vault.client.create_secret(Name="wrong/broken", SecretString="hidden-word {")["ARN"]
    binary = vault.client.create_secret(Name="wrong/binary", SecretBinary=b"hidden-word")["ARN"]
    missing = good.replace("wrong/good", "wrong/missing")
    proxy = pgproxy(users={}, extra=aws(good, bad, broken, binary, missing), env=vault.environment)
    assert log_in(proxy, "sm_good", "first-password")
    for secret, why in (
        (bad, 'no "password"'),
        (broken, "not JSON"),
        (binary, "binary"),
        (missing, "ResourceNotFound"),
    ):
        assert why in proxy.await_event("secret_unread", secret=secret)["why"]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        log_in(proxy, "sm_bad", "hidden-word")
    assert "hidden-word" not in proxy.text()


def test_a_password_that_the_server_does_not_take(
    pgproxy: PgproxyFactory, postgres: Postgres, vault: Vault
) -> None:
    arn = vault.add("sm_odd", "odd")
    postgres.execute("alter role sm_odd password 'changed by hand'")
    proxy = pgproxy(users={}, extra=aws(arn), env=vault.environment)
    with pytest.raises(psycopg.OperationalError, match='password authentication failed for user "sm_odd"'):
        log_in(proxy, "sm_odd", "first-password")
    # The owner mends the secret: no restart, no waiting for the next time that it is due.
    mended = json.dumps({"username": "sm_odd", "password": "changed by hand"})
    vault.client.put_secret_value(SecretId=arn, SecretString=mended)
    assert log_in(proxy, "sm_odd", "changed by hand")


def test_reload(pgproxy: PgproxyFactory, postgres: Postgres, vault: Vault) -> None:
    first, second = vault.add("sm_one", "reload/one"), vault.add("sm_two", "reload/two")
    proxy = pgproxy(users={}, extra=aws(first), env=vault.environment)
    assert log_in(proxy, "sm_one", "first-password")
    config = (proxy.directory / "pgproxy.toml").read_text()
    proxy.write_config(config.replace(first, second))
    proxy.reload()
    proxy.await_event("reloaded")
    assert log_in(proxy, "sm_two", "first-password")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        log_in(proxy, "sm_one", "first-password")


@pytest.mark.parametrize("watch_user", ["", "sm_watched"])
def test_hosts_are_watched_with_what_the_server_takes(
    pgproxy: PgproxyFactory, postgres: Postgres, vault: Vault, watch_user: str
) -> None:
    """What a client has shown before the rotation is no use afterwards: the watcher asks for what is."""
    arn = vault.add("sm_watched", "watched/by/" + (watch_user or "clients"))
    servers = [f"127.0.0.1:{postgres.port}", f"127.0.0.1:{free_port()}"]
    target: dict[str, str | int | float | bool | list[str]] = {"server": servers, "watch_user": watch_user}
    proxy = pgproxy(users={}, target=target, extra=aws(arn), env=vault.environment)
    if not watch_user:
        assert log_in(proxy, "sm_watched", "first-password")

    def watching() -> list[int]:
        found = postgres.execute(
            "select pid from pg_stat_activity where usename = 'sm_watched' and application_name ~ 'watcher'"
        )
        return [pid for (pid,) in found]

    assert wait_until(lambda: bool(watching()), 20)
    before = watching()
    vault.rotation(arn).rotate()
    postgres.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'sm_watched'")
    assert wait_until(lambda: bool(set(watching()) - set(before)), 30), tail(proxy.log_file)
    assert log_in(proxy, "sm_watched", "first-password")
