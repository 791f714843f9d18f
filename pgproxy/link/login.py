"""
A client's login: what it is asked, and what it answers, until it has proved who it is.

Documentation: PostgreSQL manual, "Start-up", "SASL Authentication".
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from pgproxy.auth.client_leg import ClientLogin, Method
from pgproxy.auth.secrets import Credentials, Known, Passwords
from pgproxy.auth.steps import Accepted, Ask, Derive, Refused, Renew, Verify
from pgproxy.link.front import Front, UsersUnavailable
from pgproxy.link.tls import peer_common_name
from pgproxy.link.transport import Stream
from pgproxy.link.vault import TokenRefused, VaultClosed
from pgproxy.wire import errors, messages, tags
from pgproxy.wire.errors import Complaint, Refusal, complaint
from pgproxy.wire.skim import Malformed
from pgproxy.wire.startup import StartupMessage

_MESSAGE_LIMIT = 65_535
"""Bytes: PostgreSQL's PG_MAX_AUTH_TOKEN_LENGTH."""
_AUTH_SASL_FINAL = 12
_REFUSALS: dict[Method, Refusal] = {"cert": errors.WRONG_CERTIFICATE, "token": errors.TOKEN_WRONG}


class LoginRefused(Exception):
    """The client is told why, and its connection is closed; `detail` is for the log."""

    def __init__(self, why: Complaint, detail: str = "") -> None:
        super().__init__(why.text)
        self.why = why
        self.detail = detail


class Login:
    """One client's login; `refuse` is called where it says too much at once."""

    __slots__ = ("_front", "_last_words", "_reader", "_refuse", "_transport", "_waiting", "is_in")

    def __init__(
        self, front: Front, transport: Stream, refuse: Callable[[Complaint], None], early: bytes
    ) -> None:
        self._front = front
        self._transport = transport
        self._refuse = refuse
        self._reader = messages.MessageReader(_MESSAGE_LIMIT)
        self._reader.feed(early)
        self._waiting: Deferred[bytes] | None = None
        """For the next password message."""
        self.is_in = False
        """Whether it has passed, and says already what its first server is to do."""
        self._last_words = b""
        """What it is still to be told of its login: with what comes next (`take_last_words`), or before."""

    def received(self, data: bytes) -> None:
        """Take what has come."""
        self._reader.feed(data)
        if self.is_in:
            if self._reader.size > self._front.config.proxy.client_buffer:
                self._transport.pauseProducing()
            return
        if self._reader.size > 2 * _MESSAGE_LIMIT:
            self._refuse(complaint(errors.LOGIN_MALFORMED))
            return
        if self._waiting is None:
            return
        try:
            came = self._reader.next()
        except Malformed:
            waiting, self._waiting = self._waiting, None
            waiting.errback(LoginRefused(complaint(errors.LOGIN_MALFORMED)))
            return
        if came is not None:
            waiting, self._waiting = self._waiting, None
            tag, payload = came
            if tag == tags.PASSWORD:
                waiting.callback(payload)
            else:
                waiting.errback(LoginRefused(complaint(errors.LOGIN_OUT_OF_ORDER, tag=tag)))

    def rest(self) -> bytes:
        """Give what the client has said behind its login."""
        return self._reader.rest()

    def lost(self) -> None:
        """Take the word that the connection has ended: nothing more comes."""
        self._waiting = None

    def _next_password(self) -> Deferred[bytes]:
        waiting: Deferred[bytes] = Deferred()
        self._waiting = waiting
        self.received(b"")
        return waiting

    def say_last_words(self) -> None:
        """Tell the client that it has passed, as what comes next may take time."""
        said = self.take_last_words()
        if said:
            self._transport.write(said)

    def take_last_words(self) -> bytes:
        """Give what the client is still to be told of its login."""
        said, self._last_words = self._last_words, b""
        return said

    async def authenticate(self, startup: StartupMessage) -> Credentials:
        """
        Have the client prove who it is; give what is known of it for servers. Raises `LoginRefused`.

        That it has passed is still to be said, see `say_last_words`.
        """
        front = self._front
        tls = self._transport.tls
        method: Method = front.config.proxy.auth
        vault = front.vault
        secret = None
        if vault is not None and vault.takes_tokens(startup.user):
            if tls is None:
                raise LoginRefused(complaint(errors.TOKEN_WITHOUT_TLS))
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
                    self._transport.write(messages.authentication(code, data))
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
                        raise LoginRefused(error.why, error.detail) from None
                    step = login.verified(credentials)
                case Accepted(final, credentials):
                    proved = b"" if final is None else messages.authentication(_AUTH_SASL_FINAL, final)
                    self._last_words = proved + messages.authentication(0)
                    return credentials
                case Refused(reason, detail):
                    refusal = _REFUSALS.get(method, errors.WRONG_PASSWORD)
                    raise LoginRefused(
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
            raise LoginRefused(complaint(errors.USERS_UNAVAILABLE, user=startup.user), str(error)) from error
        except VaultClosed as error:
            raise LoginRefused(complaint(errors.VAULT_CLOSED, user=startup.user), str(error)) from error
