"""
A house without sockets: some clients, each with its `Following` in a `Splice`, over a few model servers.

Bytes wait between the ends until `step` moves some of them; which, and how many, is drawn from a seeded
`Random`. Whenever a server is idle, `fit`
compares what its `ServerSession` believes with what the model holds.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, cast

import structlog
from attrs import define, field
from twisted.internet.defer import Deferred, succeed

from pgproxy.figures.sample import Sample
from pgproxy.link.release import Releasing
from pgproxy.link.splice import Borrower, Splice, Terms
from pgproxy.link.transport import Stream
from pgproxy.observe.client import ClientLog
from pgproxy.pool.release import Leftover
from pgproxy.pool.states import CloseReason
from pgproxy.session.following import Following
from pgproxy.session.server import UNKNOWN, Habits, ServerSession
from pgproxy.session.settings import setting, settings_of
from pgproxy.session.statements import ServerStatements, Statement
from pgproxy.session.suspicion import Verdicts
from pgproxy.wire import tags
from pgproxy.wire.messages import parameter_status
from pgproxy.wire.skim import Malformed, Skimmer
from tests.unit.session.model import DEFAULTS, REPORTED, Postgres, World, context, known, split

PREFIX = b"ours_"


class Wire:
    """Stands for a `Stream`: keeps what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    hung_up = False
    not_received = 0

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written += data

    def take(self, most: int) -> bytes:
        data, self.written = self.written[:most], self.written[most:]
        return data

    def couple(self, other: object) -> None:
        pass

    def uncouple(self, other: object) -> None:
        pass

    def registerProducer(self, producer: object, streaming: bool) -> None:
        pass

    def unregisterProducer(self) -> None:
        pass

    def pauseProducing(self) -> None:
        pass

    def resumeProducing(self) -> None:
        pass


@define(eq=False)
class Record:
    """Stands for a pool's `Server`."""

    session: ServerSession


class Server:
    """Stands for a `ServerConnection`."""

    def __init__(self, house: House, pid: int) -> None:
        self.postgres = Postgres(house.world, pid)
        session = ServerSession(b"app", ServerStatements(PREFIX, house.limit), house.habits)
        session.pid = pid.to_bytes(4, "big")
        for name in REPORTED:
            session.status(parameter_status(name, DEFAULTS[name])[5:])
        session.greeting = session.reported
        self.record = Record(session)
        self.skim = Skimmer(tags.FROM_SERVER)
        self.transport = Wire()
        self.answers = b""
        self.cancels = 0
        self.cancel_in_doubt = False
        self.in_mid_message = False
        self.init_query = b""
        self.leaving = False
        """Whether it ends when it is done with what it has."""
        self.receive: Any = self._unasked

    def rest(self) -> None:
        self.receive = self._unasked

    def say_goodbye(self) -> None:
        self.leaving = True

    def spoke_nonsense(self, error: Malformed) -> None:
        raise AssertionError(f"the model server is said to speak nonsense: {error}")

    @staticmethod
    def _unasked(data: bytes) -> None:
        raise AssertionError(f"an idle server speaks: {data!r}")

    def fit(self) -> None:
        """See that an idle server is what its session says."""
        session, postgres = self.record.session, self.postgres
        # A Flush may still be on its way, which nothing answers.
        self.answers += postgres.feed(self.transport.take(100_000))
        assert self.skim.at_boundary and not self.answers
        assert postgres.status == b"I" and not postgres.skipping and not postgres.portals
        assert not (postgres.channels or postgres.locks or postgres.temporary)
        values = postgres.values
        assert values.local == {}
        if not session.opaque:
            held = {name: one for name, one in values.session.items() if not self._as_default(name)}
            pairs = {name: setting(name, one, context(name)) for name, one in held.items()}
            for name, one, default in (
                (b"role", values.role, b"none"),
                (b"session_authorization", values.user, b"app"),
            ):
                if one != default:
                    pairs[name] = setting(name, one, context(name))
            believed = {
                name: one
                for name, one in session.settings.items()
                if not (b"." in name and self._as_default(known(name)))
            }
            assert settings_of(pairs) is settings_of(believed)
        names = {name for name in postgres.statements if name}
        assert session.statements.names <= names
        assert names <= session.statements.names | {name[:63] for name in session.leftovers}
        for (body, _scope), copy in session.statements._copies.items():
            if not body:
                # Too long to be kept.
                continue
            words = split(body.partition(b"\0")[0])
            assert postgres.statements[copy.name].words == (words[0] if words else ())
        unnamed = postgres.statements.get(b"")
        if session.unnamed is UNKNOWN:
            pass
        elif session.unnamed is None:
            assert unnamed is None, "an unnamed statement that nobody knows of"
        else:
            assert isinstance(session.unnamed, Statement)
            words = split(session.unnamed.text)
            assert unnamed is not None and unnamed.words == (words[0] if words else ())

    def _as_default(self, name: bytes) -> bool:
        """A custom setting that is empty cannot be told from one that is not set."""
        return b"." in name and self.postgres.values.session.get(name, b"") == b""


