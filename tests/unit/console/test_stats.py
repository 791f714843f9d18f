"""SHOW STATS and SHOW STATEMENTS from the figures of several processes."""

from __future__ import annotations

from typing import Any

from pgproxy.console import stats
from pgproxy.console.columns import SHOWN


def figures(queries: int, seconds: float) -> dict[str, Any]:
    times = {"count": queries, "seconds": seconds, "ranges": {"1": queries}}
    return {
        **dict.fromkeys(("links", "transactions", "queries", "received", "sent", "logins"), queries),
        **dict.fromkeys(("wait", "query", "transaction"), times),
    }


def process(before: int, after: int) -> dict[str, Any]:
    return {
        "databases": {"app": figures(after + 5, after + 5.0)},
        "period": {
            "first": {"app": figures(before, float(before))},
            "last": {"app": figures(after, before + 0.5 * (after - before))},
            "seconds": 60.0,
            "processes": 1,
        },
    }


def shown(what: str, *several: dict[str, Any]) -> dict[str, Any]:
    (row,) = stats.rows(what, several)
    return {column.name: value for column, value in zip(SHOWN[what], row, strict=True)}


def test_totals_and_averages_of_two() -> None:
    row = shown("stats", process(0, 1200), process(600, 1200))
    assert (row["total_query_count"], row["total_query_time"]) == (2410, 2_410_000_000)
    assert row["avg_query_count"] == 30, "1800 in 60 s"
    assert row["avg_query_time"] == 500_000 == row["avg_xact_time"] == row["avg_wait_time"]
    assert row["total_bind_count"] is None is row["avg_bind_count"]
    assert shown("stats_totals", process(0, 1))["bytes_received"] == 6
    assert shown("stats_averages", process(0, 1200))["bytes_sent"] == 20


def test_before_the_first_period_is_over_there_are_no_averages() -> None:
    one = {**process(0, 7), "period": {"first": {}, "last": {}, "seconds": 0.0, "processes": 1}}
    row = shown("stats", one)
    assert row["total_xact_count"] == 12 and row["avg_xact_count"] == 0 == row["avg_xact_time"]


def test_statements_are_in_the_order_of_their_time() -> None:
    def one(seconds: float, longest: float) -> dict[str, Any]:
        return {
            "calls": 2,
            "looked_at": 1,
            "seconds": seconds,
            "longest": longest,
            "queued": 0.0,
            "rows": 3,
            "errors": 0,
        }

    first = {"statements": {"app": {"a": one(1.0, 0.9), "b": one(0.1, 0.1)}}}
    second = {"statements": {"app": {"b": one(2.0, 0.5)}}}
    rows = stats.rows("statements", [first, second])
    assert [(row[1], row[2], row[4], row[5], row[6]) for row in rows] == [
        ("b", 4, 2.1, 525.0, 500.0),
        ("a", 2, 1.0, 500.0, 900.0),
    ]
