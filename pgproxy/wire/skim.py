"""
Cuts a stream at message boundaries: a run of bytes to carry, and the few messages in it worth reading.

The law:

1. The runs, put together, are the stream: nothing is added, dropped or reordered.
2. A message that is looked at is handed out once, in the run that holds as many of its first bytes as its
   direction wants to see.
3. What is kept back is less than that: memory is bounded whatever the size of a message.
4. Lengths and tags are checked when the header is there, before anything is stored.

Documentation: PostgreSQL manual, "Message Flow": a tag byte, then a length word that counts itself.
"""

from __future__ import annotations

from struct import Struct

from pgproxy.twin import quicken
from pgproxy.wire.tags import (
    COMMAND_COMPLETE,
    DATA_ROW,
    FROM_SERVER,
    READY_FOR_QUERY,
    SHORT_FROM_SERVER,
    Direction,
)

HEADER = 5
"""Bytes: the tag and the length word."""

Frame = tuple[int, int, int]
"""Tag, and where in the run the message starts and ends (or where what is there of it ends)."""

_header_at = Struct(">BI").unpack_from
_READY = bytes((READY_FOR_QUERY,)) + b"\0\0\0\x05"
"""How a ReadyForQuery begins; a byte follows, the transaction status."""


class Malformed(Exception):
    """The peer broke the protocol; the text says how, in PostgreSQL's words."""


@quicken
class Skimmer:
    """The framing of one direction of one connection, after login."""

    __slots__ = ("direction", "held", "left")

    def __init__(self, direction: Direction) -> None:
        self.direction = direction
        """Of which messages are looked at, from what is fed next on."""
        self.held = b""
        """The beginning of a message that is to be looked at, kept back until there is more of it."""
        self.left = 0
        """How many bytes of the message that the runs so far end inside are still to come."""

    @property
    def place(self) -> int:
        """
        Say where the stream is; another number whenever something has come, but for whole messages.

        0: between two messages; above: how many bytes are `left`; below: how many were kept back.
        """
        return self.left or -len(self.held)

    @property
    def mid_message(self) -> bool:
        """Whether the runs so far end inside a message."""
        return self.left > 0

    @property
    def at_boundary(self) -> bool:
        """Whether the stream so far ends where a message ends, with nothing kept back."""
        return not self.left and not self.held

    def feed(self, data: bytes) -> tuple[bytes, list[Frame]]:
        """
        Take what was received; give back the run that may be carried on, and the frames in it.

        Raises `Malformed` for a tag that may not come or a length out of bounds; the stream is of no
        further use then.
        """
        if self.held:
            data = self.held + data
            self.held = b""
        direction = self.direction
        limits, looks = direction.limits, direction.looks
        frames: list[Frame] = []
        position = self.left
        end = len(data)
        last = end - HEADER
        while position <= last:
            tag, length = _header_at(data, position)
            if not 4 <= length <= limits[tag]:
                self._refuse(tag, length)
            following = position + 1 + length
            look = looks[tag]
            if look:
                seen = following if length < look else position + look
                if seen > end:
                    return self._keep_back(data, position), frames
                frames.append((tag, position, seen))
            position = following
        if position < end:
            self._check_tag(data[position])
            return self._keep_back(data, position), frames
        self.left = position - end
        return data, frames

    def whole_answer(self, data: bytes, position: int) -> tuple[int, int] | None:
        """
        Say where rows begin, and where the CommandComplete, in data with nothing else to be read in it.

        From `position`, where a message begins, to its end there are only messages that are carried, one
        CommandComplete and one ReadyForQuery, all of them whole. None where there is something else. Nothing
        is entered, and nothing has to be: `feed` would leave the stream between two messages, as it is.
        """
        end = len(data) - HEADER - 1
        if self.left or self.held or not data.startswith(_READY, end) or end > SHORT_FROM_SERVER:
            # Where it is longer than what is read at once, a message in it may be longer than it may be.
            return None
        carried = self.direction.carried
        rows = -1
        tag, length = _header_at(data, position)
        while carried[tag]:
            if tag == DATA_ROW and rows < 0:
                rows = position
            position += length + 1
            if length < 4 or position > end:
                return None
            tag, length = _header_at(data, position)
        if tag != COMMAND_COMPLETE or length < 4 or position + length + 1 != end:
            return None
        return rows if rows >= 0 else position, position

    def are_rows(self, data: bytes, position: int, stop: int) -> bool:
        """Say whether data that begins between two messages has only whole DataRows between these places."""
        if self.left or self.held or self.direction is not FROM_SERVER:
            return False
        while position < stop:
            tag, length = _header_at(data, position)
            if tag != DATA_ROW or length < 4:
                return False
            position += length + 1
        return position == stop

    def _keep_back(self, data: bytes, position: int) -> bytes:
        self.left = 0
        self.held = data[position:]
        return data[:position]

    def _check_tag(self, tag: int) -> None:
        if not self.direction.limits[tag]:
            raise Malformed(f"invalid {self.direction.who} message type {tag}")

    def _refuse(self, tag: int, length: int) -> None:
        self._check_tag(tag)
        raise Malformed(f"invalid message length {length} in message type {tag} of the {self.direction.who}")
