"""
Whose turn it is, where several pools, or several lanes of one, want what only one can have.

Within a limit that holds for several, each gets about the same: what counts is how long the first in its
queue has waited, divided by the number of servers it has. A queue that gets nothing has ever more of that,
so nobody starves. A server changes hands at a price (one connection is closed, another one opened), so who
has it keeps it until another's claim is `STAY` times as good. Whoever has less than a minimum goes before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from pgproxy.pool.lane import Lane
from pgproxy.pool.pool import Pool

Client = TypeVar("Client")

STAY = 2.0


class Claims(Generic[Client]):
    """The claims at one moment; `owed` says whether a minimum is not reached that a lane counts for."""

    def __init__(self, now: float, owed: Callable[[Lane[Client]], bool]) -> None:
        self._now = now
        self._owed = owed
        self._waited: dict[Pool[Any], float] = {}

    def before(self, lane: Lane[Client], others: Iterable[Lane[Client]]) -> list[Lane[Client]]:
        """Give those of `others` that go before the waiters of `lane` for its server, best claim first."""
        if lane.waiters:
            owed = self._owed(lane)
            of_lane, of_pool = STAY * self._of_lane(lane, 0), STAY * self._of_pool(lane, 0)
            others = [
                other
                for other in others
                if (
                    self._owed(other)
                    if self._owed(other) != owed
                    else self._of_lane(other, 1) > of_lane
                    if other.pool is lane.pool
                    else self._of_pool(other, 1) > of_pool
                )
            ]
        return self.in_order(others)

    def in_order(self, lanes: Iterable[Lane[Client]]) -> list[Lane[Client]]:
        """Give those who wait, the first claim first."""
        return sorted(lanes, key=self._claim, reverse=True)

    def _claim(self, lane: Lane[Client]) -> tuple[bool, float, float]:
        return self._owed(lane), self._of_pool(lane, 1), self._of_lane(lane, 1)

    def _of_pool(self, lane: Lane[Client], more: int) -> float:
        pool = lane.pool
        waited = self._waited.get(pool)
        if waited is None:
            waited = self._waited[pool] = pool.waited(self._now)
        return waited / max(1, pool.account.share + more)

    def _of_lane(self, lane: Lane[Client], more: int) -> float:
        return lane.waited(self._now) / max(1, lane.own.share + more)
