"""Where programs are played: directly, or with pgproxy in front of a few servers."""

from __future__ import annotations

import select
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, Protocol

import pytest

from pgproxy.demo.process import tail, wait_until
from tests.answers import Player
from tests.fix_pgproxy import Pgproxy
from tests.programs import Free, Pinned, Program, Unpinned
from tests.raw import message

_EVENT_SECONDS = 5.0
"""How long a test waits for an event that is to come, and does at once where all is well."""


class Databases(Protocol):
    """The server behind a stage: `Twin`."""

    port: int

    def execute(self, database: str, text: str) -> None: ...


class Direct:
    """A stage on which nothing stands between client and server."""

    def __init__(self, twin: Databases, database: str) -> None:
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

    def __init__(
        self, twin: Databases, proxy: Pgproxy, servers: int = 1, *, churns: bool = False, user: str = "boss"
    ) -> None:
        self.twin = twin
        self.proxy = proxy
        self.servers = servers
        self.user = user
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
        return self._exits.enter_context(Player(self.port, {"user": self.user, "database": self.database}))

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
                if self.servers == 1 and self._observer is None:
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
        elif self.servers == 1:
            served(self.proxy, self.user)

    def check(self, program: Program) -> None:
        """Check what pgproxy has told of its pins, and that its audit has found nothing."""
        reasons = {reason for event in self._log.events("client_pinned") for reason in event["reasons"]}
        wrong = reasons ^ program.reasons
        assert wrong <= program.may_pin, f"{program.name}: pinned for {reasons}\n{self._log.tail()}"
        found = self._log.events("audit_found")
        assert program.hidden or not found, found
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


def served(proxy: Pgproxy, user: str = "boss") -> None:
    """Check that somebody else is served; with one server that says that nobody is pinned."""
    with Player(proxy.port, {"user": user, "database": "proxied"}) as observer:
        answer = observer.perform(message("Q", b"select 'served'\0"))
        assert answer.said == "served", f"a client keeps its server: {answer}"
