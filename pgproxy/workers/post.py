"""
A worker's place, as the supervisor sees it: the process that has it now, and when the next is started.

The law: a process that ends is followed by another at once; by ever later ones, up to `_LATEST` seconds,
while they end before they have served for `_STEADY` seconds. One that gives no answer for `_SILENT` looks in
a row, `LOOK` seconds apart, is ended.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, Protocol

from structlog.typing import FilteringBoundLogger
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.protocols.amp import AMP, Command
from twisted.python.failure import Failure

from pgproxy.workers import messages
from pgproxy.workers.__main__ import CHARGE, LINE, NEXT, SOCKETS

_STEADY = 10.0
_SOON, _LATEST = 0.2, 5.0
_UNTIL_KILLED = 5.0
"""Seconds for a worker to end whose line has broken."""
LOOK = 2.0
_SILENT = 15
"""Looks are counted, not seconds: those in which the supervisor stood still, too, say nothing of a worker."""


class Superior(Protocol):
    """Who is told what becomes of the workers."""

    def line(self, post: Post) -> AMP:
        """Make our end of the line to a new process."""

    def worker_ended(self, post: Post, life: int, in_order: bool) -> None:
        """Take the word that a process has ended, and all that it has told was heard."""


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
    """
    One place. `sockets` are what all workers listen on.

    `charges` gives the descriptors of the `Charge` in force and of the next.
    """

    lives = 0
    """How many processes there have been, in all places."""

    def __init__(
        self,
        number: int,
        superior: Superior,
        sockets: list[list[socket.socket]],
        writing: int,
        charges: Callable[[], tuple[int, int]],
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
        self.charge = 0
        """The number of the charge that it goes by."""
        self._superior = superior
        self._sockets = sockets
        self._writing = writing
        self._charges = charges
        self._reactor = reactor
        self._log = log.bind(worker=number)
        self._process: Any = None
        self._line: AMP | None = None
        self._how: Any = None
        """How the process has ended, while the last that it has said is still to be read."""
        self._silent = 0
        """Looks since it has last answered."""
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
        self._ready_at = None
        self._silent = 0
        try:
            self._spawn()
        except OSError as error:
            # No process, no memory, no descriptor is left. That may pass.
            self._line = None
            self._log.error("worker_not_started", why=str(error), next_in=self._again())

    def _spawn(self) -> None:
        flat = [one.fileno() for own in self._sockets for one in own]
        numbers = map(str, (self.number, len(self._sockets[0]), self._writing))
        command = [sys.executable, "-m", "pgproxy.workers", *numbers]
        ours, theirs = socket.socketpair()
        with ours, theirs:
            in_force, following = self._charges()
            descriptors = {0: 0, 1: 1, 2: 2, LINE: theirs.fileno(), CHARGE: in_force, NEXT: following}
            descriptors |= {SOCKETS + place: one for place, one in enumerate(flat)}
            ours.setblocking(False)
            self._line = self._superior.line(self)
            self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, _Lines(self._line))
            self._process = self._reactor.spawnProcess(
                _Process(self), sys.executable, command, env=dict(os.environ), childFDs=descriptors
            )

    def _again(self) -> float:
        """Have another started, and say in how many seconds."""
        delay = self._delay
        self._next = self._reactor.callLater(delay, self.start)
        self._delay = min(_LATEST, max(_SOON, 2 * delay))
        return delay

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
        if self._process is None and self._line is None:
            self._is_gone()

    def kill(self) -> None:
        """End the process by force."""
        self.ready = False
        if self._process is not None:
            try:
                self._process.signalProcess(signal.SIGKILL)
            except ProcessExitedAlready:
                pass

    def look(self) -> None:
        """See whether the process still answers; to be called every `LOOK` seconds."""
        if self._process is None or self._line is None:
            return
        self._silent += 1
        if self._silent > _SILENT:
            self._log.error("worker_silent", seconds=_SILENT * LOOK)
            self.kill()
        elif self._silent == 1:
            self.ask(messages.Alive).addCallbacks(self._answered, lambda _gone: None, (self.life,))

    def _answered(self, _answer: object, life: int) -> None:
        if life == self.life:
            self._silent = 0

    # What becomes of the process.

    def serves(self, charge: int) -> None:
        """Take its word that it is ready."""
        self.ready = True
        self.charge = charge
        self._ready_at = self._reactor.seconds()

    def line_broken(self, line: AMP) -> None:
        """Take the word that the line to a process has broken: it has ended, or is about to."""
        if line is self._line:
            self._line = None
            self.ready = False
            if self._process is None:
                self._over_and_out()
                return
            life = self.life
            self._reactor.callLater(_UNTIL_KILLED, lambda: self.kill() if self.life == life else None)

    def ended(self, how: Any) -> None:
        """Take the word that the process has ended."""
        self._process = None
        self._how = how
        self.ready = False
        # Its last words may be those about a server that it has just opened.
        if self._line is None:
            self._over_and_out()

    def _over_and_out(self) -> None:
        how = self._how
        if self._over:
            self._log.info("worker_stopped")
        else:
            if self._ready_at is not None and self._reactor.seconds() - self._ready_at >= _STEADY:
                self._delay = 0.0
            status = how.status if how.signal is None else None
            self._log.error("worker_died", status=status, signal=how.signal, next_in=self._again())
        self._superior.worker_ended(self, self.life, how.status == 0 and how.signal is None)
        if self._over:
            self._is_gone()

    def _is_gone(self) -> None:
        if not self.gone.called:
            self.gone.callback(None)
