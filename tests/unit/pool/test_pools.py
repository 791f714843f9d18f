"""Who has which server: stories one by one. test_simulation.py lets thousands of clients loose on it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.pool.budget import Account, Budget
from pgproxy.pool.lane import Lane
from pgproxy.pool.permits import Permits
from pgproxy.pool.pool import Pool
from pgproxy.pool.pools import Pools
from pgproxy.pool.reserve import Reserve
from pgproxy.pool.rules import Rules
from pgproxy.pool.states import CHECKING, IDLE, LINKED, CloseReason, Server
from pgproxy.pool.todo import Check, Close, Expire, Link, Open, Refuse
from pgproxy.pool.trouble import Scope, Stage, Trouble
from pgproxy.session.settings import NOTHING_SET, Setting, settings_of
from pgproxy.wire.errors import CANNOT_CONNECT, complaint
from tests.unit.sessions import new_session

WHY = complaint(CANNOT_CONNECT, database="db")
DOWN = Trouble(WHY, Stage.CONNECT, Scope.TARGET, passing=True)
WRONG_PASSWORD = Trouble(WHY, Stage.LOGIN, Scope.POOL, passing=False)
BAD_PARAMETER = Trouble(WHY, Stage.LOGIN, Scope.PARAMETERS, passing=False)
UTC = (("TimeZone", "UTC"),)
PLENTY = 1000


def pools(capacity: int = PLENTY, budget: Budget | None = None, **rules: Any) -> Pools[str]:
    rules.setdefault("borrow_timeout", 10)
    found: Pools[str] = Pools("main", Rules(budget=budget or Budget(), **rules), lambda: 0.5)
    found.learn(capacity, 0)
    return found


def pool(
    of: Pools[str],
    name: str = "app/alice",
    most: int = 20,
    least: int = 0,
    waiting: int = 100,
    admin: bool = False,
) -> Pool[str]:
    database, user = name.split("/")
    made = of.add_pool(database, user, new_session)
    of.set_pool(made, most, least, waiting, admin, 0)
    return made


def lane(most: int = 20, **rules: Any) -> Lane[str]:
    return pool(pools(**rules), most=most).lane(())


def open_one(lane: Lane[str], client: str, now: float = 0) -> Server:
    """Link a client to a server that is opened for it."""
    of = lane.pool.pools
    server = opened(of.borrow(lane, client, now))
    todo = of.opened(server, now)
    assert todo[0] == Link(client, server)
    return server


def opened(todo: list[Any]) -> Server:
    (action,) = [item for item in todo if isinstance(item, Open)]
    return action.server


def closed(todo: list[Any], reason: CloseReason) -> Server:
    (action,) = [item for item in todo if isinstance(item, Close)]
    assert action.reason is reason
    return action.server


def done(server: Server, now: float = 0) -> list[Any]:
    """Have a client be done with its server."""
    of = server.lane.pool.pools
    of.given_back(server)
    return of.cleaned(server, now)


def idle(lane: Lane[str], number: int) -> list[Server]:
    servers = [open_one(lane, f"idle{count}") for count in range(number)]
    for server in servers:
        done(server)
    return servers


# One lane.


def test_a_client_gets_the_server_opened_for_it() -> None:
    assert open_one(lane(), "a").state is LINKED


def test_a_server_is_passed_on_to_the_longest_waiter() -> None:
    queue = lane(most=1)
    of = queue.pool.pools
    server = open_one(queue, "a")
    assert of.pass_on(server) is None
    of.borrow(queue, "b", 1)
    of.borrow(queue, "c", 2)
    assert of.pass_on(server) == "b"
    assert server.state is LINKED and server.turn == of.turns == 2
    assert of.pressed and list(queue.waiters) == ["c"] and queue.pool.waiting == 1
    assert of.pass_on(server) == "c"
    assert not of.pressed and not queue.waiters and not queue.pool.waiting
    assert of.pass_on(server) is None


def test_a_pool_at_its_own_limit_keeps_no_other_from_its_servers() -> None:
    """However many wait there, another's server comes and goes without ceremony, and is closed for nobody."""
    of = pools()
    full, also_full, other = (pool(of, f"app/{user}", most=1).lane(()) for user in ("a", "b", "c"))
    first, second, third = (open_one(one, "has") for one in (full, also_full, other))
    for one in (full, also_full):
        of.borrow(one, "waits", 1)
        of.borrow(one, "waits behind", 2)
    assert of.pressed and not of.contested
    assert other.put(third) and other.idle == [third]
    assert other.take(NOTHING_SET, None) is third
    assert not full.put(first), "somebody waits for it"
    assert of.pass_on(first) == "waits" and of.pass_on(second) == "waits"
    assert of.pass_on(first) == "waits behind" and of.pressed
    assert of.pass_on(second) == "waits behind" and not of.pressed
    assert other.put(third)


