"""
Whose turn it is, where several pools, or several lanes of one, want what only one can have.

Within a limit that holds for several, each gets about the same: what counts is how long the first in its
queue has waited, divided by the number of servers it has. A queue that gets nothing has ever more of that,
so nobody starves. A server changes hands at a price (one connection is closed, another one opened), so who
has it keeps it until another's claim is `STAY` times as good. Whoever has less than a minimum goes before.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from pgproxy.pool.lane import Lane
from pgproxy.pool.pool import Pool

Client = TypeVar("Client")

STAY = 2.0


class Claims(Generic[Client]):
    """The claims at one moment."""

    def __init__(self, now: float) -> None:
        self._now = now
        self._waited: dict[Pool[Any], float] = {}

    def rival(self, lane: Lane[Client], others: Iterable[Lane[Client]]) -> Lane[Client] | None:
        """Give the one of `others` to whom a server of `lane` that has become free is due, if it is."""
        best = max(others, key=self._claim, default=None)
        if best is None or not lane.waiters:
            return best
        if _owed(best) != _owed(lane):
            return best if _owed(best) else None
        claim = self._of_lane if best.pool is lane.pool else self._of_pool
        return best if claim(best, 1) > STAY * claim(lane, 0) else None

    def in_order(self, lanes: Iterable[Lane[Client]]) -> list[Lane[Client]]:
        """Give those who wait, the first claim first."""
        return sorted(lanes, key=self._claim, reverse=True)

    def _claim(self, lane: Lane[Client]) -> tuple[bool, float, float]:
        return _owed(lane), self._of_pool(lane, 1), self._of_lane(lane, 1)

    def _of_pool(self, lane: Lane[Client], more: int) -> float:
        pool = lane.pool
        waited = self._waited.get(pool)
        if waited is None:
            waited = self._waited[pool] = pool.waited(self._now)
        return waited / max(1, pool.account.share + more)

    def _of_lane(self, lane: Lane[Client], more: int) -> float:
        return lane.waited(self._now) / max(1, lane.own.share + more)


def _owed(lane: Lane[Client]) -> bool:
    return any(account.owing for account in lane.accounts)
