"""
The reactor: Twisted's epoll reactor, in which a `Stream` that can be read is read.

Twisted wraps each event in a log context with the descriptor's name, and asks for its number once more. Our
log knows its context itself: nobody misses that. Other descriptors, and other events, go Twisted's way.
A `Stream` works under any reactor.
"""

from __future__ import annotations

import sys

from twisted.internet.epollreactor import EPOLLIN, EPollReactor
from twisted.internet.main import installReactor
from twisted.python import log

from pgproxy.link.transport import Stream


class DirectReactor(EPollReactor):
    """Twisted's epoll reactor with a shorter way to our transports."""

    def doPoll(self, timeout: float | None) -> None:
        """Wait for events, `timeout` seconds at most, and deal with them."""
        selectables = self._selectables
        for number, event in self._poller.poll(-1 if timeout is None else timeout, len(selectables)):
            selectable = selectables.get(number)
            if event == EPOLLIN and type(selectable) is Stream:
                self._read(selectable)
            elif selectable is not None:
                log.callWithLogger(selectable, self._doReadOrWrite, selectable, number, event)

    doIteration = doPoll

    def _read(self, stream: Stream) -> None:
        try:
            why = stream.doRead()
        except BaseException:
            why = sys.exc_info()[1]
            log.err()
        if why is not None:
            self._disconnectSelectable(stream, why, True)


def install() -> None:
    """Make it the reactor of this process. Raises `ReactorAlreadyInstalledError`."""
    installReactor(DirectReactor())
