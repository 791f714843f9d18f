"""Several workers on one budget: no limit is passed, nobody starves, no permit is lost, whoever dies."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgproxy.pool.budget import Budget
from pgproxy.pool.permits import GRACE
from pgproxy.pool.rules import Rules
from pgproxy.pool.states import CloseReason
from pgproxy.workers.arbiter import Terms
from tests.examples import examples
from tests.unit.workers.house import NEVER, Hand, House


def crowd(house: House, number: int, seconds: float, work: float, pools: int, workers: int = 0) -> None:
    """Have clients come to workers at random; with `workers`, to the first ones only."""
    random = house.random
    for _ in range(number):

        def come() -> None:
            hand = random.choice(house.hands[: workers or None])
            start = (("application_name", str(random.randrange(2))),)
            hand.ask(
                hand.lane(f"d{random.randrange(pools)}", f"u{random.randrange(pools)}", start),
                random.expovariate(1 / work),
            )

        house.later(random.uniform(0, seconds), come)


@given(
    seed=st.integers(0, 2**32),
    workers=st.integers(1, 5),
    capacity=st.integers(1, 40),
    pools=st.integers(1, 3),
    caps=st.lists(st.integers(1, 12), min_size=3, max_size=3),
    at_once=st.integers(1, 8),
)
@settings(max_examples=examples(10))
def test_everybody_is_served_within_the_limits(
    seed: int, workers: int, capacity: int, pools: int, caps: list[int], at_once: int
) -> None:
    most, of_database, of_user = caps

    def terms(_database: str, _user: str) -> Terms:
        return Terms(most, of_database=(of_database, 0), of_user=(of_user, 0))

    house = House(seed, workers, Rules(borrow_timeout=NEVER, opening_at_once=at_once), capacity, terms)
    crowd(house, 300, 5, 0.02, pools)
    house.tick(0.05, 40)
    house.run(100)
    assert {client.ended for client in house.clients} == {"served"}
    house.check()


@given(
    seed=st.integers(0, 2**32),
    capacity=st.integers(2, 30),
    least=st.integers(0, 3),
    deaths=st.integers(1, 20),
)
@settings(max_examples=examples(10))
def test_workers_may_die(seed: int, capacity: int, least: int, deaths: int) -> None:
    def terms(_database: str, user: str) -> Terms:
        return Terms(10, least=least, admin=user == "u0")

    rules = Rules(Budget(for_admins=1), borrow_timeout=NEVER)
    house = House(seed, 3, rules, capacity, terms)
    crowd(house, 300, 10, 0.05, 2)

    def somebody_dies() -> None:
        house.kill(house.random.choice(house.hands))
        house.hire()

    for _ in range(deaths):
        house.later(house.random.uniform(0, 10), somebody_dies)
    house.tick(0.05, 30)
    house.run(60)
    assert {client.ended for client in house.clients} <= {"served", "died"}
    house.check()


@pytest.mark.parametrize("busy", [1, 2, 4])
def test_whoever_is_at_work_has_it_all(busy: int) -> None:
    """With idle workers the others use the whole budget."""
    house = House(1, 4, Rules(borrow_timeout=NEVER), 20)
    # All have had their servers, and then nothing to do.
    crowd(house, 200, 1, 0.1, 1)
    house.tick(0.05, 60)
    house.run(10)
    assert {client.ended for client in house.clients} == {"served"}
    crowd(house, 400, 0.1, 0.5, 1, workers=busy)
    house.run(13)
    used = sum(len(hand.links) for hand in house.hands[:busy])
    assert used == 20
    house.run(60)
    house.check()


def test_with_room_in_the_budget_no_server_is_closed_for_another_lane() -> None:
    """A permit takes a moment to come; meanwhile an idle server of the same worker stays."""
    house = House(1, 3, Rules(borrow_timeout=60), 40)
    house.tick(0.05, 30)
    starts = [(("application_name", f"a{number}"),) for number in range(5)]
    for number, start in enumerate(starts):
        for hand in house.hands:
            house.later(number, partial(ask, hand, start))
    house.run(20)
    assert {client.ended for client in house.clients} == {"served"}
    assert len(house.connections) == 15
    assert house.closed == []
    house.check()


def test_without_room_an_idle_server_of_the_worker_makes_way_at_once() -> None:
    """When the supervisor has said that there is no permit, and not only after a while."""
    house = House(1, 2, Rules(borrow_timeout=60), 2)
    house.tick(0.05, 30)
    starts = [(("application_name", f"a{number}"),) for number in range(2)]
    for number in range(20):
        house.later(1 + number, partial(ask, house.hands[0], starts[number % 2]))
        house.later(1 + number, partial(ask, house.hands[1], starts[0]))
    house.run(30)
    assert {client.ended for client in house.clients} == {"served"}
    assert set(house.closed) == {CloseReason.NEEDED_ELSEWHERE}
    assert max(client.linked - client.asked for client in house.clients if client.linked) < GRACE
    house.check()


def ask(hand: Hand, start: Any) -> None:
    hand.ask(hand.lane("app", "u0", start), 0.01)


def loop(
    house: House, hand: Any, lane: tuple[str, str], number: int, work: float, until: float
) -> list[float]:
    """Have clients work in one worker without end; give what they waited, as it grows."""
    waits: list[float] = []

    def again() -> None:
        if house.now < until:
            client = hand.ask(hand.lane(*lane), house.random.uniform(work / 2, work * 2))
            client.on_end = lambda: ended(client)

    def ended(client: Any) -> None:
        if house.now > 5:
            waits.append(client.linked - client.asked)
        house.later(0, again)

    for _ in range(number):
        house.later(house.random.uniform(0, 1), again)
    return waits


def test_waiting_is_fair_over_workers() -> None:
    house = House(1, 3, Rules(borrow_timeout=60), capacity=12)
    house.tick(0.05, 25)
    waits = [
        loop(house, hand, ("app", f"u{number}"), 20, 0.05, 20) for number, hand in enumerate(house.hands)
    ]
    house.run(40)
    medians = [sorted(of_hand)[len(of_hand) // 2] for of_hand in waits]
    assert max(medians) <= 3 * min(medians)
    assert max(max(of_hand) for of_hand in waits) < 3


def test_who_holds_a_server_for_ever_keeps_nobody_else_waiting_for_ever() -> None:
    """Recalls go to a worker whose servers never become free, too; that must not be waited for."""
    house = House(1, 3, Rules(borrow_timeout=60), capacity=3)
    house.tick(0.05, 25)
    house.run(0.1)
    for hand in house.hands[:2]:
        hand.ask(hand.lane("app", "u0"), NEVER)
    house.run(1)
    waits = [loop(house, hand, ("app", "u0"), 5, 0.01, 20) for hand in house.hands]
    house.run(40)
    assert all(len(of_hand) > 50 for of_hand in waits), [len(of_hand) for of_hand in waits]
    assert sum(client.ended == "" for client in house.clients) == 2
