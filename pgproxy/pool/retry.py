"""
When it is tried again to open a server, after it could not be opened.

The law: the first attempt after a failure comes after `FIRST` seconds, each further one after twice as long
as the one before, at most `LONGEST`. Each time one server is tried; when it opens, all is well again.
"""

from __future__ import annotations

from attrs import frozen

from pgproxy.pool.trouble import Trouble

FIRST = 0.1
LONGEST = 2.0
"""Seconds."""
_MOST_DOUBLINGS = 10


@frozen
class Retry:
    """What went wrong, and when it is tried again."""

    trouble: Trouble
    failures: int
    """In a row."""
    at: float


def after(before: Retry | None, trouble: Trouble, now: float, chance: float) -> Retry:
    """Say when it is tried again; `chance`, from 0 to 1, spreads those who begin to wait together."""
    failures = before.failures + 1 if before is not None else 1
    wait = min(LONGEST, FIRST * 2 ** min(failures - 1, _MOST_DOUBLINGS))
    return Retry(trouble, failures, now + wait * (0.75 + chance / 2))
