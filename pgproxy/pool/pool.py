"""
Who has which server: one pool, the servers of one (target, role, database, user).

Every method takes what happened and gives back what is to be done, in order; it does nothing itself.
The law:

1. `len(servers) <= size`: a server counts from the decision to open it until it is closed.
2. Waiters are served first come, first served.
3. A server serves clients whose startup parameters are those it was opened with: RESET then goes back to
   what the client started with, as it would directly. Where there's no room for one more, an idle server
   of other parameters is closed for it.
4. Nobody waits while a server that fits is idle, or while there's room to open one.
5. Every wait ends: with a link, with a refusal, or because the client leaves.
6. Of the idle servers that fit, a client gets the one it asks for, else one that nobody else may come back
   to, else one that has its settings already, else the one used last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from attrs import define, frozen

from pgproxy.pool.states import (
    CLOSED,
    IDLE,
    LINKED,
    OPENING,
    RELEASING,
    CloseReason,
    Parameters,
    Server,
    ServerState,
)
from pgproxy.session.server import ServerSession
from pgproxy.session.settings import NOTHING_SET, Settings
from pgproxy.wire.errors import BORROW_TIMEOUT, Complaint, complaint

Client = TypeVar("Client")
"""Whoever borrows; the pool only hands it back."""


@frozen
class Open:
    """Open this server."""

    server: Server


@frozen
class Link(Generic[Client]):
    """Give this server to this client."""

    client: Client
    server: Server


@frozen
class Close:
    """Close this server's connection; the pool has forgotten it."""

    server: Server
    reason: CloseReason


@frozen
class Refuse(Generic[Client]):
    """Tell this client that it gets no server."""

    client: Client
    complaint: Complaint


_BEST = 3
"""Reserved for nobody, and with the very settings that are wanted."""

Todo = Open | Link[Client] | Close | Refuse[Client]


@define
class _Waiter(Generic[Client]):
    client: Client
    parameters: Parameters
    since: float
    settings: Settings
    home: ServerSession | None


