"""What a client has sent that waits for a server: runs of bytes with their frames, oldest first."""

from __future__ import annotations

from pgproxy.wire import tags
from pgproxy.wire.skim import HEADER, Frame

Held = list[tuple[bytes, list[Frame]]]

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
