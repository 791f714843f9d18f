"""
The reactor: Twisted's epoll reactor, in which a `Stream` that can be read is read.

Twisted wraps each event in a log context with the descriptor's name, and asks for its number once more. Our
log knows its context itself: nobody misses that. Other descriptors, and other events, go Twisted's way.
A `Stream` works under any reactor.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

from twisted.internet.epollreactor import EPOLLIN, EPollReactor
from twisted.internet.main import installReactor
from twisted.python import log
from twisted.python.failure import Failure

from pgproxy.link.listener import StreamPort
from pgproxy.link.transport import Stream
from pgproxy.twin import quicken

_OURS = (Stream, StreamPort)
_LONGEST_TURN = 0.01
"""Seconds that go by, at most, before what was put forward in time meanwhile is looked for."""


@quicken
class DirectReactor(EPollReactor):
    """Twisted's epoll reactor with a shorter way to our transports, and a clock that nobody sets."""

    seconds = staticmethod(monotonic)
    """
    The time, in seconds since some moment: `time.monotonic`, not what a host's clock shows.

    By that, nothing would be due for an hour when it is set back by one: no timeout, no report of a worker's.
    """

    def doPoll(self, timeout: float | None) -> None:
        """
        Wait for events, `timeout` seconds at most, and deal with them.

        As long as nothing but our streams has something to read, and nothing was scheduled, there is nothing
        else to be done in a turn of the reactor: then it waits again.
        """
        selectables = self._selectables
        poll = self._poller.poll
        began = monotonic()
        longest = _LONGEST_TURN if timeout is None else min(timeout, _LONGEST_TURN)
        left = -1 if timeout is None else timeout
        while True:
            events = poll(left, len(selectables))
            alone = True
            for number, event in events:
                selectable: Any = selectables.get(number)
                if event == EPOLLIN and type(selectable) in _OURS:
                    read = selectable.doRead
                    try:
                        why = read()
                    except BaseException as error:
                        self._broke(selectable, error)
                    else:
                        if why is not None:
                            self._disconnectSelectable(selectable, why, True)
                else:
                    alone = False
                    if selectable is not None:
                        self._dispatch(selectable, number, event)
            if not (alone and events) or self._newTimedCalls or self._justStopped:
                return
            left = longest - (monotonic() - began)
            if left <= 0:
                return

    def doIteration(self, timeout: float | None) -> None:
        """Do the same under its other name."""
        self.doPoll(timeout)

    def _broke(self, stream: Any, error: BaseException) -> None:
        """Close a connection that we have made a mistake with."""
        log.err(Failure(error))
        self._disconnectSelectable(stream, error, True)

    def _dispatch(self, selectable: Any, number: int, event: int) -> None:
        """Go Twisted's way."""
        log.callWithLogger(selectable, self._doReadOrWrite, selectable, number, event)


def install() -> None:
    """Make it the reactor of this process. Raises `ReactorAlreadyInstalledError`."""
    installReactor(DirectReactor())
