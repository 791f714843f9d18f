"""
Sends a CancelRequest to a server, and tells what became of it.

The server reads the request, signals the process, and closes the connection: once it is closed, nothing
of the request is on its way any more. Documentation: PostgreSQL manual, "Canceling Requests in Progress".
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from pgproxy.link.connect import CannotConnect, connect
from pgproxy.link.server import Host
from pgproxy.link.threads import Threads
from pgproxy.link.transport import Stream
from pgproxy.wire.startup import cancel_request, ssl_request


class Outcome(Enum):
    """What became of a cancel request."""

    DELIVERED = "delivered"
    NOT_SENT = "not_sent"
    IN_DOUBT = "in_doubt"
    """It was sent, and may yet arrive."""


async def cancel_at(reactor: Any, threads: Threads, host: Host, pid: int, secret: bytes) -> Outcome:
    """Cancel what the server process `pid` is doing; the caller sets the time limit."""
    try:
        sock = await connect(reactor, threads, host.name, host.port)
    except CannotConnect:
        return Outcome.NOT_SENT
    canceller = _Canceller(host, cancel_request(pid, secret))
    canceller.makeConnection(Stream(sock, canceller, reactor, host.keepalive))
    return await canceller.ended


class _Canceller(Protocol):
    transport: Stream

    def __init__(self, host: Host, request: bytes) -> None:
        self._host = host
        self._request = request
        self._sent = False
        self.ended: Deferred[Outcome] = Deferred(lambda _: self.transport.abortConnection())

    def connectionMade(self) -> None:
        if self._host.tls.mode == "disable":
            self._send()
        else:
            self.transport.write(ssl_request())

    def dataReceived(self, data: bytes) -> None:
        tls = self._host.tls
        if self._sent:
            return
        if data == b"S" and tls.context is not None:
            self.transport.startTLS(tls.context, server_side=False, server_hostname=self._host.name)
        elif data == b"N" and tls.mode == "prefer":
            self._send()
        else:
            self.transport.abortConnection()

    def handshakeCompleted(self) -> None:
        self._send()

    def _send(self) -> None:
        self._sent = True
        self.transport.write(self._request)

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        if not self.ended.called:
            self.ended.callback(Outcome.DELIVERED if self._sent else Outcome.NOT_SENT)
