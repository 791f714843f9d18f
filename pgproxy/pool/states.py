"""
The life of one server connection, as a table.

The law:

1. Every legal move is in `MOVES`; `Server.move` is the one door, and refuses any other.
2. A server is handed to a client from IDLE, RELEASING or CHECKING only, when nobody else's state is in it.
3. LINKED ends in RELEASING, never in IDLE: what must be true first is asked of pool/release.py.
4. A server counts until it is CLOSED. CLOSING has been told to go, and takes a place in PostgreSQL until its
   connection has ended.
5. CLOSED is the end.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Any

from attrs import define, field

from pgproxy.session.server import ServerSession
from pgproxy.twin import know, quicken

if TYPE_CHECKING:
    from pgproxy.pool.lane import Lane


class ServerState(IntEnum):
    """Where a server connection is in its life."""

    OPENING = 0
    """Connecting, TLS and login."""
    IDLE = 1
    LINKED = 2
    RELEASING = 3
    """Being made fit for the next: its query is cancelled, its transaction ended, its session cleaned."""
    CHECKING = 4
    """Asked whether it is still there."""
    CLOSING = 5
    """Told to go; its connection has not ended yet."""
    CLOSED = 6


OPENING, IDLE, LINKED, RELEASING, CHECKING, CLOSING, CLOSED = ServerState
know(idle=IDLE, linked=LINKED)

MOVES: dict[ServerState, frozenset[ServerState]] = {
    OPENING: frozenset({RELEASING, CLOSING, CLOSED}),
    IDLE: frozenset({LINKED, CHECKING, CLOSING, CLOSED}),
    LINKED: frozenset({RELEASING, CLOSING, CLOSED}),
    RELEASING: frozenset({IDLE, LINKED, CLOSING, CLOSED}),
    CHECKING: frozenset({IDLE, LINKED, CLOSING, CLOSED}),
    CLOSING: frozenset({CLOSED}),
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
    NEEDED_ELSEWHERE = "needed_elsewhere"
    """Somebody waits whom this server cannot serve, and a limit leaves no room for one more."""
    SURPLUS = "surplus"
    """There may no longer be that many."""
    LIFETIME = "lifetime"
    """It has been open for server_lifetime."""
    IDLE_TIMEOUT = "idle_timeout"
    """Nobody has wanted it for server_idle_timeout."""
    TOO_MANY_IDLE = "too_many_idle"
    """More are idle than max_idle_connections_percent allows."""
    CHECK_FAILED = "check_failed"
    """It did not answer when it was asked whether it is still there."""
    REPLICATION = "replication"
    MID_MESSAGE = "mid_message"
    """The client left in the middle of a message."""
    MID_COPY = "mid_copy"
    IRREGULAR = "irregular"
    """The client's pipeline was such that nobody can tell what the server still owes."""
    CANCEL_TIMEOUT = "cancel_timeout"
    CLEANING_FAILED = "cleaning_failed"
    CLEANING_TIMEOUT = "cleaning_timeout"
    INIT_QUERY_FAILED = "init_query_failed"
    """`init_query` was run again behind the cleaning."""
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
    INIT_QUERY_CHANGED = "init_query_changed"
    """The configuration has another `init_query` for it now."""
    MODE_CHANGED = "mode_changed"
    """The configuration has another pool_mode for it now."""
    MOVED = "moved"
    """The configuration has the database elsewhere now."""
    REMOVED = "removed"
    """The configuration has the database no more."""
    PAUSED = "paused"
    """An administrator said PAUSE."""
    SWITCHOVER = "switchover"
    """An administrator said SWITCHOVER."""
    RECONNECT = "reconnect"
    """An administrator said RECONNECT."""
    KILLED = "killed"
    """An administrator said KILL."""
    WRITER_CHANGED = "writer_changed"
    """Its host is no longer the writer."""
    READER_OUT = "reader_out"
    """Its host is no longer one of the readers."""
    HOST_SILENT = "host_silent"
    """Its host has not answered for host_timeout."""
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
    lane: Lane[Any]
    """Whose clients it serves."""
    session: ServerSession
    expires: float
    """When its life ends."""
    state: ServerState = field(default=OPENING, on_setattr=None)
    retiring: CloseReason | None = None
    """Why it serves nobody else, if so: it is closed as soon as it has been given back."""
    turn: int = 0
    """When it became idle last, counted in releases: the one with the least has been idle longest."""
    seen: int = -1
    """The `turn` at the last look."""
    quiet_since: float = 0.0
    """Since which look it has been idle, if `seen` is its `turn`."""
    heard: float = 0.0
    """At which look it was last known to be there."""
    connection: Any = None
    """What its owner has of it while it is logged in; the pool knows nothing of that."""

    @property
    def parameters(self) -> Parameters:
        """The startup parameters that it was opened with."""
        return self.lane.parameters

    def let_go(self) -> None:
        """Pass from LINKED through RELEASING to IDLE: nothing is left in it. Raises `IllegalMove`."""
        if self.state is not LINKED:
            raise IllegalMove(f"server {self.number}: {self.state.name} -> RELEASING")
        self.state = IDLE

    def move(self, state: ServerState) -> None:
        """Change the state. Raises `IllegalMove`."""
        if not _LEGAL[self.state][state]:
            raise IllegalMove(f"server {self.number}: {self.state.name} -> {state.name}")
        self.state = state
