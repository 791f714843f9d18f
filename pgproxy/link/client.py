"""
The protocol an application talks to: TLS, startup and login; after that, a `Splice` has the connection.

Documentation: PostgreSQL manual, "Start-up", "SSL Session Encryption", "Canceling Requests in Progress".
"""

from __future__ import annotations

import ssl
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from pgproxy.auth.client_leg import ClientLogin, Method
from pgproxy.auth.secrets import Credentials, Known, Passwords
from pgproxy.auth.steps import Accepted, Ask, Derive, Refused, Renew, Verify
from pgproxy.link.front import Front, UsersUnavailable, Visit
from pgproxy.link.lender import ServerLender
from pgproxy.link.reading import ReadingLender
from pgproxy.link.splice import TERMINATED, Splice, Terms
from pgproxy.link.tls import ALPN, peer_common_name
from pgproxy.link.transport import Stream
from pgproxy.link.vault import TokenRefused, VaultClosed
from pgproxy.observe.client import ClientLog
from pgproxy.observe.enhanced import Recorder
from pgproxy.observe.pins import ClientPins
from pgproxy.pool.cancel import CancelKey
from pgproxy.session.reported import greeting
from pgproxy.twin import quicken
from pgproxy.wire import errors, messages, tags
from pgproxy.wire.errors import Complaint, Refusal, complaint
from pgproxy.wire.skim import Malformed
from pgproxy.wire.startup import (
    CancelRequest,
    GSSENCRequest,
    SSLRequest,
    StartupMessage,
    UnsupportedProtocol,
    packet_length,
    read_packet,
)

_LOGIN_MESSAGE_LIMIT = 65_535
"""Bytes: PostgreSQL's PG_MAX_AUTH_TOKEN_LENGTH."""
_AUTH_SASL_FINAL = 12
_NO_READER = messages.MessageReader(0)
"""What a client that is logged in has."""
_REFUSALS: dict[Method, Refusal] = {"cert": errors.WRONG_CERTIFICATE, "token": errors.TOKEN_WRONG}


class _Refused(Exception):
    """The client is told why, and its connection is closed."""

    def __init__(self, why: Complaint, detail: str = "") -> None:
        super().__init__(why.text)
        self.why = why
        self.detail = detail


