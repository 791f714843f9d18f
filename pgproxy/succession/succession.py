"""
A process between the one before it and the one after it.

The law:

1. A successor is started as we were, with what we listen on; both accept connections until it says that it
   serves. If it ends before that, or takes longer than `_READY` seconds, nothing has changed.
2. Then the service manager is told that it is the main process, and we accept nobody any more. Our clients
   stay until they go, or for `restart_drain_timeout`.
3. Who tells the service manager anything is the one that accepts connections.
4. Each knows only the one before it, so it stays as long as that one does, and asks on: a cancel request
   finds its way through all that are there.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from attrs import frozen
from structlog.typing import FilteringBoundLogger
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.internet.task import LoopingCall
from twisted.protocols.amp import AMP
from twisted.python.failure import Failure

from pgproxy.succession import messages
from pgproxy.succession.inherited import ESTATE, FIRST, Inherited, bequest
from pgproxy.succession.manager import Manager

_READY = 60.0
"""Seconds for a successor to serve."""
_CANCEL = 5.0
"""Seconds for the predecessor to say whether it has a client."""


class Incumbent(Protocol):
    """The service whose process is followed by another."""

    @property
    def status(self) -> str:
        """What it is doing, for the service manager."""

    @property
    def listening(self) -> dict[int, str]:
        """The descriptors of what it listens on, with `READ_ONLY` for those that are read-only endpoints."""

    def retire(self) -> None:
        """Accept nobody any more; end when the clients have gone."""

    def cancel_for_successor(self, pid: int, secret: bytes) -> Deferred[bool]:
        """Cancel what one of the clients has under way; fires with whether there is such a client."""


@frozen
class Start:
    """How this process was started, to start another like it."""

    command: Sequence[str]
    directory: Path
    why_not: str = ""
    """Why another can't be started like this, if so."""


