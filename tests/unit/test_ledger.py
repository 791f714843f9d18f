"""What the ledger makes of steps, rows and a change of writer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

from tests.cluster import Change
from tests.ledger import Kind, Outcome, Row, Step, Verdict, judge

CHANGE = Change(cut=10.0, gone=10.1, ordered=11.0, writable=12.0)


def step(kind: Kind, seq: int, began: float, ended: float, outcome: Outcome = "ok", **more: Any) -> Step:
    return Step(0, kind, seq, began, ended, outcome, **more)


def insert(seq: int, began: float = 1.0) -> Step:
    return step("insert", seq, began, began + 0.1, acknowledged=True)


def transaction(began: float, *, commits: bool = True) -> list[Step]:
    """One with the rows (1, 0) and (1, 1)."""
    inside: dict[str, Any] = {"transaction": began, "first": 1, "status": "T"}
    return [
        step("begin", 1, began, began + 0.1, **inside),
        step("work", 2, began + 0.2, began + 0.3, **inside),
        step("nap", 3, began + 0.4, began + 0.6, **inside),
        step("work", 4, began + 0.7, began + 0.8, **inside),
        step("commit", 5, began + 0.9, began + 1.0, acknowledged=commits, transaction=began, first=1),
    ]


def verdict(steps: Iterable[Step], *rows: Row, **more: Any) -> Verdict:
    return judge(steps, rows, CHANGE, **more)


def test_what_is_as_it_should_be_is_no_fault() -> None:
    found = verdict([*transaction(1.0), insert(6, 3.0)], (0, 1, 0), (0, 1, 1), (0, 6, 0))
    assert found.faults == {}
    assert found.unknown == 0


def test_acknowledged_commits_have_to_be_there() -> None:
    assert verdict([insert(1), insert(2)], (0, 1, 0)).lost == [(0, 2)]
    assert verdict(transaction(1.0)).lost == [(0, 1)]
    assert verdict(transaction(1.0, commits=False)).lost == []


def test_commits_may_be_there_without_having_been_acknowledged() -> None:
    gone = step("insert", 1, 9.9, 10.1, "lost")
    assert verdict([gone], (0, 1, 0)).unknown == 1
    assert verdict([gone]).faults == {"disconnects": 1}


def test_nothing_may_be_there_twice_or_in_part() -> None:
    assert verdict([insert(1)], (0, 1, 0), (0, 1, 0)).doubled == [(0, 1, 0)]
    assert verdict(transaction(1.0), (0, 1, 1)).torn == [(0, 1)]


@pytest.mark.parametrize(
    ("sent", "kind", "begun", "where"),
    [
        (9.9, "insert", None, "under_way"),
        (10.2, "insert", None, "errors"),
        (9.9, "begin", 9.9, "under_way"),
        (10.2, "begin", 10.2, "errors"),
        (10.5, "work", 9.9, "in_transaction"),
        (10.5, "work", 10.2, "errors"),
    ],
)
def test_an_error_is_put_down_to_what_the_writer_may_have_had(
    sent: float, kind: Kind, begun: float | None, where: str
) -> None:
    status = "E" if kind == "work" else "I"
    found = verdict([step(kind, 1, sent, 11.0, "error", code="57P01", status=status, transaction=begun)])
    for name in ("under_way", "errors", "in_transaction"):
        assert getattr(found, name) == (Counter({"57P01": 1}) if name == where else Counter()), name
    assert not found.odd_states


def test_a_writer_that_only_hangs_may_have_had_what_was_sent_later() -> None:
    hung = step("insert", 1, 10.2, 12.5, "error", code="08006", status="I")
    assert verdict([hung], until=12.0).errors.total() == 0


def test_a_client_is_left_in_a_failed_transaction_or_in_none() -> None:
    found = verdict(
        [
            step("work", 2, 9.9, 11.0, "error", code="57P01", status="I", transaction=9.0),
            step("insert", 3, 9.9, 11.0, "error", code="57P01", status="E"),
            step("commit", 4, 9.9, 11.0, "error", code="57P01", status="I", transaction=9.0),
        ]
    )
    assert found.odd_states == {"I after 57P01": 1, "E after 57P01": 1}


def test_ends_of_connections_are_counted_but_refused_logins_are_none() -> None:
    found = verdict(
        [
            step("insert", 1, 9.9, 10.2, "lost", code="57P01"),
            step("login", 2, 10.3, 10.4, "lost", code="57P03"),
        ]
    )
    assert found.disconnects == {"57P01": 1}
    assert found.refused == {"57P03": 1}
    assert found.disconnected == 1


def test_a_pause_is_what_lies_behind_the_promotion() -> None:
    """From the failure on it wants to be served; the second between 8.1 and 9.9 it has been thinking."""
    found = verdict(
        [
            step("select", 1, 8.0, 8.1),
            step("select", 2, 9.9, 10.2, "lost"),
            step("login", 3, 10.3, 12.2),
            step("select", 4, 12.3, 12.4),
            step("select", 5, 13.0, 13.1),
        ]
    )
    assert found.pauses == {0: pytest.approx(0.4)}
    assert found.gaps == {0: pytest.approx(4.3)}


def test_who_wants_something_later_has_waited_since_then_and_not_while_it_slept() -> None:
    assert verdict([step("select", 1, 12.5, 12.8)]).pauses == {0: pytest.approx(0.3)}
    assert verdict([step("nap", 1, 12.5, 12.8)], nap=0.1).pauses == {0: pytest.approx(0.2)}
    assert verdict([step("select", 1, 9.0, 9.1)]).pauses == {}


def test_it_can_be_read() -> None:
    found = verdict([step("insert", 1, 9.9, 10.2, "lost", code="57P01"), insert(2, 13.0)])
    text = str(found)
    assert "clients disconnected                    1 (1 x 57P01)" in text
    assert "acknowledged commits lost               1" in text
    assert "promotion                               2000 ms" in text
