"""
What the charts show: points of the last ten minutes, one for each second in which somebody has looked, and of
some of the others, made of figures as they come.

The law:

1. At most `KEPT` points are kept, none older than `SPAN` seconds.
2. Of a clock that was set back what came before it is forgotten: points are in the order of their times.
3. What is counted since the beginning becomes what it was in a second; a count that went back (a worker has
   ended) is taken for none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from pgproxy.figures.histogram import counts_of, quantile
from pgproxy.workers.figures import total

Point = tuple[float | int | None, ...]

SPAN = 600.0
"""Seconds."""
KEPT = 600
WINDOW = 10.0
"""Seconds of which the percentiles of the wait are; where points are further apart, since the one before."""

NAMES = (
    *("at", "clients", "waiting", "servers_used", "servers_idle", "servers_other", "pinned"),
    *("transactions", "queries", "wait_50", "wait_95", "wait_99", "cpu"),
)
"""What a point has, in order: `at` is a time of day, the rest is of now, a second, or (waits) seconds."""
_SHARES = (0.5, 0.95, 0.99)


@frozen
class _Counted:
    """What only grows, at one time."""

    at: float
    transactions: int
    queries: int
    cpu: float
    waits: tuple[int, ...]


class History:
    """The points."""

    def __init__(self) -> None:
        self._points: deque[Point] = deque(maxlen=KEPT)
        self._counted: deque[_Counted] = deque(maxlen=KEPT)

    def add(self, now: float, figures: Mapping[str, Any]) -> None:
        """Enter the figures (observe/figures.py) of all processes at `now`, seconds since 1970."""
        now = round(now, 3)
        if self._points and now <= float(self._points[-1][0] or 0.0):
            self._points.clear()
            self._counted.clear()
        counted = _counted(now, figures)
        rates, waits = self._since(counted)
        self._points.append((*_of_now(now, figures), *rates[:2], *waits, rates[2]))
        self._counted.append(counted)
        while float(self._points[0][0] or 0.0) < now - SPAN:
            self._points.popleft()
        while self._counted[0].at < now - 2 * WINDOW:
            self._counted.popleft()

    def _since(self, now: _Counted) -> tuple[tuple[float | None, ...], tuple[float | None, ...]]:
        """Give what was done in a second since the last point, and how long clients have waited lately."""
        if not self._counted:
            return (None, None, None), (None,) * len(_SHARES)
        last = self._counted[-1]
        seconds = now.at - last.at
        rates = tuple(
            round(max(0.0, (after - before) / seconds), 3)
            for before, after in (
                (last.transactions, now.transactions),
                (last.queries, now.queries),
                (last.cpu, now.cpu),
            )
        )
        first = next((one for one in self._counted if one.at >= now.at - WINDOW), last)
        counts = [max(0, after - before) for before, after in zip(first.waits, now.waits, strict=True)]
        quantiles = (quantile(counts, share) for share in _SHARES)
        return rates, tuple(None if one is None else round(one, 6) for one in quantiles)

    @property
    def last(self) -> Point | None:
        """The newest point, if there is one."""
        return self._points[-1] if self._points else None

    def columns(self) -> list[list[float | int | None]]:
        """Give all points, a list for each of `NAMES`, the oldest first."""
        if not self._points:
            return [[] for _name in NAMES]
        return [list(column) for column in zip(*self._points, strict=True)]


def _counted(now: float, figures: Mapping[str, Any]) -> _Counted:
    databases = total(figures.get("databases", {}).values())
    return _Counted(
        now,
        int(databases.get("transactions", 0)),
        int(databases.get("queries", 0)),
        float(figures.get("cpu", 0.0)),
        counts_of(databases.get("wait", {})),
    )


def _of_now(now: float, figures: Mapping[str, Any]) -> Point:
    servers = figures.get("servers", {})
    used, idle = int(servers.get("linked", 0)), int(servers.get("idle", 0))
    return (
        now,
        int(figures.get("clients", 0)),
        int(figures.get("waiting", 0)),
        used,
        idle,
        sum(map(int, servers.values())) - used - idle,
        int(figures.get("pinned_clients", 0)),
    )
