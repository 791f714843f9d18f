"""
A worker's place, as the supervisor sees it: the process that has it now, and when the next is started.

The law: a process that ends is followed by another at once; by ever later ones, up to `_LATEST` seconds,
while they end before they have served for `_STEADY` seconds.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import Any, Protocol

from structlog.typing import FilteringBoundLogger
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.protocols.amp import AMP, Command
from twisted.python.failure import Failure

from pgproxy.workers.__main__ import CHARGE, LINE, SOCKETS

_STEADY = 10.0
_SOON, _LATEST = 0.2, 5.0
_UNTIL_KILLED = 5.0
"""Seconds for a worker to end whose line has broken."""


class Superior(Protocol):
    """Who is told what becomes of the workers."""

    def line(self, post: Post) -> AMP:
        """Make our end of the line to a new process."""

    def worker_ended(self, post: Post, life: int) -> None:
        """Take the word that a process has ended."""


class _Process(ProcessProtocol):
    def __init__(self, post: Post) -> None:
        self._post = post

    def processEnded(self, reason: Failure) -> None:
        self._post.ended(reason.value)


class _Lines(Factory):
    noisy = False

    def __init__(self, line: AMP) -> None:
        self._line = line

    def buildProtocol(self, addr: Any) -> AMP:
        return self._line


class Post:
    """One place. `sockets` are what all workers listen on; `charge` is the descriptor of their `Charge`."""

    lives = 0
    """How many processes there have been, in all places."""

    def __init__(
        self,
        number: int,
        superior: Superior,
        sockets: list[list[socket.socket]],
        charge: int,
        reactor: Any,
        log: FilteringBoundLogger,
    ) -> None:
        self.number = number
        self.life = 0
        """The number of the process that is here, or was last."""
        self.ready = False
        """Whether it serves."""
        self.since = 0.0
        """When the process was started, by the reactor's clock."""
        self._superior = superior
        self._sockets = sockets
        self._charge = charge
        self._reactor = reactor
        self._log = log.bind(worker=number)
        self._process: Any = None
        self._line: AMP | None = None
        self._ready_at: float | None = None
        self._delay = 0.0
        self._next: Any = None
        self._over = False
        self.gone: Deferred[None] = Deferred()
        """Fires when no process is here any more, nor comes."""

    # What the supervisor does.

    def start(self) -> None:
        """Start a process."""
        self._next = None
        Post.lives += 1
        self.life = Post.lives
        self.since = self._reactor.seconds()
        ours, theirs = socket.socketpair()
        flat = [one.fileno() for own in self._sockets for one in own]
        descriptors = {0: 0, 1: 1, 2: 2, LINE: theirs.fileno(), CHARGE: self._charge}
        descriptors |= {SOCKETS + place: one for place, one in enumerate(flat)}
        addresses = len(self._sockets[0])
        command = [sys.executable, "-m", "pgproxy.workers", str(self.number), str(addresses)]
        self._ready_at = None
        self._line = self._superior.line(self)
        try:
            self._process = self._reactor.spawnProcess(
                _Process(self), sys.executable, command, env=dict(os.environ), childFDs=descriptors
            )
        finally:
            theirs.close()
        ours.setblocking(False)
        self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, _Lines(self._line))
        ours.close()

    @property
    def pid(self) -> int | None:
        """The process's id, if there is one."""
        return self._process.pid if self._process is not None else None

    def tell(self, command: type[Command], **arguments: Any) -> None:
        """Tell the process something, if it is there."""
        if self._line is not None and self._line.transport is not None:
            self._line.callRemote(command, **arguments)

    def ask(self, command: type[Command], **arguments: Any) -> Deferred[Any]:
        """Ask the process something. Fails where it has ended."""
        if self._line is None or self._line.transport is None:
            broken: Deferred[Any] = Deferred()
            broken.errback(Failure(ConnectionError("this worker is not there")))
            return broken
        asked: Deferred[Any] = self._line.callRemote(command, **arguments)
        return asked

    def let_end(self) -> None:
        """Start no other process any more."""
        self._over = True
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._process is None:
            self._is_gone()

    def kill(self) -> None:
        """End the process by force."""
        if self._process is not None:
            try:
                self._process.signalProcess(signal.SIGKILL)
            except ProcessExitedAlready:
                pass

    # What becomes of the process.

    def serves(self) -> None:
        """Take its word that it is ready."""
        self.ready = True
        self._ready_at = self._reactor.seconds()

    def line_broken(self, line: AMP) -> None:
        """Take the word that the line to a process has broken: it has ended, or is about to."""
        if line is self._line:
            self._line = None
            self.ready = False
            life = self.life
            self._reactor.callLater(_UNTIL_KILLED, lambda: self.kill() if self.life == life else None)

    def ended(self, how: Any) -> None:
        """Take the word that the process has ended."""
        self._process = None
        self._line = None
        self.ready = False
        if self._over:
            self._log.info("worker_stopped")
            self._is_gone()
        else:
            if self._ready_at is not None and self._reactor.seconds() - self._ready_at >= _STEADY:
                self._delay = 0.0
            self._log.error(
                "worker_died",
                status=how.status if how.signal is None else None,
                signal=how.signal,
                next_in=self._delay,
            )
            self._next = self._reactor.callLater(self._delay, self.start)
            self._delay = min(_LATEST, max(_SOON, 2 * self._delay))
        self._superior.worker_ended(self, self.life)

    def _is_gone(self) -> None:
        if not self.gone.called:
            self.gone.callback(None)
