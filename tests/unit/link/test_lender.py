"""A server is lent and taken back: the compiled methods and those in Python leave the same behind."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from pgproxy.link.checking import Checks
from pgproxy.link.lender import HIDING_AGE, Limits, ServerLender
from pgproxy.link.server import ServerConnection
from pgproxy.link.target import TargetPools
from pgproxy.pool.rules import Rules
from pgproxy.pool.states import IDLE, LINKED, CloseReason, IllegalMove, Server
from pgproxy.session.settings import NOTHING_SET, Setting, settings_of
from pgproxy.twin import twin
from pgproxy.wire import errors
from pgproxy.wire.errors import complaint

SERVERS = 3
PARAMETERS = (("application_name", "one"),)
SOME_SET = settings_of({b"work_mem": Setting(b"SET work_mem = 9000", False)})

Method = Callable[..., Any]
Ways = tuple[Method, Method]
"""`take` and `hand_on`."""


class Client:
    """A client; those with the same name are the same."""

    def __init__(self, name: object) -> None:
        self.name = name
        self.weight = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Client) and (other.name, other.weight) == (self.name, self.weight)

    def __hash__(self) -> int:
        return hash(self.name)

    def look_closely(self, weight: int) -> None:
        self.weight = weight


class Bank:
    """A lender with servers that nobody has opened."""

    def __init__(self, ways: Ways, session_mode: bool) -> None:
        self._take, self._hand_on = ways
        clock, log = Clock(), structlog.testing.CapturingLogger()
        self.clock = clock
        target = TargetPools("main", Rules(), clock, lambda: 0.5, log)
        limits = Limits(SERVERS, 0, 100, False, 5, 5, 200, session_mode)
        nobody: Any = None
        self.lender = ServerLender(clock, nobody, ("db", "user"), nobody, limits, target, log)
        # The third is looked at closely.
        self.lender.turns.due = 3
        self.lane = self.lender.pool.lane(PARAMETERS)
        self.servers = []
        for number in range(SERVERS):
            record = Server(number, self.lane, self.lender._new_session(), 1e9, IDLE)
            server = ServerConnection(record, nobody, nobody, nobody, b"", nobody, log)
            self.lane.idle.append(record)
            self.lender._connections._enter(server)
            self.servers.append(server)

    def do(self, step: tuple[Any, ...]) -> object:
        """Take a step; give what comes of it."""
        what, *more = step
        pools = self.lender.pool.pools
        match what:
            case "take":
                client, parameters, settings, home = more
                session = self.servers[home].record.session if home is not None else None
                server = self._take(self.lender, Client(client), parameters, settings, session)
                return None if server is None else server.record.number
            case "back":
                server = self.servers[more[0]]
                if server.borrower is not None:
                    self._hand_on(self.lender, server)
            case "set":
                self.servers[more[0]].record.session.settings = SOME_SET
            case "reserve":
                self.servers[more[0]].record.session.reserved = "somebody"
            case "retire":
                self.servers[more[0]].record.retiring = CloseReason.MOVED
            case "press":
                pools.contested = True
            case "dismiss":
                self.lender._dismissed = complaint(errors.SHUTTING_DOWN)
        return None

    @property
    def state(self) -> object:
        """What can be told of it."""
        return (
            [(one.record.state, one.record.turn, one.receive.__name__) for one in self.servers],
            [record.number for record in self.lane.idle],
            [one.borrower for one in self.servers],
            self.lender.pool.pools.turns,
            (self.lender.turns.count, self.lender.turns.due),
        )


number = st.integers(0, SERVERS - 1)
take = st.tuples(
    st.just("take"),
    st.integers(0, 9),
    st.sampled_from((PARAMETERS, PARAMETERS, PARAMETERS, ())),
    st.sampled_from((NOTHING_SET, NOTHING_SET, SOME_SET)),
    st.none() | number,
)
often = st.one_of(take, take, st.tuples(st.just("back"), number))
seldom = st.one_of(
    st.tuples(st.sampled_from(("set", "reserve", "retire")), number),
    st.sampled_from([("press",), ("dismiss",)]),
)


@pytest.mark.skipif(twin is None, reason="there is no compiled twin")
@given(st.lists(often, max_size=12), st.lists(seldom, max_size=2), st.lists(often, max_size=12))
def test_whatever_happens_both_ways_are_one(before: list[Any], change: list[Any], after: list[Any]) -> None:
    methods = {name: own for owner, name, own in twin.look()["replaced"] if owner == "ServerLender"}
    compiled = Bank((ServerLender.take, ServerLender.hand_on), False)
    python = Bank((methods["take"], methods["hand_on"]), False)
    for step in (*before, *change, *after):
        said: list[object] = []
        for bank in (compiled, python):
            try:
                said.append((bank.do(step), bank.state))
            except Exception as error:
                said.append(type(error))
        assert said[0] == said[1]
        if isinstance(said[0], type):
            break


@pytest.fixture
def bank(ways: str) -> Bank:
    return Bank((ServerLender.take, ServerLender.hand_on), False)


def test_the_server_used_last_is_lent_and_comes_back_behind_the_others(bank: Bank) -> None:
    assert bank.do(("take", "x", PARAMETERS, NOTHING_SET, None)) == 2
    assert bank.do(("take", "y", PARAMETERS, NOTHING_SET, None)) == 1
    assert bank.servers[2].record.state is LINKED
    bank.do(("back", 2))
    bank.do(("back", 1))
    assert [record.number for record in bank.lane.idle] == [0, 2, 1]
    assert [server.record.turn for server in bank.servers] == [0, 2, 1]


def test_no_server_is_lent_that_is_not_idle(bank: Bank) -> None:
    bank.servers[2].record.state = LINKED
    with pytest.raises(IllegalMove):
        bank.do(("take", "x", PARAMETERS, NOTHING_SET, None))


def test_what_session_mode_has_used_is_cleaned(ways: str) -> None:
    bank = Bank((ServerLender.take, ServerLender.hand_on), True)
    bank.do(("take", "x", PARAMETERS, NOTHING_SET, None))
    with pytest.raises(AttributeError, match="transport"):
        # There is nothing that the cleaning could be sent to.
        bank.do(("back", 2))
    assert bank.servers[2].record.state is not IDLE


def test_of_a_class_made_from_it_the_methods_are_the_same(ways: str) -> None:
    class Another(ServerLender):
        __slots__ = ()

    bank = Bank((ServerLender.take, ServerLender.hand_on), False)
    bank.lender.__class__ = Another
    assert bank.do(("take", "x", PARAMETERS, NOTHING_SET, None)) == 2
    bank.do(("back", 2))
    assert [record.number for record in bank.lane.idle] == [0, 1, 2]


class Asked(Checks):
    """Counts how often an idle server is to be asked what is done in hiding."""

    __slots__ = ("times",)

    def __init__(self) -> None:
        nobody: Any = None
        super().__init__(nobody, nobody, nobody, nobody, nobody, nobody)
        self.times = 0

    def be_thorough(self) -> None:
        self.times += 1


def test_once_in_a_while_it_is_asked_what_is_done_in_hiding(bank: Bank) -> None:
    bank.lender._checks = asked = Asked()
    bank.lender.pool.account.count = SERVERS
    bank.lender.turns.due = 100

    def used(later: float) -> int:
        bank.do(("take", "x", PARAMETERS, NOTHING_SET, None))
        bank.do(("back", 2))
        return unused(later)

    def unused(later: float) -> int:
        bank.clock.advance(later)
        bank.lender.check_overdue()
        return asked.times

    assert used(HIDING_AGE - 1) == 0
    assert unused(1) == 1
    assert unused(HIDING_AGE) == 1
    assert used(0) == 2
    assert used(HIDING_AGE - 1) == 2
    bank.lender._habits.due = True
    assert unused(0.5) == 3
    assert used(HIDING_AGE - 1) == 3
    assert unused(1) == 4


def test_who_has_no_server_asks_none(bank: Bank) -> None:
    bank.lender._checks = asked = Asked()
    bank.lender._habits.due = True
    bank.lender.check_overdue()
    assert not asked.times and bank.lender._habits.due


def test_what_one_pool_hears_of_hiding_all_of_its_database_know(bank: Bank) -> None:
    other = Bank((ServerLender.take, ServerLender.hand_on), False)
    elsewhere = Bank((ServerLender.take, ServerLender.hand_on), False)
    for one, database in ((bank, "db"), (other, "db"), (elsewhere, "another")):
        place: Any = SimpleNamespace(database=database)
        one.lender.place = place
    for one in (other, elsewhere):
        bank.lender._target._lenders[one.lender.pool] = one.lender
    bank.lender._asked(False)
    assert not bank.lender._habits.hidden
    bank.lender._asked(None)
    assert bank.lender._habits.overdue
    bank.lender._asked(True)
    assert [one.lender._habits.hidden for one in (bank, other, elsewhere)] == [True, True, False]
