"""
The protocol that talks to PostgreSQL: TLS, login, and the quiet life between two links.

While a server is linked or being released, its bytes go to whoever `receive` names.
Documentation: PostgreSQL manual, "Start-up" and "SSL Session Encryption".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import field, frozen
from structlog.typing import FilteringBoundLogger
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from pgproxy.auth.secrets import Credentials
from pgproxy.auth.server_leg import ServerLogin
from pgproxy.auth.steps import Accepted, Answer, Derive, Refused, Wait
from pgproxy.link.asking import Question, said_unasked
from pgproxy.link.ends import cause_of_end, end_in_words
from pgproxy.link.initialising import Initialising
from pgproxy.link.keepalive import Keepalive
from pgproxy.link.threads import Threads
from pgproxy.link.tls import ServerLegTls, peer_end_point
from pgproxy.link.transport import Stream
from pgproxy.pool.states import CloseReason, Server
from pgproxy.pool.trouble import (
    Cause,
    Stage,
    Trouble,
    judge,
    said_by_server,
    said_of_init_query,
    timed_out,
    trouble,
)
from pgproxy.session.hidden import HIDING_REMEDY
from pgproxy.session.initial import InitQueryFailed
from pgproxy.session.opening import opening_question, read_opening
from pgproxy.session.question import NoAnswer
from pgproxy.targets.facts import Address
from pgproxy.twin import quicken
from pgproxy.wire import errors, messages, tags
from pgproxy.wire.errors import complaint
from pgproxy.wire.skim import HEADER, Malformed, Skimmer
from pgproxy.wire.startup import ssl_request, startup_message

if TYPE_CHECKING:
    from pgproxy.link.splice import Borrower
    from pgproxy.link.vault import Vault

_LOGIN_MESSAGE_LIMIT = 64 * 1024
"""Bytes: what a message of the server's may have during login."""
_MOST_SAID = 10
"""Errors that a server may say while nobody has it: all are in the log."""


@frozen
class Host:
    """One PostgreSQL instance."""

    name: str
    port: int
    tls: ServerLegTls
    keepalive: Keepalive
    tls_name: str = ""
    """The name that its certificate has to have, if that is another."""

    @property
    def address(self) -> Address:
        """What names it."""
        return Address(self.name, self.port)

    def __str__(self) -> str:
        return str(self.address)


@frozen
class Account:
    """As whom a server is logged in to, and for which database."""

    user: str
    database: str
    credentials: Credentials
    vault: Vault | None = field(default=None, eq=False, repr=False)
    """Who is asked for other credentials, where it has some for the user."""