def test_who_waits_for_a_limit_of_several_pools_is_thought_of_when_any_server_becomes_free() -> None:
    of = pools(capacity=2)
    one, other = (pool(of, f"app/{user}").lane(()) for user in ("a", "b"))
    server, _ = open_one(one, "has"), open_one(one, "has another")
    of.borrow(other, "waits", 1)
    assert of.contested and not one.put(server) and of.pass_on(server) is None
    assert closed(done(server), CloseReason.NEEDED_ELSEWHERE) is server


def test_lanes_of_one_pool_at_its_limit_get_its_servers_in_turn() -> None:
    of = pools()
    both = pool(of, most=1)
    one, other = both.lane(()), both.lane(UTC)
    server = open_one(one, "has")
    of.borrow(other, "waits", 1)
    assert not of.contested and not one.put(server) and of.pass_on(server) is None
    assert closed(done(server), CloseReason.NEEDED_ELSEWHERE) is server


def test_a_limit_that_is_lowered_is_kept_by_whoever_is_done() -> None:
    of = pools()
    lanes = [pool(of, f"app/{user}").lane(()) for user in ("a", "b")]
    servers = [open_one(one, "has") for one in lanes]
    of.set_database("app", 1, 0)
    of.look(1)
    assert of.contested and not lanes[0].put(servers[0])
    assert closed(done(servers[0]), CloseReason.SURPLUS) is servers[0]
    of.lost(servers[0], 1)
    assert not of.contested and lanes[1].put(servers[1])


def test_who_stands_in_line_waits_as_who_borrows() -> None:
    queue = lane(most=1)
    of = queue.pool.pools
    of.set_pool(queue.pool, 1, 0, 2, False, 0)
    assert not of.stand_in_line(queue, "a", 0, NOTHING_SET, None)
    server = open_one(queue, "a")
    assert not of.stand_in_line(queue, "b", 1, NOTHING_SET, None), "nobody is there to stand behind"
    of.borrow(queue, "b", 1)
    assert not of.stand_in_line(queue, "b", 1, NOTHING_SET, None), "it waits already"
    assert of.stand_in_line(queue, "c", 2, NOTHING_SET, None)
    assert list(queue.waiters) == ["b", "c"] and queue.pool.waiting == 2 and of.pressed
    assert not of.stand_in_line(queue, "d", 3, NOTHING_SET, None), "the queue is full"
    assert of.pass_on(server) == "b" and of.pass_on(server) == "c"
    assert not queue.pool.waiting and not of.pressed


def test_nobody_stands_in_line_for_a_server_that_is_being_opened() -> None:
    queue = lane(most=2)
    of = queue.pool.pools
    open_one(queue, "a")
    assert [type(todo) for todo in of.borrow(queue, "b", 1)] == [Open]
    assert not of.stand_in_line(queue, "c", 2, NOTHING_SET, None), "there may be more to be opened"
    of.borrow(queue, "c", 2)
    assert of.stand_in_line(queue, "d", 2, NOTHING_SET, None)


def test_a_server_that_may_be_wanted_elsewhere_is_not_passed_on() -> None:
    queue = lane(most=1)
    of = queue.pool.pools
    server = open_one(queue, "a")
    of.borrow(queue, "b", 1)
    of.borrow(queue.pool.lane(UTC), "c", 2)
    assert of.pass_on(server) is None


def test_a_server_that_has_to_go_is_not_passed_on() -> None:
    queue = lane(most=2)
    of = queue.pool.pools
    first, second = open_one(queue, "a"), open_one(queue, "b")
    of.borrow(queue, "c", 1)
    first.retiring = CloseReason.MOVED
    assert of.pass_on(first) is None
    of.set_pool(queue.pool, 1, 0, 100, False, 2)
    assert of.pass_on(second) is None


def test_a_cleaned_server_goes_to_the_longest_waiter() -> None:
    queue = lane(most=1)
    of = queue.pool.pools
    server = open_one(queue, "a")
    assert of.borrow(queue, "b", 1) == []
    assert of.borrow(queue, "c", 2) == []
    assert done(server, 3) == [Link("b", server)]


def test_a_client_that_left_gets_nothing() -> None:
    queue = lane(most=1)
    of = queue.pool.pools
    server = opened(of.borrow(queue, "a", 0))
    of.leave(queue, "a")
    assert of.opened(server, 0) == []
    assert server.state is IDLE
    assert of.borrow(queue, "b", 0) == [Link("b", server)]


