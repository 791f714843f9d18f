"""Threads are there while there is work for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from pgproxy.demo.process import wait_until
from pgproxy.link.threads import DaemonPool


class Reactor:
    """It does what threads have it do when it is asked to."""

    def __init__(self) -> None:
        self._told: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def callFromThread(self, what: Callable[..., None], *args: Any) -> None:
        self._told.put(lambda: what(*args))

    def turn(self) -> None:
        self._told.get(timeout=10)()


@pytest.fixture
def pool() -> Iterator[DaemonPool]:
    pool = DaemonPool(0, 2, "test")
    pool.start()
    yield pool
    pool.end()


def test_a_thread_ends_when_there_is_nothing_to_do(pool: DaemonPool) -> None:
    reactor, results = Reactor(), list[int]()
    for number in range(5):
        pool.run(reactor, abs, -number).addCallback(results.append)
    for _ in range(5):
        reactor.turn()
    assert sorted(results) == [0, 1, 2, 3, 4]
    assert wait_until(lambda: not any(thread.is_alive() for thread in pool.threads), 10)
    for number in range(20):
        pool.run(reactor, abs, -number).addCallback(results.append)
        reactor.turn()
    assert results[5:] == list(range(20))
    assert wait_until(lambda: not any(thread.is_alive() for thread in pool.threads), 10)
    pool.run(reactor, abs, -7)
    reactor.turn()
    assert len(pool.threads) <= 1


def test_where_no_thread_can_be_begun_it_fails(pool: DaemonPool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    reactor, results = Reactor(), list[Any]()
    with monkeypatch.context() as patched:
        patched.setattr(pool, "threadFactory", Refused)
        pool.run(reactor, abs, -1).addErrback(lambda failure: results.append(failure.check(RuntimeError)))
    assert results == [RuntimeError]
    pool.run(reactor, abs, -2).addCallback(results.append)
    reactor.turn()
    assert results == [RuntimeError, 2]


def test_what_comes_behind_the_end_is_taken(pool: DaemonPool) -> None:
    reactor, results = Reactor(), list[Any]()
    may_go_on = threading.Event()
    pool.run(reactor, lambda: "late" if may_go_on.wait(10) else "never").addBoth(results.append)
    pool.end()
    may_go_on.set()
    reactor.turn()
    assert results == ["late"]
