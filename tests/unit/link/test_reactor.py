"""The reactor: what comes in reaches its stream, and everything else goes Twisted's way."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.python import log
from twisted.python.failure import Failure

from pgproxy.link.keepalive import Keepalive
from pgproxy.link.reactor import DirectReactor
from pgproxy.link.transport import Stream

pytestmark = pytest.mark.usefixtures("ways")


class Record(Protocol):
    data = b""
    lost: Any = None

    def dataReceived(self, data: bytes) -> None:
        if data == b"trouble":
            raise ZeroDivisionError
        self.data += data

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        self.lost = reason.value


@pytest.fixture
def reactor() -> Iterator[DirectReactor]:
    reactor = DirectReactor()
    yield reactor
    for descriptor in [*reactor.removeAll(), *reactor._internalReaders]:
        descriptor.connectionLost(Failure(ConnectionDone()))
    reactor._poller.close()


Pair = tuple[Record, socket.socket]


@pytest.fixture
def pair(reactor: DirectReactor) -> Iterator[Pair]:
    ours, peer = socket.socketpair()
    protocol = Record()
    protocol.makeConnection(Stream(ours, protocol, reactor, Keepalive()))
    yield protocol, peer
    peer.close()


def test_its_clock_is_one_that_nobody_sets(reactor: DirectReactor) -> None:
    before = time.monotonic()
    assert before <= reactor.seconds() <= time.monotonic()
    call = reactor.callLater(1, print)
    assert before + 1 <= call.getTime() <= time.monotonic() + 1
    call.cancel()


def test_what_comes_is_read(reactor: DirectReactor, pair: Pair) -> None:
    protocol, peer = pair
    peer.send(b"hello")
    reactor.doIteration(5)
    assert protocol.data == b"hello"


def test_the_end_is_told(reactor: DirectReactor, pair: Pair) -> None:
    protocol, peer = pair
    peer.close()
    reactor.doPoll(5)
    reactor.runUntilCurrent()
    assert isinstance(protocol.lost, ConnectionDone)


def test_a_defect_ends_the_connection_and_is_logged(
    reactor: DirectReactor, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol, peer = pair
    logged: list[Failure] = []
    monkeypatch.setattr(log, "err", logged.append)
    peer.send(b"trouble")
    reactor.doPoll(5)
    reactor.runUntilCurrent()
    assert isinstance(protocol.lost, ZeroDivisionError)
    [failure] = logged
    assert failure.check(ZeroDivisionError) and "dataReceived" in failure.getTraceback()


def test_it_waits_as_long_as_it_is_told(reactor: DirectReactor) -> None:
    before = time.monotonic()
    reactor.doPoll(0.05)
    assert 0.05 <= time.monotonic() - before < 5
    reactor.doPoll(0)
    reactor.wakeUp()
    reactor.doPoll(None)


def test_it_waits_again_until_something_is_scheduled(reactor: DirectReactor) -> None:
    called: list[int] = []

    def in_one_go() -> bytes:
        ours, peer = socket.socketpair()

        class Again(Record):
            def dataReceived(self, data: bytes) -> None:
                self.data += data
                if len(self.data) < 5:
                    peer.send(b"x")
                else:
                    reactor.callLater(0, called.append, 1)

        protocol = Again()
        protocol.makeConnection(Stream(ours, protocol, reactor, Keepalive()))
        peer.send(b"x")
        reactor.doPoll(None)
        said = protocol.data
        while len(protocol.data) < 5:
            reactor.doPoll(None)
        assert called == []
        reactor.runUntilCurrent()
        assert called == [1]
        called.clear()
        peer.close()
        reactor.doPoll(None)
        reactor.runUntilCurrent()
        return said

    # Where others use the machine as well the time that it may take may be over before.
    assert any(in_one_go() == b"xxxxx" for _ in range(100))


def test_it_waits_no_longer_when_it_is_to_stop(reactor: DirectReactor) -> None:
    ours, peer = socket.socketpair()

    class Last(Record):
        def dataReceived(self, data: bytes) -> None:
            self.data += data
            peer.send(b"y")
            reactor._justStopped = True

    protocol = Last()
    protocol.makeConnection(Stream(ours, protocol, reactor, Keepalive()))
    peer.send(b"x")
    reactor.doPoll(None)
    assert protocol.data == b"x"
    peer.close()


def test_what_is_put_forward_in_time_is_found_soon(reactor: DirectReactor) -> None:
    ours, peer = socket.socketpair()
    called: list[int] = []
    later = reactor.callLater(3600, called.append, 1)
    reactor.runUntilCurrent()

    class Busy(Record):
        def dataReceived(self, data: bytes) -> None:
            if not self.data:
                later.reset(0)
            self.data += data
            peer.send(b"x")

    protocol = Busy()
    protocol.makeConnection(Stream(ours, protocol, reactor, Keepalive()))
    peer.send(b"x")
    reactor.doPoll(3600)
    reactor.runUntilCurrent()
    assert called
    peer.close()


def test_what_is_no_stream_goes_twisteds_way(reactor: DirectReactor) -> None:
    called: list[int] = []
    reactor.callFromThread(called.append, 1)
    reactor.doPoll(5)
    reactor.runUntilCurrent()
    assert called == [1]


def test_what_an_earlier_event_has_closed_is_left_alone(reactor: DirectReactor) -> None:
    streams: list[Stream] = []
    peers = []

    class Closes(Protocol):
        def dataReceived(self, data: bytes) -> None:
            for stream in streams:
                stream.abortConnection()

        def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
            pass

    for _ in range(2):
        ours, peer = socket.socketpair()
        peers.append(peer)
        streams.append(Stream(ours, Closes(), reactor, Keepalive()))
    for peer in peers:
        peer.send(b"x")
    reactor.doPoll(5)
    reactor.runUntilCurrent()
    assert [stream.fileno() for stream in streams] == [-1, -1]
    for peer in peers:
        peer.close()
