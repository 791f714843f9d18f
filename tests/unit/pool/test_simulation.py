"""Thousands of clients over a clock of our own: no limit is passed, nobody starves, no server is lost."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pgproxy.pool.budget import Budget
from pgproxy.pool.rules import Rules
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
@settings(max_examples=25, deadline=None)
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
    crowd(world, lanes, 1500, 10, 0.02)
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
@settings(max_examples=25, deadline=None)
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
    crowd(world, lanes, 1500, 20, 0.05, leaving=0.1)
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