class Pool(Generic[Client]):
    """The servers of one (target, role, database, user), and who waits for one."""

    def __init__(self, size: int, borrow_timeout: float, new_session: Callable[[], ServerSession]) -> None:
        self.size = size
        self.borrow_timeout = borrow_timeout
        """Seconds that a client waits; the clock is the caller's."""
        self.servers: set[Server] = set()
        self._idle: list[Server] = []
        self._waiters: dict[Client, _Waiter[Client]] = {}
        self._coming: dict[Parameters, int] = {}
        """How many servers are being opened, by their parameters."""
        self._opened = 0
        self._new_session = new_session

    @property
    def waiting(self) -> int:
        """How many clients wait."""
        return len(self._waiters)

    @property
    def idle(self) -> int:
        """How many servers are idle."""
        return len(self._idle)

    @property
    def empty(self) -> bool:
        """Whether there is no server and no waiter."""
        return not self.servers and not self._waiters

    def borrow(
        self,
        client: Client,
        parameters: Parameters,
        now: float,
        settings: Settings = NOTHING_SET,
        home: ServerSession | None = None,
    ) -> list[Todo[Client]]:
        """Ask for a server opened with `parameters`, rather with `settings`, or best of all `home`."""
        if client in self._waiters:
            raise ValueError("this client waits already")
        self._waiters[client] = _Waiter(client, parameters, now, settings, home)
        return self._serve()

    def take(self, parameters: Parameters, settings: Settings, home: ServerSession | None) -> Server | None:
        """
        Lend an idle server that fits at once, where nobody waits for one.

        Says what `borrow` would, without the ceremony; None where `borrow` has to be asked.
        """
        if self._waiters or not self._idle:
            return None
        server = self._fitting(parameters, settings, home)
        if server is not None:
            server.move(LINKED)
        return server

    def put(self, server: Server) -> bool:
        """
        Take back a server that is clean, where nobody waits for one and it may stay.

        Says what `given_back` and `cleaned` would, without the ceremony; False where these have to be asked.
        """
        if self._waiters or server.retiring is not None or len(self.servers) > self.size:
            return False
        server.move(RELEASING)
        server.move(IDLE)
        self._idle.append(server)
        return True

    def lend_idle(self, client: Client) -> list[Todo[Client]]:
        """Lend an idle server, whatever its parameters; if there is none, do nothing."""
        if not self._idle:
            return []
        server = self._idle.pop()
        server.move(LINKED)
        return [Link(client, server)]

    def leave(self, client: Client) -> None:
        """Take a client that no longer wants a server out of the queue, if it is there."""
        self._waiters.pop(client, None)

    def opened(self, server: Server) -> list[Todo[Client]]:
        """Enter that a server has logged in."""
        if server.state is not OPENING:
            return []
        if server.retiring is not None:
            return self.close(server, server.retiring)
        self._no_longer_coming(server.parameters)
        server.move(IDLE)
        self._idle.append(server)
        return self._serve()

    def failed(self, server: Server, why: Complaint) -> list[Todo[Client]]:
        """Enter that a server could not be opened: the client that has waited longest for it is told."""
        todo: list[Todo[Client]] = []
        if self._drop(server, CloseReason.OPEN_FAILED):
            for waiter in self._waiters.values():
                if waiter.parameters == server.parameters:
                    del self._waiters[waiter.client]
                    todo.append(Refuse(waiter.client, why))
                    break
        return todo + self._serve()

    def given_back(self, server: Server) -> None:
        """Enter that a client is done with its server, which is being made fit for the next."""
        server.move(RELEASING)

    def cleaned(self, server: Server) -> list[Todo[Client]]:
        """Enter that nothing of a client is left in a server that was given back."""
        if server.state is not RELEASING:
            return []
        if server.retiring is not None:
            return self.close(server, server.retiring)
        server.move(IDLE)
        self._idle.append(server)
        return self._serve()

    def retire(self, reason: CloseReason) -> list[Todo[Client]]:
        """Have none of today's servers serve anybody else: the idle ones are closed now, the others later."""
        todo: list[Todo[Client]] = []
        for server in list(self.servers):
            server.retiring = reason
            if server.state is IDLE:
                self._drop(server, reason)
                todo.append(Close(server, reason))
        return todo + self._serve()

    def close(self, server: Server, reason: CloseReason) -> list[Todo[Client]]:
        """Give a server up, whatever its state."""
        if not self._drop(server, reason):
            return []
        return [Close(server, reason), *self._serve()]

    def lost(self, server: Server, reason: CloseReason = CloseReason.LOST) -> list[Todo[Client]]:
        """Enter that a server's connection has ended."""
        self._drop(server, reason)
        return self._serve()

    def resize(self, size: int) -> list[Todo[Client]]:
        """Let the pool have another size; surplus servers are closed as they become idle."""
        self.size = size
        return self._serve()

    def refuse(self, why: Complaint) -> list[Todo[Client]]:
        """Refuse everybody who waits."""
        waiting, self._waiters = list(self._waiters), {}
        return [Refuse(client, why) for client in waiting]

    def expire(self, now: float) -> list[Todo[Client]]:
        """Refuse those who have waited for `borrow_timeout` seconds."""
        todo: list[Todo[Client]] = []
        for waiter in list(self._waiters.values()):
            if now - waiter.since < self.borrow_timeout:
                break
            del self._waiters[waiter.client]
            refusal = complaint(BORROW_TIMEOUT, detail=self.account(), seconds=f"{self.borrow_timeout:g}")
            todo.append(Refuse(waiter.client, refusal))
        return todo

    @property
    def deadline(self) -> float | None:
        """When `expire` next has something to do."""
        for waiter in self._waiters.values():
            return waiter.since + self.borrow_timeout
        return None

    def check(self) -> None:
        """Raise AssertionError where the law is broken; for tests."""
        assert {server.state for server in self._idle} <= {IDLE}
        assert len(self._idle) == sum(server.state is IDLE for server in self.servers)
        assert CLOSED not in {server.state for server in self.servers}
        assert sum(self._coming.values()) == self._number(OPENING)
        if self._waiters:
            assert len(self.servers) >= self.size or self._number(OPENING) >= 1
            fitting = {server.parameters for server in self._idle}
            assert not any(waiter.parameters in fitting for waiter in self._waiters.values())

    def _serve(self) -> list[Todo[Client]]:
        """Do for each waiter, in order, what can be done: link, let it wait for one that opens, or open."""
        todo: list[Todo[Client]] = list(self._shed()) if len(self.servers) > self.size else []
        coming = dict(self._coming)
        served: list[Client] = []
        for waiter in self._waiters.values():
            parameters = waiter.parameters
            server = self._fitting(parameters, waiter.settings, waiter.home)
            if server is not None:
                served.append(waiter.client)
                server.move(LINKED)
                todo.append(Link(waiter.client, server))
            elif coming.get(parameters, 0):
                coming[parameters] -= 1
            else:
                if len(self.servers) >= self.size:
                    if not self._idle:
                        break
                    victim = self._idle[0]
                    self._drop(victim, CloseReason.OTHER_PARAMETERS)
                    todo.append(Close(victim, CloseReason.OTHER_PARAMETERS))
                todo.append(Open(self._new_server(parameters)))
        for client in served:
            del self._waiters[client]
        return todo

    def _fitting(
        self, parameters: Parameters, settings: Settings, home: ServerSession | None
    ) -> Server | None:
        """Take the idle server that fits best; of equals the one used last: its caches are warm."""
        idle = self._idle
        best, rank = -1, -1
        for place in range(len(idle) - 1, -1, -1):
            server = idle[place]
            if server.parameters != parameters:
                continue
            session = server.session
            if session is home:
                return idle.pop(place)
            fits = 2 * (session.reserved is None) + (session.settings is settings)
            if fits == _BEST and home is None:
                return idle.pop(place)
            if fits > rank:
                best, rank = place, fits
        return idle.pop(best) if best >= 0 else None

    def _new_server(self, parameters: Parameters) -> Server:
        self._opened += 1
        server = Server(self._opened, parameters, self._new_session())
        self.servers.add(server)
        self._coming[parameters] = self._coming.get(parameters, 0) + 1
        return server

    def _no_longer_coming(self, parameters: Parameters) -> None:
        self._coming[parameters] -= 1
        if not self._coming[parameters]:
            del self._coming[parameters]

    def _shed(self) -> Iterator[Todo[Client]]:
        while self._idle and len(self.servers) > self.size:
            victim = self._idle[0]
            self._drop(victim, CloseReason.SURPLUS)
            yield Close(victim, CloseReason.SURPLUS)

    def _drop(self, server: Server, reason: CloseReason) -> bool:
        if server.state is CLOSED:
            return False
        if server.state is IDLE:
            self._idle.remove(server)
        elif server.state is OPENING:
            self._no_longer_coming(server.parameters)
        server.move(CLOSED)
        server.close_reason = reason
        self.servers.remove(server)
        return True

    def _number(self, state: ServerState) -> int:
        return sum(server.state is state for server in self.servers)

    def account(self) -> str:
        """Say who has the servers."""
        return (
            f"The pool has {len(self.servers)} of at most {self.size} servers: "
            f"{self._number(LINKED)} in use, {self._number(RELEASING)} being cleaned, "
            f"{self._number(OPENING)} connecting; "
            f"{len(self._waiters)} clients wait."
        )
