"""
Starts pgproxy as a fork of an interpreter that has imported it: to import it takes longer than most tests do.

What is forked then goes the whole way of `twistd -n pgproxy`, with its command line, environment, directory
and log; only the imports are not done anew. So it is for the first workers (`tests.spares`). Restarts,
workers that follow others, systemd, `make run` and the commands of the documents are tested with programs
that start from nothing.

Run by itself, this is the interpreter: it has one thread, one socket, and no reactor.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tests.spares import prepare

_PR_SET_PDEATHSIG = 1
_MOST = 1 << 17
"""Bytes of a request."""
_ANSWER_SECONDS = 60.0


class Nursery:
    """The interpreter, and what it has forked. It ends with us, and what it has forked with it (SIGTERM)."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._line.settimeout(_ANSWER_SECONDS)
        self._asking = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                cwd=Path(__file__).parent.parent,
                env=dict(environment),
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def start(
        self, argv: Sequence[str], log: Path, cwd: Path, env: Mapping[str, str], workers: int = 0
    ) -> Child:
        """Start twistd with a command line; its output is appended to `log`. So many workers are at hand."""
        with log.open("ab") as output:
            request = {"argv": list(argv), "cwd": str(cwd), "env": dict(env), "workers": workers}
            return Child(self, self._ask(request, [output.fileno()]))

    def status(self, pid: int) -> int | None:
        """Give the exit status of a child that has ended; it can be asked for once."""
        status: int | None = self._ask({"pid": pid}, [])
        return status

    def _ask(self, request: dict[str, Any], descriptors: list[int]) -> Any:
        with self._asking:
            socket.send_fds(self._line, [json.dumps(request).encode()], descriptors)
            answer = self._line.recv(_MOST)
        if not answer:
            raise RuntimeError("the interpreter that pgproxy is forked from has ended")
        return json.loads(answer)

    def close(self) -> None:
        """End it."""
        self._line.close()
        self._process.wait()


class Child:
    """A process that was forked; as subprocess.Popen, for what tests ask of one."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self.pid = pid
        self._nursery = nursery
        self._status: int | None = None
        self._polling = threading.Lock()

    def poll(self) -> int | None:
        """Give the exit status if it has ended (negative: a signal's)."""
        with self._polling:
            if self._status is None:
                self._status = self._nursery.status(self.pid)
            return self._status

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it is there: until `poll` has said otherwise its id is nobody else's."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises subprocess.TimeoutExpired."""
        limit = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if timeout is not None and limit is not None and time.monotonic() > limit:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.005)
        return status


@cache
def nursery(pure: str | None) -> Nursery:
    """Give the one whose pgproxy was imported with this PGPROXY_PURE: it is heeded only then."""
    environment = {name: value for name, value in os.environ.items() if name != "PGPROXY_PURE"}
    if pure is not None:
        environment["PGPROXY_PURE"] = pure
    made = Nursery(environment)
    atexit.register(made.close)
    return made


# What the interpreter does.


def _imports() -> None:
    """Import what most of them use, and nothing that begins anything."""
    import encodings.idna  # noqa: F401 - for addresses

    import boto3  # noqa: F401 - for AWS
    import cattrs.gen
    from cryptography import x509  # noqa: F401 - for TLS
    from twisted.application.service import IServiceMaker
    from twisted.plugin import getPlugins
    from twisted.trial import itrial  # noqa: F401 - twistd's

    import pgproxy.link.reactor
    import pgproxy.observe.sink
    import pgproxy.service
    import pgproxy.succession.manager
    import pgproxy.tap
    import pgproxy.workers.supervisor
    import pgproxy.workers.worker  # noqa: F401
    from pgproxy.config import from_options

    # They keep what they have made on the way; cattrs compiles the same text for each class at each reading.
    vars(cattrs.gen)["compile"] = cache(compile)
    list(getPlugins(IServiceMaker))
    from_options(auth="trust")
    assert "twisted.internet.reactor" not in sys.modules, "no reactor is shared by a fork"
    # What is looked at for garbage is copied: this is none, and stays shared.
    gc.freeze()


def _serve(line: socket.socket) -> dict[str, Any] | None:
    """Fork for who asks; gives what was asked in what was forked, and None when there is nobody to ask."""
    ours = os.getpid()
    while True:
        request, descriptors, _flags, _address = socket.recv_fds(line, _MOST, 1)
        if not request:
            return None
        asked = json.loads(request)
        if "pid" in asked:
            ended, status = os.waitpid(asked["pid"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if ended else None
        else:
            answer = os.fork()
            if answer == 0:
                line.close()
                _settle(ours, descriptors[0], asked["cwd"], asked["env"])
                return dict(asked)
            os.close(descriptors[0])
        line.send(json.dumps(answer).encode())


def _settle(parent: int, log: int, cwd: str, env: dict[str, str]) -> None:
    """Be what a program is that was started by `pgproxy.demo.process.spawn`."""
    os.setsid()
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        sys.exit(f"prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:
        sys.exit(f"the parent process {parent} has gone")
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)


def main() -> None:
    """Import, fork, and in what was forked run twistd."""
    from twisted.scripts.twistd import run

    _imports()
    asked = _serve(socket.socket(fileno=int(sys.argv[1])))
    if asked is not None:
        prepare(asked["workers"])
        sys.argv = argv = list(asked["argv"])
        sys.orig_argv = [sys.executable, *argv]
        sys.path[0] = str(Path(argv[0]).parent)
        run()


if __name__ == "__main__":
    main()
