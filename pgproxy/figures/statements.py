"""
What statements cost, by digest: how often they were said, their time in the database and in the queue, rows.

The law: at most `limit` are kept; the one that was seen longest ago goes first. Figures are weighted: they
estimate all calls from those that were looked at (sampling.py).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from attrs import define

from pgproxy.figures.sample import UNSEEN, Sample
from pgproxy.session.digest import digest, fold

KEPT = 500
_TEXTS = 2000
"""Texts of which the digest is kept, but for their numbers."""
_SHORT = 2048
"""Bytes of a text that is kept for that."""
NOT_SEEN = "(a prepared statement)"


@define
class Statement:
    """One of them."""

    calls: int = 0
    looked_at: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    queued: float = 0.0
    rows: int = 0
    errors: int = 0

    def figures(self) -> dict[str, Any]:
        """Give all of it."""
        return {
            "calls": self.calls,
            "looked_at": self.looked_at,
            "seconds": round(self.seconds, 6),
            "longest": round(self.longest, 6),
            "queued": round(self.queued, 6),
            "rows": self.rows,
            "errors": self.errors,
        }


class Statements:
    """Those of all databases."""

    def __init__(self, limit: int = KEPT) -> None:
        self._limit = limit
        self._kept: OrderedDict[tuple[str, str], Statement] = OrderedDict()
        self._digests: OrderedDict[bytes, str] = OrderedDict()

    def add(self, database: str, sample: Sample) -> None:
        """Enter the statements of a transaction; the wait for a server is its first one's."""
        waited = sample.waited
        for said in sample.statements:
            key = database, self._digest(said.text)
            statement = self._kept.get(key)
            if statement is None:
                statement = self._kept[key] = Statement()
                if len(self._kept) > self._limit:
                    self._kept.popitem(last=False)
            else:
                self._kept.move_to_end(key)
            statement.calls += sample.weight
            statement.looked_at += 1
            statement.seconds += said.seconds * sample.weight
            statement.longest = max(statement.longest, said.seconds)
            statement.queued += waited * sample.weight
            statement.rows += said.rows * sample.weight
            statement.errors += said.failed * sample.weight
            waited = 0.0

    def _digest(self, text: bytes) -> str:
        if text == UNSEEN:
            return NOT_SEEN
        key = fold(text)
        known = self._digests.get(key)
        if known is None:
            known = digest(text)
            if len(key) <= _SHORT:
                self._digests[key] = known
                if len(self._digests) > _TEXTS:
                    self._digests.popitem(last=False)
        else:
            self._digests.move_to_end(key)
        return known

    def figures(self) -> dict[str, dict[str, Any]]:
        """Give them by database and digest."""
        found: dict[str, dict[str, Any]] = {}
        for (database, shown), statement in self._kept.items():
            found.setdefault(database, {})[shown] = statement.figures()
        return found
