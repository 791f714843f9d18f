"""What is counted: histograms, the sample, what statements cost."""

from __future__ import annotations

from random import Random

import pytest

from pgproxy.figures.histogram import BOUNDS, Histogram, cumulative
from pgproxy.figures.sample import Sample, rows_of
from pgproxy.figures.sampling import A_SECOND, Pace, Turns
from pgproxy.figures.statements import NOT_SEEN, Statements
from pgproxy.wire import tags
from pgproxy.wire.messages import message
from pgproxy.wire.skim import Frame
from pgproxy.workers.figures import AllFigures, total


def frames(run: bytes) -> list[Frame]:
    found, start = [], 0
    while start < len(run):
        stop = start + 1 + int.from_bytes(run[start + 1 : start + 5], "big")
        found.append((run[start], start, stop))
        start = stop
    return found


def said(sample: Sample, now: float, run: bytes, ours: int = 0) -> None:
    sample.said(now, run, frames(run), ours)


def heard(sample: Sample, now: float, run: bytes) -> bool:
    return sample.heard(now, run, frames(run))


def query(text: str) -> bytes:
    return message(tags.QUERY, text.encode() + b"\0")


def parse(text: str, name: str = "") -> bytes:
    return message(tags.PARSE, f"{name}\0{text}\0".encode() + b"\0\0")


def bind(name: str = "") -> bytes:
    return message(tags.BIND, f"\0{name}\0".encode() + bytes(6))


EXECUTE = message(tags.EXECUTE, bytes(5))
SYNC = message(tags.SYNC)


def complete(tag: str) -> bytes:
    return message(tags.COMMAND_COMPLETE, tag.encode() + b"\0")


def ready(status: str = "I") -> bytes:
    return message(tags.READY_FOR_QUERY, status.encode())


ERROR = message(tags.ERROR_RESPONSE, b"\0")


def sample(weight: int = 1) -> Sample:
    return Sample(weight, 0.0, {b"known": b"select known"}.get)  # type: ignore[arg-type]


def test_a_histogram() -> None:
    one = Histogram()
    for seconds in (0.0, BOUNDS[0], BOUNDS[0] * 1.01, 1.0, 1e6, -5.0):
        one.add(seconds)
    one.add(1.0, 10)
    figures = one.figures(at_once=4)
    assert (figures["count"], figures["ranges"]["inf"]) == (20, 1)
    steps = cumulative(figures)
    assert steps[0] == ("0.0001", 7) and steps[-1] == ("+Inf", 20)
    assert [number for _bound, number in steps] == sorted(number for _bound, number in steps)
    assert cumulative(total([figures, figures]))[-1] == ("+Inf", 40)


def test_a_transaction_of_queries() -> None:
    one = sample()
    said(one, 1.0, query("begin"))
    assert not heard(one, 1.5, complete("BEGIN") + ready("T"))
    said(one, 3.0, query("select 1; select 2"))
    assert not heard(one, 3.25, complete("SELECT 1"))
    assert not heard(one, 4.0, complete("SELECT 2") + ready("T"))
    said(one, 5.0, query("commit"))
    assert heard(one, 5.5, complete("COMMIT") + ready())
    assert (one.began, one.ended) == (1.0, 5.5) and one.batches == [0.5, 1.0, 0.5]
    assert [(of.text, of.seconds, of.rows, of.failed) for of in one.statements] == [
        (b"begin", 0.5, 0, False),
        (b"select 1; select 2", 1.0, 3, False),
        (b"commit", 0.5, 0, False),
    ]


def test_a_pipeline() -> None:
    one = sample()
    batch = parse("insert into t") + bind() + EXECUTE + bind("known") + EXECUTE
    said(one, 0.0, batch + parse("select bad") + bind() + EXECUTE + EXECUTE + SYNC)
    assert heard(one, 2.0, complete("INSERT 0 3") + complete("SELECT 5") + ERROR + ready())
    assert [(of.rows, of.failed) for of in one.statements] == [(3, False), (5, False), (0, True)]
    assert [of.text for of in one.statements] == [b"insert into t", b"select known", b"select bad"]


def test_what_the_proxy_says_is_left_out() -> None:
    one = sample()
    said(one, 0.0, query("select 1"), ours=1)
    assert not heard(one, 0.1, complete("SET") + ready())
    assert heard(one, 0.3, complete("SELECT 1") + ready())
    assert [(of.text, of.rows) for of in one.statements] == [(b"select 1", 1)]


def test_a_text_that_has_not_come_whole_is_not_seen() -> None:
    one = sample()
    run = query("select 'secret" + "x" * 100 + "'")[:60]
    one.said(0.0, run, [(tags.QUERY, 0, 5)], 0)
    assert heard(one, 1.0, complete("SELECT 1") + ready())
    statements = Statements()
    statements.add("app", one)
    assert list(statements.figures()["app"]) == [NOT_SEEN]


@pytest.mark.parametrize(
    ("tag", "rows"), [(b"SELECT 5\0", 5), (b"INSERT 0 1\0", 1), (b"BEGIN\0", 0), (b"COPY 7\0", 7), (b"\0", 0)]
)
def test_rows_of_a_tag(tag: bytes, rows: int) -> None:
    assert rows_of(tag) == rows


def test_statements_are_bounded_and_weighted() -> None:
    statements = Statements(limit=3)
    for number in range(5):
        one = sample(weight=10)
        said(one, 0.0, query(f"select {number} from t{number % 4}"))
        heard(one, 0.5, complete("SELECT 2") + ready())
        statements.add("app", one)
    kept = statements.figures()["app"]
    assert set(kept) == {"select $1 from t2", "select $1 from t3", "select $1 from t0"}
    again = kept["select $1 from t0"]
    assert (again["calls"], again["looked_at"], again["rows"], again["longest"]) == (10, 1, 20, 0.5)
    merged = total([statements.figures(), statements.figures()])["app"]["select $1 from t0"]
    assert (merged["calls"], merged["longest"]) == (20, 0.5)


@pytest.mark.parametrize("rate", [10, 400, 20_000])
def test_few_are_looked_at_and_they_stand_for_all(rate: int) -> None:
    random = Random(1)
    pace = Pace()
    pools = [Turns(pace), Turns(pace)]
    now, weights, looks, come = 0.0, [0, 0], 0, [0, 0]
    for _ in range(10 * rate):
        now += random.expovariate(rate)
        which = random.random() < 0.2
        pool = pools[which]
        pool.count += 1
        come[which] += 1
        if pool.count >= pool.due:
            weights[which] += pool.look(now)
            looks += 1
    if rate < A_SECOND:
        assert weights == come and looks == sum(come)
    else:
        assert looks < 10 * 4 * A_SECOND
        for weighed, all_of_it in zip(weights, come, strict=True):
            assert all_of_it * 0.7 <= weighed <= all_of_it


def test_a_clock_that_was_set_back_does_no_harm() -> None:
    pace = Pace()
    for now in (100.0, 100.5, 50.0, 50.1, 52.0):
        assert 1 <= pace.look(now) < 10


def test_figures_of_workers_that_have_ended_stay() -> None:
    every = AllFigures()
    every.heard(1, {"clients": 3, "databases": {"app": {"queries": 5}}, "targets": {"main": {"servers": 1}}})
    every.heard(2, {"clients": 4, "databases": {"app": {"queries": 7, "wait": {"seconds": 0.000015}}}})
    every.ended(1)
    assert every.total() == {
        "targets": {},
        "clients": 4,
        "databases": {"app": {"queries": 12, "wait": {"seconds": 0.000015}}},
    }
