"""Tests that are given a house of real sockets, which is closed behind them however they end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import pytest_twisted


class House(Protocol):
    """It is made with the reactor."""

    def __init__(self, reactor: Any) -> None: ...

    async def close(self) -> None:
        """Leave nothing open."""


Housed = TypeVar("Housed", bound=House)


def in_house(
    make: Callable[[Any], Housed],
) -> Callable[[Callable[[Housed], Any]], Callable[[], Any]]:
    """Have a test be run with what `make` gives."""

    def housed(test: Callable[[Housed], Any]) -> Callable[[], Any]:
        async def run() -> None:
            from twisted.internet import reactor  # noqa: TID251

            house = make(reactor)
            try:
                await test(house)
            finally:
                await house.close()

        run.__name__ = test.__name__
        ready: Callable[[], Any] = pytest_twisted.ensureDeferred(run)
        return ready

    return housed
