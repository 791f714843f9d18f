"""Who takes its leave is ended behind the work of those who stay, and soon all the same."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock

from pgproxy.link.departures import Departures


class Leaving:
    """What is asked of a client whose connection is to end."""

    def __init__(self, descriptor: int = 3) -> None:
        self.ended = self.read = 0
        self.transport = SimpleNamespace(fileno=lambda: descriptor, pauseProducing=self._pause)

    def _pause(self) -> None:
        self.read = -1

    def depart(self) -> None:
        self.ended += 1


def add(departures: Departures, number: int) -> list[Any]:
    clients: list[Any] = [Leaving() for _ in range(number)]
    for client in clients:
        departures.add(client)
    return clients


def turn(clock: Clock) -> None:
    """Have what is due done, as one turn of the reactor does: what that schedules is for the next."""
    due = [call for call in clock.getDelayedCalls() if call.getTime() <= clock.seconds()]
    for call in due:
        clock.calls.remove(call)
        call.func(*call.args, **call.kw)


def test_one_is_ended_in_the_next_turn_and_not_read_before() -> None:
    clock = Clock()
    departures = Departures(clock)
    (client,) = add(departures, 1)
    assert (client.ended, client.read) == (0, -1)
    turn(clock)
    assert client.ended == 1 and not clock.getDelayedCalls()


def test_of_many_a_turn_ends_few_and_all_are_ended_once_in_their_order() -> None:
    clock = Clock()
    departures = Departures(clock)
    clients = add(departures, 500)
    turn(clock)
    assert 1 <= sum(client.ended for client in clients) <= 20
    turns = 1
    while clock.getDelayedCalls():
        turn(clock)
        ended = [client.ended for client in clients]
        assert ended == sorted(ended, reverse=True)
        turns += 1
    assert [client.ended for client in clients] == [1] * 500
    assert turns < 200


def test_more_may_come_meanwhile_and_later() -> None:
    clock = Clock()
    departures = Departures(clock)
    clients = add(departures, 40)
    turn(clock)
    clients += add(departures, 40)
    while clock.getDelayedCalls():
        turn(clock)
    clients += add(departures, 1)
    turn(clock)
    assert [client.ended for client in clients] == [1] * 81 and not clock.getDelayedCalls()


def test_they_are_counted_until_they_have_gone() -> None:
    clock = Clock()
    departures = Departures(clock)
    first, second = add(departures, 2)
    departures.gone(first)
    assert len(departures) == 1
    turn(clock)
    turn(clock)
    assert len(departures) == 1
    departures.gone(second)
    departures.gone(second)
    assert not len(departures)


def test_one_that_has_gone_already_is_not_counted() -> None:
    clock = Clock()
    departures = Departures(clock)
    gone: Any = Leaving(descriptor=-1)
    departures.add(gone)
    assert gone.ended == 1 and not len(departures) and not clock.getDelayedCalls()


def test_at_the_end_of_the_process_nobody_waits() -> None:
    clock = Clock()
    departures = Departures(clock)
    clients = add(departures, 100)
    departures.end_all()
    assert [client.ended for client in clients] == [1] * 100
    turn(clock)
    assert [client.ended for client in clients] == [1] * 100 and not clock.getDelayedCalls()
