"""
Messages that have come before, are known to leave nothing, and are recognised at one look, as a whole.

Framing a message, judging its text and framing the answer say the same each time that the same is said; what
is remembered of that is compared, not believed. The law:

1. A message is recognised only where it is the same byte for byte, but for the digits in a Query's text,
   where these are certain not to matter.
2. An answer that begins and ends as the last one did is known up to its rows, and behind them; the rows are
   walked over.
3. What is remembered is bounded, and nothing but bytes.
"""

from __future__ import annotations

LEARNED = 1024
"""Bytes of a message that is remembered, and of what stands before and behind the rows of its answer."""
_NOTHING = b"\xff"
"""How no answer begins."""


class Known:
    """What is known of a Query, or of the Parse of an unnamed statement."""

    __slots__ = ("body", "head", "header", "quiet", "tail")

    def __init__(self, header: bytes, body: bytes) -> None:
        self.header = header
        """Of a Query of this length: the tag and the length word."""
        self.body = body
        """Of a Parse: what stands behind the name. Empty for a Query."""
        self.head = _NOTHING
        """What stood before the rows of the last answer."""
        self.tail = _NOTHING
        """What stood behind them: CommandComplete and ReadyForQuery, in no transaction."""
        self.quiet: object = None
        """The tags that were quiet then: that of `tail` was."""

    def learn_answer(self, data: bytes, rows: int, complete: int, quiet: object) -> None:
        """Remember an answer whose rows, and whose CommandComplete, begin there."""
        if rows <= LEARNED and len(data) - complete <= LEARNED:
            self.head, self.tail, self.quiet = data[:rows], data[complete:], quiet
