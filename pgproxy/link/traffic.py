"""How many bytes a connection has carried: the kernel's count, which costs nothing where they pass."""

from __future__ import annotations

import socket
import struct

_TCP_INFO = struct.Struct("=120xQQ")
"""Linux's struct tcp_info: tcpi_bytes_acked, tcpi_bytes_received (include/uapi/linux/tcp.h)."""


def traffic(sock: socket.socket) -> tuple[int, int]:
    """Say how many bytes have come, and how many were sent and taken; 0 where the kernel doesn't tell."""
    try:
        sent, received = _TCP_INFO.unpack(
            sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        )
    except (OSError, AttributeError, struct.error):
        return 0, 0
    # The SYN counts, too.
    return received, max(0, sent - 1)