def test_nobody_waits_twice() -> None:
    queue = lane(most=1)
    queue.pool.pools.borrow(queue, "a", 0)
    with pytest.raises(ValueError, match="waits already"):
        queue.pool.pools.borrow(queue, "a", 0)


def test_a_lost_server_is_replaced_for_those_who_wait() -> None:
    queue = lane(most=1)
    server = open_one(queue, "a")
    queue.pool.pools.borrow(queue, "b", 0)
    assert isinstance(queue.pool.pools.lost(server, 0)[0], Open)


def test_a_wait_ends() -> None:
    queue = lane(most=1)
    of = queue.pool.pools
    of.borrow(queue, "a", 0)
    of.borrow(queue, "b", 5)
    assert of.deadline(5) == 10
    assert of.tick(9.9) == []
    assert of.tick(10) == [Expire(queue, "a")]
    assert of.deadline(10) == 15


def test_who_does_not_wait_gets_an_idle_server_or_none() -> None:
    queue = lane(borrow_timeout=0)
    of = queue.pool.pools
    server = opened(of.borrow(queue, "a", 3))
    assert of.deadline(3) == 3
    assert of.tick(3) == [Expire(queue, "a")]
    of.opened(server, 4)
    assert of.borrow(queue, "b", 5) == [Link("b", server)]


def test_a_full_queue_takes_nobody_in() -> None:
    of = pools(1)
    queue = pool(of, waiting=1).lane(())
    open_one(queue, "a")
    assert of.borrow(queue, "b", 0) == []
    (refusal,) = of.borrow(queue, "c", 0)
    assert isinstance(refusal, Refuse) and refusal.complaint.sqlstate == "53300"
    of.leave(queue, "b")
    assert of.borrow(queue, "c", 0) == []


def test_who_has_settings_gets_a_server_that_has_them() -> None:
    queue = lane()
    first, second, third = idle(queue, 3)
    spanish = settings_of({b"lc_messages": Setting(b"SET lc_messages TO E'es_ES'", False)})
    second.session.settings = spanish
    assert queue.take(spanish, None) is second
    assert queue.take(spanish, None) is third
    assert queue.take(spanish, None) is first
    assert queue.take(spanish, None) is None


def test_who_has_a_home_gets_it_if_it_is_there() -> None:
    queue = lane()
    first, second, third = idle(queue, 3)
    nothing = first.session.settings
    assert queue.take(nothing, first.session) is first
    assert queue.take(nothing, first.session) is third
    assert queue.take(nothing, None) is second


def test_a_server_goes_back_without_ceremony_while_nobody_could_want_it() -> None:
    of = pools(2)
    queue, other = pool(of).lane(()), pool(of, "app/bob").lane(())
    server, second = open_one(queue, "a"), open_one(queue, "b")
    assert queue.put(server) and server.state is IDLE
    assert queue.take(server.session.settings, None) is server
    assert of.borrow(other, "c", 1) == []
    assert not queue.put(server) and server.state is LINKED
    of.leave(other, "c")
    assert queue.put(server)
    second.retiring = CloseReason.MOVED
    assert not queue.put(second)


def test_retired_servers_serve_nobody_else() -> None:
    queue = lane()
    of, asked = queue.pool.pools, queue.pool.lane(UTC)
    linked, unused = idle(queue, 2)
    assert queue.take(linked.session.settings, linked.session) is linked
    coming = opened(of.borrow(asked, "b", 0))
    assert of.retire(queue.pool, CloseReason.DEFAULTS_CHANGED, 0) == [
        Close(unused, CloseReason.DEFAULTS_CHANGED)
    ]
    todo = of.opened(coming, 0)
    assert closed(todo, CloseReason.DEFAULTS_CHANGED) is coming
    again = opened(todo)
    assert again.retiring is None
    assert closed(done(linked), CloseReason.DEFAULTS_CHANGED) is linked
    assert Link("b", again) in of.opened(again, 0)


# Limits.


def test_the_target_is_asked_for_one_server_until_it_has_said_how_many_it_allows() -> None:
    of: Pools[str] = Pools("main", Rules(), lambda: 0.5)
    queue = pool(of).lane(())
    server = opened(of.borrow(queue, "a", 0))
    assert of.borrow(queue, "b", 0) == []
    assert [type(item) for item in of.learn(2, 0)] == [Open]
    assert Link("a", server) in of.opened(server, 0)
    assert of.borrow(queue, "c", 0) == []


