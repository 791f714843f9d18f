"""
Has something fetched anew when somebody asks for it, and not too often.

The law:

1. Whoever asks gets the outcome of a fetch that began after they had asked: one that is under way may have
   looked before the change that they know of.
2. One is under way at a time, and `gap` seconds lie between the beginnings of two, whoever asks: those who
   ask in between share the next.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.python.failure import Failure


class Stopped(Exception):
    """It is not fetched any more."""


class Renewal:
    """One thing. `fetch` says by an exception that it was in vain; `clock` is an IReactorTime."""

    def __init__(self, fetch: Callable[[], Awaitable[None]], clock: Any, gap: float) -> None:
        self._fetch = fetch
        self._clock = clock
        self._gap = gap
        self._waiting: list[Deferred[None]] = []
        self._running = False
        self._begun: float | None = None
        self._timer: Any = None

    def soon(self, seconds: float) -> Deferred[None]:
        """
        Fire when it was fetched; fail as the fetch does, or with `Stopped`.

        Fails with `twisted.internet.defer.TimeoutError` after so many seconds.
        """
        answer: Deferred[None] = Deferred()
        self._waiting.append(answer)
        self._schedule()
        return answer.addTimeout(seconds, self._clock)

    def stop(self) -> None:
        """Begin no more; who waits for the next one is told so."""
        waiting, self._waiting = self._waiting, []
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for one in waiting:
            if not one.called:
                one.errback(Failure(Stopped()))

    def _schedule(self) -> None:
        if self._running or self._timer is not None:
            return
        wait = 0.0
        if self._begun is not None:
            wait = max(0.0, self._begun + self._gap - self._clock.seconds())
        self._timer = self._clock.callLater(wait, self._begin)

    def _begin(self) -> None:
        self._timer = None
        answers, self._waiting = self._waiting, []
        self._running = True
        self._begun = self._clock.seconds()
        ensureDeferred(self._fetch()).addBoth(self._ended, answers)  # type: ignore[arg-type]

    def _ended(self, result: Failure | None, answers: list[Deferred[None]]) -> None:
        self._running = False
        for answer in answers:
            if not answer.called:
                answer.callback(result)
        if self._waiting:
            self._schedule()
