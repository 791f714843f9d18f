"""When hosts are looked for: as long as what was found holds, in trouble at once, never twice at a time."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
import structlog
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from pgproxy.watch.discovery import DiscoveryFailed, Found
from pgproxy.watch.discovery.found import FoundHost
from pgproxy.watch.searching import Searching

HOST = FoundHost("a", "10.0.0.1", 5432)


class Source:
    """It answers when a test says so."""

    def __init__(self) -> None:
        self.fresh: list[bool] = []
        self.answer: Deferred[Found] = Deferred()

    async def look(self, fresh: bool = False) -> Found:
        self.fresh.append(fresh)
        self.answer = Deferred()
        return await self.answer

    def stop(self) -> None:
        if not self.answer.called:
            self.answer.errback(CancelledError())


class Scene:
    def __init__(self) -> None:
        self.clock = Clock()
        self.source = Source()
        self.found: list[Found] = []
        self.failures = 0
        self.lines: list[dict[str, Any]] = []
        log: Any = structlog.wrap_logger(structlog.testing.CapturingLogger(), processors=[self.write])
        self.searching = Searching(self.source, self.found.append, self.fail, self.clock, log)

    def write(self, _log: object, _name: str, event: Any) -> str:
        self.lines.append(dict(event))
        return ""

    def fail(self) -> None:
        self.failures += 1

    def find(self, expires: float = 10.0) -> None:
        self.source.answer.callback(Found((HOST,), expires))

    def find_nothing(self, why: str = "no such name") -> None:
        self.source.answer.errback(DiscoveryFailed(why, "make one"))


@pytest.fixture
def scene() -> Scene:
    made = Scene()
    made.searching.start()
    return made


def test_it_looks_again_when_what_was_found_has_expired(scene: Scene) -> None:
    scene.find(10.0)
    assert len(scene.found) == 1
    scene.clock.advance(9.9)
    assert scene.source.fresh == [False]
    scene.clock.advance(0.2)
    assert scene.source.fresh == [False, False]


def test_what_never_expires_is_looked_for_once(scene: Scene) -> None:
    scene.find(inf)
    assert not scene.clock.getDelayedCalls()


def test_a_ttl_of_nothing_is_no_reason_to_ask_all_the_time(scene: Scene) -> None:
    for _ in range(50):
        scene.find(0.0)
        scene.clock.advance(0.06)
        scene.clock.advance(0.06)
    assert len(scene.source.fresh) == 51


def test_in_trouble_it_looks_at_once_and_anew(scene: Scene) -> None:
    scene.find(60.0)
    scene.searching.hurry()
    assert scene.source.fresh == [False, True]
    scene.searching.hurry()
    assert scene.source.fresh == [False, True]
    scene.find(60.0)
    assert len(scene.clock.getDelayedCalls()) == 1


def test_a_look_that_fails_is_repeated_and_told_once(scene: Scene) -> None:
    for _ in range(3):
        scene.find_nothing()
        scene.clock.advance(1.0)
    assert scene.failures == 3 and len(scene.source.fresh) == 4
    assert [line["event"] for line in scene.lines] == ["discovery_failed"]
    scene.find_nothing("no answer")
    assert [line["why"] for line in scene.lines] == ["no such name", "no answer"]


def test_a_failure_that_comes_back_is_told_again(scene: Scene) -> None:
    scene.find_nothing()
    scene.clock.advance(1.0)
    scene.find(1.0)
    scene.clock.advance(1.0)
    scene.find_nothing()
    assert len(scene.lines) == 2


def test_a_defect_is_told_and_does_not_end_the_search(scene: Scene) -> None:
    scene.source.answer.errback(ZeroDivisionError())
    assert [line["event"] for line in scene.lines] == ["defect"]
    scene.clock.advance(1.0)
    assert len(scene.source.fresh) == 2


def test_nothing_goes_on_behind_the_end(scene: Scene) -> None:
    scene.searching.stop()
    scene.searching.hurry()
    assert not scene.clock.getDelayedCalls() and not scene.found and not scene.failures
    assert scene.source.fresh == [False]
