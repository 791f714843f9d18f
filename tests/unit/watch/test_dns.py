"""Look-ups, asked of name servers on loopback that say what a test wants; and files of the system."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor  # noqa: TID251 - pytest-twisted runs it
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol, Factory
from twisted.names import dns
from twisted.protocols.basic import Int16StringReceiver

from pgproxy.demo.ports import free_port
from pgproxy.watch.discovery import exchange
from pgproxy.watch.discovery.dns import LONGEST, Dns
from pgproxy.watch.discovery.exchange import ask
from pgproxy.watch.discovery.found import DiscoveryFailed, Found
from pgproxy.watch.discovery.records import Trouble, Unanswered

Records = list[tuple[str, Any]]
Say = Callable[[str, int], "bytes | tuple[int, Records] | None"]
"""For a name and a type: a code and records, or bytes behind the number, or nothing."""


class Server:
    """A name server, over UDP and TCP at the same port."""

    def __init__(self, say: Say, over_tcp: Say | None = None) -> None:
        self.say = say
        self.say_over_tcp = over_tcp or say
        self.before: Say | None = None
        """What is said before the answer, under another number."""
        self.asked: list[tuple[str, str, int]] = []
        self.port = free_port()
        loop: Any = reactor
        self._ports = [
            loop.listenUDP(self.port, _Datagrams(self), interface="127.0.0.1"),
            loop.listenTCP(self.port, _Connections(self), interface="127.0.0.1"),
        ]

    @property
    def at(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def forged(self, data: bytes) -> bytes | None:
        return self._answer(self.before, "udp", bytes([data[0] ^ 1]) + data[1:]) if self.before else None

    def answer(self, how: str, data: bytes) -> bytes | None:
        [query] = _message(data).queries
        self.asked.append((how, str(query.name), query.type))
        return self._answer(self.say if how == "udp" else self.say_over_tcp, how, data)

    def _answer(self, say: Say, how: str, data: bytes) -> bytes | None:
        message = _message(data)
        [query] = message.queries
        said = say(str(query.name), query.type)
        if said is None or isinstance(said, bytes):
            return None if said is None else data[:2] + said
        code, records = said
        answer = dns.Message(message.id, answer=1, rCode=code, trunc=how == "udp" and code == TRUNCATED)
        answer.rCode = dns.OK if code == TRUNCATED else code
        answer.maxSize = 512 if how == "udp" else 0
        answer.queries = message.queries
        for owner, payload in records:
            answer.answers.append(dns.RRHeader(owner, payload.TYPE, ttl=payload.ttl, payload=payload))
        encoded: bytes = answer.toStr()
        return encoded

    def close(self) -> None:
        for port in self._ports:
            port.stopListening()


TRUNCATED = -1


def _message(data: bytes) -> dns.Message:
    message = dns.Message()
    message.fromStr(data)
    return message


class _Datagrams(DatagramProtocol):
    def __init__(self, server: Server) -> None:
        self._server = server

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        for answer in (self._server.forged(datagram), self._server.answer("udp", datagram)):
            if answer is not None:
                assert self.transport is not None
                self.transport.write(answer, addr)


class _Connections(Factory):
    def __init__(self, server: Server) -> None:
        self._server = server

    def buildProtocol(self, addr: Any) -> Int16StringReceiver:
        server = self._server

        class Connection(Int16StringReceiver):
            def stringReceived(self, string: bytes) -> None:
                answer = server.answer("tcp", string)
                if answer is not None:
                    self.sendString(answer)

        return Connection()


Serve = Callable[..., Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as servers:

        def start(*given: Any, **named: Any) -> Server:
            server = Server(*given, **named)
            servers.callback(server.close)
            return server

        yield start


def zone(**names: Any) -> Say:
    """A zone whose names (__ for a dot) have lists of addresses, or another name's, or a code."""

    def say(name: str, kind: int) -> tuple[int, Records] | None:
        here = names.get(name.replace(".", "__"))
        match here:
            case None:
                return dns.ENAME, []
            case int():
                return here, []
            case str():
                return dns.OK, [(name, dns.Record_CNAME(here, 7))]
        records: Records = [
            (name, dns.Record_AAAA(one, 30) if ":" in one else dns.Record_A(one, 30)) for one in here
        ]
        return dns.OK, [(owner, record) for owner, record in records if kind == record.TYPE]

    return say


