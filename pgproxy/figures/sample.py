"""
One transaction that is looked at closely: when its statements began and ended, what they were, their rows.

It sees what the client says and what the server answers, and changes nothing. What it can't follow it leaves
out. Documentation: PostgreSQL manual, "Message Flow" and "Message Formats" (CommandComplete).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from attrs import frozen

from pgproxy.wire import tags
from pgproxy.wire.skim import HEADER, Frame

_MOST = 100
"""Statements of one transaction that are looked at."""
_TEXT = 8 * 1024
"""Bytes of a text."""
_IDLE = ord("I")
UNSEEN = b""
"""The text of a statement that was prepared where nobody looked."""


@frozen
class Said:
    """One statement that has been done."""

    text: bytes
    seconds: float
    rows: int
    failed: bool


class Sample:
    """One transaction; it stands for `weight` of its kind. `waited` is in seconds."""

    __slots__ = (
        "_asked",
        "_bound",
        "_failed",
        "_mark",
        "_parsed",
        "_ready",
        "_rows",
        "_skip",
        "_texts",
        "batches",
        "began",
        "ended",
        "statements",
        "waited",
        "weight",
    )

    def __init__(self, weight: int, waited: float, text_of: Callable[[bytes], bytes]) -> None:
        self.weight = weight
        self.waited = waited
        self.began: float | None = None
        self.ended: float | None = None
        """When the server was in no transaction any more, and owed nothing."""
        self.statements: list[Said] = []
        self.batches: list[float] = []
        """The seconds from each Query or Sync, or the answer before it, to its ReadyForQuery."""
        self._texts = text_of
        self._parsed: dict[bytes, bytes] = {}
        self._bound: dict[bytes, bytes] = {}
        self._asked: deque[tuple[int, bytes, float]] = deque()
        self._mark = self._ready = 0.0
        self._rows = 0
        self._failed = False
        self._skip = 0

    def said(self, now: float, run: bytes, frames: Iterable[Frame], ours: int) -> None:
        """Take what the client says; `ours` counts what the proxy itself has said before that."""
        if self.began is None:
            self.began = now
        if not self._asked:
            self._mark = now
            self._skip = ours
        for tag, start, _stop in frames:
            if max(len(self._asked), len(self._parsed), len(self._bound)) >= _MOST:
                return
            body = _body(run, start)
            if tag == tags.QUERY:
                self._asked.append((tag, body.partition(b"\0")[0], now))
            elif tag == tags.PARSE:
                name, _, text = body.partition(b"\0")
                self._parsed[name] = text.partition(b"\0")[0]
            elif tag == tags.BIND:
                portal, _, rest = body.partition(b"\0")
                name = rest.partition(b"\0")[0]
                known = self._parsed.get(name)
                self._bound[portal] = self._texts(name) if known is None else known
            elif tag == tags.EXECUTE:
                self._asked.append((tag, self._bound.get(body.partition(b"\0")[0], UNSEEN), now))
            elif tag in (tags.SYNC, tags.FUNCTION_CALL):
                self._asked.append((tag, UNSEEN, now))

    def heard(self, now: float, run: bytes, frames: Iterable[Frame]) -> bool:
        """Take what the server answers; say whether the transaction has ended."""
        for tag, start, stop in frames:
            if self._skip:
                self._skip -= tag == tags.READY_FOR_QUERY
                continue
            if tag == tags.COMMAND_COMPLETE:
                self._rows += rows_of(run[start + HEADER : stop])
                if self._asked and self._asked[0][0] == tags.EXECUTE:
                    self._record(now, self._asked.popleft()[1])
            elif tag == tags.ERROR_RESPONSE:
                self._failed = True
            elif tag == tags.READY_FOR_QUERY:
                self._answered(now)
                if run[start + HEADER] == _IDLE and not self._asked and self.began is not None:
                    self.ended = now
        return self.ended is not None

    def _answered(self, now: float) -> None:
        while self._asked:
            tag, text, asked = self._asked.popleft()
            if tag == tags.QUERY or (tag == tags.EXECUTE and self._failed):
                self._record(now, text)
            if tag != tags.EXECUTE:
                self.batches.append(max(0.0, now - max(asked, self._ready)))
                break
        self._rows, self._failed, self._mark, self._ready = 0, False, now, now

    def _record(self, now: float, text: bytes) -> None:
        if len(self.statements) < _MOST:
            self.statements.append(Said(text, max(0.0, now - self._mark), self._rows, self._failed))
        self._rows, self._failed, self._mark = 0, False, now


def _body(run: bytes, start: int) -> bytes:
    """Give what a message says, or its beginning; nothing where it has not come as a whole."""
    # A frame may end with the header, where nobody else reads on.
    end = start + 1 + int.from_bytes(run[start + 1 : start + HEADER], "big")
    most = start + HEADER + _TEXT
    return run[start + HEADER : min(end, most)] if min(end, most) <= len(run) else UNSEEN


def rows_of(tag: bytes) -> int:
    """Give the number at the end of a command tag: `SELECT 5`, `INSERT 0 1`; 0 where there is none."""
    last = tag.rstrip(b"\0").rpartition(b" ")[2]
    return int(last) if last.isdigit() and len(last) < 20 else 0
