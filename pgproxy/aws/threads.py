"""Runs what blocks on AWS, in threads of their own: a slow AWS takes none from anything else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from pgproxy.aws.client import AwsError
from pgproxy.link.threads import DaemonPool

Result = TypeVar("Result")

AT_ONCE = 8
MOST_WAITING = 500
"""Calls that wait for a thread; whoever comes then is refused, rather than kept waiting without end."""


class TooMany(AwsError):
    """There are too many calls under way already."""


class AwsThreads:
    """The threads. A call's own time limits (`client`) end it."""

    def __init__(self, reactor: Any, name: str) -> None:
        self._reactor = reactor
        self._pool = DaemonPool(0, AT_ONCE, name)
        self._calls = 0

    def start(self) -> None:
        """Be ready; threads are started when there is work."""
        self._pool.start()

    def stop(self) -> None:
        """Begin nothing more; nobody waits for what hangs."""
        threading.Thread(target=self._pool.stop, daemon=True).start()

    def call(self, function: Callable[..., Result], *args: Any) -> Deferred[Result]:
        """Run a function that blocks. Fails with `TooMany`, or what it raises."""
        if self._calls >= AT_ONCE + MOST_WAITING:
            refused: Deferred[Result] = Deferred()
            refused.errback(Failure(TooMany("Busy", "too many calls to AWS wait already", passing=True)))
            return refused
        self._calls += 1
        return deferToThreadPool(self._reactor, self._pool, function, *args).addBoth(self._ended)

    def _ended(self, result: Any) -> Any:
        self._calls -= 1
        return result
