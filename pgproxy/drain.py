"""Has the clients of one process leave in order when it stops, and its servers end what they do."""

from __future__ import annotations

from twisted.internet.task import deferLater

from pgproxy.link.front import Front
from pgproxy.wire.errors import TERMINATED

STEP = 0.05
"""Seconds between two looks at who has come to rest."""


class Drain:
    """The last that is done for the clients of `front`. Who asks again to stop doesn't want to wait."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._in_a_hurry = False

    def hurry(self) -> None:
        """Wait for nobody any more."""
        self._in_a_hurry = True

    @property
    def has_clients(self) -> bool:
        """Whether there is anybody but those at the console: who only looks on keeps no process alive."""
        return any(client.visit is None for client in self._front.clients)

    async def clients(self, seconds: float) -> None:
        """Send clients away as they come to rest, and after so many seconds those who have not."""
        front = self._front
        end = front.reactor.seconds() + seconds
        while True:
            for client in list(front.clients):
                if client.at_rest:
                    client.terminate(TERMINATED)
            busy = [client for client in front.clients if not client.ended]
            if not busy or self._is_over(end):
                break
            await deferLater(front.reactor, STEP)
        for client in list(front.clients):
            client.terminate(TERMINATED)

    async def servers(self, seconds: float) -> None:
        """Wait for what is being cancelled: a connection that is closed ends nothing in PostgreSQL."""
        front = self._front
        end = front.reactor.seconds() + seconds
        while any(lender.releasing for lender in front.targets.lenders):
            if self._is_over(end):
                break
            await deferLater(front.reactor, STEP)

    def _is_over(self, end: float) -> bool:
        return self._in_a_hurry or bool(self._front.reactor.seconds() >= end)
