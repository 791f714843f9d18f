"""
The protocol an application talks to: startup and login; after that, a `Splice` has the connection.

Documentation: PostgreSQL manual, "Start-up".
"""

from __future__ import annotations

import ssl
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from pgproxy.auth.secrets import Credentials
from pgproxy.link.front import Front, Visit
from pgproxy.link.lender import ServerLender
from pgproxy.link.login import Login, LoginRefused
from pgproxy.link.reading import ReadingLender
from pgproxy.link.server import ServerConnection
from pgproxy.link.splice import TERMINATED, Splice, Terms
from pgproxy.link.startup import Startup
from pgproxy.link.transport import Stream
from pgproxy.observe.client import ClientLog
from pgproxy.observe.enhanced import Recorder
from pgproxy.observe.pins import ClientPins
from pgproxy.pool.cancel import CancelKey
from pgproxy.session.reported import Reported, greeting
from pgproxy.twin import quicken
from pgproxy.wire import errors, messages
from pgproxy.wire.errors import Complaint, Refusal, complaint
from pgproxy.wire.startup import StartupMessage

_READY = messages.ready_for_query(b"I")


@quicken
class ClientConnection(Protocol):
    """One connection from an application."""

    __slots__ = (
        "_before",
        "_ended",
        "_front",
        "_key",
        "_lender",
        "_logging_in",
        "_login",
        "_read_only",
        "_startup",
        "_steps",
        "connected",
        "log",
        "number",
        "pins",
        "receive",
        "since",
        "splice",
        "traffic",
        "traffic_seen",
        "transport",
        "visit",
    )
    transport: Stream

    def __init__(self, front: Front, log: ClientLog, number: int = 0, read_only: bool = False) -> None:
        self._front = front
        self._read_only = read_only
        """Whether it has come to a read-only endpoint."""
        self.log = log
        self.number = number
        """As the log has it."""
        self.traffic = (0, 0)
        """Bytes that have come and gone, when somebody looked last; `traffic_seen` says when."""
        self.traffic_seen = 0
        self.since = 0.0
        """When it came, by the reactor's clock."""
        self._before: Startup | None = Startup(self, front, log)
        """Its packets before login."""
        self.receive: Any = self._before.received
        self._login: Login | None = None
        self._steps: Deferred[Any] | None = None
        """What is waited for before it is greeted."""
        self._key: CancelKey | None = None
        self._lender: ServerLender | ReadingLender | None = None
        self._startup: StartupMessage | None = None
        self.splice: Splice | None = None
        self.pins: ClientPins | None = None
        self.visit: Visit | None = None
        """Its talk with the console, if that is where it is."""
        self._logging_in = False
        self._ended = False

    def connectionMade(self) -> None:
        """Begin the time that a login may take."""
        self.since = self._front.reactor.seconds()
        if not self._front.arrived(self):
            # One word, and no waiting until it has been read: that would be what there is no room for.
            self._ended = True
            why = self._too_many()
            self._front.accounts.refused[why.sqlstate] += 1
            self.transport.write(why.message())
            self.transport.abortConnection()
            return
        self._logging_in = True
        self._front.logging_in += 1
        self._front.patience.begin(self, self._front.config.proxy.login_timeout)

    # Before it is in.

    def tlsHello(self) -> None:
        """Start TLS with a client that began with it, without an SSLRequest."""
        if self._before is not None:
            self._before.hello()

    def handshakeCompleted(self) -> None:
        """Go on, if a client that began with TLS has asked for what it must."""
        if self._before is not None:
            self._before.handshake_completed()

    def only_cancels(self) -> None:
        """Take the word that it wants nothing but to cancel: it gets no answer but its end."""
        self._ended = True
        self._before = None
        self.receive = _ignore
        self._front.patience.done(self)

    def log_in(self, startup: StartupMessage, early: bytes) -> None:
        """Begin its login; `early` is what it has said behind the startup message."""
        self._before = None
        self._login = login = Login(
            self._front, self.transport, startup, early, self._passed, self._login_failed
        )
        self.receive = login.received
        self.log.know(user=startup.user[:128], database=startup.database[:128])
        if startup.minor or startup.protocol_options:
            self.transport.write(messages.negotiate_protocol_version(startup.protocol_options))
        why = self._not_even_asked(startup)
        if why is not None:
            self._login_failed(Failure(LoginRefused(why)))
            return
        front = self._front
        login.terms = front.terms(startup)
        if not self._read_only:
            # It takes as long as the login, so it is begun before.
            login.early = early_lender = front.targets.known(startup.user, startup.database)
            if early_lender is not None:
                login.checked = early_lender.check(patient=not login.terms.session)
        login.begin()

    def _not_even_asked(self, startup: StartupMessage) -> Complaint | None:
        """Say why one is refused before it has proved who it is, if so."""
        front = self._front
        if not startup.user:
            return complaint(errors.NO_USER)
        if front.stopping:
            return complaint(errors.SHUTTING_DOWN)
        if front.full and startup.user not in front.config.proxy.admin_users:
            return self._too_many()
        if front.materials.tls.mode == "require" and self.transport.tls is None:
            return complaint(errors.TLS_REQUIRED)
        return None

    def _passed(self, credentials: Credentials) -> None:
        """Let it in, as it has proved who it is. Raises `LoginRefused`."""
        self._front.patience.done(self)
        front, login = self._front, self._login
        assert login is not None and login.terms is not None
        startup = login.startup
        if front.at_console(startup.database):
            self._enter_console(startup, login)
            return
        if startup.database in front.disabled:
            raise LoginRefused(complaint(errors.DISABLED, database=startup.database))
        lender: ServerLender | ReadingLender | None
        if self._read_only:
            lender = front.targets.reading_lender(startup.user, startup.database)
        else:
            lender = front.targets.lender(startup.user, startup.database)
        if lender is None:
            raise LoginRefused(complaint(errors.UNKNOWN_DATABASE, database=startup.database))
        lender.came()
        self._lender = lender
        login.is_in = True
        self._startup = startup
        lender.credentials = credentials
        checked = login.checked
        if checked is None or lender is not login.early:
            checked = lender.check(patient=not login.terms.session)
        if checked is None or checked.called:
            self._settle_in(login.terms, lender)
            return
        login.say_last_words()
        self._steps = checked
        terms = login.terms
        checked.addCallback(lambda _: self._settle_in(terms, lender))
        checked.addErrback(self._login_failed)

    def _settle_in(self, terms: Terms, lender: ServerLender | ReadingLender) -> None:
        front, startup, login = self._front, self._startup, self._login
        assert startup is not None and login is not None
        recorder = None
        if front.enhancement.chooses(startup.database, startup.user):
            recorder = Recorder(front.enhancement, front.reactor.seconds, self.log)
        talk = front.conversation(terms, recorder)
        self.pins = pinned = front.pins.of_client(self.log)
        self.splice = splice = Splice(
            self.transport, lender, terms, talk, self.close, pinned.told, front.reactor.seconds, self.log
        )
        if recorder is not None:
            recorder.server = lambda: splice.server.record.number if splice.server is not None else None
        self.configure()
        reported = None if terms.session else lender.welcomes.get(terms.parameters)
        if reported is not None:
            talk.hears(reported)
            self._greet(reported, None)
            return
        login.say_last_words()
        self._steps = greeted = splice.first_server()
        greeted.addCallback(self._has_first_server, terms).addErrback(self._login_failed)

    def _has_first_server(self, server: ServerConnection | None, terms: Terms) -> None:
        assert self.splice is not None
        if server is None:
            self._greet(self.splice.talk.told, None)
        else:
            self._greet(server.record.session.greeting, server.pid if terms.session else None)

    def _greet(self, reported: Reported, pid: int | None) -> None:
        """Tell it that it is in; `pid` is that of the server that it keeps."""
        front, startup, login, splice = self._front, self._startup, self._login, self.splice
        assert startup is not None and login is not None and splice is not None
        self._key = key = front.keys.issue(self, pid)
        splice.talk.pid = key.pid.to_bytes(4, "big")
        self.receive = splice.from_client
        self._no_longer_logging_in()
        front.accounts.tally(startup.database).logins += 1
        if front.config.proxy.log_connections:
            session = login.terms is not None and login.terms.session
            self.log.info("client_logged_in", tls=self.transport.tls is not None, session=session)
        self.transport.write(
            login.take_last_words()
            + greeting(reported)
            + messages.backend_key_data(key.pid, key.secret)
            + _READY
        )
        self.transport.resumeProducing()
        splice.settled_in()
        # What was only for the login is not kept: clients are many.
        self._login = self._steps = None
        early = login.rest()
        if early:
            splice.from_client(early)

    def _enter_console(self, startup: StartupMessage, login: Login) -> None:
        console = self._front.console
        assert console is not None
        why = console.refuses(startup.user)
        if why is not None:
            raise LoginRefused(why)
        self._startup = startup
        transport = self.transport
        self.visit = visit = console.enter(
            startup, transport.write, lambda: transport.unsent, self.close, self.log
        )
        self._key = self._front.keys.issue(self, None)
        self.receive = visit.received
        self._no_longer_logging_in()
        self.log.info("console_entered", tls=self.transport.tls is not None)
        self.transport.write(
            login.take_last_words()
            + visit.greeting
            + messages.backend_key_data(self._key.pid, self._key.secret)
            + _READY
        )
        visit.received(login.rest())

    def _no_longer_logging_in(self) -> None:
        if self._logging_in:
            self._logging_in = False
            self._front.logging_in -= 1

    def _login_failed(self, failure: Failure) -> None:
        error = failure.value
        if self._login is not None:
            self._login.say_last_words()
        if isinstance(error, LoginRefused):
            self.log.warning("client_refused", sqlstate=error.why.sqlstate, detail=error.detail)
            self.refuse(error.why)
        elif not isinstance(error, CancelledError):
            self.log.error("defect", failure=failure.getTraceback())
            self.refuse(complaint(errors.DEFECT))

    def login_too_slow(self, seconds: float) -> None:
        """Send it away: it has not proved who it is in so many seconds."""
        if self._login is not None:
            self._login.lost()
        self.transport.write(complaint(errors.LOGIN_TIMEOUT, seconds=f"{seconds:g}").message())
        self.close("login_timeout")

    def _too_many(self) -> Complaint:
        most = self._front.config.proxy.max_client_connections
        return complaint(errors.TOO_MANY_CLIENTS, limit=most)

    # While it is here.

    def configure(self) -> None:
        """Take the limits of the configuration in force."""
        if self.splice is not None and self._startup is not None:
            self.splice.limit(self._front.deadlines(self._startup))

    def look(self, now: float) -> None:
        """See whether this client is at one of its limits; `now` is an `Attention`'s."""
        if self.splice is not None and not self._ended:
            self.splice.look(now)

    # The end.

    def refuse(self, why: Complaint) -> None:
        """Tell the client why, and close its connection."""
        self._front.accounts.refused[why.sqlstate] += 1
        self.transport.write(why.message())
        self.close(why.sqlstate)

    def cancel(self) -> Deferred[None] | None:
        """Cancel what this client has under way; fires when the request has reached the server."""
        if self.visit is not None:
            self.visit.cancel()
        return self.splice.cancel() if self.splice is not None else None

    @property
    def startup(self) -> StartupMessage | None:
        """What it asked for, once it is in."""
        return self._startup

    @property
    def lender(self) -> ServerLender | ReadingLender | None:
        """Where it gets its servers, once it is in."""
        return self._lender

    @property
    def read_only(self) -> bool:
        """Whether it has come to a read-only endpoint."""
        return self._read_only

    @property
    def at_rest(self) -> bool:
        """Whether the client may be sent away without losing anything."""
        return self.splice is None or self.splice.at_rest

    @property
    def ended(self) -> bool:
        """Whether nothing more is done for this client."""
        return self._ended

    def terminate(self, refusal: Refusal) -> None:
        """End this client from our side."""
        if self._ended:
            return
        if self.splice is not None:
            self.splice.terminate(complaint(refusal))
        else:
            self.refuse(complaint(refusal))

    def close(self, reason: str) -> None:
        """Close its connection, and say in the log why."""
        self.receive = _ignore
        if reason == TERMINATED:
            if not self._ended:
                self._ended = True
                self._front.departures.add(self)
            return
        if not self._ended:
            self._ended = True
            self.log.info("client_closed", reason=reason)
        self.transport.loseConnection()

    def depart(self) -> None:
        """End a connection whose client has said that it goes."""
        if self._front.config.proxy.log_connections:
            self.log.info("client_closed", reason=TERMINATED)
        self.transport.leave()

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        """Clear up behind a client that has gone."""
        if not self._ended:
            self._ended = True
            cause = reason.value
            why = f"tls: {cause.reason}" if isinstance(cause, ssl.SSLError) else "vanished"
            self.log.info("client_closed", reason=why)
        self._no_longer_logging_in()
        self._front.patience.done(self)
        # Each knows the client: apart all are gone at once.
        self._before = None
        if self._login is not None:
            self._login.lost()
            self._login = None
        if self._steps is not None:
            self._steps.cancel()
        if self.splice is not None:
            self.splice.client_lost()
            self._front.accounts.departed(self)
            self.splice = None
        if self.visit is not None:
            self.visit.lost()
            self.visit = None
        self.receive = _ignore
        if self._key is not None:
            self._front.keys.revoke(self._key)
        if self._lender is not None:
            self._lender.went()
        self._front.departed(self)


def _ignore(_data: bytes) -> None:
    """Take what comes of a connection that is being closed."""


# What comes goes to the phase we are in, without a call in between.
ClientConnection.dataReceived = ClientConnection.__dict__["receive"]  # type: ignore[method-assign]
