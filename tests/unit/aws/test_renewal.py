"""When something is fetched anew: after it was asked for, and never more often than it may be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.task import Clock, deferLater

from pgproxy.aws.renewal import Renewal


class World:
    def __init__(self, takes: float = 0.0) -> None:
        self.clock = Clock()
        self.takes = takes
        self.begun: list[float] = []
        self.error: Exception | None = None
        self.renewal = Renewal(self.fetch, self.clock, 2.0)
        self.under_way = 0

    async def fetch(self) -> None:
        self.begun.append(self.clock.seconds())
        self.under_way += 1
        assert self.under_way == 1
        await deferLater(self.clock, self.takes)
        self.under_way -= 1
        if self.error is not None:
            raise self.error

    def soon(self, seconds: float = 60.0) -> list[object]:
        outcome: list[object] = []
        asked: Deferred[None] = self.renewal.soon(seconds)
        asked.addBoth(outcome.append)
        return outcome


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 3)), max_size=30))
def test_the_law(asks: list[tuple[float, float]]) -> None:
    world = World()
    asked: list[tuple[float, list[object]]] = []
    for wait, takes in asks:
        world.clock.pump([wait / 10] * 10)
        world.takes = takes
        asked.append((world.clock.seconds(), world.soon()))
    world.clock.pump([0.1] * 200)
    for when, outcome in asked:
        assert outcome == [None]
        assert any(begun >= when for begun in world.begun)
    assert all(
        later - earlier >= 2.0 - 1e-9 for earlier, later in zip(world.begun, world.begun[1:], strict=False)
    )


def test_those_who_ask_in_between_share_the_next() -> None:
    world = World(takes=1.0)
    first = world.soon()
    world.clock.advance(0.0)
    later = [world.soon() for _ in range(5)]
    world.clock.advance(1.0)
    assert first == [None] and later == [[]] * 5 and world.begun == [0.0]
    world.clock.advance(1.0)
    world.clock.advance(1.0)
    assert later == [[None]] * 5 and world.begun == [0.0, 2.0]


def test_a_failure_is_told_to_all_who_asked() -> None:
    world = World()
    world.error = OSError("in vain")
    outcomes = [world.soon(), world.soon()]
    world.clock.advance(0.0)
    world.clock.advance(0.0)
    assert all(outcome[0].check(OSError) for outcome in outcomes)  # type: ignore[attr-defined]
    world.error = None
    again = world.soon()
    world.clock.pump([1.0, 1.0, 0.0])
    assert again == [None]


def test_patience() -> None:
    world = World(takes=100.0)
    outcome = world.soon(5.0)
    world.clock.pump([1.0] * 5)
    assert outcome[0].check(TimeoutError) is not None  # type: ignore[attr-defined]
    world.clock.pump([50.0] * 2)
