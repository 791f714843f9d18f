"""Clients wait and are given servers: the compiled methods and those in Python leave the same behind."""

from __future__ import annotations

import gc
import socket
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from pgproxy.figures.histogram import Histogram
from pgproxy.link.client import ClientConnection
from pgproxy.link.lender import Limits, ServerLender
from pgproxy.link.server import ServerConnection
from pgproxy.link.splice import Splice, Terms
from pgproxy.link.target import TargetPools
from pgproxy.link.transport import Stream
from pgproxy.observe.client import ClientLog
from pgproxy.pool.rules import Rules
from pgproxy.pool.states import IDLE, CloseReason, Server
from pgproxy.session.following import Following
from pgproxy.session.suspicion import Verdicts
from pgproxy.twin import twin
from pgproxy.wire.messages import parameter_status
from tests.examples import examples
from tests.unit.conftest import CLASSES
from tests.unit.session.model import bind, describe, execute, message, parse, query

SERVERS, CLIENTS = 2, 6
BUFFER = 120
"""Bytes."""
SEEN_BY_NOBODY = 1 << 60
SAYS = {
    "select": query(b"SELECT 1"),
    "batch": parse(b"", b"SELECT 2") + bind(b"") + describe(b"", b"P") + execute() + message(b"S", b""),
    "two": query(b"SELECT 1") + query(b"SELECT 2"),
    "begin": query(b"BEGIN"),
    "commit": query(b"COMMIT"),
    "half": query(b"SELECT 1")[:9],
    "long": query(b"SELECT '" + b"x" * BUFFER + b"'"),
    "set": query(b"SET a.b TO 1"),
    "nonsense": b"\xff\0\0\0\x05",
    "terminate": message(b"X", b""),
}


class Still(Clock):
    """A reactor that hears of readers and writers, and does nothing about them."""

    def addReader(self, _reader: object) -> None:
        pass

    removeReader = addWriter = removeWriter = addReader


