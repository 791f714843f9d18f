"""
When a source is asked: one look at a time, not too often, within its time.

The law:

1. What was found is given again until it expires, but not to who wants it `fresh`: that gets a look which
   began after it asked. Who doesn't may share the one that is under way.
2. Between the beginnings of two looks there are `pause` seconds, whoever asks.
3. A look ends within `timeout`. One that failed leaves nothing behind: the next is a new one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from pgproxy.watch.discovery.found import DiscoveryFailed, Found, quoted

LEAST_PAUSE = 0.1
"""Seconds."""


class Paced:
    """A source that asks with `ask`, which is cancelled after `timeout` seconds; `where` is what it asks."""

    def __init__(
        self,
        clock: Any,
        ask: Callable[[], Awaitable[Found]],
        where: str,
        timeout: float,
        pause: float = LEAST_PAUSE,
    ) -> None:
        self._clock = clock
        self._ask = ask
        self._where = where
        self._timeout = timeout
        self._least_pause = pause
        self._kept: Found | None = None
        self._kept_at = 0.0
        self._begun_at: float | None = None
        self._running: Deferred[Found] | None = None
        self._sharing: list[Deferred[Found]] = []
        self._waiting: list[Deferred[Found]] = []
        self._pause: Any = None

    def __str__(self) -> str:
        return self._where

    async def look(self, fresh: bool = False) -> Found:
        """Find the hosts. Raises `DiscoveryFailed`, or CancelledError once it was stopped."""
        if not fresh and (still := self._still()) is not None:
            return still
        line = self._waiting if fresh or self._running is None else self._sharing
        result: Deferred[Found] = Deferred(partial(self._leave, line))
        line.append(result)
        self._begin()
        return await result

    def stop(self) -> None:
        """End the look under way, and all who wait for one."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        waiting, self._waiting = self._waiting, []
        if self._running is not None:
            self._running.cancel()
        _tell(waiting, Failure(CancelledError()))

    def _still(self) -> Found | None:
        if self._kept is None:
            return None
        left = self._kept_at + self._kept.expires - self._clock.seconds()
        return evolve(self._kept, expires=left) if left > 0 else None

    def _leave(self, line: list[Deferred[Found]], result: Deferred[Found]) -> None:
        if result in line:
            line.remove(result)

    def _begin(self) -> None:
        if self._running is not None or self._pause is not None or not self._waiting:
            return
        now = self._clock.seconds()
        wait = 0.0 if self._begun_at is None else self._begun_at + self._least_pause - now
        if wait > 0:
            self._pause = self._clock.callLater(wait, self._paused)
            return
        self._begun_at = now
        self._sharing, self._waiting = self._waiting, []
        self._running = Deferred.fromCoroutine(self._within_its_time())
        self._running.addBoth(self._ended)

    def _paused(self) -> None:
        self._pause = None
        self._begin()

    async def _within_its_time(self) -> Found:
        asked: Deferred[Found] = Deferred.fromCoroutine(_awaited(self._ask))
        asked.addTimeout(self._timeout, self._clock, self._too_long)
        try:
            return await asked
        except (DiscoveryFailed, CancelledError):
            raise
        except Exception as error:
            what = f"asking {self._where} failed: {type(error).__name__}: {quoted(str(error))}"
            raise DiscoveryFailed(what, "this is not foreseen: please report it") from error

    def _too_long(self, result: Found | Failure, seconds: float) -> Found | Failure:
        if isinstance(result, Failure) and result.check(DiscoveryFailed):
            return result  # It knows better what it has waited for.
        raise DiscoveryFailed(
            f"{self._where} did not answer within {seconds:g} s", "look whether it is up and can be reached"
        )

    def _ended(self, result: Found | Failure) -> None:
        self._running = None
        if isinstance(result, Found):
            self._kept, self._kept_at = result, self._clock.seconds()
        told, self._sharing = self._sharing, []
        _tell(told, result)
        self._begin()


async def _awaited(ask: Callable[[], Awaitable[Found]]) -> Found:
    return await ask()


def _tell(waiting: list[Deferred[Found]], result: Found | Failure) -> None:
    for one in waiting:
        if not one.called:
            one.callback(result)
