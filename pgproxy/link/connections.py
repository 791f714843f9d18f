"""
The connections of one pool's servers: opened, asked whether they are still there, and closed.

The law: a server that is closed is `gone` when its connection has ended. PostgreSQL ends it when the process
behind it has given back its place, so a new one opened then finds room. Who does not end within a limit is
cut: `LINGER` seconds for one that has nothing to do, `LINGER_AT_WORK` for one that may still be busy with
what nobody waits for any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Protocol

from attrs import frozen
from structlog.typing import FilteringBoundLogger
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from pgproxy.auth.secrets import Credentials
from pgproxy.link.asking import Question
from pgproxy.link.keys import AFTER_LOGIN_FAILED, open_with_keys
from pgproxy.link.opening import open_server
from pgproxy.link.server import Account, Host, OpenFailed, ServerConnection
from pgproxy.link.threads import Threads
from pgproxy.link.vault import Vault
from pgproxy.pool.states import CLOSING, CloseReason, Server
from pgproxy.pool.trouble import Scope, Stage, Trouble
from pgproxy.wire import errors, messages
from pgproxy.wire.errors import complaint

LINGER = 5.0
LINGER_AT_WORK = 60.0
"""Seconds."""
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
    writer_only: bool = False
    """Whether a server in recovery is of no use."""


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

    __slots__ = (
        "_checking",
        "_log",
        "_logged_in",
        "_opening",
        "_owner",
        "_reactor",
        "_threads",
        "_user",
        "_vault",
    )

    def __init__(
        self,
        reactor: Any,
        threads: Threads,
        user: str,
        owner: Owner,
        log: FilteringBoundLogger,
        vault: Vault | None = None,
    ) -> None:
        self._reactor = reactor
        self._threads = threads
        self._user = user
        self._owner = owner
        self._log = log
        self._vault = vault
        self._logged_in: dict[Server, None] = {}
        """Those that are logged in: `Server.connection` has their connections."""
        self._opening: dict[Server, Deferred[None]] = {}
        self._checking: dict[Server, float] = {}
        """Since when they have been asked."""

    def __iter__(self) -> Iterator[ServerConnection]:
        """Give those that are logged in, which must not change meanwhile."""
        return (record.connection for record in self._logged_in)

    @property
    def with_tls(self) -> int:
        """How many of them have TLS."""
        return sum(connection.transport.tls is not None for connection in self)

    # Opening.

    def open(self, record: Server, place: Place, credentials: Credentials, connect_timeout: float) -> None:
        """Open a server; each attempt to log in has `connect_timeout` seconds."""
        vault, user = self._vault, self._user
        make = partial(self._connection, record, place)
        attempt = partial(self._attempt, seconds=connect_timeout)
        if vault is not None and vault.has_keys(user):
            opening = Deferred.fromCoroutine(open_with_keys(self._reactor, vault, user, make, attempt))
        else:
            opening = attempt(make(credentials))
        opened = opening.addCallbacks(
            self._opened, self._failed, callbackArgs=(place.writer_only,), errbackArgs=(record, place)
        )
        self._opening[record] = opened
        opened.addErrback(self._defect)
        if opened.called:
            self._opening.pop(record, None)

    def _connection(self, record: Server, place: Place, credentials: Credentials) -> ServerConnection:
        return ServerConnection(
            record,
            place.host,
            Account(self._user, place.database, credentials),
            self._threads,
            place.init_query.encode(),
            self._ended,
            self._log_of(record, place),
        )

    def _log_of(self, record: Server, place: Place) -> FilteringBoundLogger:
        return self._log.bind(server=record.number, database=place.database[:128], target=place.target)

    def _attempt(self, connection: ServerConnection, seconds: float) -> Deferred[ServerConnection]:
        coroutine = open_server(self._reactor, self._threads, connection, seconds)
        return Deferred.fromCoroutine(coroutine).addTimeout(seconds, self._reactor)

    def _opened(self, connection: ServerConnection, writer_only: bool) -> None:
        record = connection.record
        self._opening.pop(record, None)
        if writer_only and connection.in_recovery:
            self._not_the_writer(connection)
            return
        self._enter(connection)
        connection.since = self._reactor.seconds()
        connection.log.info(
            "server_opened", host=str(connection.host), tls=connection.transport.tls is not None
        )
        self._owner.server_opened(connection)

    def _enter(self, connection: ServerConnection) -> None:
        connection.record.connection = connection
        self._logged_in[connection.record] = None

    def _not_the_writer(self, connection: ServerConnection) -> None:
        """Close a server that nobody who wants to write can use."""
        record = connection.record
        why = complaint(errors.NOT_THE_WRITER, detail=f"{connection.host} is in recovery.")
        connection.log.warning(
            "server_open_failed", host=str(connection.host), text=why.text, detail=why.detail
        )
        connection.closed.addCallback(lambda _: self._owner.server_gone(record))
        connection.close(LINGER)
        self._owner.open_failed(record, Trouble(why, Stage.OPENING, Scope.TARGET, passing=True))

    def _failed(self, failure: Failure, record: Server, place: Place) -> None:
        self._opening.pop(record, None)
        if record.state is CLOSING:
            self._owner.server_gone(record)
            return
        error = failure.value
        assert isinstance(error, OpenFailed)
        trouble = error.trouble
        why = trouble.complaint
        self._log_of(record, place).warning(
            "server_open_failed",
            stage=trouble.stage.value,
            host=str(place.host),
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
            self._reactor.callLater(AFTER_LOGIN_FAILED, self._owner.server_gone, record)

    def _defect(self, failure: Failure) -> None:
        self._log.error("defect", failure=failure.getTraceback())

    # Checking.

    def check(self, record: Server) -> None:
        """Ask a server whether it is there. A Sync leaves the session as it is."""
        connection = record.connection
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
        connection = self._forget(record)
        assert connection is not None
        connection.log.info("server_closed", reason=reason.value)
        connection.closed.addCallback(lambda _: self._owner.server_gone(record))
        connection.close(LINGER_AT_WORK if reason in _AT_WORK else LINGER)

    def _ended(self, connection: ServerConnection, reason: CloseReason) -> None:
        self._forget(connection.record)
        self._owner.server_ended(connection, reason)

    def _forget(self, record: Server) -> ServerConnection | None:
        """Have no connection of a server's any more; give what it was."""
        self._checking.pop(record, None)
        self._logged_in.pop(record, None)
        connection: ServerConnection | None = record.connection
        record.connection = None
        return connection