class Succession:
    """One process's. `bind` says whose; without `start` no other process can follow it."""

    def __init__(self, inherited: Inherited, manager: Manager, start: Start) -> None:
        self.inherited = inherited
        self._manager = manager
        self._start = start
        self._incumbent: Incumbent
        self._reactor: Any = None
        self._log: FilteringBoundLogger
        self._predecessor: _Line | None = None
        self._process: Any = None
        self._too_late: Any = None
        self._killed = False
        """Whether the successor was killed: what it has said before that doesn't count."""
        self._serves = False
        self.over = False
        """Whether a successor serves."""
        self._beating = LoopingCall(self._beat)

    def bind(self, incumbent: Incumbent, reactor: Any, log: FilteringBoundLogger) -> None:
        """Say whose this is."""
        self._incumbent, self._reactor, self._log = incumbent, reactor, log
        self._beating.clock = reactor
        # By default it would end the process.
        signal.signal(signal.SIGUSR2, lambda *_: reactor.callFromThread(self.follow))

    # What the service says of itself.

    def serving(self) -> None:
        """Say that it serves, to the predecessor first."""
        self._serves = True
        if self.inherited.line is None:
            self._say_ready()
            return
        self._predecessor = line = _Line(self)
        self._reactor.adoptStreamConnection(self.inherited.line, socket.AF_UNIX, _Lines(line))
        os.close(self.inherited.line)
        line.callRemote(messages.Serves).addBoth(lambda _: self._say_ready())

    def _say_ready(self) -> None:
        self._manager.ready(self._incumbent.status)
        if self._manager.watchdog is not None and not self._beating.running:
            self._beating.start(self._manager.watchdog / 2)

    def _beat(self) -> None:
        self._manager.alive(self._incumbent.status)

    def reloading(self) -> None:
        """Say that it takes the configuration anew."""
        self._manager.reloading()

    def reloaded(self) -> None:
        """Say that it has, or has refused to."""
        self._manager.ready(self._incumbent.status)

    def stopping(self) -> None:
        """Say that it stops."""
        self._serves = False
        self._manager.stopping()
        if self._beating.running:
            self._beating.stop()
        if self._process is not None and not self.over:
            self._kill()

    @property
    def follows(self) -> bool:
        """Whether the predecessor is still there."""
        return self._predecessor is not None and self._predecessor.transport is not None

    def cancel(self, pid: int, secret: bytes) -> Deferred[bool]:
        """Ask the predecessor to cancel, see `Incumbent`."""
        line = self._predecessor
        if line is None or line.transport is None or len(secret) > 256:
            return succeed(False)
        asked: Deferred[Any] = line.callRemote(messages.Cancel, pid=pid, secret=secret)
        asked.addTimeout(_CANCEL, self._reactor)
        return asked.addCallbacks(lambda answer: bool(answer["found"]), lambda _gone: False)

    # The successor.

    def follow(self) -> None:
        """Have another process follow this one."""
        if self._start.why_not:
            self._log.error("restart_refused", why=self._start.why_not)
            return
        if self._process is not None or not self._serves:
            why = "another process is taking over already" if self._serves else "it does not serve yet"
            self._log.warning("restart_refused", why=why)
            return
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            self._spawn(theirs.fileno())
            self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, _Lines(_Line(self)))
        except OSError as error:
            # No process, no memory, no descriptor is left.
            self.ended(str(error))
        finally:
            ours.close()
            theirs.close()

    def _spawn(self, line: int) -> None:
        listening = self._incumbent.listening
        theirs = dict(enumerate(listening, FIRST + 1))
        names = {number: listening[ours] for number, ours in theirs.items()}
        environ = {name: value for name, value in os.environ.items() if name != "WATCHDOG_PID"}
        environ[ESTATE] = bequest(names, self.inherited.instead, FIRST)
        self._process = self._reactor.spawnProcess(
            _Process(self),
            self._start.command[0],
            self._start.command,
            env=environ,
            path=str(self._start.directory),
            childFDs={0: 0, 1: 1, 2: 2, FIRST: line, **theirs},
        )
        self._too_late = self._reactor.callLater(_READY, self._kill)
        self._log.info("restarting", successor=self._process.pid)

    def _kill(self) -> None:
        self._killed = True
        try:
            self._process.signalProcess("KILL")
        except ProcessExitedAlready:
            pass

    def succeeded(self) -> None:
        """Take the word that the successor serves."""
        if self._killed or self._process is None:
            return
        if self._too_late is not None and self._too_late.active():
            self._too_late.cancel()
        self._manager.main_is(self._process.pid)
        self._manager.forget()
        self.over = True
        if self._beating.running:
            self._beating.stop()
        self._incumbent.retire()

    def ended(self, why: str) -> None:
        """Take the word that the successor's process has ended."""
        if self._too_late is not None and self._too_late.active():
            self._too_late.cancel()
        if not self.over:
            self._process, self._killed = None, False
        if not self.over and self._serves:
            self._log.error("restart_failed", why=why, in_force="this process goes on as before")

    def asked_to_cancel(self, pid: int, secret: bytes) -> Deferred[bool]:
        """Cancel for a client of ours that the successor has heard of."""
        return self._incumbent.cancel_for_successor(pid, secret)


class _Line(AMP):
    """Either end of the line between two processes."""

    def __init__(self, succession: Succession) -> None:
        super().__init__()
        self._succession = succession

    @messages.Serves.responder
    def _serves(self) -> dict[str, Any]:
        self._succession.succeeded()
        return {}

    @messages.Cancel.responder
    def _cancel(self, pid: int, secret: bytes) -> Any:
        return self._succession.asked_to_cancel(pid, secret).addCallback(lambda found: {"found": found})


class _Lines(Factory):
    noisy = False

    def __init__(self, line: AMP) -> None:
        self._line = line

    def buildProtocol(self, addr: Any) -> AMP:
        return self._line


class _Process(ProcessProtocol):
    def __init__(self, succession: Succession) -> None:
        self._succession = succession

    def processEnded(self, reason: Failure) -> None:
        self._succession.ended(reason.getErrorMessage())
