"""One server with two databases that are alike: one to be used directly, one through pgproxy."""

from __future__ import annotations

import select
import signal
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from pgproxy.demo.binaries import Binaries
from pgproxy.demo.conf import LOCAL_HBA
from pgproxy.demo.ports import free_port
from pgproxy.demo.postgres import Postgres
from pgproxy.demo.process import Account, end, tail, wait_until
from tests.fix_pgproxy import Pgproxy, Toml, toml
from tests.fix_postgres import PASSWORDS, started
from tests.programs import Free, Pinned, Player, Program, Transcript, Unpinned, compare, play
from tests.raw import message

TRUSTING = ("host all,replication all 127.0.0.1/32 trust", *LOCAL_HBA)
_EVENT_SECONDS = 5.0
"""How long a test waits for an event that is to come, and does at once where all is well."""

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
        server.execute("grant other to app")
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


class Direct:
    """A stage on which nothing stands between client and server."""

    def __init__(self, twin: Twin, database: str) -> None:
        self.twin = twin
        self.port = twin.port
        self.database = database

    def admin(self, text: str) -> None:
        """Run something past the clients."""
        self.twin.execute(self.database, text)

    def before(self, client: Player, clients: Iterable[Player]) -> None:
        """Nothing."""

    def mark(self, mark: Pinned | Unpinned | Free) -> None:
        """Nothing: a direct connection is never anybody else's."""


class Proxied:
    """
    A stage with pgproxy in front of a few servers.

    With one server, an observer asks for it while a client is pinned, and must not get it before the end of
    the pin. With more, whoever is free to move is made to, before each step: see `_churn`.
    """

    def __init__(self, twin: Twin, proxy: Pgproxy, *, churns: bool) -> None:
        self.twin = twin
        self.proxy = proxy
        self.port = proxy.port
        self.database = "proxied"
        self.pids: set[str | None] = set()
        self._turns = 0
        self._pinned = 0
        self._reasons: list[str] = []
        self._unpins = 0
        self._log = Log(proxy)
        self._exits = ExitStack()
        self._observer: Player | None = None
        self._churners = [self._helper() for _ in range(2)] if churns else []
        self._holds = False

    def _helper(self) -> Player:
        return self._exits.enter_context(Player(self.port, {"user": "boss", "database": self.database}))

    def admin(self, text: str) -> None:
        """Run something past pgproxy."""
        self.twin.execute(self.database, text)

    def before(self, client: Player, clients: Iterable[Player]) -> None:
        """Make the client move to another server, where nobody has a claim on one."""
        if self._pinned and self._observer is not None:
            assert not answered(self._observer), "pgproxy has given away the server of a pinned client"
        if self._churners and not self._pinned:
            self._churn(all(player.idle for player in clients))

    def _churn(self, free: bool) -> None:
        """
        Two helpers take turns to hold a server in a transaction.

        The one that begins gets what the clients have used last, since the other one holds the other server;
        then that one lets go. So the clients' next step runs on another server than their last. A helper that
        waits in vain tells of a client that is pinned and should not be.
        """
        holder, other = self._churners
        if free:
            answer = other.perform(message("Q", b"begin; select pg_backend_pid()\0"))
            assert "!" not in answer.said, f"a client keeps its server: {answer}\n{self._log.tail()}"
            self.pids.add(answer.said)
            self._turns += self._holds
        if self._holds:
            assert "!" not in holder.perform(message("Q", b"commit\0")).said
        if free:
            self._churners = [other, holder]
        self._holds = free

    def mark(self, mark: Pinned | Unpinned | Free) -> None:
        """Check what the log tells, and what the others notice."""
        match mark:
            case Pinned(reason=reason):
                if self._churners:
                    self._churn(False)
                self._reasons.append(reason)
                count = self._reasons.count(reason)
                self._log.await_event("client_pinned", lambda event: reason in event["reasons"], count)
                self._pinned += 1
                if not self._churners and self._observer is None:
                    self._observer = self._helper()
                    self._observer.send(message("Q", b"select 'served'\0"))
            case Unpinned():
                self._unpins += 1
                self._pinned -= 1
                self._log.await_event("client_unpinned", lambda event: event["seconds"] >= 0, self._unpins)
                self._end_of_pin()
            case Free():
                self._pinned = 0
                self._end_of_pin()

    def _end_of_pin(self) -> None:
        if self._observer is not None:
            assert dict(self._observer.until("Z"))["C"] == b"SELECT 1\0"
            self._observer.leave()
            self._observer = None
        elif not self._churners:
            served(self.proxy)

    def check(self, program: Program) -> None:
        """Check what pgproxy has told of its pins, and that its audit has found nothing."""
        reasons = {reason for event in self._log.events("client_pinned") for reason in event["reasons"]}
        wrong = reasons ^ program.reasons
        assert wrong <= program.may_pin, f"{program.name}: pinned for {reasons}\n{self._log.tail()}"
        assert not self._log.events("audit_found"), self._log.events("audit_found")
        if self._turns:
            assert len(self.pids) > 1, "the clients were never moved to another server"

    def close(self) -> None:
        """Have the helpers go."""
        self._exits.close()


class Log:
    """What pgproxy logs from now on."""

    def __init__(self, proxy: Pgproxy) -> None:
        self.proxy = proxy
        self._skip = len(proxy.log())

    def events(self, name: str) -> list[dict[str, Any]]:
        """Give the events of this name so far."""
        return [event for event in self.proxy.log()[self._skip :] if event["event"] == name]

    def await_event(self, name: str, holds: Any = lambda event: True, count: int = 1) -> None:
        """Wait until there are so many events of this name of which this holds."""
        if not wait_until(lambda: sum(map(holds, self.events(name))) >= count, _EVENT_SECONDS):
            pytest.fail(f"no event {name}:\n{self.tail()}")

    def tail(self) -> str:
        """Give its last lines."""
        return tail(self.proxy.log_file, 15)


def pins(proxy: Pgproxy) -> list[list[str]]:
    """Give the reasons of each pin that pgproxy has logged."""
    return [event["reasons"] for event in proxy.log() if event["event"] == "client_pinned"]


def answered(client: Player) -> bool:
    """Say whether something has come for a client."""
    return bool(select.select([client.socket], [], [], 0)[0])


def served(proxy: Pgproxy) -> None:
    """Check that somebody else is served; with one server that says that nobody is pinned."""
    with Player(proxy.port, {"user": "boss", "database": "proxied"}) as observer:
        answer = observer.perform(message("Q", b"select 'served'\0"))
        assert answer.said == "served", f"a client keeps its server: {answer}"


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
        stage = Proxied(self.twin, self.proxy(servers), churns=servers > 1 and not program.may_pin)
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
