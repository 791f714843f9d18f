"""
The ParseComplete and CloseComplete that a server owes: whose they are, and what each of them settles.

The law:

1. They come in the order in which Parse and Close were sent.
2. An error in a batch is the only answer to everything behind it in that batch: what was owed there is
   undone, latest first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from pgproxy.twin import quicken
from pgproxy.wire.skim import Malformed

MOST_OWED = 10_000
"""Completions that a link waits for."""


def nothing() -> None:
    """Undo nothing."""


@quicken
class Completion(NamedTuple):
    """One that is owed."""

    tag: int
    """PARSE_COMPLETE or CLOSE_COMPLETE."""
    batch: int
    """The ledger's number of the batch."""
    name: bytes
    """The name in the server."""
    undo: Callable[[], None] = nothing
    """What to do where it doesn't come."""
    client_name: bytes | None = None
    """The client's name of the statement; None where the proxy asked, so that the client must not see it."""


@quicken
class Completions:
    """All that are owed on a link."""

    __slots__ = ("ours", "owed")

    def __init__(self) -> None:
        self.owed: deque[Completion] = deque()
        """Oldest first."""
        self.ours = 0
        """How many of them are not for the client."""

    def __len__(self) -> int:
        return len(self.owed)

    @property
    def names(self) -> frozenset[bytes]:
        """The names in the server that are still to be confirmed."""
        return frozenset(one.name for one in self.owed)

    @property
    def client_names(self) -> frozenset[bytes]:
        """The client's names that are still to be confirmed."""
        return frozenset(one.client_name for one in self.owed if one.client_name is not None)

    def owe(self, one: Completion) -> None:
        """
        Enter that a Parse or a Close is on its way.

        Raises `Malformed` where a client has sent more of them than may be waited for: behind an error, none
        of them is answered until it says Sync.
        """
        if one.client_name is not None and len(self.owed) >= MOST_OWED:
            raise Malformed(f"more than {MOST_OWED} Parse and Close messages without an answer")
        self.owed.append(one)
        self.ours += one.client_name is None

    def undecided(self, client_name: bytes, batch: int) -> int:
        """Give the last batch before this one in which one for the client's name is owed; -1 if in none."""
        batches = [one.batch for one in self.owed if one.client_name == client_name and one.batch < batch]
        return batches[-1] if batches else -1

    def due(self, batch: int) -> bool:
        """Say whether one is owed in this batch."""
        return bool(self.owed) and self.owed[0].batch <= batch

    def came(self, tag: int) -> bool:
        """Enter a completion; say whether the client gets it. Raises `Malformed` for one that is not owed."""
        if not self.owed or self.owed[0].tag != tag:
            raise Malformed(f"a message of type {tag} that nobody asked for")
        one = self.owed.popleft()
        self.ours -= one.client_name is None
        return one.client_name is not None

    def came_plainly(self, tag: int) -> bool:
        """Enter the completion that is owed, if it is this one, and the client's; say whether it is."""
        one = self.owed[0]
        if one.tag != tag or one.client_name is None:
            return False
        self.owed.popleft()
        return True

    def failed(self, batch: int) -> None:
        """Enter an error in a batch, or that it has ended without its completions."""
        undone = []
        while self.owed and self.owed[0].batch <= batch:
            one = self.owed.popleft()
            self.ours -= one.client_name is None
            undone.append(one.undo)
        for undo in reversed(undone):
            undo()
