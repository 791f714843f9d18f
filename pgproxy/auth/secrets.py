"""
What is stored about a user, and what may be known to log in as that user.

The forms are those of pg_authid.rolpassword (PostgreSQL manual, "pg_authid"); the keys are those of RFC 5802,
section 3.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode, b64encode

from attrs import field, frozen

from pgproxy.auth.saslprep import saslprep

SCRAM_ITERATIONS = 4096
"""PBKDF2 rounds of a new verifier: PostgreSQL's default and RFC 7677's least."""
SCRAM_SALT_SIZE = 16
"""Bytes of salt of a new verifier: PostgreSQL's."""
KEY_SIZE = 32
"""Bytes of every SCRAM-SHA-256 key, signature and proof."""
MAX_SALT = 1024
"""Bytes of salt that are accepted from a verifier or a server; PostgreSQL makes 16."""
MAX_SECRET = 65_536
"""Bytes of a stored secret."""
MAX_VERIFIER_ITERATIONS = 2**31 - 1
"""PostgreSQL keeps the count in an int."""

_SCRAM_PREFIX = "SCRAM-SHA-256$"
_md5_form = re.compile(r"md5[0-9a-fA-F]{32}")
_scram_form = re.compile(r"([1-9][0-9]{0,9}):([^:$]*)\$([^:$]*):([^:$]*)")


@frozen
class PlainPassword:
    """The password itself."""

    password: str = field(repr=False)


@frozen
class Passwords:
    """What may be the password while it is being changed, the likeliest first: each of them lets in."""

    passwords: tuple[str, ...] = field(repr=False)


@frozen
class Md5Hash:
    """PostgreSQL's md5 of password and user name: enough to log in by md5, and for nothing else."""

    digest: str = field(repr=False)
    """32 lower-case hexadecimal digits."""


@frozen
class ScramVerifier:
    """What lets one check a SCRAM-SHA-256 login, and not make one."""

    iterations: int
    salt: bytes = field(repr=False)
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)


Secret = PlainPassword | Md5Hash | ScramVerifier
"""What is stored about a user."""
Known = Secret | Passwords
"""What is known about a user: stored, or told by who changes the passwords."""


@frozen
class ScramKeys:
    """Both keys of SCRAM, good for a login wherever the verifier has this salt and these iterations."""

    client_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)
    salt: bytes = field(repr=False)
    iterations: int


@frozen
class Credentials:
    """What the proxy may log in to a server with; each that is known, none where nothing is."""

    password: str | None = field(default=None, repr=False)
    md5: Md5Hash | None = None
    scram: ScramKeys | None = None


def passwords_of(secret: Known | None) -> tuple[str, ...]:
    """Give the passwords that are known, the likeliest first; an empty one is none."""
    match secret:
        case PlainPassword(password):
            return (password,) if password else ()
        case Passwords(passwords):
            return tuple(filter(None, passwords))
        case _:
            return ()


def credentials_of(secret: Known | None) -> Credentials:
    """Give what a stored secret alone allows; a verifier allows nothing before its user has logged in."""
    passwords = passwords_of(secret)
    if passwords:
        return Credentials(password=passwords[0])
    match secret:
        case Md5Hash():
            return Credentials(md5=secret)
        case _:
            return Credentials()


