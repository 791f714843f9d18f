"""
Why a server could not be opened: at which stage, whom it concerns, and whether waiting helps.

The law:

1. What a server says is judged by SQLSTATE, and by the routine that says it where one SQLSTATE means several
   things. Its texts may be in any language.
2. Where it can't be told whom it concerns, it concerns the fewest: those who start with the same parameters.
   Or one client could, by what it asks for, keep others from being served.
3. Where it can't be told whether waiting helps, it does not.
4. What concerns everybody is told to everybody: it names no database.

Documentation: PostgreSQL manual, "PostgreSQL Error Codes", "Error and Notice Message Fields".
"""

from __future__ import annotations

from enum import Enum

from attrs import frozen

from pgproxy.wire import errors, messages
from pgproxy.wire.errors import Complaint, Refusal, complaint


class Stage(Enum):
    """How far the opening of a server has come: the same word in log, metric and console."""

    LOOK_UP = "look_up"
    """Its host's name is being looked up."""
    CONNECT = "connect"
    TLS = "tls"
    """From the request for TLS to the end of the handshake."""
    LOGIN = "login"
    """From the startup message to the first ReadyForQuery."""
    OPENING = "opening"
    """It is asked what sessions begin with."""
    INIT_QUERY = "init_query"
    """It runs `init_query`, and is asked what that has left."""


class Scope(Enum):
    """Whom a failure concerns."""

    TARGET = "target"
    """Everybody who wants a server of this host."""
    POOL = "pool"
    """This user in this database."""
    PARAMETERS = "parameters"
    """Those who start with these parameters."""


class Cause(Enum):
    """What has gone wrong, where no server says it."""

    NAME_UNKNOWN = "name_unknown"
    NAME_UNANSWERED = "name_unanswered"
    """The name servers give no answer now."""
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    """`connect_timeout` is over."""
    LOST = "lost"
    """The connection has ended."""
    NO_TLS = "no_tls"
    """The server has none, and is asked for it."""
    TLS_REFUSED = "tls_refused"
    """The two ends don't agree, about a certificate or about anything else."""
    NONSENSE = "nonsense"
    """The server broke the protocol."""
    UNTRUSTED = "untrusted"
    """It refuses in clear what was to be TLS, as a PostgreSQL does that can't start a process for us."""
    NO_SECRET = "no_secret"
    """We can't or won't give the proof that the server asks for."""
    KEY_UNKNOWN = "key_unknown"
    """What the server would take can't be found out now."""
    INIT_QUERY = "init_query"
    """`init_query` does what it must not."""
    DEFECT = "defect"


_READ = frozenset({Stage.LOGIN, Stage.OPENING})
"""The stages in which the server has the startup parameters."""

Judgement = tuple[Scope, bool]
"""Whom it concerns, and whether it is worth waiting for."""

_CAUSES: dict[Cause, Judgement] = {
    Cause.NAME_UNKNOWN: (Scope.TARGET, False),
    Cause.NAME_UNANSWERED: (Scope.TARGET, True),
    Cause.UNREACHABLE: (Scope.TARGET, True),
    Cause.TIMEOUT: (Scope.TARGET, True),
    Cause.LOST: (Scope.TARGET, True),
    Cause.NO_TLS: (Scope.TARGET, False),
    Cause.TLS_REFUSED: (Scope.TARGET, False),
    Cause.NONSENSE: (Scope.TARGET, False),
    Cause.UNTRUSTED: (Scope.TARGET, True),
    Cause.NO_SECRET: (Scope.POOL, False),
    Cause.KEY_UNKNOWN: (Scope.POOL, True),
    Cause.INIT_QUERY: (Scope.PARAMETERS, False),
    Cause.DEFECT: (Scope.PARAMETERS, False),
}

_UNSURE: Judgement = (Scope.PARAMETERS, False)
_SQLSTATES: dict[str, Judgement] = {
    "28": (Scope.POOL, False),
    "3D": (Scope.POOL, False),
    "53": (Scope.TARGET, True),
    "57014": (Scope.PARAMETERS, True),
    "57P01": (Scope.TARGET, True),
    "57P02": (Scope.TARGET, True),
    "57P03": (Scope.TARGET, True),
    "57P04": (Scope.POOL, False),
}
"""By SQLSTATE, or else by class. What isn't here is `_UNSURE`: above all classes 22 and 42."""

