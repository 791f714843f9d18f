"""A stand-in for systemd, as far as a service sees it: a socket to be told on, and sockets that it passes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from pgproxy.demo.process import end, environment

_SECONDS = 20.0


class Manager:
    """Hears what services tell (sd_notify(3)); `abstract` takes a name that is no file's."""

    def __init__(self, directory: Path, abstract: bool = False) -> None:
        self.address = f"@pgproxy-test-{os.getpid()}-{id(self)}" if abstract else str(directory / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + self.address[1:] if abstract else self.address)
        self._socket.settimeout(0.2)
        self.heard: list[str] = []

    def hear(self, line: str, times: int = 1) -> None:
        """Wait until a line was told so many times."""
        limit = time.monotonic() + _SECONDS
        while self.heard.count(line) < times:
            assert time.monotonic() < limit, f"not told {line}, but {self.heard}"
            try:
                self.heard += self._socket.recv(65_536).decode().split("\n")
            except TimeoutError:
                continue

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()


def start(
    manager: Manager,
    config: Path,
    sockets: list[socket.socket],
    watchdog: float | None = None,
    environ: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start pgproxy as a unit would, with descriptors from 3 on."""
    command = [
        str(Path(sys.executable).with_name("twistd")),
        "--nodaemon",
        "--pidfile=",
        "pgproxy",
        "--config",
        str(config),
    ]
    told = {"NOTIFY_SOCKET": manager.address, "LISTEN_FDS": str(len(sockets)), **(environ or {})}
    variables = ["LISTEN_PID=$$"]
    if watchdog is not None:
        told["WATCHDOG_USEC"] = str(int(watchdog * 1e6))
        variables.append("WATCHDOG_PID=$$")
    # Far away from where they are to go.
    copies = [socket.socket(fileno=os.dup2(one.fileno(), 200 + place)) for place, one in enumerate(sockets)]
    moves = " ".join(f"{3 + place}<&{200 + place} {200 + place}<&-" for place in range(len(sockets)))
    with (config.parent / "log").open("ab") as log:
        try:
            return subprocess.Popen(
                ["bash", "-c", f'export {" ".join(variables)}; exec "$@" {moves}', "bash", *command],
                cwd=config.parent,
                env=environment(told),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[copy.fileno() for copy in copies],
                start_new_session=True,
            )
        finally:
            for copy in copies:
                copy.close()


def stop(process: subprocess.Popen[bytes]) -> int:
    """Stop a service."""
    return end(process, signal.SIGTERM, 15)