@pytest.mark.parametrize(
    ("budget", "capacity", "allowed"),
    [
        (Budget(), 97, 97),
        (Budget(percent=50), 97, 48),
        (Budget(percent=50, most=10), 97, 10),
        (Budget(most=10), 5, 5),
        (Budget(percent=1), 27, 1),
        (Budget(for_look_ups=4), 27, 23),
        (Budget(for_look_ups=4), 3, 1),
        (Budget(), None, 1),
    ],
)
def test_what_a_budget_allows(budget: Budget, capacity: int | None, allowed: int) -> None:
    assert budget.allows(capacity) == allowed


def test_a_closing_server_counts_until_it_has_gone() -> None:
    of = pools(1)
    first, second = pool(of).lane(()), pool(of, "app/bob").lane(())
    (server,) = idle(first, 1)
    todo = of.borrow(second, "b", 1)
    assert todo == [Close(server, CloseReason.NEEDED_ELSEWHERE)]
    assert of.tick(2) == []
    assert opened(of.gone(server, 3)).lane is second


def test_other_parameters_need_another_server() -> None:
    queue = lane(most=1)
    of, other = queue.pool.pools, queue.pool.lane(UTC)
    server = open_one(queue, "a")
    assert of.borrow(other, "b", 1) == []
    assert closed(done(server, 2), CloseReason.NEEDED_ELSEWHERE) is server
    assert opened(of.gone(server, 3)).parameters == UTC


def test_a_few_servers_are_opened_at_a_time() -> None:
    of = pools(opening_at_once=2)
    queue = pool(of).lane(())
    first = opened(of.borrow(queue, "a", 0))
    assert isinstance(of.borrow(queue, "b", 0)[0], Open)
    assert of.borrow(queue, "c", 0) == []
    todo = of.opened(first, 0)
    assert todo[0] == Link("a", first)
    assert isinstance(todo[1], Open)


def test_a_smaller_limit_sheds_idle_servers_at_once_and_others_when_they_are_free() -> None:
    of = pools(10)
    queue = pool(of).lane(())
    unused, other = idle(queue, 2)
    assert queue.take(other.session.settings, other.session) is other
    assert closed(of.learn(1, 1), CloseReason.SURPLUS) is unused
    assert of.gone(unused, 1) == []


def test_a_server_that_somebody_may_come_back_to_is_the_last_that_makes_room() -> None:
    of = pools(2)
    first, second = pool(of).lane(()), pool(of, "app/bob").lane(())
    reserved, other = idle(first, 2)
    reserved.session.reserved = "somebody"
    assert of.borrow(second, "b", 1) == [Close(other, CloseReason.NEEDED_ELSEWHERE)]


def test_a_server_that_somebody_may_come_back_to_is_the_last_that_is_shed() -> None:
    of = pools(10)
    reserved, other = idle(pool(of).lane(()), 2)
    reserved.session.reserved = "somebody"
    assert closed(of.learn(1, 1), CloseReason.SURPLUS) is other


def test_a_linked_server_too_many_is_closed_when_it_is_free() -> None:
    of = pools(2)
    queue = pool(of).lane(())
    first, second = open_one(queue, "a"), open_one(queue, "b")
    assert of.learn(1, 1) == []
    assert not queue.put(first)
    assert closed(done(first, 1), CloseReason.SURPLUS) is first
    assert of.gone(first, 1) == []
    assert queue.put(second)


@pytest.mark.parametrize("kind", ["database", "user", "pool"])
def test_caps_within_the_budget(kind: str) -> None:
    of = pools(10)
    if kind == "database":
        of.set_database("app", 1, 0)
    if kind == "user":
        of.set_user("alice", 1, 0)
    queue = pool(of, most=1 if kind == "pool" else 20).lane(())
    free = pool(of, "other/bob").lane(())
    server = open_one(queue, "a")
    assert of.borrow(queue, "b", 0) == []
    assert open_one(free, "c").lane is free
    assert done(server, 1) == [Link("b", server)]


def test_an_idle_server_makes_room_within_the_very_limit_that_is_reached() -> None:
    of = pools(10)
    of.set_database("app", 1, 0)
    first, elsewhere = pool(of).lane(()), pool(of, "other/alice").lane(())
    (unused,) = idle(first, 1)
    idle(elsewhere, 1)
    assert of.borrow(pool(of, "app/bob").lane(()), "b", 1) == [Close(unused, CloseReason.NEEDED_ELSEWHERE)]


