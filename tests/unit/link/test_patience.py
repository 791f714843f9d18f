"""One timer tells of each that is not done in time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from pgproxy.link.patience import Patience

_STEPS = st.lists(
    st.tuples(st.sampled_from(["begin", "done", "pass"]), st.integers(0, 5), st.integers(1, 20)), max_size=40
)


@given(_STEPS)
def test_each_is_late_when_its_time_is_over_and_never_once_it_is_done(
    steps: list[tuple[str, int, int]],
) -> None:
    clock = Clock()
    late: list[tuple[int, float]] = []
    patience: Patience[int] = Patience(clock, lambda one, seconds: late.append((one, seconds)))
    ends: dict[int, tuple[float, float]] = {}
    for step, one, seconds in [*steps, ("pass", 0, 30)]:
        match step:
            case "begin":
                patience.begin(one, float(seconds))
                ends[one] = clock.seconds() + seconds, float(seconds)
            case "done":
                patience.done(one)
                ends.pop(one, None)
            case _:
                for _ in range(seconds):
                    late.clear()
                    clock.advance(1)
                    due = {one: had for one, (end, had) in ends.items() if end <= clock.seconds()}
                    assert sorted(late) == sorted(due.items())
                    ends = {one: end for one, end in ends.items() if one not in due}
        assert len(patience) == len(ends)
        assert len(clock.getDelayedCalls()) <= 1
    assert not ends and not clock.getDelayedCalls()


def test_one_that_is_late_may_begin_again() -> None:
    clock = Clock()
    late: list[str] = []

    def tell(one: str, _seconds: float) -> None:
        late.append(one)
        if len(late) < 3:
            patience.begin(one, 1.0)

    patience: Patience[str] = Patience(clock, tell)
    patience.begin("a", 1.0)
    clock.pump([1.0] * 5)
    assert late == ["a", "a", "a"] and not len(patience)
