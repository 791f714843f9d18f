"""
Servers on Twisted in processes of their own, whose answers a test changes at run time.

A test that waits holds up the reactor of its own process. What goes between the two are lines of JSON, an
answer for each order; a sidecar ends when its standard input does, so also with the one who started it.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from twisted.internet import protocol, stdio, task
from twisted.internet.defer import Deferred
from twisted.protocols.basic import LineReceiver

from pgproxy.demo.process import environment

Order = dict[str, Any]
_SECONDS = 20.0


class Sidecar:
    """A module that ends with `main(...)`, run as a program. Its first word is the port that it serves."""

    def __init__(self, module: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=Path(__file__).parent.parent,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            self.port = int(self._answer())
        except BaseException:
            self.close()
            raise

    def ask(self, **order: Any) -> Any:
        """Give an order; returns the answer, once it holds."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], _SECONDS)[0]:
            raise TimeoutError(f"{self._process.args!r} says nothing")
        return json.loads(self._process.stdout.readline())


def main(listen: Callable[[Any], tuple[int, Callable[[Order], Any]]]) -> None:
    """Serve what `listen` makes with the reactor: a port, and a function that obeys orders."""

    def run(reactor: Any) -> Deferred[None]:
        over: Deferred[None] = Deferred()
        port, obey = listen(reactor)
        stdio.StandardIO(_Orders(port, obey, over), reactor=reactor)
        return over

    task.react(run)


class _Orders(LineReceiver):
    delimiter = b"\n"
    MAX_LENGTH = 1 << 20

    def __init__(self, port: int, obey: Callable[[Order], Any], over: Deferred[None]) -> None:
        self._port = port
        self._obey = obey
        self._over = over

    def connectionMade(self) -> None:
        self._say(self._port)

    def lineReceived(self, line: bytes) -> None:
        self._say(self._obey(json.loads(line)))

    def connectionLost(self, reason: Any = protocol.connectionDone) -> None:
        self._over.callback(None)

    def _say(self, answer: Any) -> None:
        self.sendLine(json.dumps(answer).encode())
