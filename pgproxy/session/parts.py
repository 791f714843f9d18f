"""
The parts of a client's messages about statements, and how they are put another way.

Documentation: PostgreSQL manual, "Message Formats" (Parse, Bind, Describe, Close).
"""

from __future__ import annotations

from struct import Struct

from pgproxy.wire.skim import HEADER, Frame, Malformed

Instead = tuple[bytes, int] | None
"""
Bytes to put in front of, or in place of, the run up to a position; None: all stays as it is.

With the position `NOT_YET` they go before a message that can't be dealt with until they are answered.
"""
NOT_YET = -1

_PORTAL = ord("P")
_STATEMENT = ord("S")
pack_header = Struct(">cI").pack
"""Build a tag and a length."""
length_at = Struct(">I").unpack_from
"""Read the length that stands at a position."""


def in_front(before: bytes, start: int) -> Instead:
    """Put something in front of a message."""
    return (before, start) if before else None


def is_whole(run: bytes, start: int, stop: int) -> bool:
    """Say whether a frame holds all of its message."""
    return bool(length_at(run, start + 1)[0] == stop - start - 1)


def is_sound(run: bytes, start: int, stop: int) -> bool:
    """Say whether a Describe or a Close can be read."""
    return stop - start >= HEADER + 2 and not run[stop - 1] and is_whole(run, start, stop)


def is_portals(run: bytes, frame: Frame) -> bool:
    """Say whether a Describe is of a portal."""
    _tag, start, stop = frame
    return is_sound(run, start, stop) and run[start + HEADER] == _PORTAL


def statement_name(run: bytes, start: int, stop: int) -> bytes | None:
    """Give the name in a Describe or a Close; None where it's a portal's. Raises `Malformed`."""
    if not is_sound(run, start, stop):
        raise Malformed("invalid Describe or Close message")
    return run[start + HEADER + 1 : stop - 1] if run[start + HEADER] == _STATEMENT else None
