"""What one process counts for each database: of those who are there, and of those who have left."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from pgproxy.config import Config
from pgproxy.figures.sample import Sample
from pgproxy.link.accounts import OTHERS, Accounts


def client(database: str, queries: int = 0, traffic: tuple[int, int] = (0, 0)) -> Any:
    return SimpleNamespace(
        startup=SimpleNamespace(database=database),
        splice=SimpleNamespace(talk=SimpleNamespace(queries=queries, transactions=queries)),
        transport=SimpleNamespace(traffic=traffic, plain=True),
        traffic=(0, 0),
        traffic_seen=0,
    )


def test_who_leaves_is_counted_on() -> None:
    accounts = Accounts(Config())
    here = [client("app", 2, (10, 1)), client("app", 3, (20, 2)), client("other", 5)]
    accounts.tally("app").logins += 2
    before = accounts.figures(here, [])
    accounts.departed(here.pop(0))
    assert accounts.figures(here, []) == before
    assert (before["app"]["queries"], before["app"]["received"], before["app"]["sent"]) == (5, 30, 3)
    assert (before["app"]["logins"], before["other"]["transactions"]) == (2, 5)


def test_of_many_clients_some_are_asked_by_turns() -> None:
    accounts = Accounts(Config())
    here = [client("app", 1, (1, 1)) for _ in range(1200)]
    seen = [accounts.figures(here, [])["app"]["received"] for _ in range(3)]
    assert seen == [500, 1000, 1200]


def test_databases_are_bounded() -> None:
    accounts = Accounts(Config())
    for number in range(1500):
        accounts.tally(f"db{number}").links += 1
    figures = accounts.figures([client("db1400", 3), client("db3", 3)], [])
    assert len(figures) == 1001 and figures[OTHERS]["links"] == 500
    assert (figures[OTHERS]["queries"], figures["db3"]["queries"]) == (3, 3)


def test_a_period_is_what_lies_between_two_closings() -> None:
    accounts = Accounts(Config())
    accounts.close_period(100.0, lambda: {"app": 1})
    assert accounts.period["seconds"] == 0
    accounts.close_period(160.0, lambda: {"app": 4})
    assert accounts.period == {"first": {"app": 1}, "last": {"app": 4}, "seconds": 60.0}


def test_a_wait_in_vain_is_a_wait_and_takes_nothing_from_those_that_were_none() -> None:
    accounts = Accounts(Config())
    accounts.waits("app").add(0.3)
    accounts.tally("app").links += 5
    wait = accounts.figures([], [])["app"]["wait"]
    assert (wait["count"], wait["ranges"]) == (5, {"0.5": 1, "0.0001": 4})
    # Metrics take a count that becomes less for that of another process.
    accounts.waits("app").add(3.0)
    accounts.tally("app").in_vain += 1
    wait = accounts.figures([], [])["app"]["wait"]
    assert (wait["count"], wait["ranges"]) == (6, {"0.5": 1, "5": 1, "0.0001": 4})


def test_a_sample_counts_for_all_that_it_stands_for() -> None:
    accounts = Accounts(Config())
    sample = Sample(7, 0.0, lambda _name: b"")
    sample.began, sample.ended, sample.batches = 1.0, 1.5, [0.2, 0.3]
    accounts.looked("app", "alice", sample)
    figures = accounts.figures([], [])["app"]
    assert (figures["transaction"]["count"], figures["query"]["count"]) == (7, 14)
    assert figures["transaction"]["seconds"] == 3.5 == figures["query"]["seconds"]
