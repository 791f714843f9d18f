"""The end of SCRAM that checks a login: the one that the proxy's clients talk to."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode

from pgproxy.auth.scram import (
    BINDING_HEADER,
    SCRAM,
    SCRAM_PLUS,
    attributes,
    base64,
    malformed,
    nonce,
    signature,
    value,
    xor,
)
from pgproxy.auth.secrets import KEY_SIZE, ScramVerifier
from pgproxy.auth.steps import AuthError, AuthReason


class ScramServer:
    """
    One conversation: `first`, `final`, then `finish` once the verifier is there.

    `channel_binding` is the tls-server-end-point of our certificate; with it, SCRAM-SHA-256-PLUS is offered.
    `own_nonce` is our part of the nonce, new each time.
    """

    def __init__(
        self,
        salt: bytes,
        iterations: int,
        *,
        channel_binding: bytes | None,
        own_nonce: bytes,
    ) -> None:
        self.salt = salt
        self.iterations = iterations
        self._channel_binding = channel_binding
        self._own_nonce = own_nonce
        self._header = b""
        self._nonce = b""
        self._auth_message = b""
        self._proof = b""

    @property
    def mechanisms(self) -> tuple[bytes, ...]:
        """What is offered, the best first."""
        return (SCRAM,) if self._channel_binding is None else (SCRAM_PLUS, SCRAM)

    def first(self, mechanism: bytes, message: bytes) -> bytes:
        """
        Take the client-first-message, give the server-first-message. Raises `AuthError`.

        The user name in it is ignored, as in PostgreSQL: the startup message has said it; libpq sends none.
        """
        if mechanism not in self.mechanisms:
            raise AuthError(AuthReason.UNSUPPORTED_METHOD, "a SASL mechanism that was not offered")
        self._header, bare = self._gs2_header(mechanism, message)
        parts = attributes(bare)
        if len(parts) < 2:
            raise malformed("a SCRAM message without a nonce")
        value(parts[0], b"n")
        theirs = nonce(value(parts[1], b"r"))
        self._nonce = theirs + self._own_nonce
        answer = b"r=%b,s=%b,i=%d" % (self._nonce, b64encode(self.salt), self.iterations)
        self._auth_message = bare + b"," + answer
        return answer

    def _gs2_header(self, mechanism: bytes, message: bytes) -> tuple[bytes, bytes]:
        flag, comma, rest = message.partition(b",")
        identity, second_comma, bare = rest.partition(b",")
        if not comma or not second_comma:
            raise malformed("a SCRAM message without a GS2 header")
        if identity:
            raise malformed("a SCRAM authorization identity, which PostgreSQL does not support")
        header = flag + b",,"
        if mechanism == SCRAM_PLUS:
            if header != BINDING_HEADER:
                raise malformed("SCRAM-SHA-256-PLUS without binding to tls-server-end-point")
        elif flag == b"y":
            if self._channel_binding is not None:
                raise AuthError(
                    AuthReason.DOWNGRADE, "the client was not shown that SCRAM-SHA-256-PLUS is offered"
                )
        elif flag != b"n":
            raise malformed("SCRAM-SHA-256 with a channel binding flag that is neither n nor y")
        return header, bare

    def final(self, message: bytes) -> None:
        """Take the client-final-message; whether its proof is right, `finish` tells. Raises `AuthError`."""
        parts = attributes(message)
        if len(parts) < 3 or any(part.startswith(b"p=") for part in parts[2:-1]):
            raise malformed("a SCRAM message without a proof at its end")
        bound = self._header + (self._channel_binding or b"" if self._header == BINDING_HEADER else b"")
        if not hmac.compare_digest(value(parts[0], b"c"), b64encode(bound)):
            raise AuthError(AuthReason.CHANNEL_BINDING, "the channel binding of the client is another")
        if not hmac.compare_digest(value(parts[1], b"r"), self._nonce):
            raise malformed("a SCRAM nonce that is not the one agreed on")
        self._proof = base64(value(parts[-1], b"p"), KEY_SIZE, KEY_SIZE)
        self._auth_message += b"," + message[: -len(parts[-1]) - 1]

    def finish(self, verifier: ScramVerifier) -> tuple[bytes, bytes]:
        """
        Check the proof; give the server-final-message and the ClientKey, which the proof has revealed.

        Raises `AuthError` with WRONG_PASSWORD.
        """
        client_key = xor(self._proof, signature(verifier.stored_key, self._auth_message))
        if not hmac.compare_digest(hashlib.sha256(client_key).digest(), verifier.stored_key):
            raise AuthError(AuthReason.WRONG_PASSWORD, "the proof is not that of the stored secret")
        return b"v=" + b64encode(signature(verifier.server_key, self._auth_message)), client_key
