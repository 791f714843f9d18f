"""Who gets a server of which host while roles change, with connections that a test opens, fails and ends."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from pgproxy.config import Address as Where
from pgproxy.config import Config, Database, Proxy, Target
from pgproxy.link.connections import Place
from pgproxy.link.server import Host, ServerConnection
from pgproxy.link.targets import Targets
from pgproxy.pool.explain import Hold
from pgproxy.pool.states import CLOSED, CLOSING, OPENING, CloseReason, Server
from pgproxy.pool.trouble import Scope, Stage, Trouble
from pgproxy.session.settings import NOTHING_SET
from pgproxy.targets.facts import Address
from pgproxy.targets.judge import Roles
from pgproxy.wire import errors
from pgproxy.wire.errors import Complaint, complaint
from tests.examples import examples

A, B, C = (Address(f"10.0.0.{number}", 5432) for number in (1, 2, 3))
ELSEWHERE, BESIDE = Address("10.0.0.9", 5432), Address("10.0.0.8", 5432)
"""Hosts of other targets."""
ALL = (A, B, C, ELSEWHERE, BESIDE)
PARAMETERS = (("application_name", "test"),)
LOG: Any = structlog.wrap_logger(
    structlog.testing.CapturingLogger(), processors=[lambda _log, _name, event: str(event)]
)
DOWN = Trouble(complaint(errors.NOT_THE_WRITER), Stage.CONNECT, Scope.TARGET, passing=True)
NO_DATABASE = Trouble(
    complaint(errors.UNKNOWN_DATABASE, database="d"), Stage.LOGIN, Scope.POOL, passing=False
)


def config(*hosts: Address, pool_size: int = 3, **options: Any) -> Config:
    server = tuple(Where(host.name, host.port) for host in hosts)
    return Config(
        proxy=Proxy(pool_size=pool_size, **options),
        targets={"main": Target(server=server)},
        databases={"*": Database(target="main")},
    )


def roles(writer: Address | None, *readers: Address, **more: Any) -> Roles:
    return Roles(writer, readers, up=writer is not None, **more)


class Connection(ServerConnection):
    """A server's, without a socket."""

    def __init__(self, record: Server, place: Place) -> None:
        nobody: Any = None
        super().__init__(record, place.host, nobody, nobody, b"", nobody, LOG)
        self.capacity = 100
        self.transport: Any = SimpleNamespace(plain=True)

    @property
    def at(self) -> Address:
        return self.host.address


class Connections:
    """Of one lender: it does nothing by itself."""

    def __init__(self, world: World, owner: Any) -> None:
        self.world = world
        self.owner = owner
        self.opening: dict[Server, Connection] = {}
        self.open_: dict[Server, Connection] = {}
        self.closing: dict[Server, Connection] = {}
        self.checking: dict[Server, Connection] = {}
        world.all.append(self)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self.open_.values()))

    def open(self, record: Server, place: Place, _credentials: object, _timeout: float) -> None:
        assert place.host.address in ALL, "nothing is opened nowhere"
        self.opening[record] = Connection(record, place)

    def close(self, record: Server, _reason: CloseReason) -> None:
        self.checking.pop(record, None)
        connection = self.opening.pop(record, None) or self.open_.pop(record)
        record.connection = None
        self.closing[record] = connection

    def check(self, record: Server) -> None:
        self.checking[record] = self.open_[record]

    def check_overdue(self, _limit: float) -> None:
        pass

    # What a test has happen.

    def opened(self, record: Server) -> None:
        self.open_[record] = record.connection = connection = self.opening.pop(record)
        self.owner.server_opened(connection)

    def failed(self, record: Server, why: Trouble) -> None:
        del self.opening[record]
        self.owner.open_failed(record, why)
        self.owner.server_gone(record)

    def ended(self, record: Server) -> None:
        if record in self.closing:
            del self.closing[record]
            self.owner.server_gone(record)
        elif record in self.open_:
            connection = self.open_.pop(record)
            record.connection = None
            self.checking.pop(record, None)
            self.owner.server_ended(connection, CloseReason.LOST)

    def checked(self, record: Server) -> None:
        del self.checking[record]
        self.owner.server_checked(record)


