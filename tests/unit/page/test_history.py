"""The points of the charts: bounded, in order, rates and percentiles of what was counted."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pgproxy.figures.histogram import BOUNDS, Histogram, counts_of, quantile
from pgproxy.page.history import KEPT, NAMES, SPAN, WINDOW, History

AT, TRANSACTIONS, CPU = NAMES.index("at"), NAMES.index("transactions"), NAMES.index("cpu")
WAITS = slice(NAMES.index("wait_50"), NAMES.index("wait_99") + 1)


def figures(
    transactions: int = 0, waits: tuple[float, ...] = (), at_once: int = 0, **more: Any
) -> dict[str, Any]:
    histogram = Histogram()
    for seconds in waits:
        histogram.add(seconds)
    database = {"transactions": transactions, "queries": 2 * transactions, "wait": histogram.figures(at_once)}
    return {"databases": {"app": database, "other": {"transactions": 1}}, **more}


def last(history: History) -> dict[str, Any]:
    assert history.last is not None
    return dict(zip(NAMES, history.last, strict=True))


def test_what_is_now() -> None:
    history = History()
    assert history.last is None and history.columns() == [[] for _ in NAMES]
    history.add(
        1000.0,
        {
            "clients": 7,
            "waiting": 2,
            "servers": {"linked": 3, "idle": 4, "opening": 1, "closing": 1},
            # One of them has two reasons.
            "pins": {"listen": {"now": 1, "pins": 9}, "seed": {"now": 2}},
            "pinned_clients": 2,
        },
    )
    point = last(history)
    assert (point["at"], point["clients"], point["waiting"], point["pinned"]) == (1000.0, 7, 2, 2)
    assert (point["servers_used"], point["servers_idle"], point["servers_other"]) == (3, 4, 2)
    # Nothing is known yet of what is counted since some time.
    assert point["transactions"] is point["cpu"] is point["wait_50"] is None


def test_what_is_counted_is_shown_as_it_was_in_a_second() -> None:
    history = History()
    history.add(1000.0, figures(100, cpu=1.0))
    history.add(1002.0, figures(150, cpu=1.5))
    point = last(history)
    assert (point["transactions"], point["queries"], point["cpu"]) == (25.0, 50.0, 0.25)
    history.add(1003.0, figures(20, cpu=1.5))
    assert last(history)["transactions"] == 0


def test_the_wait_is_that_of_the_last_seconds() -> None:
    history = History()
    history.add(1000.0, figures(waits=(60.0,) * 50))
    assert last(history)["wait_50"] is None
    history.add(1001.0, figures(waits=(60.0,) * 50 + (0.02,), at_once=99))
    point = last(history)
    assert point["wait_50"] <= BOUNDS[0] and point["wait_95"] <= BOUNDS[0] and point["wait_99"] <= BOUNDS[0]
    history.add(1002.0, figures(waits=(60.0,) * 50 + (0.02,) * 10, at_once=99))
    assert 0.01 < last(history)["wait_95"] <= 0.025
    for second in range(1, int(WINDOW) + 2):
        history.add(1002.0 + second, figures(waits=(60.0,) * 50 + (0.02,) * 10, at_once=99))
    assert last(history)["wait_99"] is None


def test_a_clock_that_is_set_back_begins_anew() -> None:
    history = History()
    history.add(1000.0, figures(1))
    history.add(1001.0, figures(2))
    history.add(500.0, figures(3))
    assert history.columns()[AT] == [500.0] and last(history)["transactions"] is None


@given(
    st.lists(
        st.tuples(
            st.floats(-5.0, 400.0, allow_nan=False),
            st.integers(0, 10_000),
            st.lists(st.floats(0, 200, allow_nan=False), max_size=5),
        ),
        max_size=60,
    ),
    st.sampled_from([1, 20]),
)
def test_it_is_bounded_whatever_comes(steps: list[tuple[float, int, list[float]]], times: int) -> None:
    history, now = History(), 1e9
    for step, transactions, waits in steps * times:
        now += step
        history.add(now, figures(transactions, tuple(waits), cpu=float(transactions)))
        if times > 1 and len(history.columns()[AT]) < KEPT:
            continue
        columns = history.columns()
        at = [float(one or 0) for one in columns[AT]]
        assert len(columns) == len(NAMES) and {len(column) for column in columns} == {len(at)}
        assert 0 < len(at) <= KEPT and all(before < after for before, after in pairwise(at))
        assert at[-1] - at[0] <= SPAN + 0.001
        assert history.last is not None
        low, middle, high = history.last[WAITS]
        if low is not None:
            assert middle is not None and high is not None and 0 <= low <= middle <= high <= BOUNDS[-1]
        assert history.last[TRANSACTIONS] is None or float(history.last[TRANSACTIONS] or 0) >= 0


@given(st.lists(st.floats(0, 300, allow_nan=False), min_size=1, max_size=50), st.floats(0.01, 1))
def test_a_quantile_is_in_the_range_that_holds_it(times: list[float], share: float) -> None:
    histogram = Histogram()
    for one in times:
        histogram.add(one)
    counts = counts_of(histogram.figures())
    assert sum(counts) == len(times)
    found = quantile(counts, share)
    assert found is not None
    # So many are at most that, by the range's upper end, and fewer below its lower one.
    upper = next((bound for bound in BOUNDS if bound >= found), BOUNDS[-1])
    lower = max((bound for bound in BOUNDS if bound < found), default=-1.0)
    at_most = sum(one <= upper for one in times) if found < BOUNDS[-1] else len(times)
    assert at_most >= share * len(times) - 1e-6
    assert sum(one <= lower for one in times) <= share * len(times) + 1e-6


def test_of_nothing_there_is_no_quantile() -> None:
    assert quantile((0,) * (len(BOUNDS) + 1), 0.5) is None
    assert counts_of({}) == (0,) * (len(BOUNDS) + 1)
