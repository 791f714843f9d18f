"""What is sent in one turn of the reactor: together where that can be done, and as if it were one by one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from pgproxy.link.client import ClientConnection
from pgproxy.link.reactor import DirectReactor
from pgproxy.link.server import ServerConnection
from pgproxy.link.transport import HIGH_WATER
from pgproxy.twin import twin
from pgproxy.wire.messages import ready_for_query
from tests.unit.conftest import CLASSES
from tests.unit.link.test_queue import CLIENTS, SAYS, SERVERS, Hall
from tests.unit.session.model import message

DONE = message(b"C", b"SELECT\0") + ready_for_query(b"I")
ROW = message(b"D", b"\0\1" + (2000).to_bytes(4, "big") + b"x" * 2000)


def counted() -> int:
    """How many were sent together with others."""
    return twin.look()["gathered"] if twin is not None else 0


def gathers(ways: str) -> bool:
    """Say whether what is sent here is gathered: the twin does it, where the kernel lets it."""
    return ways == "compiled" and twin.look()["ring"]


class Square(Hall):
    """A hall whose clients and servers are heard by a reactor."""

    def turn(self) -> None:
        """Deal with all that has come in, a turn's work at a time."""
        for _ in range(20):
            self.reactor.doPoll(0)
            self.reactor.runUntilCurrent()

    def say(self, number: int, data: bytes) -> None:
        """Have a client say something, which is not read before the next turn."""
        self.peers[SERVERS + number].send(data)

    def answer(self, number: int, data: bytes) -> None:
        """Have a server say something."""
        self.peers[number].send(data)

    def hear(self, at: int) -> bytes:
        """Give what has come to a peer."""
        heard = b""
        try:
            while data := self.peers[at].recv(1 << 16):
                heard += data
        except BlockingIOError:
            pass
        return heard


@contextmanager
def square() -> Iterator[Square]:
    reactor = DirectReactor()
    with pytest.MonkeyPatch.context() as patch:
        # There is no front behind these clients, and nobody who opens servers.
        patch.setattr(ClientConnection, "connectionLost", lambda client, _why: client.splice.client_lost())
        patch.setattr(ServerConnection, "connectionLost", lambda _server, _why: None)
        there = Square(reactor)
        try:
            yield there
        finally:
            for descriptor in [*reactor.removeAll(), *reactor._internalReaders]:
                descriptor.connectionLost(Failure(ConnectionDone()))
            reactor.runUntilCurrent()
            reactor._poller.close()
            there.close()


def linked(there: Square) -> None:
    """Have each server be asked by one client."""
    for number in range(SERVERS):
        there.say(number, SAYS["select"])
    there.turn()
    assert [there.hear(at) for at in range(SERVERS)] == [SAYS["select"]] * SERVERS


def ask_and_answer(there: Square, done: bytes = DONE) -> None:
    """Have each server be asked by one client, and answer."""
    linked(there)
    for at in range(SERVERS):
        there.answer(at, done)
    there.turn()
    assert [there.hear(SERVERS + number) for number in range(SERVERS)] == [done] * SERVERS


def test_what_is_sent_in_one_turn_goes_together(ways: str) -> None:
    with square() as there:
        for _ in range(2):
            # The second time nothing has to be found out.
            before = counted()
            linked(there)
            for number in range(SERVERS):
                there.answer(number, DONE)
            there.turn()
            heard = [there.hear(SERVERS + number) for number in range(CLIENTS)]
            assert heard == [DONE] * SERVERS + [b""] * (CLIENTS - SERVERS)
        assert counted() - before == (2 * SERVERS if gathers(ways) else 0)
        assert all(one.server is None for one in there.clients)


def test_what_does_not_go_out_waits_and_is_in_order(ways: str) -> None:
    with square() as there:
        linked(there)
        client = there.servers[0].transport._producer
        number = there.clients.index(next(one for one in there.clients if one._client is client))
        client._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        said, heard = b"", b""
        while client.unsent <= HIGH_WATER:
            for at in range(SERVERS):
                there.answer(at, ROW)
            said += ROW
            there.turn()
        assert not there.servers[0].transport._reading and there.servers[1].transport._reading
        for at in range(SERVERS):
            there.answer(at, DONE)
        said += DONE
        while there.servers[0].transport._producer is not None or client.unsent:
            heard += there.hear(SERVERS + number)
            there.turn()
        heard += there.hear(SERVERS + number)
        assert heard == said


def test_who_has_gone_does_not_hear_it_and_the_others_do(ways: str) -> None:
    with square() as there:
        linked(there)
        gone = next(at for at in range(CLIENTS) if there.clients[at].server is there.servers[0])
        other = next(at for at in range(CLIENTS) if there.clients[at].server is there.servers[1])
        stream = there.clients[gone]._client
        stream.pauseProducing()
        there.peers[SERVERS + gone].close()
        for at in range(SERVERS):
            there.answer(at, DONE)
        there.turn()
        assert stream._write_failed and stream.not_received == len(DONE)
        assert there.hear(SERVERS + other) == DONE
        assert len(there.lane.idle) == SERVERS


