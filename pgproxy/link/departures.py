"""Ends the connections of clients that have said Terminate, behind the work of those who stay."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgproxy.link.client import ClientConnection

_SHARE = 32
"""Of so many that wait for their end, one gets it in a turn of the reactor, beside the first."""


class Departures:
    """
    The clients that have taken their leave, until their connections have ended.

    To end one costs more than a query, and nobody waits for it. Where many go at once, as when an application
    is stopped, the queries of those who stay would wait for all of them.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._waiting: deque[ClientConnection] = deque()
        self._not_gone: set[ClientConnection] = set()

    def __len__(self) -> int:
        """Say how many there are."""
        return len(self._not_gone)

    def add(self, client: ClientConnection) -> None:
        """Have a client end soon; until then nothing is read from it."""
        stream = client.transport
        if stream.fileno() < 0 or not stream.plain or stream.unsent:
            # It has gone already, or how long its end takes is up to the client: it counts until then.
            client.depart()
            return
        stream.pauseProducing()
        self._not_gone.add(client)
        self._waiting.append(client)
        if len(self._waiting) == 1:
            self._reactor.callLater(0, self._end_some)

    def gone(self, client: ClientConnection) -> None:
        """Take the word that a connection has ended, whoever's it was."""
        self._not_gone.discard(client)

    def end_all(self) -> None:
        """Let nobody wait for his end any more."""
        while self._waiting:
            self._waiting.popleft().depart()

    def _end_some(self) -> None:
        there = len(self._waiting)
        some = [self._waiting.popleft() for _ in range(min(1 + there // _SHARE, there))]
        # First: whatever happens to one, the others have their turn.
        if self._waiting:
            self._reactor.callLater(0, self._end_some)
        for client in some:
            client.depart()
