"""
What a client has been told about a prepared statement: the types of its parameters and of its columns.

A client that was told relies on it: it sends parameters and reads rows as they were described. So the
statement may only be used in a server where it is the same.

Documentation: PostgreSQL manual, "Message Formats": ParameterDescription, RowDescription, NoData.
"""

from __future__ import annotations

from struct import Struct
from struct import error as StructError

from attrs import frozen

from pgproxy.session.completions import MOST_OWED
from pgproxy.session.statements import Copy, Statement
from pgproxy.twin import quicken
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


@frozen
class Describing:
    """A description of a statement that is owed."""

    batch: int
    """The ledger's number of the batch."""
    statement: Statement | None
    """None: the unnamed one."""
    copy: Copy | None
    ours: bool
    """Whether the proxy has asked, so that the client must not see it."""


@quicken
class Descriptions:
    """All that are owed on a link. A ParameterDescription comes first, then a RowDescription or a NoData."""

    __slots__ = ("_parameters", "ours", "owed")

    def __init__(self) -> None:
        self.owed: list[Describing] = []
        """Oldest first."""
        self._parameters: bytes | None = None
        self.ours = 0
        """How many of them are not for the client."""

    def __bool__(self) -> bool:
        return bool(self.owed)

    def owe(self, one: Describing) -> None:
        """
        Enter that a Describe of a statement is on its way.

        Raises `Malformed` where a client has sent more of them than may be waited for.
        """
        if not one.ours and len(self.owed) >= MOST_OWED:
            raise Malformed(f"more than {MOST_OWED} Describe messages without an answer")
        self.owed.append(one)
        self.ours += one.ours

    def came(self, tag: int, payload: bytes) -> bool:
        """Enter a part of a description; say whether the client gets it. Raises `Malformed`."""
        if tag == tags.PARAMETER_DESCRIPTION:
            if not self.owed:
                raise Malformed("a description that nobody asked for")
            self._parameters = payload
            return not self.owed[0].ours
        parameters, self._parameters = self._parameters, None
        if parameters is None:
            # A portal's, or a simple query's.
            return True
        one = self.owed.pop(0)
        self.ours -= one.ours
        told = description(parameters, tag, payload)
        if one.copy is not None:
            one.copy.description = told
        if one.statement is not None and not one.ours:
            one.statement.description = told
        return not one.ours

    def failed(self, batch: int) -> None:
        """Enter an error in a batch, or its end: what was owed in it does not come."""
        self._parameters = None
        while self.owed and self.owed[0].batch <= batch:
            self.ours -= self.owed.pop(0).ours

    def clear(self) -> None:
        """Forget all of them."""
        self.owed.clear()
        self._parameters = None
        self.ours = 0
