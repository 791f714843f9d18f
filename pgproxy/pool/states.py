"""
The life of one server connection, as a table.

The law:

1. Every legal move is in `MOVES`; `Server.move` is the one door, and refuses any other.
2. A server is handed to a client from IDLE or OPENING only, and both mean: nobody else's state is in it.
3. LINKED ends in RELEASING, never in IDLE: what must be true first is asked of pool/release.py.
4. CLOSED is the end.
"""

from __future__ import annotations

from enum import Enum, IntEnum

from attrs import define, field

from pgproxy.session.server import ServerSession
from pgproxy.twin import quicken


class ServerState(IntEnum):
    """Where a server connection is in its life."""

    OPENING = 0
    """Connecting, TLS and login."""
    IDLE = 1
    LINKED = 2
    RELEASING = 3
    """Given back; its query is cancelled, its transaction ended, its session cleaned, as needed."""
    CLOSED = 4


OPENING, IDLE, LINKED, RELEASING, CLOSED = ServerState

MOVES: dict[ServerState, frozenset[ServerState]] = {
    OPENING: frozenset({IDLE, LINKED, CLOSED}),
    IDLE: frozenset({LINKED, CLOSED}),
    LINKED: frozenset({RELEASING, CLOSED}),
    RELEASING: frozenset({IDLE, LINKED, CLOSED}),
    CLOSED: frozenset(),
}

_LEGAL = tuple(tuple(after in MOVES[before] for after in ServerState) for before in ServerState)
"""The same, to be looked up by number: an enum's hash is a function in Python."""


class CloseReason(Enum):
    """Why a server connection was closed: the same word in log, metric and console."""

    LOST = "lost"
    """The server, or the network, closed it."""
    OPEN_FAILED = "open_failed"
    NONSENSE = "nonsense"
    """The server broke the protocol."""
    OTHER_PARAMETERS = "other_parameters"
    """A client waits that starts with other parameters, and the pool has no room for one more."""
    SURPLUS = "surplus"
    """The pool may no longer have that many."""
    REPLICATION = "replication"
    MID_MESSAGE = "mid_message"
    """The client left in the middle of a message."""
    MID_COPY = "mid_copy"
    IRREGULAR = "irregular"
    """The client's pipeline was such that nobody can tell what the server still owes."""
    CANCEL_TIMEOUT = "cancel_timeout"
    CLEANING_FAILED = "cleaning_failed"
    CLEANING_TIMEOUT = "cleaning_timeout"
    QUESTION_TIMEOUT = "question_timeout"
    """It did not answer what the proxy itself asked."""
    LASTING_STATE = "lasting_state"
    """The client has left something that no cleaning undoes: a library, the seed of random()."""
    SESSION_LOST = "session_lost"
    """The client's settings could not be restored on it."""
    DEFAULTS_CHANGED = "defaults_changed"
    """ALTER ROLE or ALTER DATABASE: a new server would begin with other settings."""
    IN_THE_WAY = "in_the_way"
    """A client drops, renames or copies the server's database."""
    MODE_CHANGED = "mode_changed"
    """The configuration has another pool_mode for it now."""
    MOVED = "moved"
    """The configuration has the database elsewhere now."""
    REMOVED = "removed"
    """The configuration has the database no more."""
    SHUTDOWN = "shutdown"


class IllegalMove(Exception):
    """A server was to make a move that is not in the table: a defect in pgproxy."""


Parameters = tuple[tuple[str, str], ...]
"""The startup parameters that a server was opened with; it serves only clients with the same."""


@quicken
@define(eq=False)
class Server:
    """One server connection, as the pool knows it."""

    number: int
    parameters: Parameters
    session: ServerSession
    state: ServerState = field(default=OPENING, on_setattr=None)
    close_reason: CloseReason | None = None
    retiring: CloseReason | None = None
    """Why it serves nobody else, if so: it is closed as soon as it has been given back."""

    def move(self, state: ServerState) -> None:
        """Change the state. Raises `IllegalMove`."""
        if not _LEGAL[self.state][state]:
            raise IllegalMove(f"server {self.number}: {self.state.name} -> {state.name}")
        self.state = state
