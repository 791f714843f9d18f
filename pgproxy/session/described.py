"""
What a client has been told about a prepared statement: the types of its parameters and of its columns.

A client that was told relies on it: it sends parameters and reads rows as they were described. So the
statement may only be used in a server where it is the same.

Documentation: PostgreSQL manual, "Message Formats": ParameterDescription, RowDescription, NoData.
"""

from __future__ import annotations

from struct import Struct
from struct import error as StructError

from pgproxy.wire import tags
from pgproxy.wire.skim import Malformed

_count = Struct(">H").unpack_from
_field = Struct(">IHIhiH")
"""Behind a column's name: table, column number, type, size, modifier, format."""


def description(parameters: bytes, tag: int, columns: bytes) -> bytes:
    """
    Put a statement's description into a form that can be compared: which table a column is of is left out.

    `parameters` is the payload of the ParameterDescription, `columns` that of the RowDescription or NoData.
    Raises `Malformed`.
    """
    if tag == tags.NO_DATA:
        return parameters
    try:
        position = 2
        parts = [parameters]
        for _ in range(_count(columns)[0]):
            end = columns.index(0, position) + 1
            _table, _number, kind, size, modifier, _format = _field.unpack_from(columns, end)
            parts.append(columns[position:end] + b"%d %d %d" % (kind, size, modifier))
            position = end + _field.size
    except (StructError, ValueError) as error:
        raise Malformed("a RowDescription that cannot be read") from error
    return b"\0".join(parts)