def found(source: Dns) -> Deferred[Found]:
    return Deferred.fromCoroutine(source.ask())


def addresses(result: Found) -> list[str]:
    return [host.address for host in result.hosts]


async def failure(source: Dns) -> str:
    with pytest.raises(DiscoveryFailed) as caught:
        await found(source)
    return str(caught.value)


@pytest_twisted.ensureDeferred
async def test_every_address_of_every_name_is_a_host(serve: Serve) -> None:
    server = serve(zone(db__example=["10.0.0.2", "10.0.0.1"], other="db.example"))
    result = await found(Dns(reactor, [("db.example.", 1), ("other", 2), ("10.0.0.9", 3)], server.at))
    assert [(host.name, host.tls_name) for host in result.hosts] == [
        ("10.0.0.1:1", "db.example"),
        ("10.0.0.2:1", "db.example"),
        ("10.0.0.1:2", "other"),
        ("10.0.0.2:2", "other"),
        ("10.0.0.9:3", "10.0.0.9"),
    ]
    assert result.expires == 7


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("records", "expected"),
    [("any", ["10.0.0.1"]), ("A", ["10.0.0.1"]), ("AAAA", ["2001:db8::1"])],
)
async def test_a_name_with_both_kinds_of_addresses(serve: Serve, records: Any, expected: list[str]) -> None:
    server = serve(zone(db=["10.0.0.1", "2001:db8::1"]))
    assert addresses(await found(Dns(reactor, [("db", 1)], server.at, records))) == expected


@pytest_twisted.ensureDeferred
async def test_ipv6_addresses_where_there_are_no_others(serve: Serve) -> None:
    server = serve(zone(db=["2001:db8::1"]))
    result = await found(Dns(reactor, [("db", 1)], server.at))
    assert [host.name for host in result.hosts] == ["[2001:db8::1]:1"]


@pytest_twisted.ensureDeferred
async def test_nobody_waits_for_what_is_not_needed(serve: Serve) -> None:
    both = zone(db=["10.0.0.1"])
    server = serve(lambda name, kind: both(name, kind) if kind == dns.A else None)
    assert addresses(await found(Dns(reactor, [("db", 1)], server.at))) == ["10.0.0.1"]


@pytest_twisted.ensureDeferred
async def test_a_long_time_to_live_is_cut(serve: Serve) -> None:
    server = serve(lambda name, kind: (dns.OK, [(name, dns.Record_A("10.0.0.1", 86400))]))
    assert (await found(Dns(reactor, [("db", 1)], server.at, "A"))).expires == LONGEST


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("says", "words"),
    [
        (dns.ENAME, "there is no such name"),
        (dns.ESERVER, "the name server can't find out (SERVFAIL)"),
        (dns.EREFUSED, "the name server refuses to say"),
        ([], "the name has no address"),
        ("db", "more than 8 CNAMEs in a row"),
    ],
)
async def test_troubles_are_told_apart(serve: Serve, says: Any, words: str) -> None:
    server = serve(zone(db=says))
    said = await failure(Dns(reactor, [("db", 1)], server.at))
    assert (
        said.startswith("cannot look up db: ")
        and words in said
        and f"(asked: 127.0.0.1:{server.port}); " in said
    )


@pytest_twisted.ensureDeferred
async def test_nobody_there_and_nonsense(serve: Serve) -> None:
    said = await failure(Dns(reactor, [("db", 1)], ("127.0.0.1", free_port())))
    assert "the name server can't be reached" in said
    server = serve(lambda name, kind: b"\x81\x80\xff\xff\xff\xff\xff\xff\xff\xff")
    assert "the answer can't be read" in await failure(Dns(reactor, [("db", 1)], server.at))


@pytest_twisted.ensureDeferred
async def test_a_chain_with_one_link_in_each_answer(serve: Serve) -> None:
    server = serve(zone(db="b", b="c", c=["10.0.0.1"]))
    assert addresses(await found(Dns(reactor, [("db", 1)], server.at))) == ["10.0.0.1"]
    ring = serve(zone(db="b", b="db"))
    assert "CNAMEs in a row" in await failure(Dns(reactor, [("db", 1)], ring.at))


