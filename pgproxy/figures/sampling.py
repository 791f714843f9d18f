"""
Which transactions are looked at closely: all while there are few, else a sample.

To take the time of everything would cost more than a proxied query may: two clocks and a text to be read for
each. So one transaction in so many is looked at, and stands for all since the last one of its pool. The law:

1. About `A_SECOND` are looked at in a second, over all pools of a process, however many there are.
2. Below that all are.
3. What is looked at has a weight: how many transactions of the pool have begun since the last look.
"""

from __future__ import annotations

from pgproxy.twin import quicken

A_SECOND = 50
"""Looks in a second, about."""

_UNTIL_FEWER = 10
"""Looks beyond that in a second until half as many are enough."""


class Pace:
    """How seldom to look, for all pools of a process."""

    def __init__(self) -> None:
        self.every = 1
        """One in so many."""
        self._since = 0.0
        self._looks = 0

    def look(self, now: float) -> int:
        """Enter that something is looked at now; say after how many the next is due."""
        self._looks += 1
        elapsed = now - self._since
        if elapsed >= 1.0 or elapsed < 0:
            rate = self._looks * self.every / elapsed if elapsed >= 1.0 else 0.0
            self.every = max(1, round(rate / A_SECOND))
            self._since, self._looks = now, 0
        elif self._looks > A_SECOND:
            # It comes faster than expected: soon only every second of these, and so on.
            self.every *= 2
            self._looks = A_SECOND - _UNTIL_FEWER
        return self.every


@quicken
class Turns:
    """How many have come, and when the next is looked at: those of one pool."""

    __slots__ = ("_last", "_pace", "count", "due")

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self.count = 0
        self.due = 1
        """Look when `count` is there."""
        self._last = 0

    def look(self, now: float) -> int:
        """Look now; give the weight."""
        weight = self.count - self._last
        self._last = self.count
        self.due = self.count + self._pace.look(now)
        return weight
