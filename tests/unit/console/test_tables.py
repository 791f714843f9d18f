"""Tables on the wire, and of several workers."""

from __future__ import annotations

from decimal import Decimal

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.pq import Format

from pgproxy.console.tables import Column, Kind, Merge, Value, as_text, data_row, merged, row_description

_TRANSFORMER = psycopg.adapt.Transformer()
_INT4 = st.integers(-(2**31) + 1, 2**31 - 1)
_INT8 = st.integers(-(2**63) + 1, 2**63 - 1)


def read(kind: Kind, value: Value, binary: bool) -> object:
    """Read a value as psycopg does."""
    row = data_row([Column("one", kind)], [value], [1] if binary else ())
    assert row[5:7] == b"\0\1"
    length = int.from_bytes(row[7:11], "big", signed=True)
    if length < 0:
        return None
    assert len(row) == 11 + length
    return _TRANSFORMER.get_loader(kind.oid, Format.BINARY if binary else Format.TEXT).load(row[11:])


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
@given(st.data())
def test_values(binary: bool, data: st.DataObject) -> None:
    values: dict[Kind, st.SearchStrategy[Value]] = {
        Kind.INT4: _INT4,
        Kind.INT8: _INT8,
        Kind.BOOL: st.booleans(),
        Kind.TEXT: st.text(st.characters(codec="utf-8", exclude_characters="\0")),
        Kind.FLOAT8: st.floats(allow_nan=False),
    }
    for kind, strategy in values.items():
        value = data.draw(strategy)
        assert read(kind, value, binary) == value
        assert read(kind, None, binary) is None
    number = data.draw(_INT8)
    assert read(Kind.NUMERIC, number, binary) == Decimal(number)


def test_what_has_no_place_in_a_text_is_left_out() -> None:
    assert as_text("a\0b\ud800") == b"ab?"


def test_a_description_names_types_and_formats() -> None:
    described = row_description([Column("a", Kind.INT4), Column("b", Kind.TEXT)], [1, 0])
    assert described[5:7] == b"\0\2" and described[7:9] == b"a\0"
    assert described[9 + 6 : 9 + 10] == (23).to_bytes(4, "big") and described[9 + 16 : 9 + 18] == b"\0\1"


def test_rows_of_several_workers() -> None:
    columns = [
        Column("database", Kind.TEXT),
        Column("servers", Kind.INT4, "", Merge.SUM),
        Column("waited", Kind.INT4, "", Merge.MOST),
        Column("mode", Kind.TEXT, "", Merge.SAME),
        Column("memory", Kind.INT8, "", Merge.SUM),
    ]
    rows: list[list[Value]] = [
        ["app", 1, 5, "session", None],
        ["other", 7, 0, "session", 1],
        ["app", 2, 3, "session", 4],
    ]
    assert merged(columns, rows) == [["app", 3, 5, "session", 4], ["other", 7, 0, "session", 1]]