class Client:
    """It wants a server, of the writer or of a reader."""

    hold = Hold.WORKING

    def __init__(self, world: World, reads: bool = False) -> None:
        self.world = world
        targets = world.targets
        found = targets.reading_lender("u", "d") if reads else targets.lender("u", "d")
        assert found is not None
        self.lender: Any = found
        self.reads = reads
        self.server: Connection | None = None
        self.waits = False
        self.refusal: Complaint | None = None
        self.lost: list[CloseReason] = []
        self.lender.came()

    def ask(self) -> None:
        """Want a server."""
        assert not self.waits and self.server is None
        server = self.lender.take(self, PARAMETERS, NOTHING_SET, None)
        if server is not None:
            self._has(server)
            return
        self.waits = True
        self.lender.borrow(self, PARAMETERS, NOTHING_SET, None)

    def done(self) -> None:
        """Give it back."""
        server, self.server = self.server, None
        assert server is not None
        self.lender.hand_on(server)

    def go(self) -> None:
        """Leave for good."""
        if self.waits:
            self.lender.leave(self, aborts=True)
        if self.server is not None:
            self.done()
        self.lender.went()

    def _has(self, server: Connection) -> None:
        assert self.server is None
        self.server = server
        self.world.see(self, server)

    # As a borrower.

    def linked(self, server: Any) -> None:
        assert self.waits
        self.waits = False
        self._has(server)

    def refused(self, why: Complaint) -> None:
        assert self.waits
        self.waits = False
        self.refusal = why

    def again(self, since: float) -> None:
        assert self.waits
        self.lender.borrow(self, PARAMETERS, NOTHING_SET, None, since)

    def server_lost(self, server: Any, reason: CloseReason) -> None:
        assert self.server is server
        self.server = None
        self.lost.append(reason)

    def overdue(self, _limit: float) -> bool:
        return False

    def look_closely(self, weight: int) -> None:
        pass


class World:
    """All of it."""

    def __init__(self, what: Config | None = None) -> None:
        self.clock = Clock()
        self.all: list[Connections] = []
        self.config = what or config(A, B, C)
        nobody: Any = None
        self.host = Host("10.0.0.1", 5432, nobody, nobody)
        self.targets = Targets(self.clock, nobody, self.config, {"main": self.host}, lambda: 0.5, LOG)
        self.roles: Roles | None = None
        self.alarms = 0
        self.targets.alarm = lambda _name: setattr(self, "alarms", self.alarms + 1)

    def tell(self, now: Roles) -> None:
        self.roles = now
        self.targets.take_roles("main", now)

    def see(self, client: Client, server: Connection) -> None:
        """Hold a link against the roles."""
        assert self.roles is not None, "nobody knows yet who is the writer"
        if not client.reads:
            # Where no host says anything, the one that is named first may be used, if it is no standby.
            assert server.at == (A if self.roles.blind else self.roles.writer)
        assert server.record.state not in (CLOSING, CLOSED)

    def everything(self, which: str) -> list[tuple[Connections, Server]]:
        return [(one, record) for one in self.all for record in getattr(one, which)]

    def open_all(self) -> None:
        """Have all that is to be opened be opened, asked or ended, until there is no more of it."""
        for _ in range(100):
            steps = [(one.opened, record) for one, record in self.everything("opening")]
            steps += [(one.checked, record) for one, record in self.everything("checking")]
            steps += [(one.ended, record) for one, record in self.everything("closing")]
            if not steps:
                return
            for step, record in steps:
                if record.state is not CLOSED:
                    try:
                        step(record)
                    except KeyError:
                        continue  # another step of these has closed it
        raise AssertionError("it does not come to an end")

    def places(self) -> set[Address]:
        return {where.opening[record].at for where, record in self.everything("opening")}


