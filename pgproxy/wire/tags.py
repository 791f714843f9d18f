"""
Every message tag of protocol 3.0: its name, how long it may be, and whether the proxy looks inside it.

Documentation: PostgreSQL manual, "Message Formats". The limits on a client's messages are those that
PostgreSQL's own SocketBackend() applies, those on a server's are libpq's.
"""

from __future__ import annotations

from struct import Struct

from attrs import field, frozen

from pgproxy.twin import quicken

# Frontend (client) messages.
BIND = ord("B")
CLOSE = ord("C")
COPY_DATA = ord("d")
COPY_DONE = ord("c")
COPY_FAIL = ord("f")
DESCRIBE = ord("D")
EXECUTE = ord("E")
FLUSH = ord("H")
FUNCTION_CALL = ord("F")
PARSE = ord("P")
PASSWORD = ord("p")
QUERY = ord("Q")
SYNC = ord("S")
TERMINATE = ord("X")

# Backend (server) messages. COPY_DATA and COPY_DONE go both ways.
AUTHENTICATION = ord("R")
BACKEND_KEY_DATA = ord("K")
BIND_COMPLETE = ord("2")
CLOSE_COMPLETE = ord("3")
COMMAND_COMPLETE = ord("C")
COPY_IN_RESPONSE = ord("G")
COPY_OUT_RESPONSE = ord("H")
COPY_BOTH_RESPONSE = ord("W")
DATA_ROW = ord("D")
EMPTY_QUERY_RESPONSE = ord("I")
ERROR_RESPONSE = ord("E")
FUNCTION_CALL_RESPONSE = ord("V")
NEGOTIATE_PROTOCOL_VERSION = ord("v")
NO_DATA = ord("n")
NOTICE_RESPONSE = ord("N")
NOTIFICATION_RESPONSE = ord("A")
PARAMETER_DESCRIPTION = ord("t")
PARAMETER_STATUS = ord("S")
PARSE_COMPLETE = ord("1")
PORTAL_SUSPENDED = ord("s")
READY_FOR_QUERY = ord("Z")
ROW_DESCRIPTION = ord("T")

LONG_FROM_CLIENT = 0x3FFFFFFE
"""Bytes, length word included: PostgreSQL's MaxAllocSize - 1, for messages that carry data."""

SHORT_FROM_CLIENT = 10_000
"""Bytes: PostgreSQL's PQ_SMALL_MESSAGE_LIMIT, for messages that carry names and numbers."""

LONG_FROM_SERVER = 0x7FFFFFFE
SHORT_FROM_SERVER = 300_000
"""Bytes: ten times libpq's bound, because a ParameterDescription of 65,535 parameters has 262 KB."""


@quicken
@frozen
class Direction:
    """One direction of a connection: what may come, how long it may be, and what is looked at."""

    who: str
    """`frontend` or `backend`, as PostgreSQL's own error texts call them."""
    limits: list[int]
    """By tag: the longest length word that is taken; 0 where the tag may not come."""
    looks: list[int]
    """By tag: how many bytes of a message are waited for and handed out, header included; 0: only carried."""
    carried: list[bool] = field(init=False, repr=False)
    """By tag: whether it may come, and is only carried."""
    table: bytes = field(init=False, repr=False)
    """Both, as the compiled twin reads them."""

    @carried.default
    def _carried(self) -> list[bool]:
        return [limit > 0 and not look for limit, look in zip(self.limits, self.looks, strict=True)]

    @table.default
    def _packed(self) -> bytes:
        return Struct("=512i").pack(*self.limits, *self.looks)


def _by_tag(values: dict[str, int]) -> list[int]:
    table = [0] * 256
    for letters, value in values.items():
        for tag in letters.encode():
            table[tag] = value
    return table


HEADER_LOOK = 5
"""Bytes: the tag and the length word say enough."""
TEXT_LOOK = 16 * 1024
"""Bytes of a Query: as much of its text is read for what it may leave behind."""
PARSE_LOOK = 1024 * 1024
"""Bytes of a Parse: a statement up to here is kept, so that it can follow its client."""
NAMES_LOOK = 4096
"""Bytes of a Bind, a Describe or a Close: the names, and the first parameters."""
STATUS_LOOK = 64 * 1024
"""Bytes of a ParameterStatus."""

_CLIENT_LIMITS = _by_tag({"DECSHXcf": SHORT_FROM_CLIENT, "QPBFd": LONG_FROM_CLIENT})

FROM_CLIENT = Direction("frontend", _CLIENT_LIMITS, _by_tag({"QPBDECSHFXcf": HEADER_LOOK}))
"""After login, session mode: all but CopyData changes what the server owes, and the header says how."""

FROM_CLIENT_READ = Direction(
    "frontend",
    _CLIENT_LIMITS,
    _by_tag(
        {"ESHFXcf": HEADER_LOOK, "Q": TEXT_LOOK, "P": PARSE_LOOK, "BDC": NAMES_LOOK, "F": HEADER_LOOK + 4}
    ),
)
"""After login, transaction mode: the texts and names of statements are read, so that they can follow."""

_SERVER_LIMITS = _by_tag({"23CcGHWInt1sSZ": SHORT_FROM_SERVER, "TDdVENA": LONG_FROM_SERVER})
_SERVER_LOOKS = {
    "GW13": HEADER_LOOK,
    "Z": HEADER_LOOK + 1,
    "A": HEADER_LOOK + 4,
    "CE": 4096,
    "S": STATUS_LOOK,
}

FROM_SERVER = Direction("backend", _SERVER_LIMITS, _by_tag(_SERVER_LOOKS))
"""
After login: ReadyForQuery, the tags of commands, errors, settings reported, the beginnings of COPY, the
completions of Parse and Close, and who notifies.
"""

FROM_SERVER_DESCRIBING = Direction(
    "backend", _SERVER_LIMITS, _by_tag({**_SERVER_LOOKS, "tTn": SHORT_FROM_SERVER})
)
"""The same while the description of a statement is awaited."""

FROM_SERVER_LEFT = Direction("backend", _SERVER_LIMITS, _by_tag({**_SERVER_LOOKS, "DdN": HEADER_LOOK}))
"""The same where the client has gone: results and notices are seen, too, as nobody wants them."""

UNASKED = frozenset({ERROR_RESPONSE, NOTICE_RESPONSE, PARAMETER_STATUS, NOTIFICATION_RESPONSE})
"""What a server may say at any time, even behind a ReadyForQuery: an error if it ends, as in a shutdown."""
