"""The end of SCRAM that logs in: the one that the proxy plays towards a server, which may be hostile."""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64encode
from collections.abc import Sequence

from attrs import field, frozen

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
from pgproxy.auth.secrets import KEY_SIZE, MAX_SALT, ScramKeys
from pgproxy.auth.steps import AuthError, AuthReason

MAX_ITERATIONS = 1_000_000
"""PBKDF2 rounds done for a server: about a quarter of a second; PostgreSQL's default is 4096."""

_iterations_form = re.compile(rb"[1-9][0-9]{0,9}")


@frozen
class Challenge:
    """What the server wants the password to be hashed with."""

    salt: bytes = field(repr=False)
    iterations: int


class ScramClient:
    """
    One conversation: `first`, `challenge`, `proof`, `verify`.

    `offered` are the server's mechanisms; `channel_binding` is the tls-server-end-point of its certificate,
    None without TLS or where it has none; `own_nonce` is our part of the nonce, new each time. Raises
    `AuthError` where none of the mechanisms will do.
    """

    def __init__(
        self,
        offered: Sequence[bytes],
        *,
        tls: bool,
        channel_binding: bytes | None,
        own_nonce: bytes,
    ) -> None:
        if SCRAM_PLUS in offered and not tls:
            raise AuthError(AuthReason.DOWNGRADE, "the server offers SCRAM-SHA-256-PLUS, but here is no TLS")
        if SCRAM_PLUS in offered and channel_binding is not None:
            self.mechanism, self._header, bound = SCRAM_PLUS, BINDING_HEADER, channel_binding
        elif SCRAM in offered:
            # With y, a server that did offer PLUS sees that somebody in between has taken it out.
            flag = b"y,," if tls and channel_binding is not None else b"n,,"
            self.mechanism, self._header, bound = SCRAM, flag, b""
        else:
            raise AuthError(AuthReason.UNSUPPORTED_METHOD, "the server offers no SASL mechanism that will do")
        self._bound = b64encode(self._header + bound)
        self._bare = b"n=,r=" + own_nonce
        self._auth_message = b""
        self._nonce = b""
        self._server_key = b""

    def first(self) -> bytes:
        """Give the client-first-message; as libpq's, it leaves the user's name to the startup message."""
        return self._header + self._bare

    def challenge(self, message: bytes) -> Challenge:
        """Take the server-first-message. Raises `AuthError`."""
        parts = attributes(message)
        if len(parts) != 3:
            raise malformed("a server-first-message that is not nonce, salt and iterations")
        both, ours = nonce(value(parts[0], b"r")), self._bare.removeprefix(b"n=,r=")
        if not both.startswith(ours) or both == ours:
            raise malformed("a SCRAM nonce that does not extend ours")
        salt = base64(value(parts[1], b"s"), 1, MAX_SALT)
        count = value(parts[2], b"i")
        if _iterations_form.fullmatch(count) is None or int(count) > MAX_ITERATIONS:
            raise AuthError(AuthReason.ITERATIONS, f"the server's iterations are not 1 to {MAX_ITERATIONS}")
        self._nonce = both
        self._auth_message = self._bare + b"," + message
        return Challenge(salt, int(count))

    def proof(self, keys: ScramKeys) -> bytes:
        """Give the client-final-message, made with the keys of the challenge's salt and iterations."""
        message = b"c=%b,r=%b" % (self._bound, self._nonce)
        self._auth_message += b"," + message
        self._server_key = keys.server_key
        stored_key = hashlib.sha256(keys.client_key).digest()
        return message + b",p=" + b64encode(xor(keys.client_key, signature(stored_key, self._auth_message)))

    def verify(self, message: bytes) -> None:
        """Take the server-final-message: from here on the server has proved that it knows the verifier."""
        parts = attributes(message)
        if parts[0].startswith(b"e="):
            word = parts[0][2:34].decode("ascii", "replace")
            shown = "".join(letter if letter.isprintable() else "?" for letter in word)
            raise AuthError(AuthReason.SERVER_ERROR, f"the server ended SCRAM with the error {shown!r}")
        if len(parts) != 1:
            raise malformed("a server-final-message that is not a signature")
        given = base64(value(parts[0], b"v"), KEY_SIZE, KEY_SIZE)
        if not hmac.compare_digest(given, signature(self._server_key, self._auth_message)):
            raise AuthError(AuthReason.SERVER_SIGNATURE, "the server's signature is wrong")
