"""
The ParseComplete and CloseComplete that a server owes: whose they are, and what each of them settles.

The law:

1. They come in the order in which Parse and Close were sent.
2. An error in a batch is the only answer to everything behind it in that batch: what was owed there is
   undone, latest first.
3. What nearly everybody sends, one Parse of the unnamed statement with nothing else owed, is kept as the
   number of its batch, until somebody asks what is owed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pgproxy.session import ledger
from pgproxy.twin import quicken
from pgproxy.wire import tags
from pgproxy.wire.skim import Malformed

MOST_OWED = 2 * ledger.MOST_OWED
"""
Completions that a link waits for: a client with a Parse in each batch is not read any more before it is here,
as the ledger is full then.
"""


def nothing() -> None:
    """Undo nothing."""


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

    __slots__ = ("_batches", "_no_unnamed", "_owed", "ours", "sole", "unnamed_failed")

    def __init__(self, no_unnamed: Callable[[], None] = nothing) -> None:
        """`no_unnamed` undoes the Parse of an unnamed statement."""
        self._no_unnamed = no_unnamed
        self._owed: list[Completion] = []
        self._batches: dict[bytes, list[list[int]]] = {}
        """By the client's name, in which batches they are owed, and how many in each."""
        self.sole: int | None = None
        """The batch of the Parse of the client's unnamed statement that is all that is owed; see rule 3."""
        self.ours = 0
        """How many of them are not for the client."""
        self.unnamed_failed = -1
        """The last batch in which a Parse of the client's unnamed statement was not done."""

    def apart(self) -> None:
        """Let go of who undoes things, as nothing is owed any more."""
        self._no_unnamed = nothing

    def __len__(self) -> int:
        return len(self._owed) + (self.sole is not None)

    @property
    def owed(self) -> list[Completion]:
        """All of them, oldest first."""
        if self.sole is not None:
            self._add(self._of_unnamed(self.sole))
            self.sole = None
        return self._owed

    def _of_unnamed(self, batch: int) -> Completion:
        return Completion(tags.PARSE_COMPLETE, batch, b"", self._no_unnamed, b"")

    @property
    def names(self) -> frozenset[bytes]:
        """The names in the server that are still to be confirmed."""
        return frozenset(one.name for one in self.owed)

    @property
    def prepares(self) -> frozenset[bytes]:
        """The client's names of statements that are still to be confirmed."""
        return frozenset(
            one.client_name for one in self.owed if one.tag == tags.PARSE_COMPLETE and one.client_name
        )

    @property
    def client_names(self) -> frozenset[bytes]:
        """The client's names that are still to be confirmed."""
        return frozenset(self._batches) if self.owed else frozenset()

    def owe(self, one: Completion) -> None:
        """
        Enter that a Parse or a Close is on its way.

        Raises `Malformed` where a client has sent more of them than may be waited for: behind an error, none
        of them is answered until it says Sync.
        """
        if one.client_name is not None and len(self.owed) >= MOST_OWED:
            raise Malformed(f"more than {MOST_OWED} Parse and Close messages without an answer")
        self._add(one)
        self.ours += one.client_name is None

    def _add(self, one: Completion) -> None:
        self._owed.append(one)
        if one.client_name is not None:
            batches = self._batches.setdefault(one.client_name, [])
            if not batches or batches[-1][0] != one.batch:
                batches.append([one.batch, 0])
            batches[-1][1] += 1

    def _settle(self, one: Completion) -> None:
        """Forget one that is no longer owed: the oldest of its name."""
        if one.client_name is not None:
            batches = self._batches[one.client_name]
            batches[0][1] -= 1
            if not batches[0][1]:
                del batches[0]
                if not batches:
                    del self._batches[one.client_name]

    def owe_unnamed(self, batch: int) -> None:
        """Enter that a Parse of the client's unnamed statement is on its way."""
        if self.owed:
            self._add(self._of_unnamed(batch))
        else:
            self.sole = batch

    def undecided(self, client_name: bytes, batch: int) -> int:
        """Give the last batch before this one in which one for the client's name is owed; -1 if in none."""
        if not self.owed:
            return -1
        return next((at for at, _ in reversed(self._batches.get(client_name, ())) if at < batch), -1)

    def due(self, batch: int) -> bool:
        """Say whether one is owed in this batch."""
        if self.sole is not None:
            return self.sole <= batch
        return bool(self._owed) and self._owed[0].batch <= batch

    def came(self, tag: int) -> bool:
        """Enter a completion; say whether the client gets it. Raises `Malformed` for one that is not owed."""
        if not self.owed or self.owed[0].tag != tag:
            raise Malformed(f"a message of type {tag} that nobody asked for")
        one = self.owed.pop(0)
        self._settle(one)
        self.ours -= one.client_name is None
        return one.client_name is not None

    def came_plainly(self, tag: int) -> bool:
        """Enter the completion that is owed, if it is this one, and the client's; say whether it is."""
        if self.sole is not None:
            if tag != tags.PARSE_COMPLETE:
                return False
            self.sole = None
            return True
        one = self._owed[0]
        if one.tag != tag or one.client_name is None:
            return False
        del self._owed[0]
        self._settle(one)
        return True

    def failed(self, batch: int, queried: Callable[[int], bool]) -> None:
        """
        Enter an error in a batch, or that it has ended without its completions.

        `queried` says whether a Query was said behind it, which has done away with the unnamed statement.
        """
        owed = self.owed
        count = 0
        while count < len(owed) and owed[count].batch <= batch:
            count += 1
        undone = owed[:count]
        del owed[:count]
        self.ours -= sum(one.client_name is None for one in undone)
        for one in undone:
            self._settle(one)
        unnamed = [one for one in undone if one.client_name == b""]
        if any(one.tag == tags.PARSE_COMPLETE for one in unnamed):
            self.unnamed_failed = unnamed[-1].batch
        # What has been said since stays.
        replaced = bool(unnamed) and (b"" in self._batches or queried(batch))
        for one in reversed(undone):
            if one.client_name != b"" or not replaced:
                one.undo()
