"""
One browser that looks: server-sent events, bounded.

The law: nothing is written to one that does not read, so what is kept for it is what was written last. It is
ended when it has not read for `PATIENCE` seconds, and when it has lasted for `LIFE`: the browser comes again,
and shows anew that it may.

Documentation: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

PATIENCE = 15.0
"""Seconds."""
LIFE = 900.0
"""Seconds."""
_AGAIN = 2000
"""Milliseconds after which a browser comes again."""


@implementer(IPushProducer)
class Stream:
    """The answer to one request, which goes on. It begins at `now`, seconds by the reactor's clock."""

    def __init__(self, request: Any, now: float) -> None:
        self._request = request
        self._until = now + LIFE
        self._stopped_at: float | None = None
        self._reads = True
        self.behind = True
        """Whether it has missed something, as it has at the beginning."""
        request.setHeader(b"Content-Type", b"text/event-stream; charset=utf-8")
        request.write(b"retry: %d\n\n" % _AGAIN)
        request.registerProducer(self, True)

    def ready(self, now: float) -> bool:
        """Say whether something may be sent; it has missed that otherwise, and is ended when it is time."""
        if self._reads:
            if now >= self._until:
                self.end()
                return False
            self._stopped_at = None
            return True
        self.behind = True
        if self._stopped_at is None:
            self._stopped_at = now
        elif now - self._stopped_at >= PATIENCE:
            # Not in order: it would have to read what is there first.
            self._request.channel.transport.abortConnection()
        return False

    def send(self, events: bytes) -> None:
        """Send events, if it is ready."""
        self._request.write(events)

    def end(self) -> None:
        """End it, in order."""
        self._request.unregisterProducer()
        self._request.finish()

    # As a producer.

    def pauseProducing(self) -> None:
        """Take the word that what was sent has not been read."""
        self._reads = False

    def resumeProducing(self) -> None:
        """Take the word that it has."""
        self._reads = True

    def stopProducing(self) -> None:
        """Take the word that nobody is there any more; the request says so, too."""
        self._reads = False


def event(name: str, data: str) -> bytes:
    """Write an event, of text without line ends."""
    return f"event: {name}\ndata: {data}\n\n".encode()
