"""ParseComplete and CloseComplete: whose they are."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.session.completions import Completion, Completions
from pgproxy.wire import tags
from pgproxy.wire.skim import Malformed

PARSE, CLOSE = tags.PARSE_COMPLETE, tags.CLOSE_COMPLETE


def nobody(_batch: int) -> bool:
    """No Query was said behind it."""
    return False


ONE = st.tuples(
    st.sampled_from([PARSE, CLOSE]), st.sampled_from([b"a", b"b"]), st.sampled_from([None, b"x", b"y"])
)


@given(st.lists(st.tuples(ONE, st.booleans()), max_size=8), st.integers(0, 8))
def test_they_come_in_order_or_are_undone_latest_first(
    sent: list[tuple[tuple[int, bytes, bytes | None], bool]], come: int
) -> None:
    owed = Completions()
    undone: list[int] = []
    entered = []
    batch = 0
    for number, ((tag, name, client_name), ends) in enumerate(sent):
        one = Completion(tag, batch, name, partial(undone.append, number), client_name)
        owed.owe(one)
        entered.append(one)
        batch += ends
    come = min(come, len(entered))
    for one in entered[:come]:
        assert owed.due(one.batch) and not owed.due(one.batch - 1)
        assert owed.came(one.tag) is (one.client_name is not None)
    left = entered[come:]
    assert owed.ours == sum(one.client_name is None for one in left)
    assert owed.names == {one.name for one in left}
    assert owed.client_names == {one.client_name for one in left} - {None}
    assert bool(owed) is bool(left)
    for name in (b"x", b"y"):
        for at in range(batch + 1):
            batches = [one.batch for one in left if one.client_name == name and one.batch < at]
            assert owed.undecided(name, at) == max(batches, default=-1)
    if left:
        failing = left[0].batch
        owed.failed(failing, nobody)
        gone = [number for number, one in enumerate(entered) if number >= come and one.batch == failing]
        assert undone == gone[::-1]
        assert owed.ours == sum(one.client_name is None for one in left[len(gone) :])
    owed.failed(batch, nobody)
    assert not owed and owed.ours == 0 and len(undone) == len(left)


def test_one_that_nobody_asked_for() -> None:
    owed = Completions()
    with pytest.raises(Malformed):
        owed.came(PARSE)
    owed.owe(Completion(PARSE, 0, b"a"))
    with pytest.raises(Malformed):
        owed.came(CLOSE)
    assert not owed.came(PARSE) and not owed.due(0)


@pytest.mark.parametrize("by", ["a Parse", "a Query"])
def test_what_is_made_of_the_unnamed_statement_later_stays(by: str) -> None:
    owed = Completions()
    undone: list[str] = []
    for name in (b"", b"a"):
        owed.owe(Completion(PARSE, 0, name, partial(undone.append, name.decode() or "unnamed"), name))
    if by == "a Parse":
        owed.owe(Completion(PARSE, 1, b"", partial(undone.append, "later"), b""))
    owed.failed(0, lambda batch: batch == 0 and by == "a Query")
    assert undone == ["a"]
    assert owed.unnamed_failed == 0
    owed.failed(1, nobody)
    assert undone == ["a", "later"][: 1 + (by == "a Parse")]