_KEY_REFUSED = frozenset({"28000", "28P01"})
"""What a PostgreSQL says of a wrong password, and of one that some other service finds wrong (PAM, LDAP)."""

_ROUTINES: dict[str, frozenset[str]] = {
    "42501": frozenset({"CheckMyDatabase"}),
    "53300": frozenset({"CheckMyDatabase", "InitializeSessionUserId"}),
    "55000": frozenset({"CheckMyDatabase"}),
}
"""The routines of PostgreSQL that say it of a user or a database: a CONNECTION LIMIT, ALLOW_CONNECTIONS."""


def judge(stage: Stage, what: Cause | str, routine: str = "", replication: bool = False) -> Judgement:
    """
    Say whom a failure concerns, and whether it is worth waiting for.

    `what` is a cause or the SQLSTATE of a server's error, `routine` the error's field R; with `replication`
    the client has asked for a walsender.
    """
    if isinstance(what, Cause):
        scope, passing = _CAUSES[what]
        if stage is Stage.INIT_QUERY or (stage in _READ and scope is Scope.TARGET):
            # How long it takes, and what it does, may depend on them: post_auth_delay is one, and what is
            # longer than a startup packet may be ends the connection without a word.
            scope = Scope.PARAMETERS
        return scope, passing
    scope, passing = _SQLSTATES.get(what) or _SQLSTATES.get(what[:2], _UNSURE)
    if routine in _ROUTINES.get(what, ()):
        scope = Scope.POOL
    if stage is Stage.INIT_QUERY and scope is not Scope.TARGET:
        # It is said of what the statements do, not of the login.
        scope, passing = _UNSURE
    if replication and not what.startswith("57P"):
        # pg_hba.conf and max_wal_senders have rules of their own for them.
        scope = Scope.PARAMETERS
    return scope, passing


@frozen
class Trouble:
    """Why a server could not be opened."""

    complaint: Complaint
    """What the client that waits for it is told."""
    stage: Stage
    scope: Scope
    passing: bool
    """Whether it may be over soon, so that it's worth waiting for."""
    key_refused: bool = False
    """Whether the server has refused what we have logged in with."""


_REFUSALS: dict[Stage, Refusal] = {
    Stage.LOOK_UP: errors.CANNOT_LOOK_UP,
    Stage.CONNECT: errors.CANNOT_CONNECT,
    Stage.TLS: errors.CANNOT_AGREE_ON_TLS,
    Stage.LOGIN: errors.CANNOT_LOG_IN,
    Stage.OPENING: errors.CANNOT_ASK,
    Stage.INIT_QUERY: errors.INIT_QUERY_FAILED,
}
_AWAITED: dict[Stage, str] = {
    Stage.LOOK_UP: "the address of the host",
    Stage.CONNECT: "a connection",
    Stage.TLS: "TLS",
    Stage.LOGIN: "the login",
    Stage.OPENING: "the answer to what sessions begin with",
    Stage.INIT_QUERY: "the end of init_query",
}


def trouble(stage: Stage, cause: Cause, host: str, why: str, database: str) -> Trouble:
    """Say what has gone wrong where no server says it; `why` is a clause."""
    told = complaint(_REFUSALS[stage], detail=f"{host}: {why}.", database=database)
    return Trouble(told, stage, *judge(stage, cause))


def timed_out(stage: Stage, host: str, seconds: float, database: str) -> Trouble:
    """Say for what `connect_timeout` (seconds) was not enough."""
    why = f"no answer within {seconds:g} s (connect_timeout) while waiting for {_AWAITED[stage]}"
    return trouble(stage, Cause.TIMEOUT, host, why, database)


def said_by_server(payload: bytes, message: bytes, replication: bool) -> Trouble:
    """Take over the ErrorResponse that a server refuses the login with; the client gets it as it is."""
    fields = messages.read_error_fields(payload)
    scope, passing = judge(Stage.LOGIN, fields.get("C", ""), fields.get("R", ""), replication)
    key_refused = fields.get("C", "") in _KEY_REFUSED
    return Trouble(errors.from_server(payload, message), Stage.LOGIN, scope, passing, key_refused)


def said_of_init_query(payload: bytes) -> Trouble:
    """Take over a server's error about `init_query`, and say that it is about this."""
    fields = messages.read_error_fields(payload)
    told = errors.about_init_query(fields)
    return Trouble(told, Stage.INIT_QUERY, *judge(Stage.INIT_QUERY, fields.get("C", ""), fields.get("R", "")))
