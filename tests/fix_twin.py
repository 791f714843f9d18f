"""One server with two databases that are alike: one to be used directly, one through pgproxy."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from pgproxy.demo.binaries import Binaries
from pgproxy.demo.conf import LOCAL_HBA
from pgproxy.demo.ports import free_port
from pgproxy.demo.postgres import Postgres
from pgproxy.demo.process import Account, end, tail
from tests.fix_pgproxy import Pgproxy, Toml, toml
from tests.fix_postgres import PASSWORDS, started
from tests.programs import Free, Program, Transcript, compare, play
from tests.stages import Direct, Proxied

TRUSTING = ("host all,replication all 127.0.0.1/32 trust", *LOCAL_HBA)
DATABASES = ("direct", "twin", "proxied")

OPTIONS: dict[str, Toml] = {
    "pool_mode": "transaction",
    "auth": "trust",
    "users_file": "users.txt",
    "connection_borrow_timeout": 5,
    "session_audit": 1.0,
}
"""Of every pgproxy that these tests start."""

# What programs may have made. The roles are those of tests.fix_postgres; `app` is a member of `other`.
_CLEAN = """
do $$ declare name text; begin
  for name in select nspname from pg_namespace where nspname !~ '^(pg_|information_schema$)' loop
    execute format('drop schema %I cascade', name);
  end loop;
  create schema public;
  grant all on schema public to public;
end $$
"""


class Twin:
    """The server. `direct` and `twin` are for direct connections, `proxied` is for pgproxy."""

    def __init__(self, server: Postgres, exits: ExitStack) -> None:
        self.server = server
        self.port = server.port
        server.execute(
            "grant other to app",
            *(f"create role {name} login superuser" for name in ("chief", "clerk", "counter", "newcomer")),
        )
        for database in DATABASES:
            server.execute(f"create database {database} owner app")
        self._admins = {database: exits.enter_context(server.admin(database)) for database in DATABASES}
        for admin in self._admins.values():
            admin.execute("set lock_timeout = '10s'")

    def execute(self, database: str, text: str) -> None:
        """Run something as the superuser, past pgproxy."""
        self._admins[database].execute(text.encode())

    def clean(self, *databases: str) -> None:
        """Take away what programs have left there."""
        for database in databases:
            left = self._admins[database].execute(
                "select gid from pg_prepared_xacts where database = current_database()"
            )
            for (name,) in left.fetchall():
                self.execute(database, f"rollback prepared '{name}'")
            self.execute(database, _CLEAN)

    def directly(self, program: Program, database: str = "direct") -> Transcript:
        """Play a program with a direct connection for each client."""
        self.clean(database)
        return play(program, Direct(self, database))


class Theatre:
    """Plays programs directly and through pgproxy, one of which runs for each size of its pool."""

    def __init__(self, twin: Twin, directories: pytest.TempPathFactory) -> None:
        self.twin = twin
        self._directories = directories
        self._proxies: dict[int, Pgproxy] = {}
        self._started: list[Pgproxy] = []

    def proxy(self, servers: int) -> Pgproxy:
        """Give the pgproxy whose pool is of this size."""
        if servers not in self._proxies:
            self._proxies[servers] = self.start(servers)
        return self._proxies[servers]

    def start(self, servers: int, **options: Toml) -> Pgproxy:
        """Start one that is nobody else's; it's checked at the end where `stop` doesn't come first."""
        port = free_port()
        proxy: dict[str, Toml] = {"listen": f"127.0.0.1:{port}", "pool_size": servers, **OPTIONS, **options}
        config = toml(proxy=proxy, target={"server": f"127.0.0.1:{self.twin.port}"})
        run = Pgproxy(self._directories.mktemp("pgproxy"), config, PASSWORDS, port)
        self._started.append(run)
        run.await_start()
        return run

    def stop(self, run: Pgproxy) -> None:
        """Stop one, and fail where its log tells of an error."""
        self._started.remove(run)
        run.check()

    def through(self, program: Program, servers: int) -> Transcript:
        """Play a program through pgproxy."""
        self.twin.clean("proxied")
        churns = servers > 1 and not program.may_pin
        stage = Proxied(self.twin, self.proxy(servers), servers, churns=churns, user=program.user)
        try:
            transcript = play(program, stage)
            if servers == 1:
                stage.mark(Free())  # who is served now is so after all that there's to tell was told
        except BaseException as error:
            # Its state is in doubt: the next program gets another one.
            run = self._proxies.pop(servers)
            error.add_note(f"pgproxy's log ends with:\n{tail(run.log_file, 15)}")
            self._started.remove(run)
            run.kill()
            raise
        finally:
            stage.close()
        stage.check(program)
        return transcript

    def compare(self, program: Program, servers: int) -> None:
        """Play a program both ways, and fail where that can be told."""
        compare(program, self.twin.directly(program), self.through(program, servers))

    @contextmanager
    def logging_all(self) -> Iterator[None]:
        """Have PostgreSQL log all that it's sent."""
        for value in ("= 0", "to default"):
            self.twin.execute("direct", f"alter system set log_min_duration_statement {value}")
            self.twin.execute("direct", "select pg_reload_conf()")
            if value == "= 0":
                yield

    def close(self) -> None:
        """Stop all of them, and fail where a log tells of an error."""
        try:
            for run in self._started:
                run.check()
        finally:
            for run in self._started:
                end(run.process, signal.SIGKILL, 1.0)


@pytest.fixture(scope="session")
def theatre(twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    """Where programs are played."""
    theatre = Theatre(twin, tmp_path_factory)
    yield theatre
    theatre.close()


@pytest.fixture(scope="session")
def twin(binaries: Binaries, account: Account | None) -> Iterator[Twin]:
    """The server with the two databases."""
    with ExitStack() as exits:
        server = exits.enter_context(started(binaries, account, hba=TRUSTING))
        yield Twin(server, exits)