@pytest.fixture(autouse=True)
def connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let lenders have stand-ins."""
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch)
        yield


def stand_in(patch: pytest.MonkeyPatch) -> None:
    def make(reactor: Any, _threads: object, _user: str, owner: Any, *_more: object) -> Connections:
        return Connections(worlds[reactor], owner)

    patch.setattr("pgproxy.link.lender.Connections", make)


class _Worlds(dict[Clock, World]):
    """By their clocks."""

    def __missing__(self, clock: Clock) -> World:
        raise AssertionError("no such world")


worlds = _Worlds()


@pytest.fixture
def world() -> World:
    return begin()


def begin(what: Config | None = None) -> World:
    made = World(what)
    worlds.clear()
    worlds[made.clock] = made
    return made


def test_nobody_gets_a_server_before_it_is_known_who_is_the_writer(world: World) -> None:
    client = Client(world)
    client.ask()
    assert client.waits and not world.places()
    world.tell(roles(B, A, C))
    assert world.places() >= {B} and A not in world.places()
    world.open_all()
    assert client.server is not None and client.server.at == B


def test_where_no_host_says_anything_what_is_wrong_with_the_first_is_told(world: World) -> None:
    client = Client(world)
    client.ask()
    world.tell(Roles(None, (), blind=True))
    assert world.places() == {A}


def test_where_none_is_believed_nobody_gets_a_server(world: World) -> None:
    client = Client(world)
    client.ask()
    world.tell(Roles(None, (C,)))
    assert client.waits and not world.places()
    world.clock.advance(world.config.proxy.connection_borrow_timeout + 1)
    assert client.refusal is not None
    assert "None is known to be the writer" in client.refusal.detail


def test_who_waits_and_who_works_when_the_writer_changes(world: World) -> None:
    world.tell(roles(A, B, C))
    working, *waiting = [Client(world) for _ in range(4)]
    for client in (working, *waiting):
        client.ask()
    [(where, record)] = world.everything("opening")[:1]
    where.opened(record)
    assert working.server is not None
    world.tell(roles(B, C))
    assert working.lost == [CloseReason.WRITER_CHANGED] and working.server is None
    assert all(client.waits for client in waiting)
    world.open_all()
    assert [client.server and client.server.at for client in waiting] == [B] * 3


def test_a_demoted_writer_is_left_before_there_is_another(world: World) -> None:
    world.tell(roles(A, B, C))
    client = Client(world)
    client.ask()
    world.open_all()
    world.tell(Roles(None, (B, C), lost=A))
    assert client.lost == [CloseReason.WRITER_CHANGED]
    client.ask()
    world.open_all()
    # A, which is there, may say anything now: it is not asked for servers.
    assert client.waits and not world.places()
    world.tell(roles(C, B))
    world.open_all()
    assert client.server is not None and client.server.at == C


def test_a_silent_writer_that_is_given_up(world: World) -> None:
    world.tell(roles(A, B, C))
    client = Client(world)
    client.ask()
    world.open_all()
    silent = Roles(A, (B, C), given_up=True)
    world.tell(silent)
    assert client.lost == [CloseReason.HOST_SILENT]
    client.ask()
    for where, record in world.everything("opening"):
        where.failed(record, DOWN)
    assert client.waits and not world.everything("opening")
    world.tell(roles(A, B, C))
    # It is tried at once, whatever pause there was to be.
    assert world.everything("opening")


def test_what_was_wrong_with_a_reader_refuses_nobody_when_it_is_the_writer(world: World) -> None:
    world.tell(roles(A, B))
    client, other = Client(world), Client(world)
    client.ask()
    world.open_all()
    world.targets.sweep()
    for target in world.targets.targets:
        target.look()
    spares = [(where, record) for where, record in world.everything("opening")]
    assert {where.opening[record].at for where, record in spares} == {B}
    for where, record in spares:
        # The database has not come there yet.
        where.failed(record, NO_DATABASE)
    world.tell(roles(B))
    other.ask()
    assert other.refusal is None
    world.open_all()
    assert other.server is not None and other.server.at == B


def test_spare_servers_are_asked_before_they_serve(world: World) -> None:
    world.tell(roles(A, B, C))
    client = Client(world)
    client.ask()
    world.open_all()
    for _ in range(2):
        world.targets.sweep()
        world.open_all()
    kept = [where.open_[record].at for where, record in world.everything("open_")]
    assert sorted(kept) == [A, B, B, C, C]
    client.done()
    world.tell(roles(B, C))
    client.ask()
    assert client.waits and world.everything("checking")
    world.open_all()
    assert client.server is not None and client.server.at == B


def test_a_reload_that_changes_the_hosts_waits_for_what_they_say(world: World) -> None:
    world.tell(roles(A, B))
    client = Client(world)
    client.ask()
    world.open_all()
    client.done()
    world.targets.configure(config(B, C), {"main": evolve(world.host, name=B.name)})
    client.ask()
    world.open_all()
    assert client.waits
    world.tell(roles(C, B))
    world.open_all()
    assert client.server is not None and client.server.at == C


def test_a_target_that_is_gone_is_forgotten(world: World) -> None:
    world.tell(roles(A, B))
    gone = evolve(config(A, B), targets={}, databases={})
    world.targets.configure(gone, {})
    world.targets.sweep()


# Reloads and switchovers in between.


def with_another(of_d: str) -> Config:
    """Have a second target, and the database `d` at one of the two."""
    base = config(A, B, C)
    other = Target(server=tuple(Where(host.name, host.port) for host in (BESIDE, ELSEWHERE)))
    return evolve(base, targets={**base.targets, "other": other}, databases={"d": Database(target=of_d)})


def both(world: World) -> dict[str, Host]:
    return {"main": world.host, "other": evolve(world.host, name=BESIDE.name)}


def warm(world: World) -> Client:
    """Give a client whose pool has its spare servers."""
    client = Client(world)
    client.ask()
    world.open_all()
    look_after(world, 3)
    return client


def look_after(world: World, seconds: int) -> None:
    for _ in range(seconds):
        world.clock.advance(1)
        world.targets.sweep()
        world.open_all()


def kept(world: World) -> list[Address]:
    return sorted(where.open_[record].at for where, record in world.everything("open_"))


def test_the_spare_servers_of_a_database_that_is_gone_end() -> None:
    world = begin(with_another("main"))
    world.tell(roles(A, B, C))
    client = warm(world)
    assert kept(world) == [A, B, B, C, C]
    world.targets.configure(
        evolve(with_another("main"), databases={"e": Database(target="main")}), both(world)
    )
    client.go()
    look_after(world, 20)
    assert not kept(world)
    assert not world.targets.lenders


def test_the_spare_servers_of_a_database_that_moves_end() -> None:
    world = begin(with_another("main"))
    world.tell(roles(A, B, C))
    client = warm(world)
    client.done()
    world.targets.configure(with_another("other"), both(world))
    look_after(world, 20)
    assert not kept(world)


def test_spare_servers_are_not_kept_where_there_is_no_reader_any_more(world: World) -> None:
    world.tell(roles(A, B, C))
    client = warm(world)
    client.done()
    for lender in world.targets.lenders:
        lender.retire(CloseReason.IDLE_TIMEOUT)
    world.open_all()
    world.targets.sweep()
    world.tell(roles(A, C))
    look_after(world, 5)
    assert B not in kept(world)


def test_a_database_that_moves_away_during_a_switchover_is_served() -> None:
    world = begin(with_another("main"))
    world.tell(roles(A, B, C))
    client = warm(world)
    client.done()
    world.targets.drain("main", 30)
    world.targets.configure(with_another("other"), both(world))
    world.tell(roles(B, C))
    assert not any(lender.paused for lender in world.targets.lenders)


def test_a_database_that_moves_in_during_a_switchover_waits() -> None:
    world = begin(with_another("other"))
    world.targets.configure(with_another("other"), both(world))
    world.roles = roles(BESIDE, ELSEWHERE)
    world.targets.take_roles("other", world.roles)
    client = warm(world)
    client.done()
    world.targets.drain("main", 30)
    world.targets.configure(with_another("main"), both(world))
    assert all(lender.paused for lender in world.targets.lenders)


def test_resume_does_not_end_a_switchover(world: World) -> None:
    world.tell(roles(A, B, C))
    client = warm(world)
    client.done()
    world.targets.drain("main", 30)
    world.targets.resume("d")
    client.ask()
    world.open_all()
    assert client.waits
    world.tell(roles(B, C))
    world.open_all()
    assert client.server is not None and client.server.at == B


def test_a_reader_that_is_configured_no_more_serves_nobody(world: World) -> None:
    world.tell(roles(A, B))
    client = Client(world, reads=True)
    client.ask()
    world.open_all()
    assert client.server is not None and client.server.at == B
    client.done()
    world.targets.configure(config(A), {"main": world.host})
    client.ask()
    world.open_all()
    assert client.waits


def test_who_waits_for_a_reader_of_hosts_that_are_replaced_gets_none_of_them() -> None:
    world = begin(config(A, B))
    world.tell(roles(A, B))
    client = Client(world, reads=True)
    client.ask()
    assert world.places() == {B}
    world.targets.configure(config(C, ELSEWHERE), {"main": evolve(world.host, name=C.name)})
    world.tell(roles(ELSEWHERE, C))
    world.open_all()
    assert client.server is not None and client.server.at == C


def test_who_waits_for_a_reader_when_the_database_moves_gets_one_there() -> None:
    world = begin(with_another("main"))
    world.targets.configure(with_another("main"), both(world))
    world.tell(roles(A, B))
    world.targets.take_roles("other", roles(BESIDE, ELSEWHERE))
    client, later = Client(world, reads=True), Client(world, reads=True)
    client.ask()
    world.targets.configure(with_another("other"), both(world))
    world.open_all()
    assert client.server is not None and client.server.at == ELSEWHERE
    later.ask()
    world.open_all()
    assert later.server is not None and later.server.at == ELSEWHERE


def test_readers_take_turns_and_are_left_when_they_go(world: World) -> None:
    world.tell(roles(A, B, C, weights={B: 100, C: 100}))
    clients = [Client(world, reads=True) for _ in range(4)]
    for client in clients:
        client.ask()
    world.open_all()
    found = [client.server.at for client in clients if client.server is not None]
    assert sorted(found) == [B, B, C, C]
    world.tell(roles(A, B, weights={B: 100}, dead=frozenset({C})))
    assert sum(client.lost == [CloseReason.HOST_SILENT] for client in clients) == 2
    for client in clients:
        if client.server is None:
            client.ask()
    world.open_all()
    assert {client.server.at for client in clients if client.server is not None} == {B}


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("come"), st.booleans()),
        st.tuples(st.sampled_from(["ask", "done", "go"]), st.integers(0, 7)),
        st.tuples(st.sampled_from(["opened", "failed", "ended", "checked", "lost"]), st.integers(0, 9)),
        st.tuples(
            st.just("tell"),
            st.sampled_from(
                [
                    roles(A, B, C),
                    roles(A, B),
                    roles(B, A, C),
                    roles(C, A, B),
                    roles(B),
                    Roles(A, (B, C)),
                    Roles(A, (B, C), given_up=True),
                    Roles(None, (B, C), lost=A),
                    Roles(None, (), lost=B, dead=frozenset({A, C})),
                    Roles(None, (), blind=True),
                ]
            ),
        ),
        st.tuples(st.just("sweep"), st.just(0)),
        st.tuples(st.just("wait"), st.integers(1, 5)),
        st.tuples(
            st.just("reload"), st.sampled_from([config(*ALL), config(*ALL, pool_size=2), config(B, C)])
        ),
    ),
    max_size=60,
)


@settings(max_examples=examples(200))
@given(STEPS)
def test_whatever_happens_nobody_is_forgotten(steps: list[tuple[str, Any]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch)
        play(begin(config(*ALL, connection_borrow_timeout=3600)), steps)


def play(world: World, steps: list[tuple[str, Any]]) -> None:
    clients: list[Client] = []

    def pick(which: str, number: int) -> list[tuple[Connections, Server]]:
        found = world.everything(which)
        return [found[number % len(found)]] if found else []

    for what, value in steps:
        match what:
            case "come":
                clients.append(Client(world, reads=value))
            case "ask" | "done" | "go" if clients:
                client = clients[value % len(clients)]
                if what == "ask" and not client.waits and client.server is None:
                    client.ask()
                elif what == "done" and client.server is not None:
                    client.done()
                elif what == "go":
                    clients.remove(client)
                    client.go()
            case "opened":
                for one, record in pick("opening", value):
                    one.opened(record)
            case "failed":
                for one, record in pick("opening", value):
                    one.failed(record, DOWN)
            case "ended" | "lost":
                for one, record in pick("closing" if what == "ended" else "open_", value):
                    one.ended(record)
            case "checked":
                for one, record in pick("checking", value):
                    one.checked(record)
            case "tell":
                world.tell(value)
            case "sweep":
                world.targets.sweep()
            case "wait":
                world.clock.advance(value)
            case "reload":
                world.targets.configure(value, {"main": world.host})
    # All is well in the end: everybody gets what he wants.
    world.targets.configure(config(*ALL), {"main": world.host})
    world.tell(roles(B, A, C))
    for client in clients:
        if client.server is not None:
            client.done()
    for _ in range(10):
        world.clock.advance(3)
        world.open_all()
        world.targets.sweep()
        for client in clients:
            if client.server is not None:
                client.done()
    assert not [client for client in clients if client.waits]
    for client in clients:
        client.go()
    for _ in range(10):
        world.clock.advance(1000)
        world.targets.sweep()
        world.open_all()
    assert not world.targets.lenders
    assert not world.targets.targets
    assert all(record.state is not OPENING for _one, record in world.everything("open_"))
