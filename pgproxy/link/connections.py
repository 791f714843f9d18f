"""
The connections of one pool's servers: opened, asked whether they are still there, and closed.

The law: a server that is closed is `gone` when its connection has ended. PostgreSQL ends it when the process
behind it has given back its place, so a new one opened then finds room. Who does not end within a limit is
cut: `LINGER` seconds for one that has nothing to do, `LINGER_AT_WORK` for one that may still be busy with
what nobody waits for any more.
"""

from __future__ import annotations

from typing import Any, Protocol

from attrs import frozen
from structlog.typing import FilteringBoundLogger
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from pgproxy.auth.secrets import Credentials
from pgproxy.link.asking import Question
from pgproxy.link.opening import open_server
from pgproxy.link.server import Account, Host, OpenFailed, ServerConnection
from pgproxy.link.threads import Threads
from pgproxy.pool.states import CLOSING, CloseReason, Server
from pgproxy.pool.trouble import Stage, Trouble
from pgproxy.wire import messages

LINGER = 5.0
LINGER_AT_WORK = 60.0
"""Seconds."""
_AFTER_LOGIN_FAILED = 0.1
"""Seconds until a server process that has refused us is taken to have given back its place."""
_AT_WORK = frozenset(
    {
        CloseReason.CANCEL_TIMEOUT,
        CloseReason.CLEANING_TIMEOUT,
        CloseReason.QUESTION_TIMEOUT,
        CloseReason.SESSION_LOST,
        CloseReason.NONSENSE,
    }
)


@frozen
class Place:
    """Where the servers of a pool are."""

    target: str
    host: Host
    database: str
    """By the server's name."""
    init_query: str
    """What is run in each server before anybody gets it."""


class Owner(Protocol):
    """Who is told what becomes of a server."""

    def server_opened(self, connection: ServerConnection) -> None:
        """Take the word that a server has logged in."""

    def open_failed(self, record: Server, trouble: Trouble) -> None:
        """Take the word that a server could not be opened; `gone` follows."""

    def server_ended(self, connection: ServerConnection, reason: CloseReason) -> None:
        """Take the word that a connection has ended that nobody has closed."""

    def server_gone(self, record: Server) -> None:
        """Take the word that the connection of a server has ended that was closed."""

    def server_checked(self, record: Server) -> None:
        """Take the word that a server is there."""

    def check_failed(self, record: Server) -> None:
        """Take the word that a server does not answer."""


class Connections:
    """All of one pool."""

    def __init__(
        self, reactor: Any, threads: Threads, user: str, owner: Owner, log: FilteringBoundLogger
    ) -> None:
        self._reactor = reactor
        self._threads = threads
        self._user = user
        self._owner = owner
        self._log = log
        self._open: dict[Server, ServerConnection] = {}
        self._opening: dict[Server, Deferred[None]] = {}
        self._checking: dict[Server, float] = {}
        """Since when they have been asked."""

    def __getitem__(self, record: Server) -> ServerConnection:
        """Give a server's connection. Raises KeyError."""
        return self._open[record]

    def get(self, record: Server) -> ServerConnection | None:
        """Give a server's connection, if there is one."""
        return self._open.get(record)

    # Opening.

    def open(self, record: Server, place: Place, credentials: Credentials, connect_timeout: float) -> None:
        """Open a server; it has `connect_timeout` seconds."""
        connection = ServerConnection(
            record,
            place.host,
            Account(self._user, place.database, credentials),
            self._threads,
            place.init_query.encode(),
            self._ended,
            self._log.bind(server=record.number, database=place.database[:128], target=place.target),
        )
        coroutine = open_server(self._reactor, self._threads, connection, connect_timeout)
        opening = Deferred.fromCoroutine(coroutine)
        opening.addTimeout(connect_timeout, self._reactor)
        opened = opening.addCallbacks(self._opened, self._failed, errbackArgs=(connection,))
        self._opening[record] = opened
        opened.addErrback(self._defect)
        if opened.called:
            self._opening.pop(record, None)

    def _opened(self, connection: ServerConnection) -> None:
        record = connection.record
        self._opening.pop(record, None)
        self._open[record] = connection
        connection.since = self._reactor.seconds()
        connection.log.info(
            "server_opened", host=str(connection.host), tls=connection.transport.tls is not None
        )
        self._owner.server_opened(connection)

    def _failed(self, failure: Failure, connection: ServerConnection) -> None:
        record = connection.record
        self._opening.pop(record, None)
        if record.state is CLOSING:
            self._owner.server_gone(record)
            return
        error = failure.value
        assert isinstance(error, OpenFailed)
        trouble = error.trouble
        why = trouble.complaint
        connection.log.warning(
            "server_open_failed",
            stage=trouble.stage.value,
            host=str(connection.host),
            scope=trouble.scope.value,
            passing=trouble.passing,
            sqlstate=why.sqlstate,
            text=why.text,
            detail=why.detail,
        )
        self._owner.open_failed(record, trouble)
        if trouble.stage in (Stage.LOOK_UP, Stage.CONNECT):
            self._owner.server_gone(record)
        else:
            self._reactor.callLater(_AFTER_LOGIN_FAILED, self._owner.server_gone, record)

    def _defect(self, failure: Failure) -> None:
        self._log.error("defect", failure=failure.getTraceback())

    # Checking.

    def check(self, record: Server) -> None:
        """Ask a server whether it is there. A Sync leaves the session as it is."""
        connection = self._open[record]
        self._checking[record] = self._reactor.seconds()
        Question(connection, lambda _replies: self._there(connection)).ask(messages.SYNC)

    def _there(self, connection: ServerConnection) -> None:
        record = connection.record
        connection.rest()
        if self._checking.pop(record, None) is not None:
            self._owner.server_checked(record)

    def check_overdue(self, limit: float) -> None:
        """Give up servers that have not answered for over `limit` seconds."""
        for record, since in list(self._checking.items()):
            if self._reactor.seconds() - since > limit:
                self._owner.check_failed(record)

    # The end.

    def close(self, record: Server, reason: CloseReason) -> None:
        """Say goodbye to a server."""
        opening = self._opening.get(record)
        if opening is not None:
            opening.cancel()
            return
        self._checking.pop(record, None)
        connection = self._open.pop(record)
        connection.log.info("server_closed", reason=reason.value)
        connection.closed.addCallback(lambda _: self._owner.server_gone(record))
        connection.close(LINGER_AT_WORK if reason in _AT_WORK else LINGER)

    def _ended(self, connection: ServerConnection, reason: CloseReason) -> None:
        self._open.pop(connection.record, None)
        self._checking.pop(connection.record, None)
        self._owner.server_ended(connection, reason)