def test_two_limits_are_met_one_after_the_other() -> None:
    of = pools(10)
    of.set_database("app", 1, 0)
    of.set_user("alice", 1, 0)
    in_database, of_user = pool(of, "app/bob").lane(()), pool(of, "other/alice").lane(())
    both = pool(of).lane(())
    first, second = open_one(in_database, "a"), open_one(of_user, "b")
    of.borrow(both, "c", 1)
    of.borrow(in_database, "d", 8)
    of.borrow(of_user, "e", 8)
    assert closed(done(second, 9), CloseReason.NEEDED_ELSEWHERE) is second
    assert of.gone(second, 9) == [], "the user's place is kept for the one who has waited longest"
    assert closed(done(first, 9), CloseReason.NEEDED_ELSEWHERE) is first
    assert opened(of.gone(first, 9)).lane is both


# Fairness.


def test_a_pool_without_a_server_gets_one_of_a_crowded_pool() -> None:
    of = pools(4)
    crowd, quiet = pool(of).lane(()), pool(of, "app/bob").lane(())
    servers = [open_one(crowd, f"a{number}") for number in range(4)]
    for number in range(50):
        of.borrow(crowd, f"w{number}", 0)
    of.borrow(quiet, "b", 1)
    assert done(servers[0], 1.1) == [Link("w0", servers[0])], "it has waited for a moment only"
    assert closed(done(servers[1], 3), CloseReason.NEEDED_ELSEWHERE) is servers[1]
    assert done(servers[2], 3) == [Link("w1", servers[2])], "one is enough"
    assert opened(of.gone(servers[1], 3)).lane is quiet


def test_equals_leave_each_other_their_servers() -> None:
    of = pools(4)
    left, right = pool(of).lane(()), pool(of, "app/bob").lane(())
    servers = [open_one(side, f"{number}") for number in range(2) for side in (left, right)]
    for number, side in enumerate((left, right) * 10):
        of.borrow(side, f"w{number}", number)
    for server in servers:
        (link,) = done(server, 30)
        assert isinstance(link, Link)


# Minimums and reserves.


def test_a_minimum_is_kept_free() -> None:
    of = pools(3)
    of.set_database("vip", 0, 2)
    crowd = pool(of).lane(())
    open_one(crowd, "a")
    assert of.borrow(crowd, "b", 0) == []
    vip = pool(of, "vip/alice").lane(())
    open_one(vip, "c")
    open_one(vip, "d")
    assert of.borrow(vip, "e", 0) == []


def test_more_minimums_than_there_is_leave_nobody_without() -> None:
    of = pools(3)
    of.set_database("vip", 0, 5)
    assert open_one(pool(of).lane(()), "a")


def test_idle_servers_that_a_minimum_needs_stay() -> None:
    of = pools(2)
    vip, crowd = pool(of, "vip/alice", least=1).lane(()), pool(of).lane(())
    (kept,) = idle(vip, 1)
    server = open_one(crowd, "a")
    assert of.borrow(crowd, "b", 1) == []
    assert kept.state is IDLE
    assert done(server, 2) == [Link("b", server)]


def test_a_minimum_is_kept_warm_where_clients_have_been() -> None:
    of = pools(10, opening_at_once=10)
    kept = pool(of, least=3)
    assert of.look(0) == []
    server = open_one(kept.lane(()), "a")
    todo: list[Any] = of.look(1)
    assert [type(item) for item in todo] == [Open, Open]
    for item in todo:
        of.opened(item.server, 1)
    assert of.look(2) == []
    of.lost(server, 3)
    assert isinstance(of.look(3)[0], Open)


def test_walsenders_are_not_kept_warm() -> None:
    of = pools(10)
    kept = pool(of, least=3)
    open_one(kept.lane((("replication", "database"),)), "a")
    assert of.look(1) == []


def test_what_does_not_open_is_not_kept_warm() -> None:
    of = pools(10)
    kept = pool(of, least=3)
    bad = kept.lane(UTC)
    server = opened(of.borrow(bad, "a", 0))
    assert of.failed(server, BAD_PARAMETER, 0) == [Refuse(bad, "a", WHY)]
    of.gone(server, 0)
    assert of.look(10) == []


def test_administrators_get_in_when_everything_is_in_use() -> None:
    of = pools(3, Budget(for_admins=1))
    crowd, admin = pool(of).lane(()), pool(of, "app/root", admin=True).lane(())
    servers = [open_one(crowd, "a"), open_one(crowd, "b")]
    assert of.borrow(crowd, "c", 0) == []
    open_one(admin, "d")
    assert done(servers[0], 5) == [Link("c", servers[0])]


