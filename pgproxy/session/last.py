"""
What a client has said last, looked at again when its server is lost: nobody does so while all is well.

Documentation: PostgreSQL manual, "Message Formats".
"""

from __future__ import annotations

from attrs import frozen

from pgproxy.session.bereft import Book
from pgproxy.session.exits import Exit, exit_of
from pgproxy.session.ledger import Ledger
from pgproxy.wire import tags
from pgproxy.wire.skim import HEADER, Frame, Malformed, Skimmer

MOST_KEPT = 4096
"""Bytes of what a client has said last that are kept, until it says something else."""
_ENDS = frozenset({tags.QUERY, tags.FUNCTION_CALL, tags.SYNC})


@frozen
class Last:
    """One whole batch, or one Query."""

    run: bytes
    frames: list[Frame]
    exits: Exit = Exit.OTHER
    """What its one statement does."""
    by_query: bool = False

    @classmethod
    def of(cls, run: bytes | None, book: Book) -> Last:
        """Read what was said last; `NOT_KNOWN` where that is not all that one ReadyForQuery is owed for."""
        skim = Skimmer(tags.FROM_CLIENT_READ)
        try:
            whole, frames = skim.feed(run or b"")
        except Malformed:
            return NOT_KNOWN
        said = [frame[0] for frame in frames]
        if not skim.at_boundary or not said or said[-1] not in _ENDS or _ENDS.intersection(said[:-1]):
            return NOT_KNOWN
        if said[-1] == tags.QUERY:
            _tag, start, stop = frames[-1]
            if len(said) > 1:
                return NOT_KNOWN
            return cls(whole, frames, exit_of(whole[start + HEADER : stop].rstrip(b"\0"))[0], by_query=True)
        kinds = {exit_of(text)[0] for frame in frames if (text := _text(whole, frame, book)) is not None}
        alone = len(kinds) == 1 and said.count(tags.EXECUTE) == 1
        return cls(whole, frames, kinds.pop() if alone else Exit.OTHER)


NOT_KNOWN = Last(b"", [])


def under_way(run: bytes | None, ledger: Ledger, book: Book) -> Last:
    """Give the one thing that is owed an answer, if that is all that the client has said last."""
    if ledger.batch_open or ledger.copying:
        return NOT_KNOWN
    last = Last.of(run, book)
    return last if last.frames and last.frames[-1][0] == ledger.owed[-1] else NOT_KNOWN


def _text(run: bytes, frame: Frame, book: Book) -> bytes | None:
    """Give the text of a statement that a message prepares, or of one prepared before that it binds."""
    tag, start, stop = frame
    names = run[start + HEADER : stop].split(b"\0", 2)
    if tag == tags.PARSE:
        return names[1] if len(names) == 3 else b""
    if tag == tags.BIND and len(names) == 3 and names[1]:
        return book.text(names[1]) or b"?"
    return None
