"""
The transport of both legs: a non-blocking socket, written through, plain or TLS.

It differs from Twisted's own in two ways, both for the hot path. A write goes to the socket at once; only
what the kernel doesn't take waits for the reactor. And TLS is the standard library's, with one buffer on
each way (`link/records.py`).

The law:

1. `connectionLost` is never called from within `write`: whoever writes finds its own state as it was.
2. After a failed write the socket is still read to its end: a server says why it goes before it goes.
3. `loseConnection` ends, whatever the peer does: what is unsent is sent, the peer gets `LINGER` seconds to
   read it and close, then the socket is closed.
4. When more than `HIGH_WATER` bytes wait to be sent, the producer is paused until all of them are.
"""

from __future__ import annotations

import fcntl
import select
import socket
import ssl
import termios
from struct import Struct
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IPushProducer, IReadWriteDescriptor, ITransport
from twisted.python.failure import Failure
from zope.interface import implementer

from pgproxy.link.keepalive import Keepalive
from pgproxy.link.records import FULL_RECORD, Records
from pgproxy.link.traffic import traffic
from pgproxy.twin import quicken

HIGH_WATER = 64 * 1024
"""Bytes."""
READ_SIZE = 64 * 1024
"""Bytes that one turn of the reactor reads from a connection, at most."""
LINGER = 2.0
"""Seconds."""
_MOST_READS = 1000
_MOST_OWN = 32 * 1024
"""Bytes of TLS's own that may wait: who has it answer without end, and reads nothing, gets no more."""
_number = Struct("i")

_TLS_HANDSHAKE = b"\x16"
"""The first byte of a ClientHello."""
_DONE = Failure(ConnectionDone())
"""What is told of each connection that we have closed."""


def send_at_once(sock: socket.socket) -> None:
    """Have a socket, or those that it accepts, send what is written without waiting for more."""
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _closed(*_data: object) -> Any:
    """Stand for what a closed stream does no more."""