@define(eq=False)
class Client:
    """One client, and what it has to say."""

    script: bytes
    splice: Splice = field(init=False)
    talk: Following = field(init=False)
    wire: Wire = field(factory=Wire)
    stops_at: dict[int, int] = field(factory=dict)
    """Where in its script it waits, and for how many ReadyForQuery in all."""
    sent: int = 0
    gone: str = ""
    vanishes: bool = False
    """Whether it is lost some time after its script has been said."""

    @property
    def heard(self) -> bytes:
        return self.wire.written


class House:
    """Clients and servers; also stands for the lender."""

    def __init__(
        self,
        seed: int = 0,
        servers: int = 2,
        limit: int = 100,
        filters: frozenset[str] = frozenset(),
        audit: bool = False,
        most: int = 0,
    ) -> None:
        self.random = Random(seed)
        self.world = World()
        self.habits = Habits()
        self.limit = limit
        self.most = most
        """How many bytes are moved at once; 0: as many as chance will have it."""
        self.verdicts = Verdicts()
        self.filters = filters
        self.audit = (lambda: True) if audit else None
        self.events: list[object] = []
        self.cleaned = 0
        self.looked_at = 0
        self.clients: list[Client] = []
        self._pids = 100
        self.servers: list[Server] = []
        self.idle: list[Server] = []
        self.queue: list[Borrower] = []
        self.releasing: list[Server] = []
        self.lost: list[Server] = []
        """Those that have ended by themselves."""
        for _ in range(servers):
            self._open()

    def _open(self) -> None:
        self._pids += 1
        server = Server(self, self._pids)
        self.servers.append(server)
        self.idle.append(server)

    def client(self, script: bytes = b"", stops_at: dict[int, int] | None = None) -> Client:
        client = Client(script, stops_at=stops_at or {})
        talk = client.talk = Following(self.verdicts, self.filters, self.audit)
        talk.hears(self.servers[0].record.session.greeting)
        talk.pid = (1000 + len(self.clients)).to_bytes(4, "big")

        def goodbye(reason: str) -> None:
            client.gone = client.gone or reason

        client.splice = Splice(
            cast(Stream, client.wire),
            cast(Any, self),
            Terms(False, (), 1 << 20),
            talk,
            goodbye,
            self.events.append,
            lambda: 0.0,
            ClientLog(structlog.testing.CapturingLogger()),
        )
        self.clients.append(client)
        return client

    # What moves.

    def say(self, client: Client, data: bytes) -> bytes:
        """Have a client say something, let all come to rest, and give what it hears."""
        before = len(client.heard)
        for at in range(0, len(data), self.most or len(data) or 1):
            client.splice.from_client(data[at : at + (self.most or len(data))])
        self.settle()
        return client.heard[before:]

    def say_on(self, server: Server, client: Client, data: bytes) -> bytes:
        """The same, on this server if the client is linked to none."""
        others = [one for one in self.idle if one is not server]
        self.idle = [server]
        heard = self.say(client, data)
        self.idle += others
        return heard

    def settle(self) -> None:
        """Move all there is between proxy and servers."""
        while any([self._to_server(one) or self._from_server(one) for one in list(self.servers)]):
            pass

    def run(self) -> None:
        """Have all clients say what they have to say."""
        while True:
            moves = [(self._from_client, one) for one in self.clients if self._may_speak(one)]
            moves += [(self._to_server, one) for one in self.servers if one.transport.written]  # type: ignore[misc]
            moves += [(self._from_server, one) for one in self.servers if one.answers]  # type: ignore[misc]
            moves += [(self._ended, one) for one in self.servers if one.leaving and not one.transport.written]  # type: ignore[misc]
            if not moves:
                return
            move, one = self.random.choice(moves)
            move(one)

    def _amount(self) -> int:
        return self.most or self.random.choice((1, 3, 10, 40, 1000, 100_000))

    def _may_speak(self, client: Client) -> bool:
        if client.gone:
            return False
        if client.sent in client.stops_at:
            return client.heard.count(b"Z\0\0\0\x05") == client.stops_at[client.sent]
        return client.sent < len(client.script) or client.vanishes

    def _from_client(self, client: Client) -> None:
        if client.sent == len(client.script):
            self.vanish(client)
            return
        stop = min([one for one in client.stops_at if one > client.sent], default=len(client.script))
        data = client.script[client.sent : min(client.sent + self._amount(), stop)]
        client.sent += len(data)
        client.splice.from_client(data)

    def vanish(self, client: Client) -> None:
        client.gone = "vanished"
        client.splice.client_lost()
        assert_reset(client)

    def _to_server(self, server: Server) -> bool:
        data = server.transport.take(self._amount())
        server.answers += server.postgres.feed(data)
        return bool(data)

    def _from_server(self, server: Server) -> bool:
        size = self._amount()
        data, server.answers = server.answers[:size], server.answers[size:]
        if data:
            server.receive(data)
        return bool(data)

    def _ended(self, server: Server) -> None:
        self.releasing.remove(server)
        self._lost(server)

    # The lender.

    def borrow(self, client: Borrower, _parameters: object, _settings: object, _home: object) -> None:
        self.queue.append(client)
        self._lend()

    def take(self, client: Borrower, _parameters: object, _settings: object, _home: object) -> Server | None:
        if self.queue or not self.idle:
            return None
        if self._looks():
            client.look_closely(1)
        return self.idle.pop(self.random.randrange(len(self.idle)))

    def _lend(self) -> None:
        while self.queue and self.idle:
            server = self.idle.pop(self.random.randrange(len(self.idle)))
            self.queue.pop(0).linked(cast(Any, server))

    def leave(self, client: Borrower, aborts: bool) -> None:
        self.queue.remove(client)

    def waited(self, _seconds: float, text_of: Callable[[bytes], bytes] | None) -> Sample | None:
        return Sample(1, 0.0, text_of) if text_of is not None and self._looks() else None

    def kept(self, client: Borrower) -> None:
        if self._looks():
            client.look_closely(1)

    def looked(self, sample: Sample) -> None:
        assert sample.began is not None and sample.ended is not None
        self.looked_at += len(sample.batches)

    def _looks(self) -> bool:
        """Say whether a transaction is looked at: that must change nothing."""
        return self.random.random() < 0.2

    def hand_on(self, server: Server) -> None:
        server.rest()
        self._idle(server)

    def _idle(self, server: Server) -> None:
        server.fit()
        self.idle.append(server)
        self._lend()

    def give_back(self, server: Server, left: Leftover) -> None:
        doubtful = not left.clean
        self.releasing.append(server)
        cleaned = self.cleaned

        def ready(_server: object) -> None:
            self.releasing.remove(server)
            if doubtful and left.used:
                assert server.record.session.owner is None
                self.cleaned = cleaned + 1
            self._idle(server)

        def close(_server: object, _reason: CloseReason) -> None:
            self.releasing.remove(server)
            self._lost(server)

        releasing = Releasing(cast(Any, server), left, lambda: 0.0, lambda _server: None, ready, close)
        releasing.start()

    def give_up(self, server: Server, _reason: CloseReason) -> None:
        self._lost(server)

    def _lost(self, server: Server) -> None:
        self.servers.remove(server)
        self._open()
        self._lend()

    def lose(self, server: Server, last_word: bytes = b"", in_order: bool = False) -> None:
        """
        Have a server end, whatever it is doing; what it has not been sent, or has not sent, is lost.

        If it ends `in_order`, what it has not received is known.
        """
        holder = next((one for one in self.clients if cast(Any, one.splice.server) is server), None)
        if in_order:
            server.transport.not_received = len(server.transport.written)
        if holder is not None and last_word and server.skim.at_boundary:
            server.receive(last_word)
        self.lost.append(server)
        self.servers.remove(server)
        for among in (self.idle, self.releasing):
            if server in among:
                among.remove(server)
        self._open()
        if holder is not None:
            holder.splice.server_lost(cast(Any, server), CloseReason.LOST)
        self._lend()

    def cancel(self, _server: Server) -> Deferred[None]:
        return succeed(None)

    def make_way(self, databases: tuple[bytes, ...]) -> None:
        pass

    def defaults_changed(self) -> None:
        pass


def assert_at_rest(client: Client) -> None:
    """See that nothing of a link is left in a client that has settled."""
    assert client.talk.put_off is None and not client.talk.failure
    assert_reset(client)


def assert_reset(client: Client) -> None:
    """See that nothing of a link is left in a client that is linked to no server."""
    talk = client.talk
    assert client.splice.server is None and talk.server is None
    assert not talk.waits and not talk.swallows
    assert talk.ledger.settled and not talk.ledger.awaited
    assert not talk._completions and talk._completions.ours == 0
    assert not talk._asides and not talk._asides._collected
    assert not talk._touched and talk.clean
    prepared = talk._prepared
    assert not talk.describing and not prepared._unresolved
    assert prepared.scope is None and not prepared.own_names
    inquiry = talk._inquiry
    assert not inquiry.reasons and not inquiry.lasting and not inquiry.explained
