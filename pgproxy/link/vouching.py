"""
Asks a server whether it takes a token as a user's password, by a login that ends there.

Only a server that proves its name, and that has asked for the token in clear, vouches for anybody: one that
lets everybody in says nothing about the token. Documentation: PostgreSQL manual, "Start-up".
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from pgproxy.auth.steps import CLEARTEXT_PASSWORD, OK
from pgproxy.link.connect import CannotConnect, connect
from pgproxy.link.ends import end_in_words
from pgproxy.link.server import Host
from pgproxy.link.threads import Threads
from pgproxy.link.transport import Stream
from pgproxy.wire import messages, tags
from pgproxy.wire.skim import Malformed
from pgproxy.wire.startup import ssl_request, startup_message

_MOST = 64 * 1024
"""Bytes of a message during login."""
_REFUSALS = ("28000", "28P01")


class NotVouched(Exception):
    """The server does not take the token; the text says what it says, for the log."""


class CannotVouch(Exception):
    """The server can't be asked now; the text says why, for the log."""


async def vouch(reactor: Any, threads: Threads, host: Host, user: str, database: str, token: str) -> None:
    """
    Log in with a token, and leave. Raises `NotVouched` or `CannotVouch`.

    The caller sets the time limit, by cancelling the Deferred of this coroutine.
    """
    try:
        sock = await connect(reactor, threads, host.name, host.port)
    except CannotConnect as error:
        raise CannotVouch(str(error)) from None
    login = _Login(host, user, database, token)
    login.makeConnection(Stream(sock, login, reactor, host.keepalive))
    await login.vouched


class _Login(Protocol):
    transport: Stream

    def __init__(self, host: Host, user: str, database: str, token: str) -> None:
        self._host = host
        self._user = user
        self._database = database
        self._token = token
        self._reader = messages.MessageReader(_MOST)
        self._asked = False
        self.vouched: Deferred[None] = Deferred(lambda _: self.transport.abortConnection())

    def connectionMade(self) -> None:
        self.transport.write(ssl_request())

    def handshakeCompleted(self) -> None:
        self.transport.write(startup_message(self._user, self._database, ()))

    def dataReceived(self, data: bytes) -> None:
        if self.vouched.called:
            return
        if self.transport.tls is None:
            self._begin_tls(data)
            return
        self._reader.feed(data)
        try:
            while not self.vouched.called and (came := self._reader.next()) is not None:
                self._message(*came)
        except Malformed as error:
            self._fail(CannotVouch(f"{self._host} broke the protocol: {error}"))

    def _begin_tls(self, data: bytes) -> None:
        tls, name = self._host.tls, self._host.tls_name or self._host.name
        if data == b"S" and tls.context is not None and tls.mode == "verify-full":
            self.transport.startTLS(tls.context, server_side=False, server_hostname=name)
        else:
            self._fail(CannotVouch(f"{self._host} has no TLS, or need not prove its name"))

    def _message(self, tag: int, payload: bytes) -> None:
        if tag == tags.ERROR_RESPONSE:
            fields = messages.read_error_fields(payload)
            said = f"{self._host} says {fields.get('C', '')}: {fields.get('M', '')[:200]}"
            refused = self._asked and fields.get("C") in _REFUSALS
            self._fail(NotVouched(said) if refused else CannotVouch(said))
        elif tag == tags.AUTHENTICATION:
            code, _data = messages.read_authentication(payload)
            if code == CLEARTEXT_PASSWORD and not self._asked:
                self._asked = True
                self.transport.write(messages.password(self._token.encode() + b"\0"))
            elif code == OK and self._asked:
                self.transport.write(messages.TERMINATE)
                self.transport.loseConnection()
                self.vouched.callback(None)
            else:
                self._fail(
                    NotVouched(
                        f"{self._host} does not ask for a token but for something else, or nothing; "
                        "the user needs GRANT rds_iam"
                    )
                )
        elif tag not in (tags.NOTICE_RESPONSE, tags.NEGOTIATE_PROTOCOL_VERSION):
            raise Malformed(f"a message of type {tag} where none is due")

    def _fail(self, error: Exception) -> None:
        self.transport.abortConnection()
        if not self.vouched.called:
            self.vouched.errback(Failure(error))

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        if not self.vouched.called:
            why = end_in_words(reason)
            self.vouched.errback(Failure(CannotVouch(f"{self._host}: the connection ended: {why}")))
