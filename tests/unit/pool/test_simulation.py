"""Thousands of clients over a clock of our own: no limit is passed, nobody starves, no server is lost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgproxy.pool.budget import Budget
from pgproxy.pool.rules import Rules
from tests.examples import examples
from tests.unit.pool.world import World, accounts, check

NEVER = 10.0**9


def within_limits(world: World) -> None:
    """From now on, fail where a limit is passed."""
    open_ = world._open

    def watched(server: Any) -> None:
        open_(server)
        for account in accounts(world):
            assert account.count <= account.most, account.name

    world._open = watched  # type: ignore[method-assign]


def crowd(
    world: World, lanes: list[Any], number: int, seconds: float, work: float, leaving: float = 0.0
) -> None:
    """Have clients come within so many seconds; a share of them leaves the queue before it is served."""
    random = world.random
    for _ in range(number):
        lane = random.choice(lanes)

        def come(lane: Any = lane) -> None:
            client = world.ask(lane.pool.lane(lane.parameters), random.expovariate(1 / work))
            if random.random() < leaving:
                world.later(random.uniform(0, 2), lambda: world.leave(client))

        world.later(random.uniform(0, seconds), come)


@given(
    seed=st.integers(0, 2**32),
    capacity=st.integers(1, 40),
    databases=st.integers(1, 4),
    users=st.integers(1, 4),
    starts=st.integers(1, 3),
    caps=st.lists(st.integers(1, 12), min_size=8, max_size=8),
    at_once=st.integers(1, 8),
)
@settings(max_examples=examples(8))
def test_everybody_is_served_within_the_limits(
    seed: int, capacity: int, databases: int, users: int, starts: int, caps: list[int], at_once: int
) -> None:
    world = World(seed, Rules(borrow_timeout=NEVER, opening_at_once=at_once), capacity)
    within_limits(world)
    for number in range(databases):
        world.pools.set_database(f"d{number}", caps[number], 0)
    for number in range(users):
        world.pools.set_user(f"u{number}", caps[4 + number], 0)
    lanes = [
        world.lane(f"d{d}", f"u{u}", (("application_name", str(s)),))
        for d in range(databases)
        for u in range(users)
        for s in range(starts)
    ]
    crowd(world, lanes, 1000, 5, 0.02)
    world.run(2000)
    assert world.too_many == 0
    assert {client.ended for client in world.clients} == {"served"}
    assert not world.links
    assert {server.state.name for server in world.pools.servers} <= {"IDLE"}
    assert world.connections == world.pools.servers


@given(
    seed=st.integers(0, 2**32),
    capacity=st.integers(2, 30),
    percent=st.integers(1, 100),
    leasts=st.lists(st.integers(0, 5), min_size=6, max_size=6),
    admins=st.integers(0, 4),
)
@settings(max_examples=examples(8))
def test_whatever_goes_wrong_every_wait_ends_and_every_server_is_known(
    seed: int, capacity: int, percent: int, leasts: list[int], admins: int
) -> None:
    budget = Budget(percent=percent, for_admins=admins)
    rules = Rules(budget=budget, borrow_timeout=3, lifetime=5, idle_timeout=2, check_after=1, long_idle=1)
    world = World(seed, rules, capacity)
    random = world.random
    for number in range(2):
        world.pools.set_database(f"d{number}", 0, leasts[number])
        world.pools.set_user(f"u{number}", 0, leasts[2 + number])
        world.pool(f"d{number}", "u0", least=leasts[4 + number])
        world.pool(f"d{number}", "u1", admin=bool(number))
    lanes = [
        world.lane(f"d{d}", f"u{u}", start) for d in (0, 1) for u in (0, 1) for start in ((), (("a", "b"),))
    ]
    crowd(world, lanes, 1000, 10, 0.05, leaving=0.1)
    world.look_after(0.25, 40)

    def trouble() -> None:
        what = random.randrange(5)
        if what == 0:
            world.down = not world.down
        elif what == 1 and world.connections:
            world.lose(random.choice(sorted(world.connections, key=lambda server: server.number)))
        elif what == 2:
            # PostgreSQL has started anew, with another limit.
            for server in list(world.connections):
                world.lose(server)
            world.capacity = random.randrange(2, 30)
        elif what == 3:
            pool = random.choice(list(world.pools.pools))
            world.do(world.pools.set_pool(pool, random.randrange(1, 20), 0, 100, False, world.now))
        if world.now < 20:
            world.later(random.uniform(0, 1), trouble)
        else:
            world.down = False

    world.later(0.5, trouble)
    world.run(60)
    assert all(client.ended for client in world.clients)
    for client in world.clients:
        if client.linked is not None:
            assert client.linked - client.asked <= 3
    assert not world.links
    assert world.connections == world.pools.servers
    check(world)


def loop(world: World, lane: Any, number: int, work: float, until: float) -> list[float]:
    """Have clients work without end, one transaction after the other; give what they waited, as it grows."""
    waits: list[float] = []

    def again() -> None:
        if world.now < until:
            client = world.ask(lane.pool.lane(lane.parameters), world.random.uniform(work / 2, work * 2))
            client.on_end = lambda: ended(client)

    def ended(client: Any) -> None:
        if world.now > 5:
            waits.append(client.linked - client.asked)
        # Not within the call: the next one asks when this one has been taken off.
        world.later(0, again)

    for _ in range(number):
        world.later(world.random.uniform(0, 1), again)
    return waits


def median(waits: list[float]) -> float:
    return sorted(waits)[len(waits) // 2]


def p99(waits: list[float]) -> float:
    return sorted(waits)[len(waits) * 99 // 100]


@pytest.mark.parametrize("crowds", [(60,), (60, 60, 60), (200, 20, 5), (30,) * 12], ids=str)
def test_waiting_is_fair_in_a_steady_load(crowds: tuple[int, ...]) -> None:
    """In a pool all wait for about as long; and no crowd makes others wait as long as it does itself."""
    world = World(1, Rules(borrow_timeout=60), capacity=10)
    within_limits(world)
    waits = [loop(world, world.lane("app", f"u{n}"), crowd, 0.05, 25) for n, crowd in enumerate(crowds)]
    world.run(60, check_every=1000)
    for of_pool in waits:
        assert len(of_pool) > 100
        assert p99(of_pool) <= 4 * median(of_pool) + 0.2
    assert median(waits[-1]) <= median(waits[0]) * 1.5
    assert world.too_many == 0


def test_who_holds_a_server_for_ever_keeps_nobody_else_waiting_for_ever() -> None:
    world = World(1, Rules(borrow_timeout=60), capacity=3)
    lanes = [world.lane("app", "u0"), world.lane("app", "u1"), world.lane("app", "u2", (("a", "b"),))]
    world.ask(lanes[0], NEVER)
    world.ask(lanes[1], NEVER)
    waits = [loop(world, lane, 20, 0.01, 20) for lane in lanes]
    world.run(40, check_every=1000)
    assert all(len(of_lane) > 200 for of_lane in waits)
    assert sum(client.ended == "" for client in world.clients) == 2
