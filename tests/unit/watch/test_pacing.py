"""When a source is asked: what is kept, who shares, the pauses, the time limit, the end."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from pgproxy.watch.discovery.found import DiscoveryFailed, Found, FoundHost
from pgproxy.watch.discovery.pacing import LEAST_PAUSE, Paced

FOUND = Found((FoundHost("a", "10.0.0.1", 5432),), 10.0)
OTHER = Found((FoundHost("b", "10.0.0.2", 5432),), 10.0)


class Asked:
    """A source that answers when a test says so."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.answers: list[Deferred[Found]] = []
        self.paced = Paced(self.clock, self.ask, "the oracle", 4.0)

    async def ask(self) -> Found:
        self.answers.append(Deferred())
        return await self.answers[-1]

    def look(self, fresh: bool = False) -> list[object]:
        """Begin a look; gives what has come of it so far, or will."""
        seen: list[object] = []
        looked = Deferred.fromCoroutine(self.paced.look(fresh))
        looked.addBoth(lambda result: seen.append(result.value if isinstance(result, Failure) else result))
        return seen


@pytest.fixture
def asked() -> Asked:
    return Asked()


def test_what_was_found_is_given_until_it_expires(asked: Asked) -> None:
    first = asked.look()
    asked.answers[0].callback(FOUND)
    assert first == [FOUND]
    asked.clock.advance(4)
    assert asked.look() == [Found(FOUND.hosts, 6.0)]
    asked.clock.advance(6)
    assert asked.look() == [] and len(asked.answers) == 2


def test_what_expires_at_once_is_never_given_again(asked: Asked) -> None:
    asked.look()
    asked.answers[0].callback(Found(FOUND.hosts, 0.0))
    asked.clock.advance(LEAST_PAUSE)
    assert asked.look() == [] and len(asked.answers) == 2


def test_who_wants_it_fresh_gets_a_look_that_began_later(asked: Asked) -> None:
    usual = asked.look()
    shares = asked.look()
    fresh = [asked.look(fresh=True), asked.look(fresh=True)]
    assert len(asked.answers) == 1
    asked.clock.advance(1)
    asked.answers[0].callback(FOUND)
    assert usual == shares == [FOUND] and fresh == [[], []]
    assert len(asked.answers) == 2
    asked.answers[1].callback(OTHER)
    assert fresh == [[OTHER], [OTHER]]


def test_there_is_a_pause_between_two_looks(asked: Asked) -> None:
    asked.look()
    asked.answers[0].callback(FOUND)
    fresh = asked.look(fresh=True)
    asked.clock.advance(LEAST_PAUSE / 2)
    assert len(asked.answers) == 1
    asked.clock.advance(LEAST_PAUSE / 2)
    assert len(asked.answers) == 2
    asked.answers[1].callback(OTHER)
    assert fresh == [OTHER]


def test_a_look_that_failed_leaves_nothing_behind(asked: Asked) -> None:
    error = DiscoveryFailed("no", "do")
    first = asked.look()
    asked.answers[0].errback(error)
    assert first == [error] and str(error) == "no; do"
    asked.clock.advance(LEAST_PAUSE)
    second = asked.look()
    asked.answers[1].callback(FOUND)
    assert second == [FOUND]


def test_a_failed_look_does_not_end_what_still_holds(asked: Asked) -> None:
    asked.look()
    asked.answers[0].callback(FOUND)
    asked.clock.advance(LEAST_PAUSE)
    asked.look(fresh=True)
    asked.answers[1].errback(DiscoveryFailed("no", ""))
    assert asked.look() == [Found(FOUND.hosts, 10.0 - LEAST_PAUSE)]


def test_a_look_ends_within_its_time(asked: Asked) -> None:
    seen = asked.look()
    asked.clock.advance(4)
    assert [str(error) for error in seen] == [
        "the oracle did not answer within 4 s; look whether it is up and can be reached"
    ]
    assert asked.look() == [] and len(asked.answers) == 2


def test_what_is_not_foreseen_is_a_failure_too(asked: Asked) -> None:
    seen = asked.look()
    asked.answers[0].errback(ZeroDivisionError("x\n"))
    assert [str(error) for error in seen] == [
        "asking the oracle failed: ZeroDivisionError: 'x\\n'; this is not foreseen: please report it"
    ]


def test_who_has_gone_is_not_asked_for(asked: Asked) -> None:
    asked.look()
    looked = Deferred.fromCoroutine(asked.paced.look(fresh=True))
    looked.addErrback(lambda failure: failure.trap(CancelledError) and None)
    looked.cancel()
    asked.clock.advance(1)
    asked.answers[0].callback(FOUND)
    assert len(asked.answers) == 1


def test_stop_ends_everything(asked: Asked) -> None:
    seen = [asked.look(), asked.look(fresh=True)]
    asked.paced.stop()
    assert all(isinstance(result, CancelledError) for (result,) in seen)
    assert not asked.clock.getDelayedCalls()


def test_stop_in_a_pause(asked: Asked) -> None:
    asked.look()
    asked.answers[0].callback(FOUND)
    seen = asked.look(fresh=True)
    asked.paced.stop()
    assert isinstance(seen[0], CancelledError) and not asked.clock.getDelayedCalls()
