"""The pools of one host, which decide together, and who performs for each what they decide."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from structlog.typing import FilteringBoundLogger

from pgproxy.link.elsewhere import Elsewhere
from pgproxy.link.server import ServerConnection
from pgproxy.link.splice import Borrower
from pgproxy.pool.lane import Lane
from pgproxy.pool.permits import Permits
from pgproxy.pool.pool import Pool
from pgproxy.pool.pools import Pools
from pgproxy.pool.rules import Rules
from pgproxy.pool.states import CloseReason
from pgproxy.pool.todo import Expire, Link, Refuse, Todo
from pgproxy.session.server import ServerSession
from pgproxy.session.settings import Settings
from pgproxy.twin import quicken

if TYPE_CHECKING:
    from pgproxy.link.lender import ServerLender

_A_DEFAULT_POSTGRES = 97
"""Servers: what a PostgreSQL that does not say what it allows is taken to allow."""


@quicken
class TargetPools:
    """The pools of one host of a target."""

    __slots__ = (
        "_busy",
        "_lenders",
        "_log",
        "_reactor",
        "_seconds",
        "_timer",
        "_todo",
        "alarm",
        "elsewhere",
        "name",
        "pools",
        "where",
    )

    def __init__(
        self,
        name: str,
        rules: Rules,
        reactor: Any,
        chance: Callable[[], float],
        log: FilteringBoundLogger,
        where: tuple[str, str, int] | None = None,
        elsewhere: Elsewhere | None = None,
        alarm: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.alarm = alarm
        """Takes the word that something may be wrong with the host."""
        self.where = where
        """Its name, host and port."""
        self.elsewhere = elsewhere
        """The other workers, which share its budget."""
        permits = Permits() if elsewhere is not None else None
        self.pools: Pools[Borrower] = Pools(name, rules, chance, permits)
        self._reactor = reactor
        self._seconds: Callable[[], float] = reactor.seconds
        self._log = log.bind(target=name)
        self._lenders: dict[Pool[Borrower], ServerLender] = {}
        self._timer: Any = None
        self._todo: deque[Todo[Borrower]] = deque()
        self._busy = False
        """Whether something of it is being done."""

    @property
    def lenders(self) -> list[ServerLender]:
        """Those whose servers are here, or were."""
        return list(dict.fromkeys(self._lenders.values()))

    @property
    def pools_and_lenders(self) -> list[tuple[Pool[Borrower], ServerLender]]:
        """All pools, each with its lender."""
        return list(self._lenders.items())

    @property
    def address(self) -> tuple[str, int]:
        """The host and the port."""
        assert self.where is not None
        return self.where[1:]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to keep."""
        return not self._lenders

    def now(self) -> float:
        """Give the time, in seconds."""
        return float(self._seconds())

    def join(
        self, lender: ServerLender, database: str, user: str, new_session: Callable[[], ServerSession]
    ) -> Pool[Borrower]:
        """Make the pool of a lender."""
        pool = self.pools.add_pool(database, user, new_session)
        self._lenders[pool] = lender
        return pool

    def leave(self, pool: Pool[Borrower]) -> None:
        """Forget a pool that is empty."""
        self.pools.drop_pool(pool)
        del self._lenders[pool]

    def learn(self, capacity: int | None) -> None:
        """Enter how many servers the host allows; None where it does not say so."""
        if capacity is None:
            if self.pools.capacity is not None:
                return
            capacity = _A_DEFAULT_POSTGRES
        if self.elsewhere is not None:
            self.elsewhere.learned(self, capacity)
            return
        if capacity != self.pools.capacity:
            self.do(self.pools.learn(capacity, self.now()))
            target = self.pools.target
            self._log.info("budget", servers=target.most, allowed_by_server=capacity)

    def configure(self, rules: Rules) -> None:
        """Take other rules."""
        if rules != self.pools.rules:
            self.do(self.pools.configure(rules, self.now()))

    def forgive(self) -> None:
        """Enter that the host is as it should be, whatever went wrong before."""
        self.do(self.pools.forgive_all(self.now()))

    def look(self) -> None:
        """Look after the servers that nobody uses."""
        self.do(self.pools.look(self.now()))
        self.pools.tidy()

    def do(self, todo: Iterable[Todo[Borrower]]) -> None:
        """
        Have done what the pools have decided, in order; what comes of it on the way is done behind it.

        Each client that is linked may hand its server on at once. Were that done within, a thousand who wait
        would be a stack of thousands of calls.
        """
        self._todo.extend(todo)
        if self._busy:
            return
        self._busy = True
        try:
            while self._todo:
                item = self._todo.popleft()
                lane = item.lane if isinstance(item, (Refuse, Expire)) else item.server.lane
                self._lenders[lane.pool].perform(item)
        finally:
            self._busy = False
        self._watch()
        if self.elsewhere is not None:
            self.elsewhere.changed(self)

    def stand_in_line(
        self, lane: Lane[Borrower], client: Borrower, settings: Settings, home: ServerSession | None
    ) -> bool:
        """Have a client wait behind others; False where that is not all that there is to be done."""
        if self._timer is None or not self.pools.stand_in_line(lane, client, self.now(), settings, home):
            return False
        if self.elsewhere is not None:
            self.elsewhere.changed(self)
        return True

    def link(self, client: Borrower, server: ServerConnection) -> None:
        """Link a client that has waited to a server that another has handed on; otherwise as in `do`."""
        if self._busy:
            self._todo.append(Link(client, server.record))
            return
        self._busy = True
        try:
            client.linked(server)
        finally:
            self._busy = False
        if self._todo:
            self.do(())
        elif self.elsewhere is not None:
            self.elsewhere.changed(self)

    def opened(self, server: ServerConnection) -> None:
        """Enter that a server has logged in, and what it says about the host."""
        if self.elsewhere is not None:
            self.elsewhere.server_opened(self, server.pid, server.secret)
            server.closed.addCallback(self._ended, server.pid)
        if not server.replication:
            # A walsender is not asked.
            self.learn(server.capacity)
        self.do(self.pools.opened(server.record, self.now()))

    def _ended(self, _closed: None, pid: int) -> None:
        if self.elsewhere is not None:
            self.elsewhere.server_ended(self, pid)

    def make_way(self, databases: Iterable[bytes]) -> None:
        """Have the idle servers of all pools leave these databases."""
        leave = {*databases, b"template1"}
        for lender in self.lenders:
            if lender.place.database.encode() in leave:
                lender.retire(CloseReason.IN_THE_WAY)
        # What was not there may be there in a moment.
        for pool in self._lenders:
            self.pools.forgive(pool)

    def defaults_changed(self) -> None:
        """Have all pools open new servers from now on."""
        for lender in self.lenders:
            lender.retire(CloseReason.DEFAULTS_CHANGED)

    def _watch(self) -> None:
        if self._timer is not None and not self.pools.hurry:
            return
        now = self.now()
        deadline = self.pools.deadline(now)
        if deadline is None:
            return
        if self._timer is not None:
            if self._timer.getTime() <= deadline:
                return
            self._timer.cancel()
        self._timer = self._reactor.callLater(max(0.0, deadline - now), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.do(self.pools.tick(self.now()))

    def end(self) -> None:
        """Be used no more, empty as it is."""
        self.stop()
        if self.elsewhere is not None:
            self.elsewhere.left(self)

    def stop(self) -> None:
        """Let no timer run any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
