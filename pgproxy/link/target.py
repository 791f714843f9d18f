"""The pools of one host, which decide together, and who performs for each what they decide."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from structlog.typing import FilteringBoundLogger

from pgproxy.link.splice import Borrower
from pgproxy.pool.pool import Pool
from pgproxy.pool.pools import Pools
from pgproxy.pool.rules import Rules
from pgproxy.pool.todo import Expire, Refuse, Todo
from pgproxy.session.server import ServerSession

if TYPE_CHECKING:
    from pgproxy.link.lender import ServerLender

_A_DEFAULT_POSTGRES = 97
"""Servers: what a PostgreSQL that does not say what it allows is taken to allow."""


class TargetPools:
    """The pools of one host of a target."""

    def __init__(
        self, name: str, rules: Rules, reactor: Any, chance: Callable[[], float], log: FilteringBoundLogger
    ) -> None:
        self.name = name
        self.pools: Pools[Borrower] = Pools(name, rules, chance)
        self._reactor = reactor
        self._log = log.bind(target=name)
        self._lenders: dict[Pool[Borrower], ServerLender] = {}
        self._timer: Any = None

    @property
    def lenders(self) -> list[ServerLender]:
        """Those whose servers are here, or were."""
        return list(dict.fromkeys(self._lenders.values()))

    @property
    def empty(self) -> bool:
        """Whether there is nothing to keep."""
        return not self._lenders

    def now(self) -> float:
        """Give the time, in seconds."""
        return float(self._reactor.seconds())

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
        if capacity != self.pools.capacity:
            self.do(self.pools.learn(capacity, self.now()))
            target = self.pools.target
            self._log.info("budget", servers=target.most, allowed_by_server=capacity)

    def configure(self, rules: Rules) -> None:
        """Take other rules."""
        if rules != self.pools.rules:
            self.do(self.pools.configure(rules, self.now()))

    def look(self) -> None:
        """Look after the servers that nobody uses."""
        self.do(self.pools.look(self.now()))
        self.pools.tidy()

    def do(self, todo: Iterable[Todo[Borrower]]) -> None:
        """Have done what the pools have decided."""
        for item in todo:
            lane = item.lane if isinstance(item, (Refuse, Expire)) else item.server.lane
            self._lenders[lane.pool].perform(item)
        self._watch()

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

    def stop(self) -> None:
        """Let no timer run any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