@quicken
@implementer(IReadWriteDescriptor, ITransport, IPushProducer)
class Stream:
    """
    One connected socket, and the protocol it belongs to.

    The protocol is a Twisted `IProtocol`; `handshakeCompleted()` is called on it after `startTLS`.
    """

    __slots__ = (
        "_carried",
        "_finishing",
        "_linger",
        "_number",
        "_own_waiting",
        "_producer",
        "_producer_paused",
        "_protocol",
        "_reactor",
        "_reading",
        "_records",
        "_shut",
        "_socket",
        "_unsent",
        "_waiting",
        "_write_failed",
        "disconnecting",
        "doRead",
        "doWrite",
        "not_received",
        "plain",
    )

    def __init__(self, sock: socket.socket, protocol: Any, reactor: Any, keepalive: Keepalive | None) -> None:
        """`keepalive` is None for a socket that has its options from the one that accepted it."""
        sock.setblocking(False)
        if keepalive is not None:
            send_at_once(sock)
            keepalive.set(sock)
        self._socket: socket.socket | None = sock
        self._number = sock.fileno()
        self._protocol = protocol
        self._reactor = reactor
        self._unsent: list[memoryview] = []
        self._waiting = 0
        self._producer: Any = None
        self._producer_paused = False
        self._reading = False
        self._write_failed = False
        self._shut = False
        self._finishing = False
        self._linger: Any = None
        self._carried = (0, 0)
        """Bytes that have come and gone, once it is closed."""
        self.disconnecting = False
        self.not_received = 0
        """
        How many of the last bytes that were written have certainly not arrived: what came too late to be
        sent, and what the peer had not received when it ended the connection in order.
        """
        self.plain = True
        """Whether what is written goes into the socket as it is."""
        self._records: Records | None = None
        self._own_waiting = 0
        """Bytes of TLS's own that had to wait, since nothing did."""
        self.doRead: Any = self._read_plain
        self.doWrite: Any = self._write_waiting
        self.resumeProducing()

    # What the reactor asks.

    def fileno(self) -> int:
        """Give the socket's number, -1 when it is closed."""
        return self._number

    def logPrefix(self) -> str:
        """Say whose events these are in Twisted's log."""
        return type(self._protocol).__name__

    # What the protocol asks.

    @property
    def tls(self) -> ssl.SSLObject | None:
        """The TLS connection, for what it knows of the peer; None in plain."""
        return self._records.session if self._records is not None else None

    def write(self, data: bytes) -> None:
        """Send bytes, at once as far as the kernel takes them."""
        if self._socket is None or self._write_failed or self._shut:
            self.not_received += len(data)
            return
        if not self.plain:
            data = self._sealed(data)
            if not data:
                return
        if self._waiting:
            self._keep(data, 0)
            return
        # What `_send` does, without a call.
        try:
            taken = self._socket.send(data)
        except BlockingIOError:
            taken = 0
        except OSError:
            taken = self._fail_writing()
        if taken < len(data):
            if self._write_failed:
                self._not_sent(data)
            else:
                self._keep(data, taken)

    def _not_sent(self, data: bytes) -> None:
        """Enter that what was written last, and went to the socket as `data`, can't have arrived."""
        self.not_received += len(data) if self._records is None else self._records.said

    def _keep(self, data: bytes, taken: int) -> None:
        """Have the reactor send what the kernel has not taken."""
        if not self._waiting:
            self._reactor.addWriter(self)
        self._unsent.append(memoryview(data)[taken:])
        self._waiting += len(data) - taken
        if self._waiting > HIGH_WATER and self._producer is not None and not self._producer_paused:
            self._producer_paused = True
            self._producer.pauseProducing()

    def writeSequence(self, data: Any) -> None:
        """Send several pieces."""
        self.write(b"".join(data))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Let `producer` be paused while too much waits to be sent."""
        self._producer = producer
        self._producer_paused = False
        if self._waiting > HIGH_WATER:
            self._producer_paused = True
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        """Forget the producer, and let it go on."""
        producer, self._producer = self._producer, None
        if self._producer_paused:
            self._producer_paused = False
            producer.resumeProducing()

    def couple(self, other: Stream) -> None:
        """Have each of two be the other's producer."""
        if self._waiting or other._waiting:
            other.registerProducer(self, True)
            self.registerProducer(other, True)
        else:
            self._producer, other._producer = other, self

    def uncouple(self, other: Stream) -> None:
        """Have them forget each other."""
        if self._producer_paused or other._producer_paused:
            other.unregisterProducer()
            self.unregisterProducer()
        else:
            self._producer = other._producer = None

    def pauseProducing(self) -> None:
        """Stop reading."""
        if self._reading:
            self._reading = False
            self._reactor.removeReader(self)

    def resumeProducing(self) -> None:
        """Read on."""
        if not self._reading and self._socket is not None:
            self._reading = True
            self._reactor.addReader(self)

    @property
    def unsent(self) -> int:
        """How many bytes wait to be sent."""
        return self._waiting

    @property
    def traffic(self) -> tuple[int, int]:
        """How many bytes have come, and how many have gone: by the kernel's count."""
        return traffic(self._socket) if self._socket is not None else self._carried

    @property
    def hung_up(self) -> bool:
        """Whether the peer has ended while it is not read; what it sent before may still be there."""
        if self._socket is None:
            return True
        if self._reading:
            return False
        poll = select.poll()
        poll.register(self._number, select.POLLRDHUP)
        return bool(poll.poll(0))

    def read_rest(self) -> None:
        """Read what a peer that has hung up sent before, to its end: no more than the kernel holds."""
        for _ in range(_MOST_READS):
            if self._socket is None or self.disconnecting or self.doRead() is not None:
                return

    def stopProducing(self) -> None:
        """Close."""
        self.loseConnection()

    def look_first(self) -> None:
        """Look at the first byte: a TLS handshake is told, and may be gone on with, as `tlsHello`."""
        self.doRead = self._first_look

    def _first_look(self) -> Any:
        self.doRead = self._read_plain
        data = self._receive(FULL_RECORD)
        if not isinstance(data, bytes):
            return data
        if data[:1] != _TLS_HANDSHAKE:
            self._protocol.dataReceived(data)
            return None
        self._protocol.tlsHello()
        return self._agree(data) if self._records is not None else None

    def startTLS(
        self, context: ssl.SSLContext, server_side: bool, server_hostname: str | None = None
    ) -> None:
        """
        Begin the handshake; what comes in from now on belongs to it.

        Ends in `handshakeCompleted`, or in `connectionLost`. Raises ValueError for a name that can't be one.
        """
        assert self._socket is not None and self._records is None
        self._records = Records(context, server_side, server_hostname)
        self.plain = False
        self.doRead = self._shake_hands
        if not server_side and (why := self._agree(b"")) is not None:
            self._close(Failure(why))

    def finishWriting(self) -> None:
        """Send what is unsent, then let the peer see the end; what it sends is still read."""
        self._finishing = True
        if not self._waiting:
            self._half_close()

    def _half_close(self) -> None:
        if self._socket is None or self._shut:
            return
        self._shut = True
        try:
            # A TLS peer takes the end of TCP for the end, as well.
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def loseConnection(self, linger: float = LINGER) -> None:
        """Send what is unsent, then close; see rule 3. The peer gets `linger` seconds."""
        if self._socket is None or self.disconnecting:
            return
        self.disconnecting = True
        self.unregisterProducer()
        self._linger = self._reactor.callLater(linger, self.abortConnection)
        self.doRead = self._read_away
        self.resumeProducing()
        if not self._waiting or self._write_failed:
            self._shut_down_writing()

    def leave(self) -> None:
        """
        Close, as the peer has said that it goes, and reads no more: at once where that loses nothing.

        In TLS some peers wait for the other's end all the same, until they have said theirs.
        """
        if self._socket is None:
            # The end of its TLS may have come with its last words.
            return
        if self._waiting or self.disconnecting:
            self.loseConnection()
        elif self.plain or self._end_tls() or self._read_away() is not None:
            self.disconnecting = True
            self.abortConnection()
        else:
            self.loseConnection()

    def abortConnection(self) -> None:
        """Close at once; `connectionLost` follows in the reactor's next turn."""
        if self._socket is not None:
            self._close(_DONE if self.disconnecting else Failure(ConnectionLost()))

    def getPeer(self) -> Any:
        """Give the other end's address."""
        return self._address(self._socket.getpeername) if self._socket else None

    def getHost(self) -> Any:
        """Give this end's address."""
        return self._address(self._socket.getsockname) if self._socket else None

    @staticmethod
    def _address(name: Any) -> Any:
        try:
            address = name()
        except OSError:
            return None
        kind = IPv4Address if len(address) == 2 else IPv6Address
        return kind("TCP", *address[:2])

    # Reading.

    def _read_plain(self) -> Any:
        # What `_receive` does, without a call.
        assert self._socket is not None
        try:
            data = self._socket.recv(READ_SIZE)
        except BlockingIOError:
            return None
        except OSError:
            return self._connection_ended(True)
        if not data:
            return self._connection_ended(False)
        self._protocol.dataReceived(data)
        return None

    def _receive(self, most: int = READ_SIZE) -> Any:
        """Give the bytes that have come; None if there are none, or the reason why none will."""
        assert self._socket is not None
        try:
            data = self._socket.recv(most)
        except BlockingIOError:
            return None
        except OSError:
            return self._connection_ended(True)
        return data or self._connection_ended(False)

    def _connection_ended(self, lost: bool) -> Any:
        if not lost and not self._write_failed:
            # The end of TCP says what has arrived before it. What comes later, the peer's kernel refuses.
            # Where a write has failed, this may have been a reset, which says nothing.
            missing = self._waiting + self._unacknowledged()
            self.not_received += missing if self._records is None else self._records.missing(missing)
        return ConnectionLost() if lost else ConnectionDone()

    def _unacknowledged(self) -> int:
        """Say how many bytes the kernel has that the peer's has not acknowledged (tcp(7), SIOCOUTQ)."""
        try:
            return int(_number.unpack(fcntl.ioctl(self._number, termios.TIOCOUTQ, _number.pack(0)))[0])
        except OSError:
            return 0

    def _read_tls(self) -> Any:
        assert self._records is not None
        data = self._receive()
        if not isinstance(data, bytes):
            return data
        return self._open(data)

    def _open(self, data: bytes) -> Any:
        assert self._records is not None
        return self._opened(self._records.open(data))

    def _read_on(self, first: bytes, size: int) -> Any:
        """Read what the records hold that have come with `size` bytes, `first` of which was read."""
        assert self._records is not None
        return self._opened(self._records.read_on(first, size))

    def _stopped(self, error: OSError, size: int) -> Any:
        """Take the error that reading of `size` bytes has ended with."""
        assert self._records is not None
        return self._opened(self._records.stopped(error, size))

    def _opened(self, data: bytes) -> Any:
        """Deliver what was read; say whether that was all."""
        records = self._records
        assert records is not None
        self._send_own()
        if data:
            self._protocol.dataReceived(data)
        # It may be closed by what was read.
        return self._connection_ended(records.lost) if records.over and self._socket is not None else None

    def _read_away(self) -> Any:
        """While closing: what still comes in is of no interest, but unread it would make the kernel reset."""
        data = self._receive()
        if not isinstance(data, bytes):
            return None if data is None else ConnectionDone()
        records = self._records
        if records is not None:
            records.open(data)
            if records.over:
                return ConnectionDone()
        return None

    # Writing.

    def _send(self, data: bytes | memoryview) -> int:
        assert self._socket is not None
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            return self._fail_writing()

    def _sealed(self, data: bytes) -> bytes:
        """Give what is sent for this in TLS; nothing where that can't be."""
        assert self._records is not None
        try:
            return self._records.seal(data)
        except OSError:
            self.not_received += len(data)
            self._break_off()
            return b""

    def _send_own(self) -> None:
        """Send what TLS itself has to say."""
        assert self._records is not None
        data = self._records.own()
        if not data or self._socket is None or self._write_failed or self._shut:
            return
        self._own_waiting = self._own_waiting + len(data) if self._waiting else 0
        if self._own_waiting > _MOST_OWN:
            self._break_off()
            return
        taken = 0 if self._waiting else self._send(data)
        if taken < len(data) and not self._write_failed:
            self._keep(data, taken)

    def _break_off(self) -> None:
        """Write no more, for our own reasons: the socket is well, and would be there for ever."""
        self._fail_writing()
        if self._socket is not None and not self.disconnecting:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _fail_writing(self) -> int:
        self._write_failed = True
        self._unsent.clear()
        self._waiting = 0
        return 0

    def _write_waiting(self) -> Any:
        unsent = self._unsent
        while unsent:
            piece = unsent[0]
            taken = self._send(piece)
            if self._write_failed:
                break
            self._waiting -= taken
            if taken < len(piece):
                unsent[0] = piece[taken:]
                return None
            del unsent[0]
        self._reactor.removeWriter(self)
        if self.disconnecting:
            self._shut_down_writing()
        elif self._finishing:
            self._half_close()
        elif self._producer_paused:
            self._producer_paused = False
            self._producer.resumeProducing()
        return None

    # TLS.

    def _shake_hands(self) -> Any:
        assert self._socket is not None and self._records is not None
        try:
            # More would stay in OpenSSL's buffer, which never shrinks.
            data = self._socket.recv(FULL_RECORD)
        except BlockingIOError:
            return None
        except OSError as error:
            return error
        if not data:
            self._records.incoming.write_eof()
        return self._agree(data)

    def _agree(self, data: bytes) -> Any:
        """Go on with the handshake; give the reason if it fails."""
        records = self._records
        assert records is not None
        try:
            agreed = records.shake_hands(data)
        except OSError as error:
            # The peer is told why.
            self._send_own()
            return error
        self._send_own()
        if not agreed:
            return None
        self.doRead = self._read_tls
        self._protocol.handshakeCompleted()
        if self._socket is None or self.disconnecting or not records.incoming.pending:
            return None
        # What has come behind the handshake: nobody would be woken for it.
        return self._read_on(b"", 0)

    # Ending.

    def _shut_down_writing(self) -> None:
        if self._shut or self._socket is None:
            return
        self._end_tls()
        self._shut = True
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.abortConnection()

    def _end_tls(self) -> bool:
        """Tell a TLS peer that nothing more comes; say whether it has said so as well."""
        records = self._records
        if records is None or self._write_failed:
            return False
        ended = records.say_end()
        if data := records.outgoing.read():
            self._send(data)
        return ended

    def connectionLost(self, reason: Failure) -> None:
        """Take the reactor's word that the connection has ended."""
        if self._socket is not None:
            self._close(reason)

    def _close(self, reason: Failure) -> None:
        assert self._socket is not None
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        self._reading = False
        self._carried = traffic(self._socket)
        self._socket.close()
        self._socket = self._records = None
        # Methods of its own: without them it is gone when nobody uses it any more.
        self.doRead = self.doWrite = _closed
        self._number = -1
        self._unsent.clear()
        self._waiting = 0
        if self._linger is not None and self._linger.active():
            self._linger.cancel()
        # A producer that waits for this end would wait for ever.
        self.unregisterProducer()
        # Each knows the other: apart both are gone at once.
        protocol, self._protocol = self._protocol, None
        self._reactor.callLater(0, protocol.connectionLost, reason)
