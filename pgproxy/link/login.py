"""
A client's login: what it is asked, and what it answers, until it has proved who it is.

Documentation: PostgreSQL manual, "Start-up", "SASL Authentication".
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from pgproxy.auth.client_leg import ClientLogin, Method
from pgproxy.auth.secrets import Credentials, Known, Passwords
from pgproxy.auth.steps import Accepted, Ask, ClientStep, Derive, Refused, Renew, Verify
from pgproxy.link.front import Front, UsersUnavailable
from pgproxy.link.tls import peer_common_name
from pgproxy.link.transport import Stream
from pgproxy.link.vault import TokenRefused, VaultClosed
from pgproxy.wire import errors, messages, tags
from pgproxy.wire.errors import Complaint, Refusal, complaint
from pgproxy.wire.skim import Malformed
from pgproxy.wire.startup import StartupMessage

if TYPE_CHECKING:
    from pgproxy.link.lender import ServerLender
    from pgproxy.link.splice import Terms

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
    """
    One client's login, with all that is known of it only until it is in.

    It calls `passed` with what is known of the client for servers, or `failed`; each step is done within the
    call that brought what it was waiting for, and only what has to be waited for is a Deferred. Where the
    client says too much at once `failed` is called, too. After `lost` neither is.
    """

    __slots__ = (
        "_asked",
        "_failed",
        "_front",
        "_last_words",
        "_machine",
        "_method",
        "_passed",
        "_reader",
        "_transport",
        "_under_way",
        "checked",
        "early",
        "is_in",
        "startup",
        "terms",
    )

    def __init__(
        self,
        front: Front,
        transport: Stream,
        startup: StartupMessage,
        early: bytes,
        passed: Callable[[Credentials], None],
        failed: Callable[[Failure], None],
    ) -> None:
        """`early` is what the client has said behind its startup message."""
        self._front = front
        self._transport = transport
        self.startup = startup
        self._reader = messages.MessageReader(_MESSAGE_LIMIT)
        if early:
            self._reader.feed(early)
        self._passed = passed
        self._failed = failed
        self._method: Method = front.config.proxy.auth
        self._machine: ClientLogin | None = None
        self._asked = False
        """Whether the client owes a password message."""
        self._under_way: Deferred[None] | None = None
        """What is waited for of somebody else."""
        self.is_in = False
        """Whether it has passed, and says already what its first server is to do."""
        self._last_words = b""
        """What it is still to be told of its login: with what comes next (`take_last_words`), or before."""
        self.terms: Terms | None = None
        """On what terms it will use servers."""
        self.early: ServerLender | None = None
        """Who was asked, when it came, whether new sessions would begin otherwise, and ..."""
        self.checked: Deferred[None] | None = None
        """... fires when that is known."""

    def received(self, data: bytes) -> None:
        """Take what has come."""
        self._reader.feed(data)
        if self.is_in:
            if self._reader.size > self._front.config.proxy.client_buffer:
                self._transport.pauseProducing()
        elif self._reader.size > 2 * _MESSAGE_LIMIT:
            self._fail(Failure(LoginRefused(complaint(errors.LOGIN_MALFORMED))))
        elif self._asked:
            self._guarded(self._next_password)

    def rest(self) -> bytes:
        """Give what the client has said behind its login."""
        return self._reader.rest()

    def lost(self) -> None:
        """Take the word that the connection has ended: nothing more comes."""
        self._asked = False
        self._passed = self._failed = _nobody
        if self._under_way is not None:
            self._under_way.cancel()

    def say_last_words(self) -> None:
        """Tell the client that it has passed, as what comes next may take time."""
        said = self.take_last_words()
        if said:
            self._transport.write(said)

    def take_last_words(self) -> bytes:
        """Give what the client is still to be told of its login."""
        said, self._last_words = self._last_words, b""
        return said

    def begin(self) -> None:
        """
        Have the client prove who it is.

        That it has passed is still to be said then, see `say_last_words`.
        """
        self._guarded(self._begin)

    def _begin(self) -> None:
        vault = self._front.vault
        if vault is not None and vault.takes_tokens(self.startup.user):
            if self._transport.tls is None:
                raise LoginRefused(complaint(errors.TOKEN_WITHOUT_TLS))
            self._method = "token"
            self._ask(None)
            return
        known = self._front.materials.users.get(self.startup.user)
        if known is not None:
            self._ask(known)
        else:
            self._wait_for(self._look_up())

    async def _look_up(self) -> None:
        self._ask(await self._secret())

    def _ask(self, secret: Known | None) -> None:
        """Begin with what is known of the user."""
        front, tls = self._front, self._transport.tls
        vault = front.vault
        self._machine = ClientLogin(
            self._method,
            self.startup.user,
            secret,
            channel_binding=front.materials.tls.end_point if tls is not None else None,
            mock_key=front.mock_key,
            certificate_cn=peer_common_name(tls) if tls is not None else None,
            cert_map=front.config.proxy.certificate_names,
            looks=front.materials.looks,
            renewable=vault is not None
            and self._method != "token"
            and (secret is None or isinstance(secret, Passwords)),
        )
        self._do(self._machine.start())

    def _next_password(self) -> None:
        """Take the next message, if it is there."""
        try:
            came = self._reader.next()
        except Malformed:
            raise LoginRefused(complaint(errors.LOGIN_MALFORMED)) from None
        if came is None:
            return
        tag, payload = came
        if tag != tags.PASSWORD:
            raise LoginRefused(complaint(errors.LOGIN_OUT_OF_ORDER, tag=tag))
        assert self._machine is not None
        self._asked = False
        self._do(self._machine.received(payload))

    def _do(self, step: ClientStep) -> None:
        """Do a step, and those that follow from it."""
        match step:
            case Ask(code, data):
                self._transport.write(messages.authentication(code, data))
                self._asked = True
                self._next_password()
            case Accepted(final, credentials):
                proved = b"" if final is None else messages.authentication(_AUTH_SASL_FINAL, final)
                self._last_words = proved + messages.authentication(0)
                self._passed(credentials)
            case Refused(reason, detail):
                refusal = _REFUSALS.get(self._method, errors.WRONG_PASSWORD)
                raise LoginRefused(
                    complaint(refusal, user=self.startup.user),
                    f"{reason.value}: {detail}" if detail else reason.value,
                )
            case _:
                self._wait_for(self._done_elsewhere(step))

    async def _done_elsewhere(self, step: Derive | Renew | Verify) -> None:
        """Do a step that somebody else has to be asked for."""
        front, startup, machine = self._front, self.startup, self._machine
        assert machine is not None
        match step:
            case Derive(password, salt, iterations):
                following = machine.derived(await front.threads.derive(password, salt, iterations))
            case Renew():
                following = machine.renewed(await self._secret(anew=True))
            case Verify(token):
                assert front.vault is not None
                try:
                    credentials = await front.vault.judge(startup.user, startup.database, token)
                except TokenRefused as error:
                    raise LoginRefused(error.why, error.detail) from None
                following = machine.verified(credentials)
        self._do(following)

    async def _secret(self, anew: bool = False) -> Known | None:
        front, startup = self._front, self.startup
        try:
            if anew and front.vault is not None:
                return await front.vault.renewed(startup.user)
            return await front.secret(startup.user, startup.database)
        except UsersUnavailable as error:
            raise LoginRefused(complaint(errors.USERS_UNAVAILABLE, user=startup.user), str(error)) from error
        except VaultClosed as error:
            raise LoginRefused(complaint(errors.VAULT_CLOSED, user=startup.user), str(error)) from error

    def _wait_for(self, steps: Coroutine[Deferred[Any], Any, None]) -> None:
        under_way = Deferred.fromCoroutine(steps)
        if not under_way.called:
            # Else it has done its steps already, and perhaps begun to wait for the next.
            self._under_way = under_way
        under_way.addErrback(self._waited_in_vain)

    def _waited_in_vain(self, failure: Failure) -> None:
        self._under_way = None
        self._fail(failure)

    def _guarded(self, steps: Callable[[], None]) -> None:
        try:
            steps()
        except Exception as error:
            self._fail(Failure(error))

    def _fail(self, failure: Failure) -> None:
        failed = self._failed
        self.lost()
        failed(failure)


def _nobody(_result: object) -> None:
    """Stand for a client that has gone."""