def parse_secret(text: str) -> Secret:
    """
    Read a stored secret: an md5 hash, a SCRAM verifier, or else a password as it is.

    Raises ValueError, in words that do not tell the secret, for a malformed verifier and for what cannot be a
    password: too long, with a NUL, or not text.
    """
    try:
        size = len(text.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        # The error holds the text.
        raise ValueError("the secret is not text in UTF-8") from None
    if size > MAX_SECRET:
        raise ValueError(f"the secret has {size} bytes; at most {MAX_SECRET} are allowed")
    if "\0" in text:
        raise ValueError("the secret has a NUL in it")
    if _md5_form.fullmatch(text):
        return Md5Hash(text[3:].lower())
    if text.startswith(_SCRAM_PREFIX):
        return _parse_verifier(text.removeprefix(_SCRAM_PREFIX))
    return PlainPassword(text)


def _parse_verifier(text: str) -> ScramVerifier:
    form = _scram_form.fullmatch(text)
    if form is None:
        raise ValueError(
            "the SCRAM verifier is malformed; its form is SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey"
        )
    iterations = int(form[1])
    if iterations > MAX_VERIFIER_ITERATIONS:
        raise ValueError("the SCRAM verifier's iterations are out of range")
    salt, stored_key, server_key = (_strict_base64(part.encode()) for part in form.group(2, 3, 4))
    if salt is None or not 0 < len(salt) <= MAX_SALT:
        raise ValueError(f"the SCRAM verifier's salt is not 1 to {MAX_SALT} bytes in base64")
    if stored_key is None or server_key is None or not len(stored_key) == len(server_key) == KEY_SIZE:
        raise ValueError(f"the SCRAM verifier's keys are not {KEY_SIZE} bytes each in base64")
    return ScramVerifier(iterations, salt, stored_key, server_key)


def _strict_base64(text: bytes) -> bytes | None:
    try:
        return decode_base64(text)
    except ValueError:
        return None


def decode_base64(text: bytes) -> bytes:
    """Decode base64 in its one canonical spelling (RFC 4648, sections 3.3 and 3.5). Raises ValueError."""
    try:
        decoded = b64decode(text, validate=True)
    except ValueError:
        raise ValueError("malformed base64") from None
    if b64encode(decoded) != text:
        raise ValueError("base64 that is not canonical")
    return decoded


def format_secret(secret: Secret) -> str:
    """Write a secret as it is stored; the reverse of `parse_secret`."""
    match secret:
        case PlainPassword(password):
            return password
        case Md5Hash(digest):
            return "md5" + digest
        case ScramVerifier(iterations, salt, stored_key, server_key):
            salt64, stored64, server64 = (b64encode(part).decode() for part in (salt, stored_key, server_key))
            return f"{_SCRAM_PREFIX}{iterations}:{salt64}${stored64}:{server64}"


def md5_hash(user: str, password: str) -> Md5Hash:
    """Hash a password as PostgreSQL's md5 method stores it."""
    text = (password + user).encode("utf-8", "surrogateescape")
    return Md5Hash(hashlib.md5(text, usedforsecurity=False).hexdigest())


def md5_response(stored: Md5Hash, salt: bytes) -> bytes:
    """Give the answer to AuthenticationMD5Password with this salt, without its terminator."""
    hashed = hashlib.md5(stored.digest.encode() + salt, usedforsecurity=False)
    return b"md5" + hashed.hexdigest().encode()


def scram_verifier(password: str, salt: bytes, iterations: int) -> ScramVerifier:
    """Make the verifier of a password. Blocks for as long as PBKDF2 takes: about 1 ms for 4096 iterations."""
    salted = hashlib.pbkdf2_hmac("sha256", saslprep(password), salt, iterations)
    return verifier_of(salted, salt, iterations)


def verifier_of(salted_password: bytes, salt: bytes, iterations: int) -> ScramVerifier:
    """Make the verifier of a password of which PBKDF2's result is known."""
    keys = keys_of(salted_password, salt, iterations)
    return ScramVerifier(iterations, salt, hashlib.sha256(keys.client_key).digest(), keys.server_key)


def keys_of(salted_password: bytes, salt: bytes, iterations: int) -> ScramKeys:
    """Make the keys of a password of which PBKDF2's result is known (RFC 5802, section 3)."""
    client_key = hmac.digest(salted_password, b"Client Key", "sha256")
    server_key = hmac.digest(salted_password, b"Server Key", "sha256")
    return ScramKeys(client_key, server_key, salt, iterations)
