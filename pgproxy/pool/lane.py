"""
Those of a pool's clients and servers that fit each other: with equal startup parameters.

A server serves clients whose startup parameters are those it was opened with: RESET then goes back to what
the client started with, as it would directly. The law:

1. Waiters are served first come, first served.
2. Of the idle servers a client gets the one it asks for, else one that nobody else may come back to, else one
   that has its settings already, else the one used last: its caches are warm.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

from attrs import define, field

from pgproxy.pool.budget import Account
from pgproxy.pool.retry import Retry
from pgproxy.pool.states import IDLE, LINKED, Parameters, Server
from pgproxy.session.server import ServerSession
from pgproxy.session.settings import Settings
from pgproxy.twin import quicken

if TYPE_CHECKING:
    from pgproxy.pool.pool import Pool

Client = TypeVar("Client")
"""Whoever borrows; it is only handed back."""

_BEST = 3
"""Reserved for nobody, and with the very settings that are wanted."""


@quicken
@define(eq=False)
class Waiter(Generic[Client]):
    """A client that waits for a server."""

    client: Client
    since: float
    settings: Settings
    home: ServerSession | None


@quicken
@define(eq=False)
class Lane(Generic[Client]):
    """A part of a pool."""

    pool: Pool[Client]
    parameters: Parameters
    accounts: tuple[Account, ...]
    """What its servers count for: its own account, then the limits, the narrowest first."""
    idle: list[Server] = field(factory=list)
    """The one used last is at the end."""
    waiters: OrderedDict[Client, Waiter[Client]] = field(factory=OrderedDict)
    """
    In the order in which they are served: who has waited longest comes first.

    A dict whose first items are taken out again and again walks over their places each time.
    """
    latest: float = 0.0
    """Nobody in the queue has waited since a later time."""

    @property
    def own(self) -> Account:
        """What it has; there is no limit."""
        return self.accounts[0]

    @property
    def missing(self) -> int:
        """For how many waiters no server is on its way."""
        own = self.accounts[0]
        return len(self.waiters) - own.opening - own.promised

    @property
    def working(self) -> int:
        """How many servers are logged in: those are idle, or will be."""
        return self.accounts[0].working

    @property
    def retries(self) -> list[Retry]:
        """What went wrong before, and when it is tried again."""
        return [account.retry for account in self.accounts if account.retry is not None]

    def barred(self, now: float) -> bool:
        """Say whether no server can be opened now: it is paused, or something went wrong before."""
        return self.pool.paused or any(
            account.retry is not None and (now < account.retry.at or account.opening)
            for account in self.accounts
        )

    def waited(self, now: float) -> float:
        """Say for how many seconds the first in the queue has waited."""
        for waiter in self.waiters.values():
            return now - waiter.since
        return 0.0

    def take(self, settings: Settings, home: ServerSession | None) -> Server | None:
        """
        Lend an idle server at once, where nobody waits for one.

        Says what `Pools.borrow` would, without the ceremony; None where that has to be asked.
        """
        idle = self.idle
        if self.waiters or not idle:
            return None
        session = idle[-1].session
        if home is None and session.settings is settings and session.reserved is None:
            server = idle.pop()
        else:
            server = self.pick(settings, home)
        if server.state is IDLE:
            # What `move` does, without a call.
            server.state = LINKED
        else:
            server.move(LINKED)
        return server

    def put(self, server: Server) -> bool:
        """
        Take back a server that is clean, where nobody could want it and it may stay.

        Says what `Pools.given_back` and `Pools.cleaned` would, without the ceremony; False where these have
        to be asked.
        """
        pool = self.pool
        pools = pool.pools
        if pool.waiting or pools.contested or server.retiring is not None:
            return False
        if server.state is LINKED:
            # What `let_go` does, without a call.
            server.state = IDLE
        else:
            server.let_go()
        server.turn = pools.turns = pools.turns + 1
        self.idle.append(server)
        return True

    def pick(self, settings: Settings, home: ServerSession | None) -> Server:
        """Take the idle server that fits best; there must be one."""
        idle = self.idle
        best, rank = -1, -1
        for place in range(len(idle) - 1, -1, -1):
            session = idle[place].session
            if session is home:
                return idle.pop(place)
            fits = 2 * (session.reserved is None) + (session.settings is settings)
            if fits == _BEST and home is None:
                return idle.pop(place)
            if fits > rank:
                best, rank = place, fits
        return idle.pop(best)
