"""
The login of a client at the proxy, by each of the methods.

Somebody who may not come in takes the same steps as somebody who may, and is refused at the end: who asks
learns nothing about which users there are. What a user without a usable secret is shown is like what most
others are (`looks`), and made from the user's name and `mock_key`, so that it is the same each time.

Documentation: PostgreSQL manual, "Start-up" and "SASL Authentication".
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

from pgproxy.auth.looks import Looks
from pgproxy.auth.saslprep import saslprep
from pgproxy.auth.scram import malformed, new_nonce
from pgproxy.auth.scram_server import ScramServer
from pgproxy.auth.secrets import (
    SCRAM_ITERATIONS,
    SCRAM_SALT_SIZE,
    Credentials,
    Known,
    Md5Hash,
    Passwords,
    PlainPassword,
    ScramKeys,
    ScramVerifier,
    credentials_of,
    md5_hash,
    md5_response,
    passwords_of,
    verifier_of,
)
from pgproxy.auth.steps import (
    CLEARTEXT_PASSWORD,
    MD5_PASSWORD,
    SASL,
    SASL_CONTINUE,
    Accepted,
    Ask,
    AuthError,
    AuthReason,
    ClientStep,
    Derive,
    Refused,
    Renew,
    Verify,
)

Method = Literal["trust", "md5", "scram-sha-256", "cert", "token"]

MAX_PAYLOAD = 10_000
"""Bytes of a client's answer: a token of AWS's has up to some 4000, all else is below 1000."""
_MD5_SALT_SIZE = 4


class ClientLogin:
    """
    One client's login: `start`, then `received`, `derived`, `renewed` and `verified` as the steps ask, until
    Accepted or Refused.

    `secret` is None for an unknown user. `channel_binding` is the tls-server-end-point of the certificate
    that the client was shown, None without TLS. `certificate_cn` is the common name of the client's verified
    certificate, and `cert_map` says which users a name may be; one that is not in it may be the user of the
    same name. `mock_key` is random and stays the same while the process lives.

    Method md5 is SCRAM for a user with a SCRAM verifier. For a plain password, SCRAM asks for `Derive` with a
    salt that depends on `mock_key` and the user's name only, so that the result can be kept; where it is not,
    such a login takes longer by that than one with a verifier or of an unknown user.

    With `renewable`, nobody is refused before it was asked for once more what is known (`Renew`): a password
    may just have been changed. It is asked about users that are not there as well. What a client has sent is
    judged again by the answer: salt and iterations do not depend on the password.

    Method token takes what drivers send for tokens, the cleartext password; who judges it is somebody else.
    """

    def __init__(
        self,
        method: Method,
        user: str,
        secret: Known | None,
        *,
        channel_binding: bytes | None,
        mock_key: bytes,
        certificate_cn: str | None,
        cert_map: Mapping[str, frozenset[str]],
        looks: Looks,
        renewable: bool = False,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._method = method
        self._user = user
        self._secret = secret
        self._channel_binding = channel_binding
        self._mock_key = mock_key
        self._certificate_cn = certificate_cn
        self._cert_map = cert_map
        self._looks = looks
        self._random_bytes = random_bytes
        self._doom = self._why_doomed()
        self._next: Callable[[bytes], ClientStep] | None = None
        self._conclude: Callable[[bytes], ClientStep] | None = None
        self._renewable = renewable
        self._again: Callable[[], ClientStep] | None = None
        """Judges what the client has sent once more."""
        self._verifying = False

    def start(self) -> ClientStep:
        """Give the first step. Raises ValueError for a method that there is not."""
        match self._method:
            case "trust":
                return Accepted(None, credentials_of(self._secret))
            case "cert":
                return self._check_certificate()
            case "md5" if not self._looks_like_scram():
                return self._ask_md5()
            case "md5" | "scram-sha-256":
                return self._ask_scram()
            case "token":
                return self._ask_token()
        raise ValueError(f"{self._method!r} is no authentication method")

    def received(self, payload: bytes) -> ClientStep:
        """Take the payload of a p message, the answer to the last `Ask`. Never raises, whatever it is."""
        take, self._next = self._next, None
        if take is None:
            return Refused(AuthReason.OUT_OF_ORDER, "a login message where none is due")
        try:
            if len(payload) > MAX_PAYLOAD:
                raise malformed(f"a login message of {len(payload)} bytes")
            return take(payload)
        except AuthError as error:
            return Refused(error.reason, error.detail)

    def derived(self, salted_password: bytes) -> ClientStep:
        """Take the result of the last `Derive`. Raises RuntimeError if there was none."""
        conclude, self._conclude = self._conclude, None
        if conclude is None:
            raise RuntimeError("no key was asked for")
        return conclude(salted_password)

    def renewed(self, secret: Known | None) -> ClientStep:
        """Take the answer to `Renew`. Raises RuntimeError if there was none."""
        again, self._again = self._again, None
        if again is None:
            raise RuntimeError("nothing was asked for")
        self._secret = secret
        self._doom = self._why_doomed()
        return again()

    def verified(self, credentials: Credentials) -> ClientStep:
        """Take what a token that was found right is good for. Raises RuntimeError if there was none."""
        if not self._verifying:
            raise RuntimeError("no token was given")
        self._verifying = False
        return Accepted(None, credentials)

    # Whom no password lets in.

    def _refuse(self, refused: Refused, again: Callable[[], ClientStep]) -> ClientStep:
        """Refuse, or have it tried again with what is known by now."""
        if not self._renewable:
            return self._doom or refused
        self._renewable = False
        self._again = again
        return Renew()

    def _why_doomed(self) -> Refused | None:
        match self._secret:
            case None:
                return Refused(AuthReason.UNKNOWN_USER, "no secret is stored for this user")
            case PlainPassword() | Passwords() if not passwords_of(self._secret):
                return Refused(AuthReason.UNUSABLE_SECRET, "the stored password is empty")
            case Md5Hash() if self._method == "scram-sha-256":
                return Refused(
                    AuthReason.UNUSABLE_SECRET,
                    "an md5 hash is stored, and scram-sha-256 needs a password or a SCRAM verifier",
                )
        return None

    def _mock(self, purpose: bytes) -> bytes:
        """Make 32 bytes that are always the same for this user, and that nobody can foretell."""
        name = self._user.encode("utf-8", "surrogateescape")
        return hmac.digest(self._mock_key, purpose + b"\0" + name, "sha256")

    # Certificates.

    def _check_certificate(self) -> ClientStep:
        name = self._certificate_cn
        if name is None:
            return Refused(AuthReason.CERTIFICATE, "the client has shown no certificate with a common name")
        if self._user not in self._cert_map.get(name, {name}):
            return Refused(AuthReason.CERTIFICATE, f"the certificate of {name[:128]!r} is not for this user")
        return Accepted(None, credentials_of(self._secret))

    # Tokens.

    def _ask_token(self) -> ClientStep:
        def take(payload: bytes) -> ClientStep:
            try:
                token = _one_text(payload).decode("ascii")
            except UnicodeDecodeError:
                # The error holds the text.
                raise malformed("a token that is not ASCII") from None
            self._verifying = True
            return Verify(token)

        self._next = take
        return Ask(CLEARTEXT_PASSWORD, b"")

    # md5.

    def _ask_md5(self) -> ClientStep:
        salt = self._random_bytes(_MD5_SALT_SIZE)
        self._next = partial(self._check_md5, salt)
        return Ask(MD5_PASSWORD, salt)

    def _check_md5(self, salt: bytes, payload: bytes) -> ClientStep:
        answer = _one_text(payload)
        for stored, credentials in self._md5_hashes():
            if hmac.compare_digest(answer, md5_response(stored, salt)) and self._doom is None:
                return Accepted(None, credentials)
        wrong = Refused(AuthReason.WRONG_PASSWORD, "the answer is not that of the stored secret")
        return self._refuse(wrong, partial(self._check_md5, salt, payload))

    def _md5_hashes(self) -> list[tuple[Md5Hash, Credentials]]:
        """Give what an answer may be made from; something for a user without a usable secret, too."""
        if isinstance(self._secret, Md5Hash):
            return [(self._secret, Credentials(md5=self._secret))]
        passwords = passwords_of(self._secret)
        if passwords:
            return [(md5_hash(self._user, one), Credentials(password=one)) for one in passwords]
        return [(Md5Hash(self._mock(b"md5").hex()[:32]), Credentials())]

    # SCRAM.

    def _looks_like_scram(self) -> bool:
        if self._secret is None:
            return self._looks.scram
        return isinstance(self._secret, ScramVerifier)

    def _ask_scram(self) -> ClientStep:
        match self._secret:
            case ScramVerifier(iterations, salt):
                pass
            case PlainPassword() | Passwords():
                iterations, salt = SCRAM_ITERATIONS, self._mock(b"salt")[:SCRAM_SALT_SIZE]
            case _:
                iterations, salt = self._looks.iterations, self._mock(b"salt")[:SCRAM_SALT_SIZE]
        scram = ScramServer(
            salt, iterations, channel_binding=self._channel_binding, own_nonce=new_nonce(self._random_bytes)
        )
        self._next = partial(self._take_first, scram)
        return Ask(SASL, b"".join(mechanism + b"\0" for mechanism in scram.mechanisms) + b"\0")

    def _take_first(self, scram: ScramServer, payload: bytes) -> ClientStep:
        mechanism, message = _read_initial_response(payload)
        if message is None:
            self._next = partial(self._answer_first, scram, mechanism)
            return Ask(SASL_CONTINUE, b"")
        return self._answer_first(scram, mechanism, message)

    def _answer_first(self, scram: ScramServer, mechanism: bytes, message: bytes) -> ClientStep:
        said = scram.first(mechanism, message)
        self._next = partial(self._take_final, scram)
        return Ask(SASL_CONTINUE, said)

    def _take_final(self, scram: ScramServer, payload: bytes) -> ClientStep:
        scram.final(payload)
        return self._check_proof(scram)

    def _check_proof(self, scram: ScramServer) -> ClientStep:
        if isinstance(self._secret, ScramVerifier):
            return self._finish(scram, self._secret)
        passwords = passwords_of(self._secret)
        if passwords:
            return self._try_each(scram, passwords)
        mock = ScramVerifier(
            scram.iterations, scram.salt, self._mock(b"stored key"), self._mock(b"server key")
        )
        return self._finish(scram, mock)

    def _try_each(self, scram: ScramServer, passwords: tuple[str, ...]) -> ClientStep:
        self._conclude = partial(self._try_first, scram, passwords)
        return Derive(saslprep(passwords[0]), scram.salt, scram.iterations)

    def _try_first(
        self, scram: ScramServer, passwords: tuple[str, ...], salted_password: bytes
    ) -> ClientStep:
        verifier = verifier_of(salted_password, scram.salt, scram.iterations)
        try:
            said, _client_key = scram.finish(verifier)
        except AuthError as error:
            if passwords[1:]:
                return self._try_each(scram, passwords[1:])
            return self._refuse(Refused(error.reason, error.detail), partial(self._check_proof, scram))
        return Accepted(said, Credentials(password=passwords[0]))

    def _finish(self, scram: ScramServer, verifier: ScramVerifier) -> ClientStep:
        try:
            said, client_key = scram.finish(verifier)
        except AuthError as error:
            return self._refuse(Refused(error.reason, error.detail), partial(self._check_proof, scram))
        if self._doom is not None:
            return self._doom
        keys = ScramKeys(client_key, verifier.server_key, scram.salt, scram.iterations)
        return Accepted(said, Credentials(scram=keys))


def _one_text(payload: bytes) -> bytes:
    """Read a PasswordMessage: one String."""
    if payload[-1:] != b"\0" or b"\0" in payload[:-1]:
        raise malformed("a password message that is not one terminated text")
    return payload[:-1]


def _read_initial_response(payload: bytes) -> tuple[bytes, bytes | None]:
    """Read SASLInitialResponse: String mechanism, Int32 length of what follows, or -1 and nothing."""
    mechanism, terminator, rest = payload.partition(b"\0")
    if not terminator or len(rest) < 4:
        raise malformed("a SASLInitialResponse that is cut off")
    length = int.from_bytes(rest[:4], "big", signed=True)
    if length == -1 and len(rest) == 4:
        return mechanism, None
    if length != len(rest) - 4:
        raise malformed("a SASLInitialResponse of another length than it says")
    return mechanism, rest[4:]
