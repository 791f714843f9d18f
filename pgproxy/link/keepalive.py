"""
How a connection finds out that its peer's host has gone without a word.

Documentation: Linux manual, tcp(7); PostgreSQL manual, "TCP Settings", whose names these are.
"""

from __future__ import annotations

import socket
from math import ceil

from attrs import frozen

_TCP = (socket.AF_INET, socket.AF_INET6)


@frozen
class Keepalive:
    """What a TCP connection is set to; 0 leaves the system's."""

    idle: int = 0
    """Seconds without a byte after which the peer is probed."""
    interval: int = 0
    """Seconds between two probes."""
    count: int = 0
    """Probes without an answer after which the connection has ended."""
    user_timeout: float = 0.0
    """Seconds after which it has ended if what was sent has not been taken."""

    def set(self, sock: socket.socket) -> None:
        """Set a connected socket; one of another kind than TCP is left as it is."""
        if sock.family in _TCP:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in self._options():
                if value:
                    sock.setsockopt(socket.IPPROTO_TCP, option, value)

    def hand_down(self, sock: socket.socket) -> None:
        """
        Set a listening socket, from which on Linux the connections that it accepts have it.

        What is the system's is set, too: an earlier setting may stand there.
        """
        if sock.family in _TCP:
            with socket.socket(sock.family, socket.SOCK_STREAM) as new:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in self._options():
                    systems = new.getsockopt(socket.IPPROTO_TCP, option)
                    sock.setsockopt(socket.IPPROTO_TCP, option, value or systems)

    def _options(self) -> tuple[tuple[int, int], ...]:
        return (
            (socket.TCP_KEEPIDLE, self.idle),
            (socket.TCP_KEEPINTVL, self.interval),
            (socket.TCP_KEEPCNT, self.count),
            (socket.TCP_USER_TIMEOUT, ceil(self.user_timeout * 1000)),
        )