class Hall:
    """A lender with some servers, and clients with their sockets."""

    def __init__(self, reactor: Any = None) -> None:
        nobody: Any = None
        self.reactor: Any = reactor or Still()
        log = structlog.wrap_logger(structlog.testing.CapturingLogger(), processors=[])
        self.target = TargetPools("main", Rules(), self.reactor, lambda: 0.5, log)
        limits = Limits(SERVERS, 0, 4, False, 5, 5, 200, False)
        self.lender = ServerLender(self.reactor, nobody, ("db", "user"), nobody, limits, self.target, log)
        self.target.learn(100)
        self.lender.turns.due = SEEN_BY_NOBODY
        self.lane = self.lender.pool.lane(())
        self.peers: list[socket.socket] = []
        self.servers = [self._server(number) for number in range(SERVERS)]
        self.clients = [self._client(number) for number in range(CLIENTS)]
        self.heard: list[bytes] = []
        self.ended: list[tuple[int, str]] = []

    def _stream(self, protocol: Any) -> Stream:
        ours, peer = socket.socketpair()
        peer.setblocking(False)
        self.peers.append(peer)
        stream = Stream(ours, protocol, self.reactor, None)
        protocol.transport = stream
        return stream

    def _server(self, number: int) -> ServerConnection:
        nobody: Any = None
        record = Server(number, self.lane, self.lender._new_session(), 1e9, IDLE)
        record.session.status(parameter_status(b"client_encoding", b"UTF8")[5:])
        record.session.greeting = record.session.reported
        server = ServerConnection(record, nobody, nobody, nobody, b"", nobody, nobody)
        server._logged_in = True
        server.rest()
        self._stream(server)
        self.lane.idle.append(record)
        self.target.pools.servers.add(record)
        for account in self.lane.accounts:
            account.count += 1
        self.lender._connections._enter(server)
        return server

    def _client(self, number: int) -> Splice:
        front: Any = None
        client = ClientConnection(front, ClientLog(structlog.testing.CapturingLogger()))
        stream = self._stream(client)
        talk = Following(Verdicts(), frozenset(), None)
        talk.hears(self.servers[0].record.session.greeting)
        talk.pid = number.to_bytes(4, "big")
        client.splice = splice = Splice(
            stream,
            self.lender,
            Terms(False, (), BUFFER),
            talk,
            lambda reason: self.ended.append((number, reason)),
            lambda _event: None,
            self.reactor.seconds,
            client.log,
        )
        client.receive = splice.from_client
        return splice

    def close(self) -> None:
        for peer in self.peers:
            peer.close()
        for stream in (*(one.transport for one in self.servers), *(one._client for one in self.clients)):
            if stream._socket is not None:
                stream._socket.close()

    def do(self, step: tuple[Any, ...]) -> None:
        """Take a step."""
        what, *more = step
        match what:
            case "say":
                number, said = more
                self.clients[number].from_client(SAYS[said])
            case "answer":
                self._answer(*more)
            case "late":
                self.reactor.rightNow += more[0]
            case "leave":
                self.clients[more[0]].client_lost()
            case "pause":
                self.clients[more[0]]._client.pauseProducing()
            case "look":
                self.lender.turns.due = self.lender.turns.count + 1
                return
            case "retire":
                self.servers[more[0]].record.retiring = CloseReason.MOVED
            case "busy":
                self.target._busy = not self.target._busy
            case "fewer":
                self.lane.accounts[-1].most = 1
        self.lender.turns.due = SEEN_BY_NOBODY

    def _answer(self, number: int) -> None:
        """Have a server answer what it was sent last."""
        answer = self.answer_of(number)
        if answer:
            self.servers[number].receive(answer)

    def answer_of(self, number: int) -> bytes:
        """Say what a server answers to what it was sent last."""
        try:
            said = self.peers[number].recv(1 << 16)
        except BlockingIOError:
            return b""
        answer = b""
        while said:
            end = 1 + int.from_bytes(said[1:5], "big")
            tag, body, said = said[:1], said[5:end], said[end:]
            status = b"T" if body == b"BEGIN\0" else b"I"
            done = message(b"C", (body.partition(b" ")[0].partition(b"\0")[0] or b"SELECT") + b"\0")
            answer += {
                b"Q": done + message(b"Z", status),
                b"P": message(b"1", b""),
                b"B": message(b"2", b""),
                b"D": message(b"n", b""),
                b"E": message(b"C", b"SELECT 1\0"),
                b"S": message(b"Z", b"I"),
            }.get(tag, b"")
        return answer

    @property
    def state(self) -> list[object]:
        """What can be told of it."""
        clients = {splice: number for number, splice in enumerate(self.clients)}
        pool, pools = self.lender.pool, self.target.pools
        while len(self.heard) < len(self.peers):
            self.heard.append(b"")
        for at in range(SERVERS, SERVERS + CLIENTS):
            try:
                self.heard[at] += self.peers[at].recv(1 << 16)
            except BlockingIOError:
                pass
        waits = self.lender._waits
        return [
            [
                (clients[cast(Any, one)], waiter.since, waiter.home)
                for one, waiter in self.lane.waiters.items()
            ],
            [waiter.settings is one._talk.settings for one, waiter in cast(Any, self.lane.waiters).items()],
            (self.lane.latest, pool.waiting, len(pools._hungry), pools.pressed, pools.contested, pools.turns),
            [one.borrower and clients[cast(Any, one.borrower)] for one in self.servers],
            [record.number for record in self.lane.idle],
            [(one.record.state, one.record.turn, one.receive.__name__) for one in self.servers],
            [
                (one._waiting, one._waiting_since, one._held[:], one._held_size, one._watch.due, one._used)
                for one in self.clients
            ],
            [(one._leaving, one._client._reading, one._sample is None) for one in self.clients],
            [getattr(one.server, "pid", None) for one in self.clients],
            (waits.counts, waits.seconds) if isinstance(waits, Histogram) else None,
            (self.lender.turns.count, self.target._busy, len(self.target._todo)),
            self.heard[:],
            self.ended[:],
        ]


@contextmanager
def hall() -> Iterator[Hall]:
    there = Hall()
    try:
        yield there
    finally:
        there.close()


client, server = st.integers(0, CLIENTS - 1), st.integers(0, SERVERS - 1)
often = st.one_of(
    st.tuples(st.just("say"), client, st.just("select")),
    st.tuples(st.just("say"), client, st.just("select")),
    st.tuples(st.just("say"), client, st.sampled_from(sorted(SAYS))),
    st.tuples(st.just("answer"), server),
    st.tuples(st.just("answer"), server),
    st.tuples(st.just("late"), st.sampled_from((0.001, 0.02, 1.0, -5.0))),
)
seldom = st.one_of(
    st.tuples(st.sampled_from(("leave", "pause")), client),
    st.tuples(st.just("retire"), server),
    st.sampled_from([("look",), ("busy",), ("fewer",)]),
)
everybody = [("say", number, "select") for number in range(4)]


