"""
Asks name servers a question: over UDP, and over TCP where the answer does not fit.

The law:

1. Servers are asked in their order. The next one is asked as soon as one can't answer, or has been silent for
   `PATIENCE`; who was asked before may still answer. Behind the last, the silent ones are asked again.
2. The first answer counts, also that there is no such name or no address. SERVFAIL, REFUSED and the like
   count when no server is left.
3. There is no end to the silence but the caller's: it cancels.

The sockets are connected and have random ports, the questions random numbers: what comes from elsewhere, or
answers something else, is passed over. Documentation: RFC 1035 §4.2, RFC 5452, RFC 7766.

Twisted's own resolver is not used: it takes SERVFAIL for an answer and a refused connection for silence, asks
over TCP any server without a limit of time, and shares answers between those who ask at the same time.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, connectProtocol
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure

from pgproxy.watch.discovery.fixed import shown
from pgproxy.watch.discovery.records import (
    LARGEST,
    Addresses,
    NotOurs,
    RecordType,
    Trouble,
    Truncated,
    Unanswered,
    question,
    read,
)

PATIENCE = 0.5
"""Seconds."""
_FINAL = frozenset({Trouble.NO_SUCH_NAME, Trouble.NO_ADDRESS, Trouble.LONG_CHAIN})


def ask(
    reactor: Any, servers: Sequence[tuple[str, int]], name: str, kind: RecordType, over_tcp: bool = False
) -> Deferred[Addresses]:
    """
    Give the addresses of a name as one of the servers (IP address and port) has them.

    Fails with `Unanswered`; if it is cancelled, too.
    """
    return _Asking(reactor, servers, name, kind, over_tcp).answer


class _Asking:
    """One question under way."""

    def __init__(
        self,
        reactor: Any,
        servers: Sequence[tuple[str, int]],
        name: str,
        kind: RecordType,
        over_tcp: bool,
    ) -> None:
        self._reactor = reactor
        self._name = name
        self._kind = kind
        self._number = secrets.randbelow(1 << 16)
        packet = question(name, kind, self._number)
        self._ways = [_Way(self, reactor, server, packet, over_tcp) for server in servers]
        self._turn = 0
        self._timer: Any = None
        self.answer: Deferred[Addresses] = Deferred(self._cancelled)
        self._ask_next()

    def _ask_next(self) -> None:
        left = [way for way in self._ways if way.trouble is None]
        if not left:
            first = self._ways[0]
            self._end(Failure(Unanswered(first.trouble or Trouble.SILENCE, str(first))))
            return
        # From where we are on, round and round.
        after = [way for way in self._ways[self._turn :] if way.trouble is None]
        way = (after or left)[0]
        self._turn = (self._ways.index(way) + 1) % len(self._ways)
        self._timer = self._reactor.callLater(PATIENCE, self._ask_next)
        way.ask()

    def received(self, way: _Way, data: bytes) -> None:
        """Take what a server has sent."""
        try:
            addresses = read(data, self._name, self._kind, self._number)
        except NotOurs:
            return
        except Truncated:
            way.ask_over_tcp()
        except Unanswered as error:
            if error.trouble in _FINAL:
                self._end(Failure(Unanswered(error.trouble, str(way))))
            else:
                self.troubled(way, error.trouble)
        else:
            self._end(addresses)

    def troubled(self, way: _Way, trouble: Trouble) -> None:
        """Take it that a server gives no answer."""
        if self.answer.called or way.trouble is not None:
            return
        way.trouble = trouble
        way.close()
        self._stop_timer()
        self._ask_next()

    def _cancelled(self, answer: Deferred[Addresses]) -> None:
        silent = ", ".join(str(way) for way in self._ways if way.asked and way.trouble is None)
        self._end(Failure(Unanswered(Trouble.SILENCE, silent)))

    def _end(self, result: Addresses | Failure) -> None:
        self._stop_timer()
        for way in self._ways:
            way.close()
        if not self.answer.called:
            self.answer.callback(result)

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()


class _Way:
    """One server, and how it is being asked."""

    def __init__(
        self, asking: _Asking, reactor: Any, server: tuple[str, int], packet: bytes, over_tcp: bool
    ) -> None:
        self._asking = asking
        self._reactor = reactor
        self._server = server
        self._packet = packet
        self._over_tcp = over_tcp
        self._datagrams: Any = None
        self._connection: Deferred[_Connection] | None = None
        self.trouble: Trouble | None = None
        self.asked = False

    def __str__(self) -> str:
        return shown(*self._server)

    def ask(self) -> None:
        """Send the question, or send it again."""
        self.asked = True
        if self._over_tcp:
            self._connect()
            return
        try:
            if self._datagrams is None:
                interface = "::" if ":" in self._server[0] else ""
                self._datagrams = self._reactor.listenUDP(
                    0, _Datagrams(self._asking, self), interface=interface, maxPacketSize=LARGEST + 1
                )
                self._datagrams.connect(*self._server)
            self._datagrams.write(self._packet)
        except (OSError, CannotListenError):
            self._asking.troubled(self, Trouble.UNREACHABLE)

    def ask_over_tcp(self) -> None:
        """Ask anew: the answer does not fit into a datagram."""
        if self._over_tcp:
            self._asking.troubled(self, Trouble.UNREADABLE)
            return
        self._over_tcp = True
        self._connect()

    def _connect(self) -> None:
        if self._connection is not None:
            return
        kind = TCP6ClientEndpoint if ":" in self._server[0] else TCP4ClientEndpoint
        self._connection = connectProtocol(
            kind(self._reactor, *self._server), _Connection(self._asking, self, self._packet)
        )
        self._connection.addErrback(lambda _: self._asking.troubled(self, Trouble.UNREACHABLE))

    def lost_datagrams(self) -> None:
        """Take it that the socket for datagrams is no longer there."""
        self._datagrams = None
        if not self._over_tcp:
            self._asking.troubled(self, Trouble.UNREACHABLE)

    def close(self) -> None:
        """Give its sockets back."""
        if self._datagrams is not None:
            self._datagrams.stopListening()
            self._datagrams = None
        if self._connection is not None:
            if self._connection.called:
                self._connection.addCallback(_abort)
            else:
                self._connection.cancel()
            self._connection = None


def _abort(connection: _Connection | None) -> None:
    transport: Any = connection.transport if connection is not None else None
    if transport is not None:
        transport.abortConnection()


class _Datagrams(DatagramProtocol):
    noisy = False

    def __init__(self, asking: _Asking, way: _Way) -> None:
        self._asking = asking
        self._way = way

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        if self._way.trouble is None and not self._asking.answer.called:
            self._asking.received(self._way, datagram)

    def connectionRefused(self) -> None:
        self._asking.troubled(self._way, Trouble.UNREACHABLE)

    def stopProtocol(self) -> None:
        """Take it that the port was closed: by us, or by the reactor, as epoll reports refusals as errors."""
        self._way.lost_datagrams()


class _Connection(Int16StringReceiver):
    def __init__(self, asking: _Asking, way: _Way, packet: bytes) -> None:
        self._asking = asking
        self._way = way
        self._packet = packet

    def connectionMade(self) -> None:
        self.sendString(self._packet)

    def stringReceived(self, string: bytes) -> None:
        if not self._asking.answer.called:
            self._asking.received(self._way, string)

    def connectionLost(self, reason: Any = None) -> None:
        self._asking.troubled(self._way, Trouble.UNREACHABLE)
