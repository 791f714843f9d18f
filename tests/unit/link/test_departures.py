"""Who takes its leave is ended behind the work of those who stay, and soon all the same."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from pgproxy.link.departures import Departures


class Turns:
    """A reactor of which only the turns matter: what one schedules is for the next."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def callLater(self, _seconds: float, call: Callable[[], None]) -> None:
        self.due.append(call)

    def turn(self) -> None:
        due, self.due = self.due, []
        for call in due:
            call()


class Leaving:
    """What is asked of a client whose connection is to end."""

    def __init__(self, descriptor: int = 3, plain: bool = True, unsent: int = 0) -> None:
        self.ended = self.read = 0
        self.transport = SimpleNamespace(
            fileno=lambda: descriptor, plain=plain, unsent=unsent, pauseProducing=self._pause
        )

    def _pause(self) -> None:
        self.read = -1

    def depart(self) -> None:
        self.ended += 1


def add(departures: Departures, number: int) -> list[Any]:
    clients: list[Any] = [Leaving() for _ in range(number)]
    for client in clients:
        departures.add(client)
    return clients


def test_one_is_ended_in_the_next_turn_and_not_read_before() -> None:
    turns = Turns()
    departures = Departures(turns)
    (client,) = add(departures, 1)
    assert (client.ended, client.read) == (0, -1)
    turns.turn()
    assert client.ended == 1 and not turns.due


def test_of_many_a_turn_ends_few_and_all_are_ended_once_in_their_order() -> None:
    turns = Turns()
    departures = Departures(turns)
    clients = add(departures, 500)
    turns.turn()
    assert 1 <= sum(client.ended for client in clients) <= 20
    number = 1
    while turns.due:
        turns.turn()
        ended = [client.ended for client in clients]
        assert ended == sorted(ended, reverse=True)
        number += 1
    assert [client.ended for client in clients] == [1] * 500
    assert number < 200


def test_more_may_come_meanwhile_and_later() -> None:
    turns = Turns()
    departures = Departures(turns)
    clients = add(departures, 40)
    turns.turn()
    clients += add(departures, 40)
    while turns.due:
        turns.turn()
    clients += add(departures, 1)
    turns.turn()
    assert [client.ended for client in clients] == [1] * 81 and not turns.due


def test_one_that_cannot_be_ended_keeps_nobody() -> None:
    def fails() -> None:
        raise RuntimeError("a defect")

    turns = Turns()
    departures = Departures(turns)
    first, second = add(departures, 2)
    first.depart = fails
    with pytest.raises(RuntimeError):
        turns.turn()
    turns.turn()
    assert second.ended == 1 and not turns.due


def test_they_are_counted_until_they_have_gone() -> None:
    turns = Turns()
    departures = Departures(turns)
    first, second = add(departures, 2)
    departures.gone(first)
    assert len(departures) == 1
    turns.turn()
    turns.turn()
    assert len(departures) == 1
    departures.gone(second)
    departures.gone(second)
    assert not len(departures)


@pytest.mark.parametrize(
    "client",
    [Leaving(descriptor=-1), Leaving(plain=False), Leaving(unsent=1)],
    ids=["gone", "TLS", "with something to read"],
)
def test_one_that_is_gone_or_may_take_its_time_is_ended_at_once_and_counts(client: Any) -> None:
    turns = Turns()
    departures = Departures(turns)
    departures.add(client)
    assert client.ended == 1 and not len(departures) and not turns.due


def test_at_the_end_of_the_process_nobody_waits() -> None:
    turns = Turns()
    departures = Departures(turns)
    clients = add(departures, 100)
    departures.end_all()
    assert [client.ended for client in clients] == [1] * 100
    turns.turn()
    assert [client.ended for client in clients] == [1] * 100 and not turns.due