class OpenFailed(Exception):
    """A server could not be opened."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.complaint.text)
        self.trouble = trouble


@quicken
class ServerConnection(Protocol):
    """
    One connection to a server.

    `opened` fires when it is logged in, or fails with `OpenFailed`; after that, `on_lost` is called once with
    the reason when the connection ends or has to.
    """

    __slots__ = (
        "_account",
        "_at_rest",
        "_ended",
        "_logged_in",
        "_login",
        "_on_lost",
        "_question",
        "_reader",
        "_threads",
        "borrower",
        "cancel_in_doubt",
        "cancels",
        "capacity",
        "closed",
        "host",
        "in_mid_message",
        "in_recovery",
        "init_query",
        "log",
        "opened",
        "pid",
        "receive",
        "record",
        "secret",
        "since",
        "skim",
        "stage",
        "transport",
    )
    transport: Stream

    def __init__(
        self,
        record: Server,
        host: Host,
        account: Account,
        threads: Threads,
        init_query: bytes,
        on_lost: Callable[[ServerConnection, CloseReason], None],
        log: FilteringBoundLogger,
    ) -> None:
        self.record = record
        self.host = host
        self.init_query = init_query
        """What is run in it before anybody gets it; empty for nothing."""
        self.log = log
        self.stage = Stage.LOOK_UP
        """How far its opening has come."""
        self.pid = 0
        self.secret = b""
        self.since = 0.0
        """When it had logged in, by the reactor's clock."""
        self.skim = Skimmer(tags.FROM_SERVER)
        self.cancels = 0
        """Cancel requests on their way to this server."""
        self.cancel_in_doubt = False
        """Whether a cancel request was sent that may yet arrive."""
        self.in_mid_message = False
        """Whether what we have sent ends in the middle of a message, and its rest never comes."""
        self.opened: Deferred[ServerConnection] = Deferred(self._give_up)
        self.closed: Deferred[None] = Deferred()
        """Fires when the connection has ended."""
        self.capacity: int | None = None
        """How many connections the server allows those who are no superusers, if it has said so."""
        self.in_recovery = False
        """Whether it was in recovery when it was opened, as a standby is."""
        self.borrower: Borrower | None = None
        """Who has it."""
        self.receive: Callable[[bytes], None] = self._tls_answer
        self._at_rest = self._idle
        """Made once, not each time that it is to `rest`."""
        self._account = account
        self._threads = threads
        self._on_lost = on_lost
        self._reader = messages.MessageReader(_LOGIN_MESSAGE_LIMIT)
        self._login: ServerLogin | None = None
        self._logged_in = False
        self._ended = False
        self._question: Question | None = None
        self._said = 0
        """Errors that it has said while nobody had it: with the first it usually ends."""

    def connectionMade(self) -> None:
        """Ask for TLS, or start up."""
        self.stage = Stage.TLS
        if self.host.tls.mode == "disable":
            self._start_up()
        else:
            self.transport.write(ssl_request())

    def rest(self) -> None:
        """Be idle: only what a server may say unasked is expected."""
        self.receive = self._at_rest

    def say_goodbye(self) -> None:
        """Say that nothing more comes; the server ends the connection when it is done with what it has."""
        # In the middle of a message a Terminate would be taken for a part of it.
        if not self.in_mid_message:
            self.transport.write(messages.TERMINATE)
        self.transport.finishWriting()

    def close(self, linger: float) -> None:
        """Say goodbye, and give the server so many seconds to end the connection; `closed` fires then."""
        self._ended = True
        if not self.in_mid_message:
            self.transport.write(messages.TERMINATE)
        self.transport.loseConnection(linger)

    def spoke_nonsense(self, error: Malformed) -> None:
        """End a connection on which the server broke the protocol."""
        self.log.warning("server_spoke_nonsense", what=str(error))
        if not self.opened.called:
            self._fail(self.trouble(Cause.NONSENSE, f"the server broke the protocol: {error}"))
            return
        self._end(CloseReason.NONSENSE)
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        """Tell whom it concerns."""
        if not self.opened.called:
            self._fail(self.trouble(cause_of_end(reason), f"the connection ended: {end_in_words(reason)}"))
        self._end(CloseReason.LOST)
        self.closed.callback(None)

    def _give_up(self, _opened: Deferred[ServerConnection]) -> None:
        self._ended = True
        self.transport.abortConnection()

    def _end(self, reason: CloseReason) -> None:
        if not self._ended:
            self._ended = True
            self._on_lost(self, reason)

    # TLS.

    def _tls_answer(self, data: bytes) -> None:
        tls = self.host.tls
        if data == b"S":
            assert tls.context is not None
            self.transport.startTLS(
                tls.context, server_side=False, server_hostname=self.host.tls_name or self.host.name
            )
        elif data == b"N":
            if tls.mode == "prefer":
                self._start_up()
            else:
                self._fail(
                    self.trouble(Cause.NO_TLS, f"the server has no TLS, and tls = {tls.mode!r} asks for it")
                )
        elif data[:1] == b"E":
            # Anybody on the way may have sent this: its text is not for the client's eyes (CVE-2024-10977).
            self._fail(self.trouble(Cause.UNTRUSTED, "the server answers the request for TLS with an error"))
        else:
            self._fail(self.trouble(Cause.NONSENSE, "its answer to the request for TLS makes no sense"))

    def handshakeCompleted(self) -> None:
        """Start up, now that nobody else can read it."""
        self._start_up()

    # Login.

    def _start_up(self) -> None:
        self.stage = Stage.LOGIN
        account = self._account
        tls = self.transport.tls
        self._login = ServerLogin(
            account.user,
            account.credentials,
            tls=tls is not None,
            channel_binding=peer_end_point(tls) if tls is not None else None,
        )
        self.receive = self._logging_in
        self.transport.write(startup_message(account.user, account.database, self.record.parameters))

    def _logging_in(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while not self.opened.called and (came := self._reader.next()) is not None:
                self._login_message(*came)
        except Malformed as error:
            self.spoke_nonsense(error)

    def _login_message(self, tag: int, payload: bytes) -> None:
        if tag == tags.AUTHENTICATION and not self._logged_in and self._login is not None:
            self._take(self._login.received(*messages.read_authentication(payload)))
        elif tag == tags.ERROR_RESPONSE:
            self._fail(said_by_server(payload, messages.message(tag, payload), self.replication))
        elif tag == tags.NOTICE_RESPONSE:
            pass
        elif tag == tags.NEGOTIATE_PROTOCOL_VERSION and not self._logged_in:
            pass
        elif tag == tags.PARAMETER_STATUS and self._logged_in:
            self.record.session.status(payload)
        elif tag == tags.BACKEND_KEY_DATA and self._logged_in:
            self.pid, self.secret = messages.read_backend_key_data(payload)
            self.record.session.pid = payload[:4]
        elif tag == tags.READY_FOR_QUERY and self._logged_in and payload == b"I":
            more = said_unasked(self._reader)
            self._ask()
            if more:
                self.dataReceived(more)
        else:
            raise Malformed(f"a message of type {tag} where none is due")

    def _ask(self) -> None:
        """Learn what sessions begin with; a walsender need not understand the question."""
        session = self.record.session
        if self.replication:
            session.greeting = session.reported
            self.opened.callback(self)
            return
        self.stage = Stage.OPENING
        self._question = Question(self, self._answered)
        self._question.ask(opening_question(session.user))

    def _answered(self, replies: list[tuple[int, bytes]]) -> None:
        session = self.record.session
        try:
            opening = read_opening(replies)
        except (NoAnswer, Malformed) as error:
            self.log.warning("opening_question_failed", why=str(error)[:200])
        else:
            session.defaults = opening.defaults
            session.database = opening.database
            if session.habits.opened(opening.hidden):
                self.log.warning("hiding_found", remedy=HIDING_REMEDY)
            session.role = opening.role
            self.capacity = opening.capacity
            self.in_recovery = opening.in_recovery
        if self.init_query:
            self.stage = Stage.INIT_QUERY
            Initialising(self, self._ready, self._not_initialised).begin()
        else:
            self._ready()

    def _not_initialised(self, error: InitQueryFailed) -> None:
        if error.said:
            self._fail(said_of_init_query(error.said))
        else:
            self._fail(self.trouble(Cause.INIT_QUERY, str(error)))

    def _ready(self) -> None:
        session = self.record.session
        session.greeting = session.reported
        self.rest()
        self.opened.callback(self)

    def _take(self, step: object) -> None:
        match step:
            case Answer(payload):
                self.transport.write(messages.password(payload))
            case Wait():
                pass
            case Derive(password, salt, iterations):
                Deferred.fromCoroutine(self._derive(password, salt, iterations)).addErrback(self._broke)
            case Accepted():
                self._logged_in = True
            case Refused(reason, detail):
                self.log.warning("server_login_refused", reason=reason.value, detail=detail)
                why = complaint(errors.SERVER_LOGIN_REFUSED, detail=detail, user=self._account.user)
                self._fail(Trouble(why, self.stage, *judge(self.stage, Cause.NO_SECRET)))
            case _:
                raise TypeError(step)

    async def _derive(self, password: bytes, salt: bytes, iterations: int) -> None:
        key = await self._threads.derive(password, salt, iterations)
        if not self.opened.called and self._login is not None:
            self._take(self._login.derived(key))

    def _broke(self, failure: Failure) -> None:
        self._fail(self.defect(failure))

    # What goes wrong.

    @property
    def replication(self) -> bool:
        """Whether it is to be a walsender."""
        return any(name == "replication" for name, _value in self.record.parameters)

    def trouble(self, cause: Cause, why: str) -> Trouble:
        """Say why it can't be opened; `why` is a clause."""
        return trouble(self.stage, cause, str(self.host), why, self._account.database)

    def timed_out(self, seconds: float) -> Trouble:
        """Say for what `connect_timeout` (seconds) was not enough."""
        return timed_out(self.stage, str(self.host), seconds, self._account.database)

    def defect(self, failure: Failure) -> Trouble:
        """Log a defect of ours, and say that there is one."""
        self.log.error("defect", failure=failure.getTraceback())
        return self.trouble(Cause.DEFECT, "a defect in pgproxy; its log says more")

    def _fail(self, what: Trouble) -> None:
        self._ended = True
        self.transport.abortConnection()
        if not self.opened.called:
            self.opened.errback(Failure(OpenFailed(what)))

    # Between two links.

    def _idle(self, data: bytes) -> None:
        try:
            run, frames = self.skim.feed(data)
            for tag, start, stop in frames:
                if tag == tags.PARAMETER_STATUS:
                    self.record.session.status(run[start + HEADER : stop])
                    continue
                if tag == tags.NOTIFICATION_RESPONSE:
                    continue
                if tag != tags.ERROR_RESPONSE:
                    raise Malformed(f"a message of type {tag} that nobody asked for")
                self._said += 1
                if self._said > _MOST_SAID:
                    raise Malformed("errors without an end that nobody asked for")
                fields = messages.read_error_fields(run[start + HEADER : stop])
                self.log.info("server_says", sqlstate=fields.get("C"), text=fields.get("M", "")[:200])
        except Malformed as error:
            self.spoke_nonsense(error)


# What comes goes to the phase we are in, without a call in between.
ServerConnection.dataReceived = ServerConnection.__dict__["receive"]  # type: ignore[method-assign]
