"""What a client has sent that waits for a server: runs of bytes with their frames, oldest first."""

from __future__ import annotations

from pgproxy.wire import tags
from pgproxy.wire.skim import HEADER, Frame

Held = list[tuple[bytes, list[Frame]]]

_COPY_ENDS = frozenset({tags.COPY_DONE, tags.COPY_FAIL})
_ENDS = frozenset({tags.QUERY, tags.FUNCTION_CALL, tags.SYNC})
"""What a ReadyForQuery is owed for."""


def without_first_batch(held: Held) -> Held | None:
    """Give what is left without what the first ReadyForQuery is owed for; None if that is not whole."""
    for index, (run, frames) in enumerate(held):
        for place, (tag, start, _stop) in enumerate(frames):
            if tag in _ENDS:
                # A frame is as long as what has to be looked at.
                stop = start + 1 + int.from_bytes(run[start + 1 : start + HEADER], "big")
                if stop > len(run):
                    return None
                rest = run[stop:], [(tag, a - stop, b - stop) for tag, a, b in frames[place + 1 :]]
                return [*([rest] if rest[0] else []), *held[index + 1 :]]
    return None


def from_next_message(held: Held) -> Held:
    """Give what is left without the rest of a message whose beginning is gone."""
    held = list(held)
    while held:
        rest = without_late_copy_data(*held[0])
        if rest[0]:
            return [rest, *held[1:]]
        del held[0]
    return held


def begins_inside(run: bytes, frames: list[Frame]) -> bool:
    """Say whether a run begins within a message, or with COPY data."""
    return bool(run) and (not frames or bool(frames[0][1]))


def without_late_copy_data(run: bytes, frames: list[Frame]) -> tuple[bytes, list[Frame]]:
    """
    Drop COPY data that comes after its statement has failed, as a server would.

    What is left of a message whose beginning was dealt with goes, too.
    """
    for index, (tag, start, _stop) in enumerate(frames):
        if tag not in _COPY_ENDS:
            if not start:
                return run, frames
            return run[start:], [(t, a - start, b - start) for t, a, b in frames[index:]]
    return b"", []
