"""
What both ends of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS have in common: names, bounds, attributes, signatures.

Documentation: RFC 5802 and RFC 7677; channel binding by tls-server-end-point, RFC 5929, section 4.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64encode
from collections.abc import Callable

from pgproxy.auth.secrets import decode_base64
from pgproxy.auth.steps import AuthError, AuthReason

SCRAM = b"SCRAM-SHA-256"
SCRAM_PLUS = b"SCRAM-SHA-256-PLUS"
BINDING_HEADER = b"p=tls-server-end-point,,"
"""The GS2 header of a client that binds to the channel."""

MAX_MESSAGE = 4096
"""Bytes of any one SCRAM message; libpq's and PostgreSQL's are below 300."""
MAX_NONCE = 512
"""Bytes of a nonce, of one end or of both; PostgreSQL's have 24 each."""
_NONCE_BYTES = 18
"""Random bytes in our part of a nonce: PostgreSQL's."""

# RFC 5802, section 7: "printable" is ASCII without the comma.
_nonce_form = re.compile(rb"[\x21-\x2b\x2d-\x7e]{1,%d}" % MAX_NONCE)
_attribute_form = re.compile(rb"[A-Za-z]=[^\0]*")


def attributes(message: bytes) -> list[bytes]:
    """Cut a message into its `x=value` attributes. Raises `AuthError`."""
    if len(message) > MAX_MESSAGE:
        raise malformed(f"a SCRAM message of {len(message)} bytes")
    parts = message.split(b",")
    if not all(map(_attribute_form.fullmatch, parts)):
        raise malformed("a SCRAM message that is not a list of attributes")
    if parts[0].startswith(b"m="):
        raise malformed("a mandatory SCRAM extension that we don't know")
    return parts


def value(part: bytes, name: bytes) -> bytes:
    """Give the value of the attribute that must stand here. Raises `AuthError`."""
    if part[:1] != name:
        raise malformed(f"a SCRAM message without attribute {name.decode()} in its place")
    return part[2:]


def new_nonce(random_bytes: Callable[[int], bytes]) -> bytes:
    """Make our part of a nonce; `random_bytes` gives unguessable bytes."""
    return b64encode(random_bytes(_NONCE_BYTES))


def nonce(text: bytes) -> bytes:
    """Check a nonce's letters and length. Raises `AuthError`."""
    if _nonce_form.fullmatch(text) is None:
        raise malformed(f"a SCRAM nonce that is not 1 to {MAX_NONCE} printable letters")
    return text


def base64(text: bytes, least: int, most: int) -> bytes:
    """Decode an attribute that must have so many bytes. Raises `AuthError`."""
    try:
        decoded = decode_base64(text)
    except ValueError as error:
        raise malformed(f"a SCRAM attribute in {error}") from None
    if not least <= len(decoded) <= most:
        raise malformed("a SCRAM attribute of a wrong length")
    return decoded


def signature(key: bytes, auth_message: bytes) -> bytes:
    """Give ClientSignature or ServerSignature (RFC 5802, section 3)."""
    return hmac.digest(key, auth_message, "sha256")


def xor(left: bytes, right: bytes) -> bytes:
    """Give the bitwise difference of two keys."""
    if len(left) != len(right):
        raise ValueError("keys of different lengths")
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(left), "big")


def malformed(detail: str) -> AuthError:
    """Make the error for what the grammar (RFC 5802, section 7) does not allow."""
    return AuthError(AuthReason.MALFORMED, detail)
