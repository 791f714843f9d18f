"""A listening socket whose connections are `Stream`s."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.internet.tcp import Port

from pgproxy.link.keepalive import Keepalive
from pgproxy.link.transport import Stream

BACKLOG = 1024
"""Connections that the kernel holds for us while we are busy; it cuts this to net.core.somaxconn."""


def _stream(
    sock: socket.socket, protocol: Any, _addr: Any, port: StreamPort, _number: int, reactor: Any
) -> Stream:
    stream = Stream(sock, protocol, reactor, port.keepalive())
    stream.look_first()
    return stream


class StreamPort(Port):
    """Twisted's own port, with our transport. It survives running out of file descriptors."""

    _shouldShutdown = False
    """Nothing but closed at the end: another process may go on listening on the same socket."""
    keepalive: Callable[[], Keepalive]
    """Gives what the next connection is set to."""
    transport = staticmethod(_stream)  # type: ignore[assignment]


class _Clients(Factory):
    noisy = False

    def __init__(self, make: Callable[[], Protocol]) -> None:
        self._make = make

    def buildProtocol(self, addr: Any) -> Any:
        return self._make()


def listen(
    reactor: Any, host: str, port: int, make: Callable[[], Any], keepalive: Callable[[], Keepalive]
) -> StreamPort:
    """
    Listen on an address; `make` gives the protocol of each connection, `keepalive` what it is set to.

    Raises twisted.internet.error.CannotListenError.
    """
    listening = StreamPort(port, _Clients(make), BACKLOG, host, reactor)
    listening.keepalive = keepalive
    listening.startListening()
    return listening


def listen_on(
    reactor: Any, descriptor: int, make: Callable[[], Any], keepalive: Callable[[], Keepalive]
) -> StreamPort:
    """Listen on a socket that listens already, through a descriptor of our own."""
    with socket.socket(fileno=os.dup(descriptor)) as family:
        listening = StreamPort._fromListeningDescriptor(reactor, descriptor, family.family, _Clients(make))
    assert isinstance(listening, StreamPort)
    listening.keepalive = keepalive
    listening.startListening()
    return listening
