"""Calls to AWS in threads: each ends for who waits; those that nobody waits for count while they last."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from queue import Empty, Queue
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from pgproxy.aws import threads
from pgproxy.aws.client import AwsError
from pgproxy.aws.threads import AT_ONCE, LONGEST, AwsThreads, TooMany


class Reactor(Clock):
    """A clock that is set, and what threads have to say when a test listens."""

    def __init__(self) -> None:
        super().__init__()
        self._said: Queue[Callable[[], None]] = Queue()

    def callFromThread(self, function: Callable[..., Any], *args: Any) -> None:
        self._said.put(lambda: function(*args))

    def listen(self, until: Callable[[], bool]) -> None:
        limit = time.monotonic() + 20
        while not until():
            assert time.monotonic() < limit
            try:
                self._said.get(timeout=0.1)()
            except Empty:
                continue


class World:
    def __init__(self) -> None:
        self.reactor = Reactor()
        self.threads = AwsThreads(self.reactor, "tests")
        self.over = threading.Event()
        self.begun: list[int] = []
        self.threads.start()

    def hang(self, number: int) -> int:
        self.begun.append(number)
        self.over.wait(30)
        return number

    def ask(self, number: int) -> tuple[Deferred[int], list[Any]]:
        outcome: list[Any] = []
        asked: Deferred[int] = self.threads.call(self.hang, number)
        asked.addBoth(outcome.append)
        return asked, outcome


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(threads, "MOST_WAITING", 2)
    world = World()
    yield world
    world.over.set()
    world.threads.stop()


def test_who_waits_is_told_in_the_end(world: World) -> None:
    _asked, outcome = world.ask(0)
    world.reactor.advance(LONGEST)
    assert outcome[0].check(AwsError) and outcome[0].value.passing
    world.over.set()
    world.reactor.listen(lambda: world.threads._calls == 0)
    assert len(outcome) == 1


def test_calls_that_nobody_waits_for_still_count(world: World) -> None:
    """Clients that leave while AWS hangs make no queue without end, and nothing is begun for them."""
    for number in range(AT_ONCE):
        world.ask(number)
    world.reactor.listen(lambda: len(world.begun) == AT_ONCE)
    for _ in range(3):
        refused = 0
        for number in range(5):
            asked, outcome = world.ask(100 + number)
            asked.cancel()
            refused += outcome[0].check(TooMany) is not None
            assert outcome[0].check(TooMany, CancelledError)
        assert refused >= 3
    world.over.set()
    world.reactor.listen(lambda: world.threads._calls == 0)
    assert sorted(world.begun) == list(range(AT_ONCE))
    assert world.ask(7)[1] == []


def test_results_and_errors(world: World) -> None:
    def fail() -> None:
        raise AwsError("Some", "error", passing=False)

    world.over.set()
    _, found = world.ask(5)
    failed: list[Any] = []
    world.threads.call(fail).addBoth(failed.append)
    world.reactor.listen(lambda: bool(found and failed))
    assert found == [5] and failed[0].check(AwsError)


def test_a_call_for_which_no_thread_can_be_begun_is_over(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refused(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(world.threads._pool, "threadFactory", Refused)
        for number in range(3 * AT_ONCE):
            _asked, outcome = world.ask(number)
            assert outcome[0].check(RuntimeError)
    assert world.threads._calls == 0
