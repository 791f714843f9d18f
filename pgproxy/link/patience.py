"""One timer for all who may take so long: whoever begins is entered, and taken out when done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall

One = TypeVar("One")


class Patience(Generic[One]):
    """
    Who has until when; `late` is called with each that is not done by then, and is out from then on.

    Most are done long before: so a timer of its own for each would be made and thrown away. The one there is
    runs for the first of those who were there when it was set, and may find that nobody is late.
    """

    def __init__(self, reactor: Any, late: Callable[[One, float], None]) -> None:
        """`late` is also told how many seconds there were."""
        self._reactor = reactor
        self._late = late
        self._ends: dict[One, tuple[float, float]] = {}
        """When each has to be done, by the reactor's clock, and how many seconds it had."""
        self._timer: IDelayedCall | None = None

    def __len__(self) -> int:
        """Say how many are under way."""
        return len(self._ends)

    def begin(self, one: One, seconds: float) -> None:
        """Enter one that has so many seconds."""
        end = self._reactor.seconds() + seconds
        self._ends[one] = end, seconds
        timer = self._timer
        if timer is None:
            self._timer = self._reactor.callLater(seconds, self._look)
        elif timer.getTime() > end:
            # It has less than those before: the configuration is another.
            timer.reset(seconds)

    def done(self, one: One) -> None:
        """Take one out, if it is in."""
        self._ends.pop(one, None)

    def _look(self) -> None:
        self._timer = None
        now = self._reactor.seconds()
        late = [(one, seconds) for one, (end, seconds) in self._ends.items() if end <= now]
        for one, _seconds in late:
            del self._ends[one]
        if self._ends:
            first = min(end for end, _seconds in self._ends.values())
            self._timer = self._reactor.callLater(max(0.0, first - now), self._look)
        for one, seconds in late:
            self._late(one, seconds)
