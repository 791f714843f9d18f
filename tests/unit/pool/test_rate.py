"""How many may come in a second."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgproxy.pool.rate import Rate


def test_at_once_and_after_a_while() -> None:
    rate = Rate()
    assert [rate.take(3, 0) for _ in range(4)] == [True, True, True, False]
    assert [rate.take(3, 0.34), rate.take(3, 0.35)] == [True, False]
    assert [rate.take(3, 100) for _ in range(4)] == [True, True, True, False]


@given(st.lists(st.floats(0, 0.5), min_size=1, max_size=300), st.integers(1, 20))
def test_never_more_than_twice_as_many_in_any_second(pauses: list[float], most: int) -> None:
    rate = Rate()
    now, let_in = 0.0, []
    for pause in pauses:
        now += pause
        if rate.take(most, now):
            let_in.append(now)
    for first in let_in:
        assert sum(first <= time < first + 1 for time in let_in) <= 2 * most
