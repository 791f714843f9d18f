"""
Tables as PostgreSQL sends them: columns with types, rows as text or binary.

Documentation: PostgreSQL manual, "Message Formats" (RowDescription, DataRow); the binary forms are those of
src/backend/utils/adt (int4send, int8send, float8send, boolsend, numeric_send).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from struct import Struct

from attrs import frozen

from pgproxy.wire import messages, tags

Value = str | int | float | bool | None
Row = Sequence[Value]

_int2 = Struct(">h")
_int4 = Struct(">i")
_int8 = Struct(">q")
_float8 = Struct(">d")
_field = Struct(">IhIhih")
_numeric = Struct(">HhHH")
_length = Struct(">i")
_NULL = _length.pack(-1)
_NEGATIVE = 0x4000
_INT4_MOST = 2**31 - 1
_NOT_KNOWN = (None, "unknown")


class Kind(Enum):
    """A type: its OID, and its size in bytes (-1: it varies)."""

    BOOL = (16, 1)
    INT8 = (20, 8)
    INT4 = (23, 4)
    TEXT = (25, -1)
    FLOAT8 = (701, 8)
    NUMERIC = (1700, -1)
    VOID = (2278, 4)

    @property
    def oid(self) -> int:
        """PostgreSQL's number for it."""
        return self.value[0]


class Merge(Enum):
    """What is made of a column where several workers have rows with the same keys."""

    KEY = "key"
    """They are told apart by it."""
    SUM = "sum"
    MOST = "most"
    SAME = "same"
    """It is the same everywhere, as far as it is known there: the first is taken that is."""


@frozen
class Column:
    """One column."""

    name: str
    kind: Kind
    doc: str = ""
    merge: Merge = Merge.KEY


@frozen
class Table:
    """Columns and rows."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...] = ()


def merged(columns: Sequence[Column], rows: Iterable[Row]) -> list[list[Value]]:
    """Make one row of those with the same keys; where all columns are keys the rows stay as they are."""
    keys = [place for place, column in enumerate(columns) if column.merge is Merge.KEY]
    if len(keys) == len(columns):
        return [list(row) for row in rows]
    found: dict[tuple[Value, ...], list[Value]] = {}
    for row in rows:
        key = tuple(row[place] for place in keys)
        known = found.get(key)
        if known is None:
            found[key] = list(row)
            continue
        for place, column in enumerate(columns):
            mine, more = known[place], row[place]
            if mine in _NOT_KNOWN:
                known[place] = more
            elif isinstance(mine, str) or isinstance(more, str) or more is None:
                continue
            elif column.merge is Merge.SUM:
                known[place] = mine + more
            elif column.merge is Merge.MOST:
                known[place] = max(mine, more)
    return list(found.values())


# The wire.


def row_description(columns: Sequence[Column], formats: Sequence[int] = ()) -> bytes:
    """Build a RowDescription; `formats` has a code for each column, text where it is empty."""
    pieces = [_int2.pack(len(columns))]
    for place, column in enumerate(columns):
        oid, size = column.kind.value
        pieces.append(column.name.encode() + b"\0")
        pieces.append(_field.pack(0, 0, oid, size, -1, formats[place] if formats else 0))
    return messages.message(tags.ROW_DESCRIPTION, b"".join(pieces))


def data_row(columns: Sequence[Column], row: Row, formats: Sequence[int] = ()) -> bytes:
    """Build a DataRow."""
    pieces = [_int2.pack(len(columns))]
    for place, (column, value) in enumerate(zip(columns, row, strict=True)):
        if value is None:
            pieces.append(_NULL)
            continue
        data = _BINARY[column.kind](value) if formats and formats[place] else as_text(value)
        pieces += (_length.pack(len(data)), data)
    return messages.message(tags.DATA_ROW, b"".join(pieces))


def as_text(value: Value) -> bytes:
    """Give a value's text form."""
    if isinstance(value, bool):
        return b"t" if value else b"f"
    if isinstance(value, float):
        return repr(value).encode()
    # A name need not be UTF-8, and a text of PostgreSQL's has no NUL.
    return str(value).replace("\0", "").encode("utf-8", "replace")


def _int4_of(value: Value) -> bytes:
    assert isinstance(value, (int, float))
    return _int4.pack(max(-_INT4_MOST, min(_INT4_MOST, int(value))))


def _int8_of(value: Value) -> bytes:
    assert isinstance(value, (int, float))
    return _int8.pack(int(value))


def _float8_of(value: Value) -> bytes:
    assert isinstance(value, (int, float))
    return _float8.pack(value)


def _numeric_of(value: Value) -> bytes:
    """Give a whole number as numeric: digits to base 10,000, the weight of the first, sign and scale."""
    assert isinstance(value, (int, float))
    rest, digits = abs(int(value)), list[int]()
    while rest:
        rest, digit = divmod(rest, 10_000)
        digits.insert(0, digit)
    head = _numeric.pack(len(digits), max(0, len(digits) - 1), _NEGATIVE if value < 0 else 0, 0)
    return head + b"".join(map(_int2.pack, digits))


_BINARY: dict[Kind, Callable[[Value], bytes]] = {
    Kind.BOOL: lambda value: b"\1" if value else b"\0",
    Kind.INT8: _int8_of,
    Kind.INT4: _int4_of,
    Kind.TEXT: as_text,
    Kind.FLOAT8: _float8_of,
    Kind.NUMERIC: _numeric_of,
    Kind.VOID: lambda _value: b"",
}
