"""Look-ups of secrets: bounded, shared, and not begun for those who have gone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from pgproxy.auth.secrets import PlainPassword, Secret
from pgproxy.link.auth_query import AuthQuery, UsersUnavailable
from pgproxy.link.look_ups import AT_ONCE, MOST_WAITING, LookUps

WHERE = AuthQuery("select $1", "asker", "x", "localhost", "5432", "disable", "", "", "", 5)
SECRET = PlainPassword("s")


class Threads:
    """Runs nothing before the test says so."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, str]] = []
        self.answers: list[Deferred[Secret | None]] = []

    def run(self, ask: Callable[..., object], database: str, user: str) -> Deferred[Secret | None]:
        assert ask == WHERE.ask
        self.begun.append((database, user))
        self.answers.append(Deferred())
        return self.answers[-1]


@pytest.fixture
def threads() -> Threads:
    return Threads()


@pytest.fixture
def look_ups(threads: Threads) -> LookUps:
    return LookUps(threads.run)


def taken(answer: Deferred[Secret | None]) -> list[object]:
    """Give what has come of an answer so far, or will."""
    seen: list[object] = []
    answer.addBoth(lambda result: seen.append(result.value if isinstance(result, Failure) else result))
    return seen


def test_so_many_at_once_the_others_in_turn(threads: Threads, look_ups: LookUps) -> None:
    seen = [taken(look_ups.ask(WHERE, "d", str(number))) for number in range(AT_ONCE + 2)]
    assert [user for _, user in threads.begun] == [str(number) for number in range(AT_ONCE)]
    threads.answers[1].callback(SECRET)
    assert seen[1] == [SECRET] and seen[0] == []
    assert threads.begun[-1] == ("d", str(AT_ONCE))


def test_who_asks_for_the_same_shares_the_next_one(threads: Threads, look_ups: LookUps) -> None:
    first = taken(look_ups.ask(WHERE, "d", "u"))
    later = [taken(look_ups.ask(WHERE, "d", "u")) for _ in range(5)]
    assert threads.begun == [("d", "u")]
    threads.answers[0].callback(None)
    assert first == [None] and later == [[]] * 5
    assert threads.begun == [("d", "u")] * 2
    threads.answers[1].callback(SECRET)
    assert later == [[SECRET]] * 5


def test_nobody_is_asked_for_who_has_gone(threads: Threads, look_ups: LookUps) -> None:
    answers = [look_ups.ask(WHERE, "d", str(number)) for number in range(AT_ONCE + 50)]
    seen = [taken(answer) for answer in answers]
    for answer in answers:
        answer.cancel()
    assert all(isinstance(result, CancelledError) for (result,) in seen)
    later = taken(look_ups.ask(WHERE, "d", "later"))
    for answer in threads.answers[:AT_ONCE]:
        answer.callback(SECRET)
    threads.answers[AT_ONCE].callback(SECRET)
    assert later == [SECRET]
    assert len(threads.begun) == AT_ONCE + 1


def test_one_of_several_who_goes_takes_nothing_from_the_others(threads: Threads, look_ups: LookUps) -> None:
    look_ups.ask(WHERE, "d", "u")
    one, other = look_ups.ask(WHERE, "d", "u"), look_ups.ask(WHERE, "d", "u")
    gone, stays = taken(one), taken(other)
    one.cancel()
    threads.answers[0].callback(None)
    threads.answers[1].callback(SECRET)
    assert isinstance(gone[0], CancelledError) and stays == [SECRET]


def test_the_queue_is_bounded(threads: Threads, look_ups: LookUps) -> None:
    for number in range(AT_ONCE + MOST_WAITING):
        look_ups.ask(WHERE, "d", str(number))
    (refused,) = taken(look_ups.ask(WHERE, "d", "one too many"))
    assert isinstance(refused, UsersUnavailable)


def test_a_failure_is_everybodys_and_the_next_one_begins(threads: Threads, look_ups: LookUps) -> None:
    seen = [taken(look_ups.ask(WHERE, "d", "u")) for _ in range(3)]
    threads.answers[0].errback(Failure(UsersUnavailable("no")))
    threads.answers[1].errback(Failure(UsersUnavailable("no")))
    assert all(isinstance(result, UsersUnavailable) for (result,) in seen)
