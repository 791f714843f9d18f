"""What the console's tables come to."""

from __future__ import annotations

import pytest

from pgproxy.top.picture import MOST_STATEMENTS, Pins, Rates, is_leaving, picture
from tests.unit.top.house import counted, look, row


def test_rates_are_from_one_look_to_the_next() -> None:
    before = look(10.0, stats_totals=[counted("app", 100), counted("other", 7)])
    now = look(12.0, stats_totals=[counted("app", 150), counted("other", 7), counted("new", 4)])
    first, second = picture(before, None), picture(now, before)
    assert first.rates is None and first.seconds is None and first.databases == {"app": None, "other": None}
    assert second.seconds == 2.0
    assert second.databases == {
        "app": Rates(25.0, 25.0, 25.0, 25.0, 25.0),
        "other": Rates(0.0, 0.0, 0.0, 0.0, 0.0),
        "new": Rates(2.0, 2.0, 2.0, 2.0, 2.0),
    }
    assert second.rates == Rates(27.0, 27.0, 27.0, 27.0, 27.0)
    assert second.process.cpu == 0.1


@pytest.mark.parametrize("at", [12.0, 10.0, 9.0])
def test_counters_that_went_back_or_no_time_tell_nothing(at: float) -> None:
    before = look(10.0, stats_totals=[counted("app", 100), counted("other", 1)])
    now = look(at, stats_totals=[counted("app", 99), counted("other", 2)])
    seen = picture(now, before)
    assert seen.rates is None and seen.databases["app"] is None
    assert (seen.databases["other"] is None) == (at <= 10.0)


def test_a_worker_that_was_started_anew_has_used_what_it_says() -> None:
    before = look(10.0, workers=[row("workers", worker=1, pid=10, cpu_seconds=50.0)])
    now = look(12.0, workers=[row("workers", worker=1, pid=11, cpu_seconds=1.0)])
    assert picture(now, before).process.cpu == 0.5


def test_totals_are_of_all_pools() -> None:
    pools = [
        row("pools", database="a", user="u", cl_active=3, sv_active=2, sv_idle=1, sv_login=1, pool_size=5),
        row("pools", database="b", user="u", cl_waiting=2, maxwait=1, maxwait_us=500_000, sv_active=1),
        row(
            "pools", database="c", user="u", cl_waiting=9, maxwait=0, maxwait_us=1, sv_tested=1, sv_closing=1
        ),
    ]
    lists = [row("lists", list="used_clients", items=14), row("lists", list="login_clients", items=1)]
    pins = [
        row("pins", client=4, reason="listen", digest="listen x", seconds=2.0),
        row("pins", client=4, reason="advisory_lock", digest="select lock", seconds=9.0),
        row("pins", client=5, reason="listen", digest="listen y", seconds=3.0),
    ]
    seen = picture(look(1.0, pools=pools, lists=lists, pins=pins), None)
    assert (seen.clients.all, seen.clients.logging_in, seen.clients.waiting) == (15, 1, 11)
    assert seen.clients.longest_wait == 1.5
    servers = seen.servers
    assert (servers.used, servers.idle, servers.opening, servers.others, servers.all) == (3, 1, 1, 2, 7)
    assert servers.pinned == 2, "clients, not reasons"
    assert [pool.database for pool in seen.pools] == ["b", "c", "a"], "who waits comes first"
    assert seen.pins == [Pins("listen", 2, 3.0, "listen y"), Pins("advisory_lock", 1, 9.0, "select lock")]


def test_statements_that_keep_servers_busy_now_come_first() -> None:
    def said(digest: str, seconds: float) -> dict[str, object]:
        return row("statements", database="app", digest=digest, seconds=seconds)

    before = look(0.0, statements=[said("old", 90.0), said("busy", 1.0), said("evicted", 50.0)])
    now = look(2.0, statements=[said("old", 90.0), said("evicted", 8.0), said("busy", 3.0), said("new", 1.0)])
    seen = picture(now, before).statements
    assert [(one.digest, one.load) for one in seen] == [
        ("busy", 1.0),
        ("new", 0.5),
        ("old", 0.0),
        ("evicted", None),
    ]
    many = look(0.0, statements=[said(str(number), number) for number in range(100)])
    assert len(picture(many, None).statements) == MOST_STATEMENTS


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ({"active": "yes"}, "active"),
        ({"paused": "yes"}, "paused"),
        ({"shutting_down": "yes"}, "shutting_down"),
    ],
)
def test_states(said: dict[str, str], state: str) -> None:
    seen = look(0.0, state=[row("state", key=key, value=value) for key, value in said.items()])
    assert picture(seen, None).state == state
    assert is_leaving(seen) == (state == "shutting_down")
