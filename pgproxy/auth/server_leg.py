"""
The login of the proxy at a PostgreSQL server, which is taken for hostile until SCRAM has proved it is not.

Documentation: PostgreSQL manual, "Start-up", "SASL Authentication" and "Message Formats".
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from enum import IntEnum

from pgproxy.auth.saslprep import saslprep
from pgproxy.auth.scram import MAX_MESSAGE, malformed, new_nonce
from pgproxy.auth.scram_client import Challenge, ScramClient
from pgproxy.auth.secrets import Credentials, ScramKeys, keys_of, md5_hash, md5_response
from pgproxy.auth.steps import (
    CLEARTEXT_PASSWORD,
    MD5_PASSWORD,
    OK,
    SASL,
    SASL_CONTINUE,
    SASL_FINAL,
    Accepted,
    Answer,
    AuthError,
    AuthReason,
    Derive,
    Refused,
    ServerStep,
    Wait,
)

_UNSUPPORTED = {2: "Kerberos V5", 6: "SCM credentials", 7: "GSSAPI", 8: "GSSAPI", 9: "SSPI"}


class State(IntEnum):
    """How far the login has come."""

    STARTED = 0
    ANSWERED = 1
    """A password or an md5 answer is sent."""
    SASL_BEGUN = 2
    DERIVING = 3
    PROVED = 4
    """Our proof is sent, the server's is awaited."""
    VERIFIED = 5
    """The server has proved that it knows the verifier."""
    OVER = 6


_DUE: dict[int, frozenset[State]] = {
    OK: frozenset({State.STARTED, State.ANSWERED, State.VERIFIED}),
    CLEARTEXT_PASSWORD: frozenset({State.STARTED}),
    MD5_PASSWORD: frozenset({State.STARTED}),
    SASL: frozenset({State.STARTED}),
    SASL_CONTINUE: frozenset({State.SASL_BEGUN}),
    SASL_FINAL: frozenset({State.PROVED}),
}
"""
Where a request may come. AuthenticationOk has no place between a begun SASL and the server's own proof: who
could put it there would be taken for the server without knowing the verifier.
"""


class ServerLogin:
    """
    One login at a server: `received` and `derived` as the steps ask, until Accepted or Refused.

    `channel_binding` is the tls-server-end-point of the server's certificate, None without TLS.
    """

    def __init__(
        self,
        user: str,
        credentials: Credentials,
        *,
        tls: bool,
        channel_binding: bytes | None,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._user = user
        self._credentials = credentials
        self._tls = tls
        self._channel_binding = channel_binding
        self._random_bytes = random_bytes
        self._state = State.STARTED
        self._scram: ScramClient | None = None
        self._challenge: Challenge | None = None

    def received(self, code: int, data: bytes) -> ServerStep:
        """Take an Authentication request: its code and what follows it. Never raises, whatever they are."""
        try:
            return self._take(code, data)
        except AuthError as error:
            self._state = State.OVER
            return Refused(error.reason, error.detail)

    def derived(self, salted_password: bytes) -> ServerStep:
        """Take the result of the last `Derive`. Raises RuntimeError if none is awaited."""
        if self._state is not State.DERIVING or self._challenge is None:
            raise RuntimeError("no key was asked for")
        return self._prove(keys_of(salted_password, self._challenge.salt, self._challenge.iterations))

    def _take(self, code: int, data: bytes) -> ServerStep:
        if code not in _DUE:
            method = _UNSUPPORTED.get(code, f"method {code}")
            raise AuthError(AuthReason.UNSUPPORTED_METHOD, f"the server asks for {method}")
        if self._state not in _DUE[code]:
            raise AuthError(
                AuthReason.OUT_OF_ORDER,
                f"the server sent Authentication request {code} in state {self._state.name.lower()}",
            )
        if len(data) > MAX_MESSAGE:
            raise malformed(f"an Authentication request of {len(data)} bytes")
        if code == OK:
            _expect_length(data, 0)
            self._state = State.OVER
            return Accepted(None, self._credentials)
        if code == CLEARTEXT_PASSWORD:
            _expect_length(data, 0)
            return self._answer(self._cleartext())
        if code == MD5_PASSWORD:
            _expect_length(data, 4)
            return self._answer(self._md5(data))
        if code == SASL:
            return self._begin_sasl(data)
        assert self._scram is not None
        if code == SASL_CONTINUE:
            return self._meet(self._scram.challenge(data))
        self._scram.verify(data)
        self._state = State.VERIFIED
        return Wait()

    # Passwords.

    def _answer(self, text: bytes) -> Answer:
        self._state = State.ANSWERED
        return Answer(text + b"\0")

    def _cleartext(self) -> bytes:
        if not self._tls:
            raise AuthError(
                AuthReason.CLEARTEXT_REFUSED,
                "the server asks for the password in clear, and the connection to it has no TLS",
            )
        password = self._credentials.password
        if not password or "\0" in password:
            raise AuthError(AuthReason.NO_PASSWORD, "the server asks for a password, and none is known")
        return password.encode("utf-8", "surrogateescape")

    def _md5(self, salt: bytes) -> bytes:
        stored = self._credentials.md5
        if self._credentials.password:
            stored = md5_hash(self._user, self._credentials.password)
        if stored is None:
            raise AuthError(
                AuthReason.NO_PASSWORD, "the server asks for md5, and neither password nor md5 hash is known"
            )
        return md5_response(stored, salt)

    # SCRAM.

    def _begin_sasl(self, data: bytes) -> ServerStep:
        # Mechanism names, each terminated, and an empty one at the end.
        if not data.endswith(b"\0\0"):
            raise malformed("a list of SASL mechanisms without its end")
        offered = data[:-2].split(b"\0")
        if not all(offered):
            raise malformed("a list of SASL mechanisms that goes on behind its end")
        scram = ScramClient(
            offered,
            tls=self._tls,
            channel_binding=self._channel_binding,
            own_nonce=new_nonce(self._random_bytes),
        )
        if not self._credentials.password and self._credentials.scram is None:
            raise AuthError(
                AuthReason.NO_PASSWORD, "the server asks for SCRAM, and neither password nor keys are known"
            )
        first = scram.first()
        self._scram, self._state = scram, State.SASL_BEGUN
        return Answer(scram.mechanism + b"\0" + len(first).to_bytes(4, "big") + first)

    def _meet(self, challenge: Challenge) -> ServerStep:
        self._challenge = challenge
        keys, password = self._credentials.scram, self._credentials.password
        if keys is not None and (keys.salt, keys.iterations) == (challenge.salt, challenge.iterations):
            return self._prove(keys)
        if not password:
            raise AuthError(
                AuthReason.OTHER_KEYS,
                "the server's verifier has another salt or other iterations than the one stored here; "
                "pass-through needs the server's own verifier, from its pg_authid",
            )
        self._state = State.DERIVING
        return Derive(saslprep(password), challenge.salt, challenge.iterations)

    def _prove(self, keys: ScramKeys) -> Answer:
        assert self._scram is not None
        self._state = State.PROVED
        return Answer(self._scram.proof(keys))


def _expect_length(data: bytes, length: int) -> None:
    if len(data) != length:
        raise malformed("an Authentication request of a wrong length")
