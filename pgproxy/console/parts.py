"""Long work in parts: between two of them a reactor has other clients have their turn."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

AT_ONCE = 100
"""Rows that are made, or told, in one turn of the reactor."""

Item = TypeVar("Item")


def next_turn(reactor: Any) -> Deferred[None]:
    """Fire in the reactor's next turn."""
    return deferLater(reactor, 0)


async def listed(items: Iterable[Item], reactor: Any) -> list[Item]:
    """List what an iterator makes, so many in a turn. Raises what it does, and CancelledError."""
    found: list[Item] = []
    for item in items:
        found.append(item)
        if not len(found) % AT_ONCE:
            await next_turn(reactor)
    return found