def test_who_becomes_an_administrator_counts_as_one() -> None:
    of = pools(3, Budget(for_admins=1))
    first, second = pool(of), pool(of, "app/bob")
    open_one(first.lane(()), "a")
    open_one(first.lane(()), "b")
    of.set_pool(first, 20, 0, 100, True, 0)
    assert (of.ordinary.count, of.target.count) == (0, 2)
    open_one(second.lane(()), "c")
    of.set_pool(first, 20, 0, 100, False, 0)
    assert (of.ordinary.count, of.target.count) == (3, 3)


def test_walsenders_are_not_counted_with_the_others() -> None:
    of = pools(1)
    some = pool(of)
    open_one(some.lane((("replication", "database"),)), "a")
    assert of.target.count == 0 and some.account.count == 1
    open_one(some.lane(()), "b")


# Failures.


def test_a_wrong_password_is_told_to_everybody_who_waits_and_to_who_comes_soon() -> None:
    of = pools(opening_at_once=1)
    queue, other = pool(of).lane(()), pool(of, "app/bob").lane(())
    server = opened(of.borrow(queue, "a", 0))
    of.borrow(queue, "b", 0)
    todo = of.failed(server, WRONG_PASSWORD, 0)
    assert {item.client for item in todo if isinstance(item, Refuse)} == {"a", "b"}
    assert of.borrow(queue, "c", 0.05) == [Refuse(queue, "c", WHY)]
    assert open_one(other, "d", 0.05)
    assert isinstance(of.borrow(queue, "e", 0.2)[0], Open), "after a while it is tried again"


def test_with_another_password_it_is_tried_at_once() -> None:
    queue = lane()
    of = queue.pool.pools
    of.failed(opened(of.borrow(queue, "a", 0)), WRONG_PASSWORD, 0)
    of.forgive(queue.pool)
    assert isinstance(of.borrow(queue, "b", 0)[0], Open)


def test_who_has_servers_already_waits_for_them() -> None:
    queue = lane()
    of = queue.pool.pools
    server = open_one(queue, "a")
    coming = opened(of.borrow(queue, "b", 0))
    assert of.failed(coming, WRONG_PASSWORD, 0) == []
    assert done(server, 1) == [Link("b", server)]


def test_a_bad_parameter_concerns_those_who_have_it() -> None:
    queue = lane()
    of, other = queue.pool.pools, queue.pool.lane(UTC)
    server = opened(of.borrow(other, "a", 0))
    assert of.failed(server, BAD_PARAMETER, 0) == [Refuse(other, "a", WHY)]
    assert isinstance(of.borrow(queue, "b", 0)[0], Open)


def test_for_walsenders_too_a_target_that_is_down_is_tried_after_a_pause() -> None:
    some = pool(pools())
    sender, of = some.lane((("replication", "database"),)), some.pools
    server = opened(of.borrow(sender, "a", 0))
    assert of.failed(server, DOWN, 0) == []
    assert of.gone(server, 0) == []
    assert opened(of.tick(0.1)).lane is sender
    # It says nothing of the others, which have a limit of their own.
    assert isinstance(of.borrow(some.lane(()), "b", 0.1)[0], Open)


def test_a_target_that_is_down_is_waited_for_and_tried_by_one_at_a_time() -> None:
    queue = lane()
    of = queue.pool.pools
    servers = [opened(of.borrow(queue, client, 0)) for client in "abc"]
    for server in servers:
        assert of.failed(server, DOWN, 0) == []
        of.gone(server, 0)
    assert of.deadline(0) == pytest.approx(0.1)
    again = opened(of.tick(0.1))
    assert of.tick(0.15) == []
    assert of.failed(again, DOWN, 0.2) == []
    assert of.deadline(0.2) == pytest.approx(0.4)
    again = opened(of.tick(0.4))
    todo = of.opened(again, 0.5)
    assert todo[0] == Link("a", again)
    assert [type(item) for item in todo[1:]] == [Open, Open]


def test_pauses_between_attempts_grow_to_a_limit() -> None:
    queue = lane(borrow_timeout=10_000)
    of = queue.pool.pools
    server = opened(of.borrow(queue, "a", 0))
    now, pauses = 0.0, []
    for _ in range(9):
        of.failed(server, DOWN, now)
        due = of.deadline(now)
        assert due is not None
        pauses.append(round(due - now, 3))
        now = due
        server = opened(of.tick(now))
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 2, 2, 2, 2]


# The lives of servers.


def test_a_server_is_closed_at_the_end_of_its_life_when_nobody_is_linked_to_it() -> None:
    of = pools(lifetime=100)
    queue = pool(of).lane(())
    first, second = open_one(queue, "a"), open_one(queue, "b")
    done(first)
    assert of.look(99) == []
    assert closed(of.look(100), CloseReason.LIFETIME) is first
    assert closed(done(second, 101), CloseReason.LIFETIME) is second


