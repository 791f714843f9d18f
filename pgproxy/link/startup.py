"""
What a client says before it logs in: whether it wants TLS, who it wants to be, or what it wants cancelled.

Documentation: PostgreSQL manual, "Start-up", "SSL Session Encryption", "Canceling Requests in Progress".
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.defer import Deferred

from pgproxy.link.front import Front
from pgproxy.link.tls import ALPN
from pgproxy.link.transport import Stream
from pgproxy.observe.client import ClientLog
from pgproxy.wire import errors
from pgproxy.wire.errors import Complaint, complaint
from pgproxy.wire.skim import Malformed
from pgproxy.wire.startup import (
    CancelRequest,
    GSSENCRequest,
    SSLRequest,
    StartupMessage,
    UnsupportedProtocol,
    packet_length,
    read_packet,
)


class Newcomer(Protocol):
    """The connection that it is said on."""

    transport: Stream

    def refuse(self, why: Complaint) -> None:
        """Tell the client why, and close its connection."""

    def close(self, reason: str) -> None:
        """Close its connection."""

    def only_cancels(self) -> None:
        """Take the word that it gets no answer but its end."""

    def log_in(self, startup: StartupMessage, early: bytes) -> None:
        """Begin its login; `early` is what it has said behind the startup message."""


class Startup:
    """The packets of one client, up to the one that decides."""

    __slots__ = ("_admitted", "_client", "_direct_tls", "_early", "_encryption_asked", "_front", "_log")

    def __init__(self, client: Newcomer, front: Front, log: ClientLog) -> None:
        self._client = client
        self._front = front
        self._log = log
        self._early = bytearray()
        self._encryption_asked: tuple[type, ...] = ()
        self._direct_tls = False
        self._admitted = False
        """Whether it may log in at all."""

    def hello(self) -> None:
        """Start TLS with a client that began with it, without an SSLRequest."""
        context = self._front.materials.tls.context
        if context is None:
            self._client.close("tls_is_off")
            return
        self._direct_tls = True
        self._client.transport.startTLS(context, server_side=True)

    def handshake_completed(self) -> None:
        """Check what a client that began with TLS must have asked for."""
        tls = self._client.transport.tls
        if self._direct_tls and tls is not None and tls.selected_alpn_protocol() != ALPN:
            self._client.close("no_alpn")

    def received(self, data: bytes) -> None:
        """Take what has come."""
        self._early += data
        try:
            length = packet_length(self._early)
            if length is None or len(self._early) < length:
                return
            packet = read_packet(bytes(self._early[:length]))
            del self._early[:length]
            self._take(packet)
        except Malformed as error:
            self._client.refuse(complaint(errors.MALFORMED_STARTUP, what=str(error)))
        except UnsupportedProtocol as error:
            self._client.refuse(complaint(errors.UNSUPPORTED_PROTOCOL, version=str(error)))

    def _take(self, packet: object) -> None:
        if not self._admitted and not isinstance(packet, CancelRequest):
            why = self._front.shed()
            if why is not None:
                self._log.warning("client_refused", sqlstate=why.sqlstate, detail=why.text)
                self._client.refuse(why)
                return
            self._admitted = True
        match packet:
            case SSLRequest() | GSSENCRequest():
                self._answer_encryption(packet)
            case CancelRequest(pid, secret):
                self._client.only_cancels()
                self._cancel(pid, secret)
            case StartupMessage():
                self._client.log_in(packet, bytes(self._early))

    def _answer_encryption(self, packet: SSLRequest | GSSENCRequest) -> None:
        if self._early:
            raise Malformed("received unencrypted data after SSL request")
        transport = self._client.transport
        if type(packet) in self._encryption_asked or transport.tls is not None:
            raise Malformed("encryption was asked for twice")
        self._encryption_asked += (type(packet),)
        context = self._front.materials.tls.context
        if isinstance(packet, SSLRequest) and context is not None:
            transport.write(b"S")
            transport.startTLS(context, server_side=True)
        else:
            transport.write(b"N")

    def _cancel(self, pid: int, secret: bytes) -> None:
        front = self._front
        client = front.keys.find(pid, secret)
        asked: Deferred[Any] | None
        if client is None and front.elsewhere is not None:
            asked = front.elsewhere.cancel(pid, secret)
        elif client is None and front.predecessor is not None:
            asked = front.predecessor(pid, secret)
            asked.addCallback(self._cancelled_before)
        else:
            asked = client.cancel() if client is not None else None
            self._log.info("cancel_request", found=client is not None, sent=asked is not None)
        transport = self._client.transport
        if asked is None:
            transport.loseConnection()
        else:
            asked.addBoth(lambda _: transport.loseConnection())

    def _cancelled_before(self, found: bool) -> None:
        if not found:
            self._log.info("cancel_request", found=False, sent=False)
