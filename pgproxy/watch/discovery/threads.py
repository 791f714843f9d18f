"""A call that blocks, in a thread of its own: it can't be held up by others, nor hold them up."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

Result = TypeVar("Result")


def in_thread(reactor: Any, call: Callable[..., Result], *args: Any) -> Deferred[Result]:
    """
    Give what a call gives, or raises. Neither the reactor nor the process waits for its thread to end.

    A Deferred that is cancelled ends the waiting, not the call.
    """
    result: Deferred[Result] = Deferred()

    def tell(value: Any) -> None:
        if not result.called:
            result.callback(value)

    def run() -> None:
        try:
            value: Any = call(*args)
        except Exception:
            value = Failure()
        reactor.callFromThread(tell, value)

    Thread(target=run, name="discovery", daemon=True).start()
    return result
