"""The last changes of a target's roles, for those who look later."""

from __future__ import annotations

from collections import deque
from enum import Enum

from attrs import frozen

from pgproxy.targets.facts import Address

_KEPT = 100


class Change(Enum):
    """What has happened to a host: the same word in log, metric and console."""

    BECAME_WRITER = "became_writer"
    NO_LONGER_WRITER = "no_longer_writer"
    """Another is, or it says itself that it is in recovery."""
    WRITER_SILENT = "writer_silent"
    """The writer has not answered for `host_timeout`."""
    WRITER_BACK = "writer_back"
    """The writer answers again, and is the writer still."""
    READER_IN = "reader_in"
    READER_OUT = "reader_out"
    FENCED = "fenced"
    """It says that it is the writer, and is not believed."""
    STRANGER = "stranger"
    """It belongs to another cluster."""
    FOUND = "found"
    GONE = "gone"
    """It is in the list of hosts no more."""


@frozen
class Entry:
    """One change."""

    at: float
    """Seconds, of the same clock as all that the watcher is told."""
    host: Address
    change: Change
    why: str


class History:
    """The last 100 of them."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=_KEPT)
        self.writers = 0
        """How often a host has become the writer, the first included."""

    def add(self, entry: Entry) -> None:
        """Enter one."""
        self._entries.append(entry)
        self.writers += entry.change is Change.BECAME_WRITER

    def entries(self) -> list[Entry]:
        """Give them, the oldest first."""
        return list(self._entries)