@pytest_twisted.ensureDeferred
async def test_one_name_that_fails_fails_the_look(serve: Serve) -> None:
    server = serve(zone(db=["10.0.0.1"], other=dns.ESERVER))
    assert "cannot look up other" in await failure(Dns(reactor, [("db", 1), ("other", 1)], server.at))


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("first", [dns.ESERVER, dns.EREFUSED, "nobody", "silent"])
async def test_the_next_server_is_asked(serve: Serve, first: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "PATIENCE", 0.02)
    if first == "nobody":
        one = ("127.0.0.1", free_port())
    else:
        one = serve(zone(db=first) if first != "silent" else lambda name, kind: None).at
    two = serve(zone(db=["10.0.0.2"]))
    assert (await ask(reactor, [one, two.at], "db", "A")).addresses == ("10.0.0.2",)


@pytest_twisted.ensureDeferred
async def test_a_lost_datagram_is_sent_again(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "PATIENCE", 0.02)
    answers = zone(db=["10.0.0.1"])
    server = serve(answers)
    server.say = lambda name, kind: answers(name, kind) if len(server.asked) > 2 else None
    assert (await ask(reactor, [server.at], "db", "A")).addresses == ("10.0.0.1",)
    assert len(server.asked) == 3


@pytest_twisted.ensureDeferred
async def test_silence_ends_with_the_caller(serve: Serve) -> None:
    server = serve(lambda name, kind: None)
    asking = ask(reactor, [server.at], "db", "A")
    asking.cancel()
    with pytest.raises(Unanswered) as caught:
        await asking
    assert (caught.value.trouble, caught.value.who) == (Trouble.SILENCE, f"127.0.0.1:{server.port}")


@pytest_twisted.ensureDeferred
async def test_what_does_not_fit_is_asked_for_over_tcp(serve: Serve) -> None:
    many = [f"10.0.1.{number}" for number in range(60)]
    server = serve(lambda name, kind: (TRUNCATED, []), over_tcp=zone(db=many))
    result = await ask(reactor, [server.at], "db", "A")
    assert len(result.addresses) == 60 and [how for how, *_ in server.asked] == ["udp", "tcp"]
    assert len((await ask(reactor, [server.at], "db", "A", over_tcp=True)).addresses) == 60


@pytest_twisted.ensureDeferred
async def test_a_truncated_answer_over_tcp_and_a_closed_connection(serve: Serve) -> None:
    truncated = struct.pack("!HHHHH", 0x8380, 1, 0, 0, 0) + b"\x02db\x00\x00\x01\x00\x01"
    server = serve(lambda name, kind: truncated)
    with pytest.raises(Unanswered) as caught:
        await ask(reactor, [server.at], "db", "A")
    assert caught.value.trouble is Trouble.UNREADABLE


@pytest_twisted.ensureDeferred
async def test_answers_to_something_else_are_passed_over(serve: Serve) -> None:
    evil = (dns.OK, [("db", dns.Record_A("10.6.6.6", 30))])
    server = serve(zone(db=["10.0.0.1"]))
    server.before = lambda name, kind: evil
    assert (await ask(reactor, [server.at], "db", "A")).addresses == ("10.0.0.1",)


@pytest_twisted.ensureDeferred
async def test_the_files_of_the_system(serve: Serve, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("::1 both\n127.0.0.1 both\n::1 six\n")
    source = Dns(reactor, [("both", 1), ("six", 2)], None, "any", tmp_path / "none", hosts)
    result = await found(source)
    assert addresses(result) == ["127.0.0.1", "::1"] and result.expires == 5


@pytest_twisted.ensureDeferred
async def test_what_is_searched_for(serve: Serve) -> None:
    from pgproxy.watch.discovery.system import Resolv

    server = serve(zone(db__two=["10.0.0.1"]))
    source = Dns(reactor, [("db", 1)], server.at)
    resolv = Resolv(servers=(server.at,), search=("one", "two"))
    assert (await source._look_up("db", resolv, "")).addresses == ("10.0.0.1",)
    assert [name for _, name, kind in server.asked if kind == dns.A] == ["db.one", "db.two"]


@pytest_twisted.ensureDeferred
async def test_a_name_that_dns_cannot_have() -> None:
    said = await failure(Dns(reactor, [("a..b", 1), ("x" * 64, 1)], ("127.0.0.1", 53)))
    assert "there is no such name" in said
