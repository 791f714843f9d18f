"""Performs what a pool decides: opens, links, cleans, cancels and closes server connections."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from secrets import token_hex
from typing import Any

from attrs import frozen
from structlog.typing import FilteringBoundLogger
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectionClosed
from twisted.python.failure import Failure

from pgproxy.auth.secrets import Credentials
from pgproxy.link.cancel import Outcome, cancel_at
from pgproxy.link.checking import Checks
from pgproxy.link.connect import CannotConnect, connect
from pgproxy.link.release import Releasing
from pgproxy.link.server import Account, Host, OpenFailed, ServerConnection
from pgproxy.link.splice import Borrower
from pgproxy.link.threads import Threads
from pgproxy.link.transport import Stream
from pgproxy.pool.pool import Close, Link, Open, Pool, Refuse, Todo
from pgproxy.pool.release import Leftover
from pgproxy.pool.states import CloseReason, Parameters, Server
from pgproxy.session.ledger import Ledger
from pgproxy.session.reported import Reported
from pgproxy.session.server import Habits, ServerSession
from pgproxy.session.settings import Settings
from pgproxy.session.statements import ServerStatements
from pgproxy.wire import errors
from pgproxy.wire.errors import Complaint, complaint

_OUR_NAMES = b"pgproxy_" + token_hex(4).encode() + b"_"
"""How the names begin that we give to prepared statements; not to be guessed, so nobody else's do."""
_WELCOMES_KEPT = 100
"""Sets of startup parameters for which a pool remembers how a server greets."""


@frozen
class Limits:
    """Limits of a pool; seconds where not said otherwise."""

    size: int
    """Servers."""
    borrow_timeout: float
    connect_timeout: float
    cancel_timeout: float
    prepared_statements: int
    """Statements that a server keeps prepared."""
    session_mode: bool
    """Whether a server is cleaned for whoever comes next, since they may be of session mode."""


@frozen
class Place:
    """Where the servers of a pool are."""

    target: str
    host: Host
    database: str
    """By the server's name."""