def test_lives_end_at_different_times() -> None:
    chances = iter([0.0, 1.0])
    of: Pools[str] = Pools("main", Rules(lifetime=100), lambda: next(chances))
    of.learn(10, 0)
    queue = pool(of).lane(())
    assert [open_one(queue, client).expires for client in "ab"] == [90, pytest.approx(110)]


def test_a_server_that_nobody_wants_is_closed_but_for_the_minimum() -> None:
    of = pools(idle_timeout=10)
    queue = pool(of, least=1).lane(())
    first, second = idle(queue, 2)
    assert of.look(0) == []
    assert queue.take(first.session.settings, first.session) is first
    assert queue.put(first)
    assert of.look(5) == []
    assert closed(of.look(10), CloseReason.IDLE_TIMEOUT) is second
    of.gone(second, 10)
    assert of.look(100) == []


def test_of_many_idle_servers_the_ones_idle_longest_go() -> None:
    of = pools(10, Budget(idle_percent=20), long_idle=300)
    queue = pool(of).lane(())
    servers = idle(queue, 4)
    assert of.look(0) == []
    assert of.look(299) == []
    todo: list[Any] = of.look(300)
    assert [item.server for item in todo] == servers[:2]
    assert {item.reason for item in todo} == {CloseReason.TOO_MANY_IDLE}


def test_silent_servers_are_asked_half_of_them_at_a_time() -> None:
    of = pools(check_after=30)
    queue = pool(of).lane(())
    first, second = idle(queue, 2)
    of.look(0)
    assert of.look(30) == [Check(first)]
    assert first.state is CHECKING
    assert queue.take(second.session.settings, None) is second
    assert of.borrow(queue, "a", 30) != []
    assert of.checked(first, 31) == [Link("a", first)]


def test_who_is_asked_is_as_idle_as_before() -> None:
    of = pools(check_after=1, idle_timeout=3)
    (server,) = idle(pool(of).lane(()), 1)
    of.look(0)
    for now in (1, 2):
        assert of.look(now) == [Check(server)]
        of.checked(server, now)
    assert of.look(3) == [Close(server, CloseReason.IDLE_TIMEOUT)]


def test_a_server_that_does_not_answer_is_closed() -> None:
    of = pools(check_after=30)
    queue = pool(of).lane(())
    (server,) = idle(queue, 1)
    of.look(0)
    assert of.look(30) == [Check(server)]
    assert of.close(server, CloseReason.CHECK_FAILED, 40) == [Close(server, CloseReason.CHECK_FAILED)]
    assert of.checked(server, 41) == []


def test_lanes_that_nobody_uses_are_forgotten() -> None:
    of = pools()
    some = pool(of)
    server = open_one(some.lane(UTC), "a")
    some.lane(())
    of.tidy()
    assert list(some.lanes) == [UTC]
    of.lost(server, 1)
    of.tidy()
    assert not some.lanes
    of.drop_pool(some)
    assert not of.pools


def test_databases_and_users_that_nobody_uses_are_forgotten() -> None:
    of = pools()
    of.set_database("kept", 0, 1)
    kept = of.set_database("kept", 0, 1)
    gone = of.set_database("gone", 7, 0)
    some = pool(of, "gone/alice")
    of.tidy()
    assert of.set_database("gone", 7, 0) is gone
    of.drop_pool(some)
    of.tidy()
    assert of.set_database("gone", 7, 0) is not gone
    assert of.set_database("kept", 0, 1) is kept


