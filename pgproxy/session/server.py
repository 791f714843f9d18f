"""What one server's session holds, as far as it is known: it goes with the server from client to client."""

from __future__ import annotations

from attrs import define, field

from pgproxy.session.foreseen import Effects
from pgproxy.session.functions import Functions
from pgproxy.session.reported import NOTHING_REPORTED, Reported, with_status
from pgproxy.session.settings import NOTHING_SET, Settings
from pgproxy.session.statements import ServerStatements
from pgproxy.twin import quicken

UNKNOWN = object()
"""Stands for an unnamed statement that nobody can be sure of."""

SEVERAL = object()
"""Stands for clients that can't be told apart."""


@quicken
@define(eq=False)
class Habits:
    """What the clients of a pool do."""

    sequences_matter: bool = False
    """Whether one of them has asked for currval() or lastval()."""
    followed: set[str] = field(factory=set)
    """Digests of statements after which one of them has."""
    hidden: bool = False
    """Whether statements may change the session although no text shows it."""
    due: bool = False
    """Whether that may be otherwise by now: an idle server is to be asked soon."""
    overdue: bool = False
    """Whether none was idle to be asked: the next question that is asked in any case asks that as well."""
    effects: Effects = field(factory=Effects)
    """What texts make of settings, as servers have told."""
    functions: Functions = field(factory=Functions)
    """What functions that are on no list leave, as servers have told."""

    def opened(self, hidden: bool) -> bool:
        """Enter what a server that was opened has said, as `told` does: by now all may be otherwise."""
        self.functions.forget()
        return self.told(hidden)

    def told(self, hidden: bool) -> bool:
        """Enter what a server says that statements do in hiding; say whether that is new, and something."""
        new = hidden and not self.hidden
        # An answer may be older than the one before it.
        self.due = self.due or (self.hidden and not hidden)
        self.hidden = hidden
        self.overdue = False
        return new


@quicken
@define(eq=False)
class ServerSession:
    """
    One server's session.

    `statements` are those prepared under names of ours; `leftovers` are names of a client's own that are to
    be closed before anybody else's message.
    """

    user: bytes
    """Who logged in."""
    statements: ServerStatements
    habits: Habits
    settings: Settings = NOTHING_SET
    initial: Settings = NOTHING_SET
    """What `init_query` has set."""
    reported: Reported = NOTHING_REPORTED
    """What ParameterStatus messages have said."""
    greeting: Reported = NOTHING_REPORTED
    """What they had said when we had logged in."""
    pid: bytes = b""
    """The server's process id, as messages have it."""
    defaults: bytes = b""
    """What ALTER ROLE and ALTER DATABASE had set when it was opened."""
    database: bytes = b"0"
    """The number of its database (its oid), once it is known."""
    role: bytes = b"none"
    """As which role it acts when nobody has said otherwise."""
    unnamed: object = None
    """The unnamed `Statement`, if there is one; `UNKNOWN` where that is not certain."""
    leftovers: set[bytes] = field(factory=set)
    owner: object = None
    """The client that was linked last."""
    opaque: bool = False
    """Whether code that we cannot see has run for the owner: more may be set than we know."""
    sequences: object = None
    """By its `Sequences`, the client whose nextval() currval() and lastval() would answer; or `SEVERAL`."""
    reserved: object = None
    """By the same, the client that has called nextval() or setval() here, and may come back for currval()."""

    def status(self, payload: bytes) -> None:
        """Enter a ParameterStatus."""
        self.reported = with_status(self.reported, payload)

    def begins_with(self, initial: Settings) -> None:
        """Enter that `init_query` has been run, and what it has set."""
        self.initial = self.settings = initial

    def cleaned(self) -> None:
        """Enter that DISCARD ALL has been done."""
        self.settings = NOTHING_SET
        self.statements.keep_only(frozenset())
        self.unnamed = None
        self.leftovers.clear()
        self.owner = None
        self.opaque = False
        self.sequences = None
        self.reserved = None
