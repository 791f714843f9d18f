"""
When a worker reports what it has of a target: at once what somebody waits for, else now and then.

The law:

1. While somebody waits here, or the supervisor says that somebody waits elsewhere, what changes is reported
   when this turn of the reactor is over, `BETWEEN` seconds behind the last report at the earliest.
2. Else nobody needs it: what changes is reported `WHILE_CALM` seconds behind the last report. So a report is
   that old at most, and newer as soon as somebody waits anywhere: who is told so reports at once.
3. While the supervisor says that somebody waits a report follows the other, also where nothing has happened
   here: what has become idle is known by not having been used since the last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

BETWEEN = 0.01
WHILE_CALM = 0.25
"""Seconds."""


class Rhythm:
    """
    The reports on one target: `report` sends one.

    `pressed` says whether somebody waits as the supervisor has said, `waits` whether somebody waits here.
    """

    def __init__(
        self,
        reactor: Any,
        report: Callable[[], None],
        pressed: Callable[[], bool],
        waits: Callable[[], bool],
    ) -> None:
        self._reactor = reactor
        self._report = report
        self._pressed = pressed
        self._waits = waits
        self._last = -WHILE_CALM
        """When the last report was sent, by the reactor's clock."""
        self._next: Any = None

    def changed(self) -> None:
        """Take the word that something may have happened."""
        pause = BETWEEN if self._pressed() or self._waits() else WHILE_CALM
        now = self._reactor.seconds()
        due = max(now, self._last + pause)
        if self._next is not None:
            if due >= self._next.getTime():
                return
            # Another one: what is put forward in time the reactor may find a moment later.
            self._next.cancel()
        self._next = self._reactor.callLater(due - now, self._send)

    def end(self) -> None:
        """Send the last report, now: what comes behind it is another's."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._report()

    def _send(self) -> None:
        self._next = None
        self._last = self._reactor.seconds()
        self._report()
        if self._pressed():
            self.changed()
