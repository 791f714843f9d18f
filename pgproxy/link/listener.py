"""A listening socket whose connections are `Stream`s."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.internet.tcp import Port
from twisted.python import log

from pgproxy.link.keepalive import Keepalive
from pgproxy.link.transport import Stream, send_at_once
from pgproxy.twin import quicken

BACKLOG = 1024
"""Connections that the kernel holds for us while we are busy; it cuts this to net.core.somaxconn."""
_AT_ONCE = 10
"""Connections that are accepted before others have their turn."""


def _stream(
    sock: socket.socket, protocol: Any, _addr: Any, _port: StreamPort, _number: int, reactor: Any
) -> Stream:
    stream = Stream(sock, protocol, reactor, None)
    stream.look_first()
    return stream


@quicken
class StreamPort(Port):
    """
    Twisted's own port, with our transport. It survives running out of file descriptors.

    The connections have their options from the listening socket (`inherit`).
    """

    _shouldShutdown = False
    """Nothing but closed at the end: another process may go on listening on the same socket."""
    make: Callable[[str], Any]
    """Gives the protocol of a connection from a host."""
    keepalive: Keepalive
    """What a socket that is opened here is set to."""
    transport = staticmethod(_stream)  # type: ignore[assignment]
    _many = 1
    """How many connections have come at once."""

    def createInternetSocket(self) -> socket.socket:
        """Make the listening socket."""
        sock: socket.socket = super().createInternetSocket()
        inherit(sock, self.keepalive)
        return sock

    def doRead(self) -> None:
        """Accept who has come, without Twisted's ceremony; where that fails, go Twisted's way."""
        try:
            for many in range(1, self._many + 1):
                sock, address = self.socket.accept()
                protocol = self.make(address[0])
                protocol.makeConnection(_stream(sock, protocol, None, self, 0, self.reactor))
                self._many = min(many + 1, _AT_ONCE)
        except BlockingIOError:
            self._many = 1
        except OSError:
            super().doRead()
        except Exception:
            log.err()


def inherit(listening: socket.socket, keepalive: Keepalive) -> None:
    """Set what the connections of a listening socket are set to from now on."""
    send_at_once(listening)
    keepalive.hand_down(listening)


class _Clients(Factory):
    noisy = False

    def __init__(self, make: Callable[[str], Protocol]) -> None:
        self._make = make

    def buildProtocol(self, addr: Any) -> Any:
        return self._make(addr.host)


def listen(
    reactor: Any, host: str, port: int, make: Callable[[str], Any], keepalive: Keepalive
) -> StreamPort:
    """
    Listen on an address; `make` gives the protocol of a connection from a host.

    Raises twisted.internet.error.CannotListenError.
    """
    listening = StreamPort(port, _Clients(make), BACKLOG, host, reactor)
    listening.make, listening.keepalive = make, keepalive
    listening.startListening()
    return listening


def listen_on(reactor: Any, descriptor: int, make: Callable[[str], Any]) -> StreamPort:
    """Listen on a socket that listens already, through a descriptor of our own."""
    with socket.socket(fileno=os.dup(descriptor)) as family:
        listening = StreamPort._fromListeningDescriptor(reactor, descriptor, family.family, _Clients(make))
    assert isinstance(listening, StreamPort)
    listening.make = make
    listening.startListening()
    return listening