@quicken
class ClientConnection(Protocol):
    """One connection from an application."""

    __slots__ = (
        "_admitted",
        "_direct_tls",
        "_early",
        "_encryption_asked",
        "_ended",
        "_front",
        "_key",
        "_lender",
        "_logging_in",
        "_login",
        "_login_timer",
        "_password",
        "_read_only",
        "_reader",
        "_startup",
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
        self._early = bytearray()
        self._reader = messages.MessageReader(_LOGIN_MESSAGE_LIMIT)
        self.receive: Any = self._startup_bytes
        self._encryption_asked: tuple[type, ...] = ()
        self._direct_tls = False
        self._password: Deferred[bytes] | None = None
        self._login: Deferred[None] | None = None
        self._login_timer: Any = None
        self._key: CancelKey | None = None
        self._lender: ServerLender | ReadingLender | None = None
        self._startup: StartupMessage | None = None
        self.splice: Splice | None = None
        self.pins: ClientPins | None = None
        self.visit: Visit | None = None
        """Its talk with the console, if that is where it is."""
        self._admitted = False
        """Whether it may log in at all."""
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
        seconds = self._front.config.proxy.login_timeout
        self._login_timer = self._front.reactor.callLater(seconds, self._login_too_slow, seconds)

    def dataReceived(self, data: bytes) -> None:
        """Hand what came to the phase we are in."""
        self.receive(data)

    # Before login.

    def tlsHello(self) -> None:
        """Start TLS with a client that began with it, without an SSLRequest."""
        context = self._front.materials.tls.context
        if context is None:
            self._close("tls_is_off")
            return
        self._direct_tls = True
        self.transport.startTLS(context, server_side=True)

    def handshakeCompleted(self) -> None:
        """Check what a client that began with TLS must have asked for."""
        tls = self.transport.tls
        if self._direct_tls and tls is not None and tls.selected_alpn_protocol() != ALPN:
            self._close("no_alpn")

    def _startup_bytes(self, data: bytes) -> None:
        self._early += data
        try:
            length = packet_length(self._early)
            if length is None or len(self._early) < length:
                return
            packet = read_packet(bytes(self._early[:length]))
            del self._early[:length]
            self._startup_packet(packet)
        except Malformed as error:
            self._refuse(complaint(errors.MALFORMED_STARTUP, what=str(error)))
        except UnsupportedProtocol as error:
            self._refuse(complaint(errors.UNSUPPORTED_PROTOCOL, version=str(error)))

    def _startup_packet(self, packet: object) -> None:
        if not self._admitted and not isinstance(packet, CancelRequest):
            why = self._front.shed()
            if why is not None:
                self.log.warning("client_refused", sqlstate=why.sqlstate, detail=why.text)
                self._refuse(why)
                return
            self._admitted = True
        match packet:
            case SSLRequest() | GSSENCRequest():
                self._answer_encryption(packet)
            case CancelRequest(pid, secret):
                self.receive = _ignore
                self._cancel(pid, secret)
            case StartupMessage():
                self.receive = self._login_bytes
                self._login = Deferred.fromCoroutine(self._log_in(packet))
                self._login.addErrback(self._login_failed)

    def _answer_encryption(self, packet: SSLRequest | GSSENCRequest) -> None:
        if self._early:
            raise _unencrypted()
        if type(packet) in self._encryption_asked or self.transport.tls is not None:
            raise Malformed("encryption was asked for twice")
        self._encryption_asked += (type(packet),)
        context = self._front.materials.tls.context
        if isinstance(packet, SSLRequest) and context is not None:
            self.transport.write(b"S")
            self.transport.startTLS(context, server_side=True)
        else:
            self.transport.write(b"N")

    def _cancel(self, pid: int, secret: bytes) -> None:
        # Such a connection gets no answer but its end, whatever happens from here on.
        self._ended = True
        self._login_timer.cancel()
        client = self._front.keys.find(pid, secret)
        if client is None and self._front.elsewhere is not None:
            asked = self._front.elsewhere.cancel(pid, secret)
            asked.addBoth(lambda _: self.transport.loseConnection())
            return
        if client is None and self._front.predecessor is not None:
            asked = self._front.predecessor(pid, secret)
            asked.addCallback(self._cancelled_before)
            asked.addBoth(lambda _: self.transport.loseConnection())
            return
        sent = client.cancel() if client is not None else None
        self.log.info("cancel_request", found=client is not None, sent=sent is not None)
        if sent is None:
            self.transport.loseConnection()
        else:
            sent.addBoth(lambda _: self.transport.loseConnection())

    def _cancelled_before(self, found: bool) -> None:
        if not found:
            self.log.info("cancel_request", found=False, sent=False)

    # Login.

    def _login_bytes(self, data: bytes) -> None:
        self._reader.feed(data)
        if self._lender is not None:
            # It is in, and says already what its first server is to do.
            if self._reader.size > self._front.config.proxy.client_buffer:
                self.transport.pauseProducing()
            return
        if self._reader.size > 2 * _LOGIN_MESSAGE_LIMIT:
            self._refuse(complaint(errors.LOGIN_MALFORMED))
            return
        if self._password is None:
            return
        try:
            came = self._reader.next()
        except Malformed:
            waiting, self._password = self._password, None
            waiting.errback(_Refused(complaint(errors.LOGIN_MALFORMED)))
            return
        if came is not None:
            waiting, self._password = self._password, None
            tag, payload = came
            if tag == tags.PASSWORD:
                waiting.callback(payload)
            else:
                waiting.errback(_Refused(complaint(errors.LOGIN_OUT_OF_ORDER, tag=tag)))

    def _next_password(self) -> Deferred[bytes]:
        waiting: Deferred[bytes] = Deferred()
        self._password = waiting
        self._login_bytes(b"")
        return waiting

    async def _log_in(self, startup: StartupMessage) -> None:
        self.log.know(user=startup.user[:128], database=startup.database[:128])
        if startup.minor or startup.protocol_options:
            self.transport.write(messages.negotiate_protocol_version(startup.protocol_options))
        self._reader.feed(bytes(self._early))
        self._early.clear()
        front = self._front
        if not startup.user:
            raise _Refused(complaint(errors.NO_USER))
        if front.stopping:
            raise _Refused(complaint(errors.SHUTTING_DOWN))
        if front.full and startup.user not in front.config.proxy.admin_users:
            raise _Refused(self._too_many())
        if front.materials.tls.mode == "require" and self.transport.tls is None:
            raise _Refused(complaint(errors.TLS_REQUIRED))
        terms = front.terms(startup)
        # It takes as long as the login, so it is begun before.
        early = None if self._read_only else front.targets.known(startup.user, startup.database)
        checked = early.check(patient=not terms.session) if early is not None else None
        credentials = await self._authenticate(startup)
        self._login_timer.cancel()
        if front.at_console(startup.database):
            self._enter_console(startup)
            return
        if startup.database in front.disabled:
            raise _Refused(complaint(errors.DISABLED, database=startup.database))
        lender: ServerLender | ReadingLender | None
        if self._read_only:
            lender = front.targets.reading_lender(startup.user, startup.database)
        else:
            lender = front.targets.lender(startup.user, startup.database)
        if lender is None:
            raise _Refused(complaint(errors.UNKNOWN_DATABASE, database=startup.database))
        lender.came()
        self._lender = lender
        self._startup = startup
        lender.credentials = credentials
        if checked is None or lender is not early:
            checked = lender.check(patient=not terms.session)
        if checked is not None:
            await checked
        await self._settle_in(startup, terms, lender)

    async def _authenticate(self, startup: StartupMessage) -> Credentials:
        front = self._front
        tls = self.transport.tls
        method: Method = front.config.proxy.auth
        vault = front.vault
        secret = None
        if vault is not None and vault.takes_tokens(startup.user):
            if tls is None:
                raise _Refused(complaint(errors.TOKEN_WITHOUT_TLS))
            method = "token"
        else:
            secret = await self._secret(startup)
        login = ClientLogin(
            method,
            startup.user,
            secret,
            channel_binding=front.materials.tls.end_point if tls is not None else None,
            mock_key=front.mock_key,
            certificate_cn=peer_common_name(tls) if tls is not None else None,
            cert_map=front.config.proxy.certificate_names,
            looks=front.materials.looks,
            renewable=vault is not None and (secret is None or isinstance(secret, Passwords)),
        )
        step = login.start()
        while True:
            match step:
                case Ask(code, data):
                    self.transport.write(messages.authentication(code, data))
                    step = login.received(await self._next_password())
                case Derive(password, salt, iterations):
                    step = login.derived(await front.threads.derive(password, salt, iterations))
                case Renew():
                    step = login.renewed(await self._secret(startup, anew=True))
                case Verify(token):
                    assert vault is not None
                    try:
                        credentials = await vault.judge(startup.user, startup.database, token)
                    except TokenRefused as error:
                        raise _Refused(error.why, error.detail) from None
                    step = login.verified(credentials)
                case Accepted(final, credentials):
                    if final is not None:
                        self.transport.write(messages.authentication(_AUTH_SASL_FINAL, final))
                    self.transport.write(messages.authentication(0))
                    return credentials
                case Refused(reason, detail):
                    refusal = _REFUSALS.get(method, errors.WRONG_PASSWORD)
                    raise _Refused(
                        complaint(refusal, user=startup.user),
                        f"{reason.value}: {detail}" if detail else reason.value,
                    )
                case _:
                    raise TypeError(step)

    async def _secret(self, startup: StartupMessage, anew: bool = False) -> Known | None:
        front = self._front
        try:
            if anew and front.vault is not None:
                return await front.vault.renewed(startup.user)
            return await front.secret(startup.user, startup.database)
        except UsersUnavailable as error:
            raise _Refused(complaint(errors.USERS_UNAVAILABLE, user=startup.user), str(error)) from error
        except VaultClosed as error:
            raise _Refused(complaint(errors.VAULT_CLOSED, user=startup.user), str(error)) from error

    async def _settle_in(
        self, startup: StartupMessage, terms: Terms, lender: ServerLender | ReadingLender
    ) -> None:
        front = self._front
        recorder = None
        if front.enhancement.chooses(startup.database, startup.user):
            recorder = Recorder(front.enhancement, front.reactor.seconds, self.log)
        talk = front.conversation(terms, recorder)
        self.pins = pinned = front.pins.of_client(self.log)
        splice = Splice(
            self.transport, lender, terms, talk, self._close, pinned.told, front.reactor.seconds, self.log
        )
        self.splice = splice
        if recorder is not None:
            recorder.server = lambda: splice.server.record.number if splice.server is not None else None
        self.configure()
        reported = None if terms.session else lender.welcomes.get(terms.parameters)
        pid = None
        if reported is None:
            server = await splice.first_server()
            reported = talk.told if server is None else server.record.session.greeting
            pid = server.pid if server is not None and terms.session else None
        else:
            talk.told = reported
        self._key = self._front.keys.issue(self, pid)
        talk.pid = self._key.pid.to_bytes(4, "big")
        self.receive = splice.from_client
        self._no_longer_logging_in()
        front.accounts.tally(startup.database).logins += 1
        if front.config.proxy.log_connections:
            self.log.info("client_logged_in", tls=self.transport.tls is not None, session=terms.session)
        self.transport.write(
            greeting(reported)
            + messages.backend_key_data(self._key.pid, self._key.secret)
            + messages.ready_for_query(b"I")
        )
        self.transport.resumeProducing()
        splice.settled_in()
        # What was only for the login is not kept: clients are many.
        early, self._reader, self._login_timer = self._reader.rest(), _NO_READER, None
        if early:
            splice.from_client(early)

    def _enter_console(self, startup: StartupMessage) -> None:
        console = self._front.console
        assert console is not None
        why = console.refuses(startup.user)
        if why is not None:
            raise _Refused(why)
        self._startup = startup
        transport = self.transport
        self.visit = visit = console.enter(
            startup, transport.write, lambda: transport.unsent, self._close, self.log
        )
        self._key = self._front.keys.issue(self, None)
        self.receive = visit.received
        self._no_longer_logging_in()
        self.log.info("console_entered", tls=self.transport.tls is not None)
        self.transport.write(
            visit.greeting
            + messages.backend_key_data(self._key.pid, self._key.secret)
            + messages.ready_for_query(b"I")
        )
        visit.received(self._reader.rest())

    def _no_longer_logging_in(self) -> None:
        if self._logging_in:
            self._logging_in = False
            self._front.logging_in -= 1

    def _login_failed(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, _Refused):
            self.log.warning("client_refused", sqlstate=error.why.sqlstate, detail=error.detail)
            self._refuse(error.why)
        elif not isinstance(error, CancelledError):
            self.log.error("defect", failure=failure.getTraceback())
            self._refuse(complaint(errors.DEFECT))

    def _login_too_slow(self, seconds: float) -> None:
        if self._login is not None:
            self._login.cancel()
        self.transport.write(complaint(errors.LOGIN_TIMEOUT, seconds=f"{seconds:g}").message())
        self._close("login_timeout")

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

    def _refuse(self, why: Complaint) -> None:
        self._front.accounts.refused[why.sqlstate] += 1
        self.transport.write(why.message())
        self._close(why.sqlstate)

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
            self._refuse(complaint(refusal))

    def _close(self, reason: str) -> None:
        terminated = reason == TERMINATED
        if not self._ended:
            self._ended = True
            if not terminated or self._front.config.proxy.log_connections:
                self.log.info("client_closed", reason=reason)
        self.receive = _ignore
        if terminated:
            self.transport.leave()
        else:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        """Clear up behind a client that has gone."""
        if not self._ended:
            self._ended = True
            cause = reason.value
            why = f"tls: {cause.reason}" if isinstance(cause, ssl.SSLError) else "vanished"
            self.log.info("client_closed", reason=why)
        self._no_longer_logging_in()
        if self._login_timer is not None and self._login_timer.active():
            self._login_timer.cancel()
        if self._password is not None:
            self._password = None
        if self._login is not None:
            self._login.cancel()
        if self.splice is not None:
            self.splice.client_lost()
            self._front.accounts.departed(self)
            # Each knows the other: apart they are gone at once.
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


def _unencrypted() -> Malformed:
    return Malformed("received unencrypted data after SSL request")
