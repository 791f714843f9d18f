"""
Every message tag of protocol 3.0: its name, how long it may be, and whether the proxy looks inside it.

Documentation: PostgreSQL manual, "Message Formats". The limits on a client's messages are those that
PostgreSQL's own SocketBackend() applies, those on a server's are libpq's.
"""

from __future__ import annotations

from attrs import frozen

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


@frozen
class Direction:
    """One direction of a connection: what may come, how long it may be, and what is looked at."""

    who: str
    """`frontend` or `backend`, as PostgreSQL's own error texts call them."""
    limits: list[int]
    """By tag: the longest length word that is taken; 0 where the tag may not come."""
    looked_at: bytes
    """By tag: 1 where the message is handed out, 0 where it is only carried."""
    look: int
    """How many bytes of a message that is looked at are waited for, header included."""


def _direction(
    who: str, look: int, looked_at: str, long: str, long_limit: int, short: str, short_limit: int
) -> Direction:
    limits = [0] * 256
    for tag in short.encode():
        limits[tag] = short_limit
    for tag in long.encode():
        limits[tag] = long_limit
    seen = bytearray(256)
    for tag in looked_at.encode():
        seen[tag] = 1
    return Direction(who, limits, bytes(seen), look)


FROM_CLIENT = _direction(
    "frontend", 5, "QPBDECSHFXcf", "QPBFd", LONG_FROM_CLIENT, "DECSHXcf", SHORT_FROM_CLIENT
)
"""After login: all but CopyData changes what the server owes, and the header alone says how."""

FROM_SERVER = _direction(
    "backend", 4096, "ZCEGW", "TDdVENA", LONG_FROM_SERVER, "23CcGHWInt1sSZ", SHORT_FROM_SERVER
)
"""After login: ReadyForQuery, the tags of commands, errors and the beginnings of COPY."""
