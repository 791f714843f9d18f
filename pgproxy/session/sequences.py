"""
What nextval() leaves behind for currval() and lastval(), kept apart.

The law:

1. What no client of a pool has ever asked currval() about costs nothing: it is only noted who used sequences.
2. A client that asks where only it has used sequences is pinned. The statement that it wrote with before pins
   from then on, whoever says it.
3. Nobody is answered with what others have left: it is discarded first, and what asks waits until that is
   certain. Where it can't be discarded (in an open batch, in a failed transaction that the same text ends)
   the client is refused.
4. What code does that no text shows may have been nextval(), too.

Documentation: PostgreSQL manual, "Sequence Manipulation Functions", "DISCARD".
"""

from __future__ import annotations

from enum import Enum

from pgproxy.session.asides import Aside, Asides
from pgproxy.session.digest import digest
from pgproxy.session.exits import may_exit
from pgproxy.session.ledger import FAILED, Ledger
from pgproxy.session.server import SEVERAL, ServerSession
from pgproxy.session.verdict import SEQUENCE_READ, SEQUENCE_WRITE
from pgproxy.twin import quicken

USES_SEQUENCES = SEQUENCE_READ | SEQUENCE_WRITE
_MOST_FOLLOWED = 1000
"""Statements that a pool remembers as asked about."""


class Apart(Enum):
    """What has to be done so that a message is not answered with what others have left."""

    NOTHING = 0
    WAIT = 1
    """It waits until what was said before has been answered."""
    FORGET = 2
    """The server is made to forget it first, and the message waits for that."""
    REFUSE = 3


@quicken
class Sequences:
    """One client's use of sequences; by this a server's session knows whose they are."""

    __slots__ = ("_unforgotten", "_wrote", "home")

    def __init__(self) -> None:
        self._wrote = b""
        self._unforgotten = False
        """Whether the server would not forget what others have left."""
        self.home: ServerSession | None = None
        """Where the client has used them last."""

    def wrote(self, server: ServerSession, text: bytes) -> bool:
        """Enter a statement that may call nextval() by a default; say whether it pins."""
        self.hidden(server)
        self._wrote = text
        self.home = server
        said = text.lower()
        if b"nextval" in said or b"setval" in said:
            # Not only by a default, perhaps: others had better take another server.
            server.reserved = self
        followed = server.habits.followed
        return bool(followed) and digest(text) in followed

    def used(self, server: ServerSession, flags: int, text: bytes) -> bool:
        """Enter a statement that calls one of the functions; say whether it pins."""
        pins = False
        if flags & SEQUENCE_READ:
            habits = server.habits
            habits.sequences_matter = True
            if self._wrote and len(habits.followed) < _MOST_FOLLOWED:
                habits.followed.add(digest(self._wrote))
            pins = server.sequences is self
        if flags & SEQUENCE_WRITE:
            pins = self.wrote(server, text) or pins
        return pins

    def hidden(self, server: ServerSession) -> None:
        """Enter that code has been run that may have called nextval()."""
        server.sequences = self if server.sequences in (None, self) else SEVERAL

    def alone(self, server: ServerSession) -> bool:
        """Say whether nothing of others is left in a server, whoever may ask for it."""
        return server.sequences is None or server.sequences is self

    def others(self, server: ServerSession) -> bool:
        """Say whether others have left something in a server that must not be answered with."""
        return server.habits.sequences_matter and not self.alone(server)

    def may_be_asked(self, server: ServerSession, run: bytes) -> bool:
        """Say whether what the client says may ask for what others have left, further on as well."""
        if self.alone(server):
            return False
        said = run.lower()
        return b"currval" in said or b"lastval" in said

    def keep_apart(
        self, server: ServerSession, ledger: Ledger, asides: Asides, flags: int, text: bytes, executes: bool
    ) -> Apart:
        """
        Say what has to be done before a message of a verdict with these flags is sent on.

        That is not for what asks for sequences alone, but for whatever begins a batch: further on it is too
        late, and where the message `executes` what asks, it is refused.
        """
        reads = flags & SEQUENCE_READ
        if reads:
            server.habits.sequences_matter = True
            if Aside.FORGET in asides:
                return Apart.WAIT
        if not server.habits.sequences_matter or not self.others(server):
            return Apart.NOTHING
        if ledger.batch_open or self._unforgotten:
            return Apart.REFUSE if reads and executes else Apart.NOTHING
        if ledger.awaited:
            # In an aborted transaction it would not forget.
            return Apart.WAIT
        if ledger.status == FAILED:
            return Apart.REFUSE if may_exit(text) else Apart.NOTHING
        return Apart.FORGET

    def not_forgotten(self, server: ServerSession) -> None:
        """Enter that a server has not forgotten, although that was entered: whose they are nobody knows."""
        self._unforgotten = True
        server.sequences = SEVERAL

    def parted(self) -> None:
        """Enter that the server has been let go, or is lost."""
        self._unforgotten = False

    def gone(self) -> None:
        """Enter that the client has left for good: nobody comes back for what it has left."""
        home = self.home
        if home is not None and home.reserved is self:
            home.reserved = None
        if home is not None and home.sequences is self:
            home.sequences = SEVERAL


def discarded(server: ServerSession) -> None:
    """Enter that a server has forgotten all of them."""
    server.sequences = server.reserved = None