@pytest.mark.parametrize("databases", [1, 1000])
def test_a_crowd_that_waits_costs_little(databases: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One who comes costs no look at all the others, nor does each of them when a server changes hands."""
    looks = 0
    full = Reserve.full

    def counted(reserve: Reserve, lane: Lane[Any]) -> list[Account]:
        nonlocal looks
        looks += 1
        return full(reserve, lane)

    monkeypatch.setattr(Reserve, "full", counted)
    of = pools(4, opening_at_once=1000)
    names = [f"db{number}/alice" for number in range(databases)]
    some = [pool(of, name, waiting=10_000) for name in names]
    crowd = [some[number % databases].lane((("n", str(number)),)) for number in range(1000)]
    linked = [open_one(lane, "first") for lane in crowd[:4]]
    looks = 0
    for lane in crowd[4:]:
        assert of.borrow(lane, "later", 1) == []
    assert looks <= 2000
    looks = 0
    for server in linked:
        of.gone(closed(done(server, 2), CloseReason.NEEDED_ELSEWHERE), 2)
    assert looks <= 5000


# Where servers are elsewhere, or the host has changed.


def test_one_that_has_waited_elsewhere_keeps_its_place_and_its_limit() -> None:
    queue = lane(most=1)
    of = queue.pool.pools
    server = open_one(queue, "a", now=0)
    of.borrow(queue, "b", now=5)
    of.borrow(queue, "c", now=6, since=1)
    of.borrow(queue, "d", now=7, since=5.5)
    assert list(queue.waiters) == ["c", "b", "d"]
    assert of.deadline(7) == 11
    assert of.tick(11) == [Expire(queue, "c")]
    assert of.deadline(11) == 15
    assert done(server, 12)[0] == Link("b", server)
    assert of.tick(15.5) == [Expire(queue, "d")]


def test_one_that_has_waited_for_too_long_elsewhere_waits_no_more() -> None:
    queue = lane(most=1)
    of = queue.pool.pools
    open_one(queue, "a", now=0)
    of.borrow(queue, "b", now=20, since=5)
    assert of.hurry
    assert of.tick(20) == [Expire(queue, "b")]


def test_a_host_that_is_forgiven_is_tried_at_once() -> None:
    queue = lane()
    of = queue.pool.pools
    server = opened(of.borrow(queue, "a", 0))
    of.failed(server, DOWN, 0)
    of.gone(server, 0)
    assert of.tick(0.01) == []
    assert opened(of.forgive_all(0.01)).lane is queue


def test_forgiving_where_nobody_waits_does_nothing() -> None:
    queue = lane()
    idle(queue, 2)
    assert queue.pool.pools.forgive_all(1) == []


def test_idle_servers_are_asked_and_nobody_gets_one_before_it_has_answered() -> None:
    queue = lane(most=3)
    of = queue.pool.pools
    one, two = idle(queue, 2)
    assert of.check_idle(queue.pool) == [Check(one), Check(two)]
    assert not queue.idle and {one.state, two.state} == {CHECKING}
    todo = of.borrow(queue, "a", 1)
    assert not any(isinstance(item, Link) for item in todo)
    assert of.checked(two, 2)[0] == Link("a", two)
    assert of.checked(one, 2) == [] and queue.idle == [one]


# An administrator's pause.


def test_who_comes_to_a_paused_pool_waits_until_it_goes_on() -> None:
    one = lane(most=2)
    of = one.pool.pools
    used, idle = open_one(one, "a"), open_one(one, "b")
    of.given_back(idle)
    of.cleaned(idle, 0)
    assert of.pause(one.pool, CloseReason.PAUSED, 1) == [Close(idle, CloseReason.PAUSED)]
    of.gone(idle, 1)
    assert one.take(NOTHING_SET, None) is None
    assert of.borrow(one, "c", 2) == []
    of.given_back(used)
    assert of.cleaned(used, 3) == [Close(used, CloseReason.PAUSED)]
    of.gone(used, 3)
    assert of.look(4) == [] and one.pool.empty is False
    (opening,) = of.resume(one.pool, 5)
    assert isinstance(opening, Open)
    assert of.opened(opening.server, 5)[0] == Link("c", opening.server)


def test_a_pause_does_not_stop_the_time_of_who_waits() -> None:
    one = lane(borrow_timeout=10)
    of = one.pool.pools
    of.pause(one.pool, CloseReason.PAUSED, 0)
    of.borrow(one, "a", 1)
    assert of.tick(10.9) == [] and of.tick(11) == [Expire(one, "a")]


def test_a_server_that_is_being_opened_serves_nobody_in_a_pause() -> None:
    one = lane()
    of = one.pool.pools
    server = opened(of.borrow(one, "a", 0))
    of.pause(one.pool, CloseReason.PAUSED, 1)
    assert of.opened(server, 2) == [Close(server, CloseReason.PAUSED)]


@given(st.floats(0, 1e9))
def test_who_waits_for_a_permit_no_longer_does_when_that_is_due(now: float) -> None:
    """However seconds are rounded: else the clock would be set for the very same moment again and again."""
    of: Pools[str] = Pools("main", Rules(), lambda: 0.5, Permits())
    here = pool(of)
    idle, empty = here.lane(()), here.lane(UTC)
    assert here.permits is not None
    of.permit(here.permits[0], 1, now)
    server = open_one(idle, "one", now)
    of.given_back(server)
    of.cleaned(server, now)
    assert of.borrow(empty, "two", now) == []
    due = of.deadline(now)
    assert due is not None and of.tick(due) == [Close(server, CloseReason.NEEDED_ELSEWHERE)]