def play(steps: list[tuple[Any, ...]], compiled: bool) -> list[object]:
    with pytest.MonkeyPatch.context() as patch, hall() as there:
        if not compiled:
            for owner, name, method in twin.look()["replaced"]:
                patch.setattr(CLASSES[owner], name, method)
        seen: list[object] = []
        for step in steps:
            try:
                there.do(step)
            except Exception as error:
                return [*seen, repr(error)]
            seen.append(there.state)
        return seen


@pytest.mark.skipif(twin is None, reason="there is no compiled twin")
@settings(max_examples=examples(150))
@given(st.lists(often, max_size=12), st.lists(seldom, max_size=2), st.lists(often, max_size=16))
def test_whatever_happens_both_ways_are_one(before: list[Any], change: list[Any], after: list[Any]) -> None:
    steps = [*everybody, *before, *change, *after]
    for step, ours, pythons in zip(steps, play(steps, True), play(steps, False), strict=False):
        assert ours == pythons, step


@pytest.mark.skipif(twin is None, reason="there is no compiled twin")
def test_the_common_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with hall() as there:
        for step in everybody:
            there.do(step)
        there.do(("answer", 0))
        for name in ("pass_on", "stand_in_line"):
            monkeypatch.delattr(type(there.target.pools), name)
        before = twin.look()["plain"]
        there.do(("say", 4, "select"))
        there.do(("say", 5, "batch"))
        there.do(("answer", 1))
        assert twin.look()["plain"] - before == 3


def test_who_has_waited_longest_is_served_first(ways: str) -> None:
    with hall() as there:
        for step in everybody:
            there.do(step)
        waiting = [there.clients[2], there.clients[3]]
        assert list(there.lane.waiters) == waiting
        for late, number in ((1.0, 4), (-5.0, 5)):
            there.do(("late", late))
            there.do(("say", number, "select"))
        # The clock was set back.
        assert list(there.lane.waiters) == [there.clients[5], *waiting, there.clients[4]]
        for _ in range(3):
            there.do(("answer", 0))
        assert list(there.lane.waiters) == [there.clients[4]]
        for number in (0, 0, 1):
            there.do(("answer", number))
        assert not there.lane.waiters and not there.target.pools.pressed
        assert there.lender._waits is not None and there.lender._waits.count == 4
        assert there.state
        assert [len(heard) for heard in there.heard[SERVERS:]] == [len(there.heard[SERVERS])] * CLIENTS


def test_a_parse_makes_another_statement_than_the_one_that_another_server_has(ways: str) -> None:
    with hall() as there:
        client, sessions = there.clients[0], [one.record.session for one in there.servers]
        prepared = cast(Any, client.talk)._prepared

        def parse_once_more(number: int) -> int:
            there.do(("say", 0, "batch"))
            assert client.server is there.servers[number]
            there.do(("answer", number))
            turn = int(prepared.unnamed.turn)
            assert sessions[number].unnamed is prepared.unnamed
            return turn

        last = SERVERS - 1
        turns = [parse_once_more(last), parse_once_more(last)]
        there.do(("say", 1, "begin"))
        assert there.clients[1].server is there.servers[last]
        turns += [parse_once_more(0), parse_once_more(0)]
        assert sessions[last].unnamed is not sessions[0].unnamed
        assert turns == sorted(set(turns))


@pytest.mark.skipif(twin is None, reason="there is no compiled twin")
def test_nothing_is_leaked() -> None:
    with hall() as there:
        for step in everybody:
            there.do(step)

        def go_round(times: int) -> int:
            for _ in range(times):
                for number in range(CLIENTS):
                    if there.clients[number].at_rest:
                        there.do(("say", number, "select"))
                    there.do(("answer", number % SERVERS))
                assert there.state
                there.heard.clear()
            gc.collect()
            return sum(one.size for one in tracemalloc.take_snapshot().traces)

        tracemalloc.start()
        try:
            before = go_round(5)
            after = go_round(100)
        finally:
            tracemalloc.stop()
        assert after - before < 5_000
