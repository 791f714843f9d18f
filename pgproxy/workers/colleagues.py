"""The company of a worker's console: all workers, by way of the supervisor, who is the head."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionClosed

from pgproxy.config import Config
from pgproxy.console.company import Reply, Request, refuse
from pgproxy.wire.errors import Refusal
from pgproxy.workers.seat import Seat

_NO_SUPERVISOR = Refusal(
    "57P01",
    "the supervisor of this worker is gone, so nobody can be asked",
    "The worker ends, too. Connect again; pgproxy's log says more.",
    severity="ERROR",
)


class Colleagues:
    """A `console.company.Company`; `read` gives the configuration in force."""

    def __init__(self, seat: Seat, read: Callable[[], Config]) -> None:
        self._seat = seat
        self._read = read

    @property
    def config(self) -> Config:
        """The configuration in force, as the operator has written it: ours is only a part of it."""
        return self._read()

    async def everybody(self, request: Request) -> list[Reply]:
        """Have each worker answer."""
        replies: list[Reply] = json.loads(await _answer(self._seat.ask_everybody(json.dumps(request))))
        return replies

    async def head(self, request: Request) -> Reply:
        """Have the supervisor answer."""
        reply: dict[str, Any] = json.loads(await _answer(self._seat.ask_head(json.dumps(request))))
        return reply


async def _answer(asked: Deferred[str]) -> str:
    try:
        return await asked
    except ConnectionClosed:
        raise refuse(_NO_SUPERVISOR) from None
