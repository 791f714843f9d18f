"""Runs what blocks on AWS, in threads of their own: a slow AWS takes none from anything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from pgproxy.aws.client import AwsError
from pgproxy.link.threads import DaemonPool

Result = TypeVar("Result")

AT_ONCE = 8
MOST_WAITING = 500
"""Calls that wait for a thread; whoever comes then is refused, rather than kept waiting without end."""
LONGEST = 20.0
"""
Seconds that anybody waits for a call. One that takes longer than its own time limits (`client`) say may be
fetching credentials by ways that have none, or be fed byte by byte.
"""


class TooMany(AwsError):
    """There are too many calls under way already."""


class AwsThreads:
    """The threads. `reactor` is an IReactorTime and IReactorFromThreads."""

    def __init__(self, reactor: Any, name: str) -> None:
        self._reactor = reactor
        self._pool = DaemonPool(0, AT_ONCE, name)
        self._calls = 0
        """Of which each has a thread or waits for one, whether anybody still wants its result or not."""

    def start(self) -> None:
        """Be ready; threads are started when there is work."""
        self._pool.start()

    def stop(self) -> None:
        """Begin nothing more; nobody waits for what hangs."""
        self._pool.end()

    def call(self, function: Callable[..., Result], *args: Any) -> Deferred[Result]:
        """
        Run a function that blocks. Fails with `TooMany`, what it raises, or `AwsError` after `LONGEST`.

        Who is not interested any more cancels it; it is not begun then.
        """
        answer: Deferred[Result] = Deferred()
        if self._calls >= AT_ONCE + MOST_WAITING:
            answer.errback(Failure(TooMany("Busy", "too many calls to AWS wait already", passing=True)))
            return answer

        def run() -> Result:
            if answer.called:
                raise CancelledError
            return function(*args)

        self._calls += 1
        self._pool.run(self._reactor, run).addBoth(self._ended, answer)
        return answer.addTimeout(LONGEST, self._reactor, _too_late)

    def _ended(self, result: Any, answer: Deferred[Any]) -> None:
        self._calls -= 1
        if not answer.called:
            answer.callback(result)


def _too_late(_result: object, seconds: float) -> Any:
    raise AwsError("Timeout", f"AWS has not answered within {seconds:g} s", passing=True)