def test_a_defect_ends_the_one_it_is_about(ways: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_all: object) -> None:
        raise ZeroDivisionError

    with square() as there:
        broken: list[tuple[Any, Any]] = []
        monkeypatch.setattr(
            DirectReactor, "_broke", lambda _self, stream, error: broken.append((stream, error))
        )
        linked(there)
        other = next(at for at in range(CLIENTS) if there.clients[at].server is there.servers[1])
        client = there.servers[0].transport._producer
        client._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
        monkeypatch.setattr(type(client), "_keep", fails)
        while not broken:
            there.answer(0, ROW)
            there.answer(1, ROW)
            there.turn()
        assert all(isinstance(error, ZeroDivisionError) for _stream, error in broken)
        if gathers(ways):
            assert {stream for stream, _error in broken} == {client}
        assert there.hear(SERVERS + other).endswith(ROW)


def test_a_number_that_somebody_has_read_stays_what_it_was(ways: str) -> None:
    # What the twin counts in its place nobody else may have.
    with square() as there:
        ask_and_answer(there)
        ledgers = [splice._talk.ledger for splice in there.clients[:SERVERS]]
        for number, ledger in enumerate(ledgers, 1):
            ledger.asked = ledger.answered = number * 1000
        read = [ledger.asked for ledger in ledgers]
        for _ in range(3):
            ask_and_answer(there)
        assert read == [1000, 2000]
        assert [ledger.asked for ledger in ledgers] == [1003, 2003]
        assert [ledger.answered for ledger in ledgers] == [1003, 2003]


# What a server has to be cleaned of is not for these servers, which nobody could replace.
HARMLESS = ("select", "batch", "two", "long")
steps = st.one_of(
    st.tuples(st.just("say"), st.integers(0, CLIENTS - 1), st.sampled_from(HARMLESS)),
    st.tuples(st.just("say"), st.integers(0, CLIENTS - 1), st.just("select")),
    st.tuples(st.just("answer"), st.integers(0, SERVERS - 1)),
    st.tuples(st.just("close"), st.integers(0, CLIENTS - 1)),
)


def play(turns: list[list[tuple[Any, ...]]], compiled: bool) -> list[object]:
    with pytest.MonkeyPatch.context() as patch, square() as there:
        if not compiled:
            for owner, name, method in twin.look()["replaced"]:
                patch.setattr(CLASSES[owner], name, method)
        heard = [b""] * CLIENTS
        closed: set[int] = set()
        for turn in turns:
            said: set[int] = set()
            for what, number, *more in turn:
                if what == "answer":
                    there.answer(number, there.answer_of(number))
                elif number in closed:
                    continue
                elif what == "say":
                    said.add(number)
                    there.say(number, SAYS[more[0]])
                elif there.clients[number].at_rest and number not in said:
                    closed.add(number)
                    there.peers[SERVERS + number].shutdown(socket.SHUT_WR)
            there.turn()
            for number in range(CLIENTS):
                heard[number] += there.hear(SERVERS + number)
        return [
            heard,
            there.ended,
            [splice.at_rest for splice in there.clients],
            [splice._client.not_received for splice in there.clients],
            [server.transport.not_received for server in there.servers],
            len(there.lane.waiters),
            len(there.lane.idle),
        ]


@pytest.mark.skipif(twin is None, reason="there is no compiled twin")
@given(st.lists(st.lists(steps, min_size=2, max_size=6), max_size=8))
def test_whatever_is_said_in_a_turn_both_ways_are_one(turns: list[list[tuple[Any, ...]]]) -> None:
    assert play(turns, True) == play(turns, False)


def close_the_ring() -> None:
    [ring] = [
        one for one in os.listdir("/proc/self/fd") if "io_uring" in os.path.realpath(f"/proc/self/fd/{one}")
    ]
    os.close(int(ring))


def lose_the_ring() -> None:
    """Have the ring fail in mid-work; its process sends on without it."""
    with square() as there:
        ask_and_answer(there)
        close_the_ring()
        ask_and_answer(there)
        assert not twin.look()["ring"]


def lose_the_ring_amid_a_turn() -> None:
    """Have more to send in the turn in which it fails."""
    with square() as there:
        ask_and_answer(there)
        close_the_ring()
        for number in range(SERVERS):
            there.say(number, SAYS["select"])
        # This is Python's: what was gathered before it is sent before it.
        there.say(SERVERS, SAYS["half"])
        for at in range(SERVERS):
            there.answer(at, DONE)
        there.turn()
        assert [there.hear(at) for at in range(SERVERS)] == [SAYS["select"]] * SERVERS
        assert [there.hear(SERVERS + number) for number in range(SERVERS)] == [DONE] * SERVERS
        assert not twin.look()["ring"]


def fork_with_the_ring() -> None:
    """Have a fork go on with a reactor and a ring of its own: the one it had is its parent's."""
    with square() as there:
        ask_and_answer(there)
        ask_and_answer(there)
        child = os.fork()
        if not child:
            status = 1
            try:
                other = message(b"C", b"SELECT 7\0") + ready_for_query(b"I")
                own = Square(DirectReactor())
                ask_and_answer(own, other)
                ask_and_answer(own, other)
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        ask_and_answer(there)
        assert twin.look()["ring"]


@pytest.mark.skipif(twin is None or not twin.look()["ring"], reason="there is no twin, or no io_uring")
@pytest.mark.parametrize("what", [lose_the_ring, lose_the_ring_amid_a_turn, fork_with_the_ring])
def test_a_ring_that_fails_is_not_missed(what: Callable[[], None]) -> None:
    code = f"from {__name__} import {what.__name__}; {what.__name__}()"
    subprocess.run([sys.executable, "-c", code], check=True)
