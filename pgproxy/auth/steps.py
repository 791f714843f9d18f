"""What the two login machines return: what is to be done next, and how a login has ended."""

from __future__ import annotations

from enum import Enum

from attrs import field, frozen

from pgproxy.auth.secrets import Credentials


class AuthReason(Enum):
    """Why a login was refused: the same word in the log, in metrics and in the documentation."""

    UNKNOWN_USER = "unknown_user"
    """Nothing is stored about the user."""
    UNUSABLE_SECRET = "unusable_secret"
    """What is stored about the user cannot serve this method."""
    WRONG_PASSWORD = "wrong_password"
    CERTIFICATE = "certificate"
    """No certificate, or one for somebody else."""
    MALFORMED = "malformed"
    """A message that the protocol does not know in this form."""
    OUT_OF_ORDER = "out_of_order"
    """A message that is not due now."""
    UNSUPPORTED_METHOD = "unsupported_method"
    CHANNEL_BINDING = "channel_binding"
    """The two ends of SCRAM do not see the same certificate."""
    DOWNGRADE = "downgrade"
    """Somebody in between has hidden what one side offered."""
    NO_PASSWORD = "no_password"
    """The server asks for a proof of something that is not known here."""
    OTHER_KEYS = "other_keys"
    """The SCRAM keys at hand belong to another verifier than the server's."""
    CLEARTEXT_REFUSED = "cleartext_refused"
    """The server asks for the password over a connection that anybody may read."""
    ITERATIONS = "iterations"
    """The server asks for more work than a login is worth."""
    SERVER_SIGNATURE = "server_signature"
    """The server does not know the password either."""
    SERVER_ERROR = "server_error"
    """The server ended SCRAM with an error of its own."""


class AuthError(Exception):
    """A login cannot go on; `detail` is for the log and holds no secret."""

    def __init__(self, reason: AuthReason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


@frozen
class Ask:
    """Client leg: send an Authentication request of this code and data, and await the client's answer."""

    code: int
    data: bytes


@frozen
class Answer:
    """Server leg: send a p message with this payload, and await the server's next request."""

    payload: bytes = field(repr=False)


@frozen
class Derive:
    """Compute PBKDF2-HMAC-SHA-256 (32 bytes) in a thread, and hand the result to `derived`."""

    password: bytes = field(repr=False)
    salt: bytes = field(repr=False)
    iterations: int


@frozen
class Renew:
    """Client leg: look up anew what is known about the user, and hand it to `renewed`."""


@frozen
class Verify:
    """Client leg: have the token judged by who can, and hand what it is good for to `verified`."""

    token: str = field(repr=False)


@frozen
class Wait:
    """Server leg: send nothing, and await the server's next request."""


@frozen
class Accepted:
    """The login is done. On the client leg, `final` goes with code 12 before AuthenticationOk."""

    final: bytes | None
    credentials: Credentials


@frozen
class Refused:
    """The login has failed; `detail` is for the log and holds no secret."""

    reason: AuthReason
    detail: str


ClientStep = Ask | Derive | Renew | Verify | Accepted | Refused
ServerStep = Answer | Derive | Wait | Accepted | Refused

OK = 0
CLEARTEXT_PASSWORD = 3
MD5_PASSWORD = 5
SASL = 10
SASL_CONTINUE = 11
SASL_FINAL = 12
