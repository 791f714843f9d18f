"""
What a service manager is told: a datagram of `NAME=value` lines to the socket that it names.

Where there is none, nothing is told. Documentation: sd_notify(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from contextlib import suppress


class Manager:
    """The service manager of the process `pid`, which is ours, as the environment names it."""

    def __init__(self, environ: Mapping[str, str], pid: int) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog = _watchdog(environ, pid) if address else None
        """Seconds within which it wants to hear that we are alive; None if it doesn't."""

    @property
    def there(self) -> bool:
        """Whether somebody is told."""
        return bool(self._address)

    def forget(self) -> None:
        """Tell nothing any more: another process speaks now."""
        self._address = ""

    def ready(self, status: str) -> None:
        """Say that we serve."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Say that we take the configuration anew; `ready` says that this is done."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Say that we stop."""
        self._tell("STOPPING=1", "STATUS=Stopping: clients finish their transactions")

    def alive(self, status: str) -> None:
        """Say that we are alive."""
        self._tell("WATCHDOG=1", f"STATUS={status}")

    def main_is(self, pid: int) -> None:
        """Say which process is the one that counts from now on."""
        self._tell(f"MAINPID={pid}")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        # Nobody is to wait for a manager that does not read.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as one:
            one.setblocking(False)
            one.sendto("\n".join(lines).encode(), self._address)


def _watchdog(environ: Mapping[str, str], pid: int) -> float | None:
    microseconds = environ.get("WATCHDOG_USEC", "")
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid) or not microseconds.isdigit():
        return None
    return int(microseconds) / 1e6 or None
