"""A description, in a form that can be compared."""

from __future__ import annotations

from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.session.described import description
from pgproxy.wire import tags
from pgproxy.wire.skim import Malformed

INT4 = pack(">HI", 1, 23)
NONE = pack(">H", 0)


def columns(*fields: tuple[bytes, int, int, int, int]) -> bytes:
    """Of each: name, table, type, size, modifier."""
    return pack(">H", len(fields)) + b"".join(
        name + b"\0" + pack(">IHIhiH", table, 1, kind, size, modifier, 0)
        for name, table, kind, size, modifier in fields
    )


A = (b"a", 5, 23, 4, -1)


def told(*fields: tuple[bytes, int, int, int, int], parameters: bytes = NONE) -> bytes:
    return description(parameters, tags.ROW_DESCRIPTION, columns(*fields))


def test_which_table_a_column_is_of_is_left_out() -> None:
    assert told(A) == told((b"a", 9, 23, 4, -1))


@pytest.mark.parametrize(
    "other",
    [
        (),
        (A, A),
        ((b"b", 5, 23, 4, -1),),
        ((b"a", 5, 20, 4, -1),),
        ((b"a", 5, 23, 8, -1),),
        ((b"a", 5, 23, 4, 3),),
    ],
)
def test_all_else_counts(other: tuple[tuple[bytes, int, int, int, int], ...]) -> None:
    assert told(A) != told(*other)


def test_parameters_count() -> None:
    assert told(A) != told(A, parameters=INT4)
    assert description(NONE, tags.NO_DATA, b"") != description(INT4, tags.NO_DATA, b"")
    assert description(NONE, tags.NO_DATA, b"") != told(A)


@pytest.mark.parametrize("size", range(len(columns(A)) - 1))
def test_a_description_that_is_cut_off(size: int) -> None:
    with pytest.raises(Malformed):
        description(NONE, tags.ROW_DESCRIPTION, columns(A)[:size])


@given(st.binary(max_size=40), st.binary(max_size=60))
def test_nothing_but_malformed_is_raised(parameters: bytes, payload: bytes) -> None:
    try:
        description(parameters, tags.ROW_DESCRIPTION, payload)
    except Malformed:
        pass
