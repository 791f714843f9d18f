"""Looks for the hosts of a target: when what was found has expired, and in trouble at once."""

from __future__ import annotations

from collections.abc import Callable
from math import isinf
from typing import Any

from structlog.typing import FilteringBoundLogger
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from pgproxy.watch.discovery import DiscoveryFailed, Found, Source

_AGAIN = 1.0
"""Seconds after a look that has failed; in trouble it is not waited for."""
_LEAST = 0.1
"""Seconds between two looks, whatever has expired."""


class Searching:
    """One target's. `found` gets what each look has found; `failed` is called where one has failed."""

    def __init__(
        self,
        source: Source,
        found: Callable[[Found], None],
        failed: Callable[[], None],
        reactor: Any,
        log: FilteringBoundLogger,
    ) -> None:
        self._source = source
        self._found = found
        self._failed = failed
        self._reactor = reactor
        self._log = log
        self._under_way: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None
        self._running = False
        self._said = ""
        """What was said last about a failure."""

    def start(self) -> None:
        """Begin."""
        self._running = True
        self._look(fresh=False)

    def stop(self) -> None:
        """Look no more."""
        self._running = False
        self._cancel_timer()
        self._source.stop()

    def hurry(self) -> None:
        """Look at once, whatever was found before."""
        if self._running and self._under_way is None:
            self._look(fresh=True)

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _look(self, fresh: bool) -> None:
        self._cancel_timer()
        looking = Deferred.fromCoroutine(self._source.look(fresh))
        under_way = looking.addCallbacks(self._take, self._complain)
        self._under_way = under_way
        under_way.addErrback(self._defect)
        under_way.addCallback(lambda _: self._ended(under_way))

    def _ended(self, which: Deferred[None]) -> None:
        if self._under_way is which:
            self._under_way = None

    def _next_in(self, seconds: float) -> None:
        if self._running and not isinf(seconds):
            self._cancel_timer()
            self._timer = self._reactor.callLater(max(seconds, _LEAST), self._look, False)

    def _take(self, found: Found) -> None:
        self._said = ""
        self._next_in(found.expires)
        if self._running:
            self._found(found)

    def _complain(self, failure: Failure) -> None:
        if not self._running or failure.check(CancelledError):
            return
        error = failure.value
        if not isinstance(error, DiscoveryFailed):
            failure.raiseException()
        self._next_in(_AGAIN)
        if str(error) != self._said:
            self._said = str(error)
            self._log.warning(
                "discovery_failed", source=str(self._source), why=error.what, remedy=error.remedy
            )
        self._failed()

    def _defect(self, failure: Failure) -> None:
        self._log.error("defect", failure=failure.getTraceback())
        self._next_in(_AGAIN)
