"""Mappings that are kept once."""

from __future__ import annotations

import gc

from hypothesis import given
from hypothesis import strategies as st

from pgproxy.session.values import Interned

PAIRS = st.dictionaries(st.sampled_from([b"a", b"b", b"c"]), st.integers(0, 2))


@given(PAIRS, PAIRS)
def test_two_are_the_same_object_exactly_if_their_pairs_are_equal(
    first: dict[bytes, int], second: dict[bytes, int]
) -> None:
    known: Interned[int] = Interned()
    one, other = known.of(first), known.of(second)
    assert (one is other) == (one == other) == (first == second)
    assert dict(one) == first and len(one) == len(first)
    assert hash(one) == hash(one) and {one: 1}[known.of(dict(reversed(first.items())))] == 1


def test_the_empty_one_is_always_there() -> None:
    known: Interned[int] = Interned()
    assert known.of({}) is known.none and not known.none


def test_what_it_was_made_of_may_change() -> None:
    known: Interned[int] = Interned()
    pairs = {b"a": 1}
    values = known.of(pairs)
    pairs[b"b"] = 2
    assert dict(values) == {b"a": 1} and known.of({b"a": 1}) is values


def test_what_nobody_uses_is_forgotten() -> None:
    known: Interned[int] = Interned()
    values = known.of({b"a": 1})
    assert len(known._known) == 2
    del values
    gc.collect()
    assert len(known._known) == 1
