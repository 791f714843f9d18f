"""Who has which server: stories one by one, and a random walk against the law."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pgproxy.pool.pool import Close, Link, Open, Pool, Refuse
from pgproxy.pool.states import IDLE, LINKED, OPENING, RELEASING, CloseReason, Server
from pgproxy.session.settings import Setting, settings_of
from pgproxy.wire.errors import CANNOT_CONNECT, complaint
from tests.unit.sessions import new_session

WHY = complaint(CANNOT_CONNECT, database="db")
UTC = (("TimeZone", "UTC"),)


def opened(todo: list[Any]) -> Server:
    (action,) = [t for t in todo if isinstance(t, Open)]
    return action.server


def test_a_client_gets_the_server_opened_for_it() -> None:
    pool: Pool[str] = Pool(2, 10, new_session)
    server = opened(pool.borrow("a", (), 0))
    assert pool.opened(server) == [Link("a", server)]
    assert server.state is LINKED


def test_a_cleaned_server_goes_to_the_longest_waiter() -> None:
    pool: Pool[str] = Pool(1, 10, new_session)
    server = opened(pool.borrow("a", (), 0))
    pool.opened(server)
    assert pool.borrow("b", (), 1) == []
    assert pool.borrow("c", (), 2) == []
    pool.given_back(server)
    assert pool.cleaned(server) == [Link("b", server)]


def test_other_parameters_need_another_server() -> None:
    pool: Pool[str] = Pool(1, 10, new_session)
    first = opened(pool.borrow("a", (), 0))
    pool.opened(first)
    assert pool.borrow("b", UTC, 1) == []
    pool.given_back(first)
    close, open_ = pool.cleaned(first)
    assert close == Close(first, CloseReason.OTHER_PARAMETERS)
    assert isinstance(open_, Open) and open_.server.parameters == UTC


def test_a_failure_is_told_to_the_client_it_was_opened_for() -> None:
    pool: Pool[str] = Pool(1, 10, new_session)
    server = opened(pool.borrow("a", (), 0))
    pool.borrow("b", (), 0)
    refuse, again = pool.failed(server, WHY)
    assert refuse == Refuse("a", WHY)
    assert isinstance(again, Open)


def test_a_client_that_left_gets_nothing() -> None:
    pool: Pool[str] = Pool(1, 10, new_session)
    server = opened(pool.borrow("a", (), 0))
    pool.leave("a")
    assert pool.opened(server) == []
    assert server.state is IDLE
    assert pool.borrow("b", (), 0) == [Link("b", server)]


def test_a_lost_server_is_replaced_for_those_who_wait() -> None:
    pool: Pool[str] = Pool(1, 10, new_session)
    server = opened(pool.borrow("a", (), 0))
    pool.opened(server)
    pool.borrow("b", (), 0)
    (again,) = pool.lost(server)
    assert isinstance(again, Open)


def test_a_wait_ends() -> None:
    pool: Pool[str] = Pool(1, 10, new_session)
    pool.borrow("a", (), 0)
    pool.borrow("b", (), 5)
    assert pool.deadline == 10
    assert pool.expire(9.9) == []
    (refusal,) = pool.expire(10)
    assert isinstance(refusal, Refuse) and refusal.client == "a"
    assert refusal.complaint.sqlstate == "08000"
    assert refusal.complaint.text == "Timed-out waiting to acquire database connection."
    assert pool.deadline == 15


def test_a_smaller_size_sheds_idle_servers() -> None:
    pool: Pool[str] = Pool(2, 10, new_session)
    for name in "ab":
        pool.opened(opened(pool.borrow(name, (), 0)))
    for server in list(pool.servers):
        pool.given_back(server)
        pool.cleaned(server)
    (close,) = pool.resize(1)
    assert isinstance(close, Close) and close.reason is CloseReason.SURPLUS
    assert len(pool.servers) == 1


def idle(pool: Pool[str], number: int) -> list[Server]:
    servers = [opened(pool.borrow(str(name), (), 0)) for name in range(number)]
    for server in servers:
        pool.opened(server)
    for server in servers:
        pool.given_back(server)
        pool.cleaned(server)
    return servers


def test_who_has_settings_gets_a_server_that_has_them() -> None:
    pool: Pool[str] = Pool(3, 10, new_session)
    first, second, third = idle(pool, 3)
    spanish = settings_of({b"lc_messages": Setting(b"SET lc_messages TO E'es_ES'", False)})
    second.session.settings = spanish
    assert pool.borrow("a", (), 0, spanish) == [Link("a", second)]
    assert pool.borrow("b", (), 0, spanish) == [Link("b", third)]
    assert pool.borrow("c", (), 0) == [Link("c", first)]


def test_who_has_a_home_gets_it_if_it_is_there() -> None:
    pool: Pool[str] = Pool(3, 10, new_session)
    first, second, third = idle(pool, 3)
    assert pool.borrow("a", (), 0, home=first.session) == [Link("a", first)]
    assert pool.borrow("b", (), 0, home=first.session) == [Link("b", third)]
    assert pool.borrow("c", (), 0) == [Link("c", second)]


def test_retired_servers_serve_nobody_else() -> None:
    pool: Pool[str] = Pool(3, 10, new_session)
    linked, unused = idle(pool, 2)
    assert pool.borrow("a", (), 0, home=linked.session) == [Link("a", linked)]
    coming = opened(pool.borrow("b", UTC, 0))
    assert pool.retire(CloseReason.DEFAULTS_CHANGED) == [Close(unused, CloseReason.DEFAULTS_CHANGED)]
    close, again = pool.opened(coming)
    assert close == Close(coming, CloseReason.DEFAULTS_CHANGED)
    assert isinstance(again, Open) and again.server.retiring is None
    pool.given_back(linked)
    assert pool.cleaned(linked) == [Close(linked, CloseReason.DEFAULTS_CHANGED)]
    assert pool.opened(again.server) == [Link("b", again.server)]


def test_nobody_waits_twice() -> None:
    pool: Pool[str] = Pool(1, 10, new_session)
    pool.borrow("a", (), 0)
    with pytest.raises(ValueError, match="waits already"):
        pool.borrow("a", (), 0)


class Walk(RuleBasedStateMachine):
    """Clients and servers do what they like; the law holds after every step."""

    @initialize(size=st.integers(1, 4))
    def begin(self, size: int) -> None:
        self.pool: Pool[int] = Pool(size, 100, new_session)
        self.now = 0.0
        self.clients = 0
        self.waiting: list[int] = []
        self.links: dict[Server, int] = {}

    def take(self, todo: list[Any]) -> None:
        for action in todo:
            if isinstance(action, Link):
                assert action.client in self.waiting
                assert action.server not in self.links
                self.waiting.remove(action.client)
                self.links[action.server] = action.client
            elif isinstance(action, Refuse):
                self.waiting.remove(action.client)
            elif isinstance(action, Close):
                assert action.server not in self.links

    def some(self, data: st.DataObject, *states: Any) -> Server | None:
        servers = sorted((s for s in self.pool.servers if s.state in states), key=lambda s: s.number)
        return data.draw(st.sampled_from(servers)) if servers else None

    @rule(parameters=st.sampled_from([(), UTC]))
    def borrow(self, parameters: tuple[tuple[str, str], ...]) -> None:
        self.clients += 1
        self.waiting.append(self.clients)
        self.take(self.pool.borrow(self.clients, parameters, self.now))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        client = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(client)
        self.pool.leave(client)

    @rule(data=st.data(), well=st.booleans())
    def open_ends(self, data: st.DataObject, well: bool) -> None:
        if server := self.some(data, OPENING):
            self.take(self.pool.opened(server) if well else self.pool.failed(server, WHY))

    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        if server := self.some(data, LINKED):
            del self.links[server]
            self.pool.given_back(server)

    @rule(data=st.data(), well=st.booleans())
    def cleaning_ends(self, data: st.DataObject, well: bool) -> None:
        if server := self.some(data, RELEASING):
            self.take(
                self.pool.cleaned(server) if well else self.pool.close(server, CloseReason.CLEANING_FAILED)
            )

    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        if server := self.some(data, LINKED, IDLE, RELEASING):
            self.links.pop(server, None)
            self.take(self.pool.lost(server))

    @rule()
    def retire(self) -> None:
        self.take(self.pool.retire(CloseReason.DEFAULTS_CHANGED))

    @rule(seconds=st.integers(1, 60))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds
        self.take(self.pool.expire(self.now))

    @rule(size=st.integers(1, 4))
    def resize(self, size: int) -> None:
        self.take(self.pool.resize(size))

    @invariant()
    def law(self) -> None:
        if not hasattr(self, "pool"):
            return
        self.pool.check()
        assert self.pool.waiting == len(self.waiting)
        assert {s for s in self.pool.servers if s.state is LINKED} == set(self.links)
        assert len(set(self.links.values())) == len(self.links)


Walk.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestWalk = Walk.TestCase
