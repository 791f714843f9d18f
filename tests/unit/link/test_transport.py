"""The transport, over a socket pair and a reactor that is turned by hand."""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import trustme
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from pgproxy.link.keepalive import Keepalive
from pgproxy.link.records import Records
from pgproxy.link.tls import client_leg, peer_common_name, peer_end_point, server_leg
from pgproxy.link.transport import HIGH_WATER, LINGER, Stream
from tests.key_updates import key_updates, logging_keys

pytestmark = pytest.mark.usefixtures("ways")


class Reactor(Clock):
    """Readers and writers, and turns that call them; time passes when told."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()
        self.writers: set[Any] = set()
        self.addReader, self.removeReader = self.readers.add, self.readers.discard
        self.addWriter, self.removeWriter = self.writers.add, self.writers.discard

    def turn(self) -> bool:
        readable, writable, _ = select.select(self.readers, self.writers, [], 0.02)
        for descriptor, do in [(d, "doRead") for d in readable] + [(d, "doWrite") for d in writable]:
            if descriptor.fileno() < 0:
                continue
            if (why := getattr(descriptor, do)()) is not None:
                self.removeReader(descriptor)
                self.removeWriter(descriptor)
                descriptor.connectionLost(Failure(why))
        self.advance(0)
        return bool(readable or writable)

    def settle(self) -> None:
        for _ in range(100):
            if not self.turn():
                return


class Record(Protocol):
    """Notes what happens."""

    def __init__(self) -> None:
        self.data = b""
        self.lost: Any = None
        self.shaken = False
        self.hello = False

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def handshakeCompleted(self) -> None:
        self.shaken = True

    def tlsHello(self) -> None:
        self.hello = True

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        assert self.lost is None, "told twice"
        self.lost = reason.value


class Producer:
    paused = 0

    def pauseProducing(self) -> None:
        self.paused += 1

    def resumeProducing(self) -> None:
        self.paused -= 1


@pytest.fixture
def reactor() -> Reactor:
    return Reactor()


@pytest.fixture
def pair(reactor: Reactor) -> Iterator[tuple[Stream, Record, socket.socket]]:
    listener = socket.create_server(("127.0.0.1", 0))
    peer = socket.create_connection(listener.getsockname())
    ours, _ = listener.accept()
    listener.close()
    peer.settimeout(5)
    protocol = Record()
    stream = Stream(ours, protocol, reactor, Keepalive())
    protocol.makeConnection(stream)
    yield stream, protocol, peer
    peer.close()
    stream.abortConnection()
    reactor.advance(LINGER)


Pair = tuple[Stream, Record, socket.socket]


def test_bytes_both_ways(reactor: Reactor, pair: Pair) -> None:
    stream, protocol, peer = pair
    stream.write(b"hello")
    assert peer.recv(100) == b"hello"
    peer.sendall(b"back")
    reactor.settle()
    assert protocol.data == b"back"


def test_what_had_not_arrived_when_the_peer_ended_is_known(reactor: Reactor, pair: Pair) -> None:
    stream, protocol, peer = pair
    stream.write(b"arrived")
    assert peer.recv(100) == b"arrived"
    peer.close()
    stream.write(b"did not")
    reactor.settle()
    assert isinstance(protocol.lost, ConnectionDone) and stream.not_received == len(b"did not")


def test_what_is_written_too_late_has_not_arrived(reactor: Reactor, pair: Pair) -> None:
    stream, protocol, peer = pair
    stream.write(b"arrived")
    assert peer.recv(100) == b"arrived"
    peer.close()
    reactor.settle()
    assert protocol.lost is not None and stream.not_received == 0
    stream.write(b"too late")
    assert stream.not_received == len(b"too late")


def is_reset_while_written_to(
    reactor: Reactor, stream: Stream, protocol: Record, peer: socket.socket
) -> None:
    stream.write(b"not read")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()
    stream.write(b"refused")
    stream.write(b"refused again")
    reactor.settle()
    assert protocol.lost is not None and stream.not_received == len(b"refused" + b"refused again")


def test_a_reset_says_nothing(reactor: Reactor, pair: Pair) -> None:
    stream, protocol, peer = pair
    is_reset_while_written_to(reactor, stream, protocol, peer)


@pytest.mark.parametrize("read", [False, True])
def test_what_had_arrived_is_not_said_to_be_missing(reactor: Reactor, pair: Pair, read: bool) -> None:
    stream, protocol, peer = pair
    stream.write(b"arrived")
    if read:
        assert peer.recv(100) == b"arrived"
    peer.close()
    reactor.settle()
    assert protocol.lost is not None and stream.not_received == 0


def test_a_full_socket_pauses_the_producer_until_all_is_sent(reactor: Reactor, pair: Pair) -> None:
    stream, _protocol, peer = pair
    producer = Producer()
    stream.registerProducer(producer, True)
    sent = 0
    while not producer.paused:
        stream.write(b"x" * HIGH_WATER)
        sent += HIGH_WATER
    late = Producer()
    stream.unregisterProducer()
    stream.registerProducer(late, True)
    assert (producer.paused, late.paused) == (0, 1)
    got = 0
    while got < sent:
        reactor.turn()
        got += len(peer.recv(1 << 20))
    reactor.settle()
    assert late.paused == 0 and got == sent


def test_the_end_comes_after_what_was_sent(reactor: Reactor, pair: Pair) -> None:
    stream, protocol, peer = pair
    for _ in range(100):
        stream.write(b"x" * HIGH_WATER)
    stream.loseConnection()
    got = 0
    while data := (reactor.turn(), peer.recv(1 << 20))[1]:
        got += len(data)
    assert got == 100 * HIGH_WATER
    assert protocol.lost is None
    peer.close()
    reactor.settle()
    assert isinstance(protocol.lost, ConnectionDone)


def test_a_peer_that_does_not_read_is_left_after_a_while(reactor: Reactor, pair: Pair) -> None:
    stream, protocol, _peer = pair
    for _ in range(100):
        stream.write(b"x" * HIGH_WATER)
    stream.loseConnection()
    reactor.settle()
    reactor.advance(LINGER - 0.1)
    assert protocol.lost is None
    reactor.advance(0.2)
    reactor.advance(0)
    assert protocol.lost is not None


def test_what_a_peer_said_before_it_reset_is_read(reactor: Reactor, pair: Pair) -> None:
    stream, protocol, peer = pair
    stream.write(b"unread by the peer, so its close is a reset")
    peer.sendall(b"last words")
    peer.close()
    stream.write(b"more")
    stream.write(b"and more")
    assert protocol.lost is None
    reactor.settle()
    assert protocol.lost is not None
    assert protocol.data in (b"last words", b"")


def test_abort_tells_later_and_once(reactor: Reactor, pair: Pair) -> None:
    stream, protocol, _peer = pair
    stream.abortConnection()
    assert protocol.lost is None
    reactor.settle()
    assert isinstance(protocol.lost, ConnectionLost)
    stream.abortConnection()
    stream.loseConnection()
    stream.write(b"into the void")
    reactor.settle()
    assert stream.fileno() == -1 and stream.getPeer() is None


def test_a_paused_stream_is_not_read(reactor: Reactor, pair: Pair) -> None:
    stream, protocol, peer = pair
    stream.pauseProducing()
    peer.sendall(b"wait")
    reactor.settle()
    assert protocol.data == b""
    stream.resumeProducing()
    reactor.settle()
    assert protocol.data == b"wait"


def test_coupled_streams_pause_each_other(reactor: Reactor, pair: Pair) -> None:
    stream, _protocol, peer = pair
    one, far = socket.socketpair()
    other = Stream(one, Record(), reactor, Keepalive())
    stream.couple(other)
    sent = 0
    while other in reactor.readers:
        stream.write(b"x" * HIGH_WATER)
        sent += HIGH_WATER
    stream.uncouple(other)
    assert other in reactor.readers
    stream.couple(other)
    assert other not in reactor.readers
    while sent:
        reactor.turn()
        sent -= len(peer.recv(1 << 20))
    reactor.settle()
    assert other in reactor.readers
    stream.uncouple(other)
    far.close()
    other.abortConnection()


def test_a_producer_is_freed_when_its_consumer_goes(reactor: Reactor, pair: Pair) -> None:
    stream, _protocol, _peer = pair
    producer = Producer()
    stream.registerProducer(producer, True)
    while not producer.paused:
        stream.write(b"x" * HIGH_WATER)
    stream.abortConnection()
    assert producer.paused == 0


def test_the_first_byte_of_tls_is_told(reactor: Reactor, pair: Pair) -> None:
    stream, protocol, peer = pair
    stream.look_first()
    peer.sendall(b"\x16\x03\x01")
    reactor.turn()
    assert protocol.hello and protocol.data == b""


def test_any_other_first_byte_is_read(reactor: Reactor, pair: Pair) -> None:
    stream, protocol, peer = pair
    stream.look_first()
    peer.sendall(b"\0\0")
    reactor.settle()
    assert protocol.data == b"\0\0" and not protocol.hello


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("certificates")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(place / "ca.pem"))
    server = ca.issue_cert("localhost", common_name="localhost")
    server.private_key_and_cert_chain_pem.write_to_path(str(place / "server.pem"))
    client = ca.issue_cert("app@example.org", common_name="app")
    client.private_key_and_cert_chain_pem.write_to_path(str(place / "client.pem"))
    return place


def shake(reactor: Reactor, certificates: Path, require: bool) -> tuple[Stream, Record, Stream, Record]:
    listener = socket.create_server(("127.0.0.1", 0))
    one = socket.create_connection(listener.getsockname())
    other, _ = listener.accept()
    listener.close()
    front, back = Record(), Record()
    client, server = Stream(one, front, reactor, Keepalive()), Stream(other, back, reactor, Keepalive())
    pem = certificates / "server.pem"
    context = client_leg("require", pem, pem, certificates / "ca.pem", require).context
    assert context is not None
    server.startTLS(context, server_side=True)
    certificate = certificates / "client.pem" if require else None
    context = server_leg("verify-full", certificates / "ca.pem", certificate, certificate).context
    assert context is not None
    client.startTLS(context, server_side=False, server_hostname="localhost")
    reactor.settle()
    return client, front, server, back


def test_tls_both_ways(reactor: Reactor, certificates: Path) -> None:
    client, front, server, back = shake(reactor, certificates, require=True)
    assert front.shaken and back.shaken
    assert server.tls is not None and client.tls is not None
    assert server.tls.selected_alpn_protocol() == "postgresql"
    assert peer_common_name(server.tls) == "app"
    ours = client_leg("allow", certificates / "server.pem", certificates / "server.pem").end_point
    assert ours is not None and peer_end_point(client.tls) == ours
    big = bytes(range(256)) * 4000
    client.write(big)
    server.write(b"small")
    server.write(big[:100_000])
    reactor.settle()
    assert back.data == big
    assert front.data == b"small" + big[:100_000]
    client.loseConnection()
    reactor.settle()
    server.loseConnection()
    reactor.settle()
    assert front.lost is not None and isinstance(back.lost, ConnectionDone)


def test_a_handshake_that_fails_says_why(reactor: Reactor, certificates: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    one = socket.create_connection(listener.getsockname())
    other, _ = listener.accept()
    listener.close()
    back = Record()
    server = Stream(other, back, reactor, Keepalive())
    pem = certificates / "server.pem"
    context = client_leg("require", pem, pem).context
    assert context is not None
    server.startTLS(context, server_side=True)
    one.sendall(b"no handshake at all, and long enough for a record header")
    reactor.settle()
    assert isinstance(back.lost, ssl.SSLError) and not back.shaken
    one.close()


def shaking(
    reactor: Reactor, pair: Pair, certificates: Path, keys: Path | None = None
) -> tuple[Stream, Record, socket.socket, Records]:
    """A stream in TLS, and what its peer seals and opens: that has agreed, and has yet to say so."""
    stream, protocol, peer = pair
    pem = certificates / "server.pem"
    ours, theirs = client_leg("require", pem, pem).context, server_leg("require").context
    assert ours is not None and theirs is not None
    if keys is not None:
        logging_keys(theirs, keys)
    stream.startTLS(ours, server_side=True)
    client = Records(theirs, False, None)
    assert not client.shake_hands(b"")
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer.sendall(client.outgoing.read())
    assert reactor.turn() and client.shake_hands(peer.recv(65536))
    return stream, protocol, peer, client


def agreed(
    reactor: Reactor, pair: Pair, certificates: Path, keys: Path | None = None
) -> tuple[Stream, Record, socket.socket, Records]:
    """The same, where both have."""
    stream, protocol, peer, client = shaking(reactor, pair, certificates, keys)
    peer.sendall(client.outgoing.read())
    assert reactor.turn() and protocol.shaken
    return stream, protocol, peer, client


def test_what_comes_with_the_end_of_the_handshake_is_read(
    reactor: Reactor, pair: Pair, certificates: Path
) -> None:
    """Nobody would be woken for it: it has left the socket."""
    _stream, protocol, peer, client = shaking(reactor, pair, certificates)
    peer.sendall(client.seal(b"hello") + client.seal(b", and on"))
    assert reactor.turn()
    assert protocol.shaken and protocol.data == b"hello, and on"


def test_who_is_closed_by_what_it_said_last_has_ended_once(reactor: Reactor, certificates: Path) -> None:
    client, _front, server, back = shake(reactor, certificates, require=False)
    back.dataReceived = lambda data: server.leave()  # type: ignore[method-assign]
    client.write(b"goodbye")
    client.loseConnection()
    reactor.settle()
    assert isinstance(back.lost, ConnectionDone) and not reactor.getDelayedCalls()


def test_a_fatal_alert_is_no_end_in_order(reactor: Reactor, pair: Pair, certificates: Path) -> None:
    _stream, protocol, peer, client = agreed(reactor, pair, certificates)
    client.open(b"\x17\3\3\0\x20" + b"x" * 32)
    peer.sendall(client.own())
    reactor.settle()
    assert isinstance(protocol.lost, ConnectionLost)


def test_what_had_not_arrived_in_tls_is_known(reactor: Reactor, pair: Pair, certificates: Path) -> None:
    stream, protocol, peer, client = agreed(reactor, pair, certificates)
    stream.write(b"arrived")
    assert client.open(peer.recv(1000)) == b"arrived"
    peer.close()
    stream.write(b"did not")
    reactor.settle()
    assert isinstance(protocol.lost, ConnectionDone) and stream.not_received == len(b"did not")


def test_of_what_has_arrived_in_tls_nothing_is_missing(
    reactor: Reactor, pair: Pair, certificates: Path
) -> None:
    stream, protocol, peer, client = agreed(reactor, pair, certificates)
    stream.write(b"x")
    assert client.open(peer.recv(1000)) == b"x"
    peer.shutdown(socket.SHUT_WR)
    reactor.settle()
    assert isinstance(protocol.lost, ConnectionDone) and stream.not_received == 0


def test_what_is_refused_in_tls_is_counted_as_it_was_said(
    reactor: Reactor, pair: Pair, certificates: Path
) -> None:
    stream, protocol, peer, _client = agreed(reactor, pair, certificates)
    is_reset_while_written_to(reactor, stream, protocol, peer)


def test_answers_of_tls_that_are_not_read_end_it(
    reactor: Reactor, pair: Pair, certificates: Path, tmp_path: Path
) -> None:
    stream, protocol, peer, client = agreed(reactor, pair, certificates, tmp_path / "keys")
    stream.write(bytes(20_000_000))
    assert stream.unsent
    updates = key_updates(client.session, tmp_path / "keys", answered=True)
    # Fewer than end it because nothing else comes.
    peer.sendall(b"".join(islice(updates, 10)))
    reactor.turn()
    assert stream.unsent and protocol.lost is None
    peer.sendall(b"".join(islice(updates, 1500)))
    reactor.settle()
    assert protocol.lost is not None


def test_who_has_said_goodbye_is_left_at_once(reactor: Reactor, pair: Pair) -> None:
    stream, protocol, peer = pair
    stream.write(b"last words")
    stream.leave()
    assert protocol.lost is None
    assert (peer.recv(100), peer.recv(100)) == (b"last words", b"")
    reactor.advance(0)
    assert isinstance(protocol.lost, ConnectionDone) and not reactor.getDelayedCalls()


def test_who_has_said_goodbye_in_tls_is_left_at_once(reactor: Reactor, certificates: Path) -> None:
    client, front, server, back = shake(reactor, certificates, require=False)
    client.write(b"goodbye")
    assert reactor.turn() and back.data == b"goodbye"
    client.loseConnection()
    server.leave()
    reactor.settle()
    assert isinstance(front.lost, ConnectionDone) and isinstance(back.lost, ConnectionDone)
    assert not reactor.getDelayedCalls()


def test_who_has_not_said_the_end_of_tls_is_waited_for(reactor: Reactor, certificates: Path) -> None:
    _client, front, server, back = shake(reactor, certificates, require=False)
    server.leave()
    assert server.tls is not None and server.disconnecting and back.lost is None
    reactor.settle()
    assert isinstance(front.lost, ConnectionDone) and isinstance(back.lost, ConnectionDone)
    assert not reactor.getDelayedCalls()


def test_what_is_unsent_goes_before_it_leaves(reactor: Reactor, pair: Pair) -> None:
    stream, protocol, peer = pair
    big = bytes(20_000_000)
    stream.write(big)
    assert stream.unsent
    stream.leave()
    received = 0
    while data := peer.recv(1 << 20):
        received += len(data)
        reactor.turn()
    assert received == len(big)
    peer.close()
    reactor.settle()
    assert isinstance(protocol.lost, ConnectionDone)
