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

from pgproxy.session.digest import digest
from pgproxy.session.server import SEVERAL, ServerSession
from pgproxy.session.verdict import SEQUENCE_READ, SEQUENCE_WRITE
from pgproxy.twin import quicken

USES_SEQUENCES = SEQUENCE_READ | SEQUENCE_WRITE
_MOST_FOLLOWED = 1000
"""Statements that a pool remembers as asked about."""


@quicken
class Sequences:
    """One client's use of sequences. `client` is what a server's session calls it."""

    __slots__ = ("_client", "_wrote", "home")

    def __init__(self, client: object) -> None:
        self._client = client
        self._wrote = b""
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
            server.reserved = self._client
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
            pins = server.sequences is self._client
        if flags & SEQUENCE_WRITE:
            pins = self.wrote(server, text) or pins
        return pins

    def hidden(self, server: ServerSession) -> None:
        """Enter that code has been run that may have called nextval()."""
        server.sequences = self._client if server.sequences in (None, self._client) else SEVERAL

    def others(self, server: ServerSession) -> bool:
        """Say whether others have left something in a server that must not be answered with."""
        return server.habits.sequences_matter and server.sequences not in (None, self._client)

    def gone(self) -> None:
        """Enter that the client has left for good: nobody comes back for what it has left."""
        home = self.home
        if home is not None and home.reserved is self._client:
            home.reserved = None
        if home is not None and home.sequences is self._client:
            home.sequences = SEVERAL


def discarded(server: ServerSession) -> None:
    """Enter that a server has forgotten all of them."""
    server.sequences = server.reserved = None


def not_discarded(server: ServerSession) -> None:
    """Enter that it has not, although that was entered: whose they are can't be told any more."""
    server.sequences = SEVERAL