class ServerLender:
    """The servers of one pool, and the pool that decides about them."""

    def __init__(
        self,
        reactor: Any,
        threads: Threads,
        place: Place,
        user: str,
        limits: Limits,
        neighbours: Neighbours,
        log: FilteringBoundLogger,
    ) -> None:
        self._reactor = reactor
        self._threads = threads
        self.place = place
        """Where servers are opened from now on."""
        self._user = user
        self._limits = limits
        self._log = log.bind(database=place.database[:128], target=place.target)
        self._neighbours = neighbours
        self._habits = Habits()
        self._checks = Checks(
            self._lend_idle,
            self.hand_on,
            partial(self.retire, CloseReason.DEFAULTS_CHANGED),
            reactor,
            self._log,
        )
        self._pool: Pool[Borrower] = Pool(limits.size, limits.borrow_timeout, self._new_session)
        self._connections: dict[Server, ServerConnection] = {}
        self._borrowers: dict[Server, Borrower] = {}
        self._releasing: dict[Server, Releasing] = {}
        self._timer: Any = None
        self._dismissed: Complaint | None = None
        """Why nobody gets a server here any more, if so."""
        self.clients = 0
        """How many clients may borrow here."""
        self.credentials = Credentials()
        """What the client that logged in last has given us to log in with."""
        self.welcomes: dict[Parameters, Reported] = {}
        """By startup parameters, what the server that was opened last reported when we had logged in."""

    @property
    def pool(self) -> Pool[Borrower]:
        """What decides, for those who want to look."""
        return self._pool

    @property
    def releasing(self) -> int:
        """How many servers are being made fit for the next client, or ended."""
        return len(self._releasing)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to keep."""
        return not self.clients and self._pool.empty

    # What borrowers ask.

    def borrow(
        self, client: Borrower, parameters: Parameters, settings: Settings, home: ServerSession | None
    ) -> None:
        """Ask for a server."""
        if self._dismissed is not None:
            client.refused(self._dismissed)
            return
        self._do(self._pool.borrow(client, parameters, self._reactor.seconds(), settings, home))

    def take(
        self, client: Borrower, parameters: Parameters, settings: Settings, home: ServerSession | None
    ) -> ServerConnection | None:
        """Lend a server that is idle and fits, where nobody waits for one; else do nothing."""
        if self._dismissed is not None:
            return None
        record = self._pool.take(parameters, settings, home)
        if record is None:
            return None
        self._borrowers[record] = client
        return self._connections[record]

    def leave(self, client: Borrower) -> None:
        """Take a client out of the queue."""
        self._pool.leave(client)

    def check(self, patient: bool) -> Deferred[None]:
        """
        See whether new servers would begin with other settings; fires when that is known.

        Without patience only an idle server is asked.
        """
        if not self._pool.servers or not (patient or self._pool.idle):
            return succeed(None)
        return self._checks.check()

    def _lend_idle(self, check: Borrower) -> bool:
        todo = self._pool.lend_idle(check)
        self._do(todo)
        return bool(todo)

    def hand_on(self, server: ServerConnection) -> None:
        """Take back a server in which nothing is left."""
        if self._limits.session_mode:
            self.give_back(server, Leftover(Ledger(), used=True))
            return
        record = server.record
        del self._borrowers[record]
        server.rest()
        if self._pool.put(record):
            if self._checks.wanted:
                self._checks.idle()
            return
        self._pool.given_back(record)
        todo = self._pool.cleaned(record)
        if todo:
            self._do(todo)
        elif self._checks.wanted:
            self._checks.idle()

    def give_up(self, server: ServerConnection, reason: CloseReason) -> None:
        """Close a server."""
        self._borrowers.pop(server.record)
        self._close(server, reason)

    def make_way(self, databases: tuple[bytes, ...]) -> None:
        """Have the idle servers of all pools leave these databases."""
        for lender in self._neighbours():
            if lender.place.database.encode() in (*databases, b"template1"):
                lender.retire(CloseReason.IN_THE_WAY)

    def defaults_changed(self) -> None:
        """Have all pools open new servers from now on."""
        for lender in self._neighbours():
            lender.retire(CloseReason.DEFAULTS_CHANGED)

    def retire(self, reason: CloseReason) -> None:
        """Have none of today's servers serve anybody else."""
        self.welcomes.clear()
        self._do(self._pool.retire(reason))

    def give_back(self, server: ServerConnection, left: Leftover) -> None:
        """Make a server fit for the next client."""
        record = server.record
        self._borrowers.pop(record)
        self._pool.given_back(record)
        releasing = Releasing(server, left, self._reactor.seconds, self.cancel, self._ready, self._close)
        self._releasing[record] = releasing
        releasing.start()

    def cancel(self, server: ServerConnection) -> Deferred[None]:
        """Send a cancel request to a server; until its fate is known, the server is not handed on."""
        if not server.pid:
            return succeed(None)
        server.cancels += 1
        waited = Deferred.fromCoroutine(
            cancel_at(self._reactor, self._threads, server.host, server.pid, server.secret)
        )
        waited.addTimeout(
            self._limits.cancel_timeout,
            self._reactor,
            onTimeoutCancel=lambda _value, _seconds: Outcome.IN_DOUBT,
        )
        waited.addErrback(lambda _failure: Outcome.IN_DOUBT)
        return waited.addCallback(self._cancelled, server)

    def _cancelled(self, outcome: Outcome, server: ServerConnection) -> None:
        server.cancels -= 1
        if outcome is Outcome.IN_DOUBT:
            server.cancel_in_doubt = True
        self._log.info("cancel_sent", server=server.record.number, outcome=outcome.value)
        releasing = self._releasing.get(server.record)
        borrower = self._borrowers.get(server.record)
        if releasing is not None:
            releasing.proceed()
        elif borrower is not None:
            borrower.cancel_sent()

    # What the owner asks.

    def configure(self, place: Place, limits: Limits, moved: bool) -> None:
        """Take other limits, and where servers are opened from now on; `moved` if today's are elsewhere."""
        self.place = place
        self._limits = limits
        self._dismissed = None
        self._pool.borrow_timeout = limits.borrow_timeout
        if moved:
            self._log = self._log.bind(database=place.database[:128], target=place.target)
            self._habits = Habits()
            self.retire(CloseReason.MOVED)
        self._do(self._pool.resize(limits.size))

    def dismiss(self, why: Complaint) -> None:
        """Give nobody a server any more; who has one keeps it for as long as the link lasts."""
        self._dismissed = why
        self._do(self._pool.refuse(why))
        self.retire(CloseReason.REMOVED)

    def check_overdue(self) -> None:
        """Close the servers whose cleaning does not end, or that don't answer what we ask."""
        for releasing in list(self._releasing.values()):
            if releasing.overdue(self._limits.cancel_timeout):
                releasing.give_up()
        for record, borrower in list(self._borrowers.items()):
            if borrower.overdue(self._limits.cancel_timeout):
                connection = self._connections[record]
                del self._borrowers[record]
                borrower.server_lost(connection, CloseReason.QUESTION_TIMEOUT)
                self._close(connection, CloseReason.QUESTION_TIMEOUT)

    def close_all(self) -> None:
        """Close every server; the linked ones' clients are told."""
        for record in list(self._pool.servers):
            borrower = self._borrowers.get(record)
            connection = self._connections.get(record)
            if borrower is not None and connection is not None:
                borrower.server_lost(connection, CloseReason.SHUTDOWN)
            self._do(self._pool.close(record, CloseReason.SHUTDOWN))

    # What the pool decides.

    def _new_session(self) -> ServerSession:
        statements = ServerStatements(_OUR_NAMES, self._limits.prepared_statements)
        return ServerSession(self._user.encode(), statements, self._habits)

    def _do(self, todo: Iterable[Todo[Borrower]]) -> None:
        for item in todo:
            match item:
                case Link(client, record):
                    self._borrowers[record] = client
                    client.linked(self._connections[record])
                case Open(record):
                    self._open(record)
                case Close(record, reason):
                    self._shut(record, reason)
                case Refuse(client, why):
                    client.refused(why)
        self._watch_the_queue()

    def _open(self, record: Server) -> None:
        account = Account(self._user, self.place.database, self.credentials)
        log = self._log.bind(server=record.number)
        connection = ServerConnection(
            record, self.place.host, account, self._threads, self._server_ended, log
        )
        opening = Deferred.fromCoroutine(self._connect(connection))
        opening.addTimeout(self._limits.connect_timeout, self._reactor)
        opening.addCallbacks(self._opened, self._failed, errbackArgs=(record,))
        opening.addErrback(self._defect)

    async def _connect(self, connection: ServerConnection) -> ServerConnection:
        host = connection.host
        sock = await connect(self._reactor, self._threads, host.name, host.port)
        connection.makeConnection(Stream(sock, connection, self._reactor))
        return await connection.opened

    def _opened(self, connection: ServerConnection) -> None:
        record = connection.record
        if record not in self._pool.servers:
            connection.close()
            return
        self._connections[record] = connection
        if len(self.welcomes) >= _WELCOMES_KEPT:
            self.welcomes.pop(next(iter(self.welcomes)))
        self.welcomes[record.parameters] = record.session.greeting
        connection.log.info(
            "server_opened", host=str(connection.host), tls=connection.transport.tls is not None
        )
        self._do(self._pool.opened(record))

    def _failed(self, failure: Failure, record: Server) -> None:
        error = failure.value
        if isinstance(error, OpenFailed):
            why = error.complaint
        else:
            if isinstance(error, CannotConnect):
                reason = str(error)
            elif isinstance(error, (DeferredTimeout, CancelledError)):
                reason = f"no login within {self._limits.connect_timeout:g} s (connect_timeout)"
            elif isinstance(error, ConnectionClosed):
                reason = failure.getErrorMessage()
            else:
                self._defect(failure)
                reason = "a defect in pgproxy; its log says more"
            detail = f"{self.place.host}: {reason}."
            why = complaint(errors.CANNOT_CONNECT, detail=detail, database=self.place.database)
        self._log.warning(
            "server_open_failed",
            server=record.number,
            host=str(self.place.host),
            sqlstate=why.sqlstate,
            text=why.text,
            detail=why.detail,
        )
        self._do(self._pool.failed(record, why))

    def _defect(self, failure: Failure) -> None:
        self._log.error("defect", failure=failure.getTraceback())

    def _ready(self, server: ServerConnection) -> None:
        del self._releasing[server.record]
        self._do(self._pool.cleaned(server.record))
        if self._checks.wanted:
            self._checks.idle()

    def _close(self, server: ServerConnection, reason: CloseReason) -> None:
        self._do(self._pool.close(server.record, reason))

    def _shut(self, record: Server, reason: CloseReason) -> None:
        self._forget(record)
        connection = self._connections.pop(record, None)
        if connection is not None:
            connection.log.info("server_closed", reason=reason.value)
            connection.close()

    def _server_ended(self, connection: ServerConnection, reason: CloseReason) -> None:
        record = connection.record
        self._connections.pop(record, None)
        if reason is CloseReason.LOST and record in self._releasing:
            reason = self._releasing[record].why_it_ends
        connection.log.info("server_closed", reason=reason.value, state=record.state.name.lower())
        borrower = self._forget(record)
        todo = self._pool.lost(record, reason)
        if borrower is not None:
            borrower.server_lost(connection, reason)
        self._do(todo)

    def _forget(self, record: Server) -> Borrower | None:
        self._releasing.pop(record, None)
        return self._borrowers.pop(record, None)

    # The clock.

    def _watch_the_queue(self) -> None:
        deadline = self._pool.deadline
        if deadline is not None and self._timer is None:
            wait = max(0.0, deadline - self._reactor.seconds())
            self._timer = self._reactor.callLater(wait, self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._do(self._pool.expire(self._reactor.seconds()))


Neighbours = Callable[[], Iterable[ServerLender]]
"""Gives the lenders of all pools of a target."""
