"""The company of a worker's console: all workers, by way of the supervisor, who is the head."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pgproxy.config import Config
from pgproxy.console.company import Reply, Request
from pgproxy.workers.seat import Seat


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
        replies: list[Reply] = json.loads(await self._seat.ask_everybody(json.dumps(request)))
        return replies

    async def head(self, request: Request) -> Reply:
        """Have the supervisor answer."""
        reply: dict[str, Any] = json.loads(await self._seat.ask_head(json.dumps(request)))
        return reply
