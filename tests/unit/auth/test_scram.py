"""SCRAM's two ends: the RFC's conversation, one against the other, and each against a hostile peer."""

import hashlib
import hmac
from base64 import b64decode, b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.auth.saslprep import saslprep
from pgproxy.auth.scram import MAX_MESSAGE, MAX_NONCE, SCRAM, SCRAM_PLUS
from pgproxy.auth.scram_client import MAX_ITERATIONS, ScramClient
from pgproxy.auth.scram_server import ScramServer
from pgproxy.auth.secrets import MAX_SALT, keys_of, scram_verifier
from pgproxy.auth.steps import AuthError, AuthReason

SALT = b"sixteen bytes..."
SALTED = hashlib.pbkdf2_hmac("sha256", b"pencil", SALT, 4096)
KEYS = keys_of(SALTED, SALT, 4096)
VERIFIER = scram_verifier("pencil", SALT, 4096)
BINDING = b"hash of a certificate"


def server(binding: bytes | None = None, nonce: bytes = b"servernonce") -> ScramServer:
    return ScramServer(SALT, 4096, channel_binding=binding, own_nonce=nonce)


def client(
    binding: bytes | None = None, tls: bool = False, offered: tuple[bytes, ...] = (SCRAM,)
) -> ScramClient:
    return ScramClient(offered, tls=tls, channel_binding=binding, own_nonce=b"clientnonce")


def reason_of(error: pytest.ExceptionInfo[AuthError]) -> AuthReason:
    return error.value.reason


def test_the_conversation_of_rfc_7677() -> None:
    # RFC 7677, section 3: user "user", password "pencil".
    salt = b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    end = ScramServer(salt, 4096, channel_binding=None, own_nonce=b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    assert (
        end.first(SCRAM, b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
        == b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    end.final(
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    said, _ = end.finish(scram_verifier("pencil", salt, 4096))
    assert said == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


@pytest.mark.parametrize("binding", [None, BINDING])
def test_one_end_against_the_other(binding: bytes | None) -> None:
    theirs = server(binding)
    ours = client(binding, binding is not None, theirs.mechanisms)
    assert ours.mechanism == (SCRAM_PLUS if binding else SCRAM)
    challenge = ours.challenge(theirs.first(ours.mechanism, ours.first()))
    assert (challenge.salt, challenge.iterations) == (SALT, 4096)
    theirs.final(ours.proof(KEYS))
    said, client_key = theirs.finish(VERIFIER)
    ours.verify(said)
    assert client_key == KEYS.client_key


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20), st.binary(min_size=1, max_size=30))
def test_only_the_same_password_is_right(stored: str, given_: str, salt: bytes) -> None:
    theirs = ScramServer(salt, 1, channel_binding=None, own_nonce=b"s")
    ours = client()
    verifier, mine = scram_verifier(stored, salt, 1), scram_verifier(given_, salt, 1)
    challenge = ours.challenge(theirs.first(SCRAM, ours.first()))
    salted = hashlib.pbkdf2_hmac("sha256", saslprep(given_), challenge.salt, 1)
    theirs.final(ours.proof(keys_of(salted, salt, 1)))
    if mine == verifier:
        ours.verify(theirs.finish(verifier)[0])
    else:
        with pytest.raises(AuthError) as told:
            theirs.finish(verifier)
        assert reason_of(told) is AuthReason.WRONG_PASSWORD


# The server's end against clients.


@pytest.mark.parametrize(
    ("binding", "mechanism", "message", "reason"),
    [
        (BINDING, SCRAM, b"y,,n=,r=abc", AuthReason.DOWNGRADE),
        (None, SCRAM_PLUS, b"p=tls-server-end-point,,n=,r=abc", AuthReason.UNSUPPORTED_METHOD),
        (None, b"PLAIN", b"n,,n=,r=abc", AuthReason.UNSUPPORTED_METHOD),
        (None, b"", b"n,,n=,r=abc", AuthReason.UNSUPPORTED_METHOD),
        (None, SCRAM, b"p=tls-server-end-point,,n=,r=abc", AuthReason.MALFORMED),
        (BINDING, SCRAM, b"p=tls-server-end-point,,n=,r=abc", AuthReason.MALFORMED),
        (BINDING, SCRAM_PLUS, b"n,,n=,r=abc", AuthReason.MALFORMED),
        (BINDING, SCRAM_PLUS, b"y,,n=,r=abc", AuthReason.MALFORMED),
        (BINDING, SCRAM_PLUS, b"p=tls-unique,,n=,r=abc", AuthReason.MALFORMED),
        (None, SCRAM, b"n,a=postgres,n=,r=abc", AuthReason.MALFORMED),
        (None, SCRAM, b"n,,m=x,n=,r=abc", AuthReason.MALFORMED),
        (None, SCRAM, b"n,,r=abc", AuthReason.MALFORMED),
        (None, SCRAM, b"n,,n=,r=", AuthReason.MALFORMED),
        (None, SCRAM, b"n,,n=,r=a b", AuthReason.MALFORMED),
        (None, SCRAM, b"n,,n=,r=a\0b", AuthReason.MALFORMED),
        (None, SCRAM, b"n,,n=,r=\xc3\xa9", AuthReason.MALFORMED),
        (None, SCRAM, b"n,,n=,r=" + b"x" * (MAX_NONCE + 1), AuthReason.MALFORMED),
        (None, SCRAM, b"n,,n=" + b"x" * MAX_MESSAGE + b",r=abc", AuthReason.MALFORMED),
        (None, SCRAM, b"n,,n=,r=abc,", AuthReason.MALFORMED),
        (None, SCRAM, b"n,,n=,r=abc,nonsense", AuthReason.MALFORMED),
        (None, SCRAM, b"", AuthReason.MALFORMED),
        (None, SCRAM, b"z,,n=,r=abc", AuthReason.MALFORMED),
    ],
)
def test_a_first_message_that_will_not_do(
    binding: bytes | None, mechanism: bytes, message: bytes, reason: AuthReason
) -> None:
    with pytest.raises(AuthError) as told:
        server(binding).first(mechanism, message)
    assert reason_of(told) is reason


@pytest.mark.parametrize(
    "message", [b"n,,n=,r=abc", b"n,,n=alice,r=abc", b"y,,n=*,r=abc", b"n,,n=,r=abc,x=extension,y="]
)
def test_first_messages_that_will_do(message: bytes) -> None:
    assert server().first(SCRAM, message).startswith(b"r=abcservernonce,s=")


def final_message(header: bytes = b"n,,", binding: bytes = b"", extension: bytes = b"") -> bytes:
    message = b"c=" + b64encode(header + binding) + b",r=abcservernonce" + extension
    auth = b"n=,r=abc,r=abcservernonce,s=" + b64encode(SALT) + b",i=4096," + message
    signature = hmac.digest(VERIFIER.stored_key, auth, "sha256")
    proof = bytes(a ^ b for a, b in zip(KEYS.client_key, signature, strict=True))
    return message + b",p=" + b64encode(proof)


def login(header: bytes, mechanism: bytes, binding: bytes | None, message: bytes) -> bytes:
    end = server(binding)
    end.first(mechanism, header + b"n=,r=abc")
    end.final(message)
    return end.finish(VERIFIER)[0]


PLUS_HEADER = b"p=tls-server-end-point,,"


def test_proofs_that_are_right() -> None:
    assert login(b"n,,", SCRAM, None, final_message())
    assert login(b"n,,", SCRAM, BINDING, final_message())
    assert login(b"y,,", SCRAM, None, final_message(b"y,,"))
    assert login(b"n,,", SCRAM, None, final_message(extension=b",x=y"))
    assert login(PLUS_HEADER, SCRAM_PLUS, BINDING, final_message(PLUS_HEADER, BINDING))


@pytest.mark.parametrize(
    ("header", "bound"), [(PLUS_HEADER, b"another hash"), (PLUS_HEADER, b""), (b"n,,", b""), (b"y,,", b"")]
)
def test_a_channel_binding_to_another_certificate(header: bytes, bound: bytes) -> None:
    with pytest.raises(AuthError) as told:
        login(PLUS_HEADER, SCRAM_PLUS, BINDING, final_message(header, bound))
    assert reason_of(told) is AuthReason.CHANNEL_BINDING


def test_a_client_that_says_now_y_now_n() -> None:
    with pytest.raises(AuthError) as told:
        login(b"n,,", SCRAM, None, final_message(b"y,,"))
    assert reason_of(told) is AuthReason.CHANNEL_BINDING


def test_every_change_of_a_final_message_is_refused() -> None:
    right = final_message()
    changed = [right[:cut] for cut in range(len(right))]
    changed += [right + extra for extra in (b"\0", b"A", b"=", b",", b",x=y", b"\n")]
    changed += [
        right[:at] + bytes((right[at] ^ bit,)) + right[at + 1 :]
        for at in range(len(right))
        for bit in (1, 2, 4, 8, 16, 32, 64, 128)
    ]
    for message in changed:
        with pytest.raises(AuthError):
            login(b"n,,", SCRAM, None, message)


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_any_client_is_answered_or_refused(first: bytes, final: bytes) -> None:
    end = server(BINDING)
    with pytest.raises(AuthError):
        end.first(SCRAM, b"n,,n=," + first)
        end.final(b"c=biws,r=" + final)
        end.finish(VERIFIER)


# The client's end against servers.


@pytest.mark.parametrize(
    ("offered", "tls", "binding", "mechanism", "header"),
    [
        ((SCRAM,), False, None, SCRAM, b"n,,"),
        ((SCRAM,), True, None, SCRAM, b"n,,"),
        ((SCRAM,), True, BINDING, SCRAM, b"y,,"),
        ((SCRAM_PLUS, SCRAM), True, BINDING, SCRAM_PLUS, PLUS_HEADER),
        ((SCRAM, SCRAM_PLUS), True, BINDING, SCRAM_PLUS, PLUS_HEADER),
        ((SCRAM_PLUS, SCRAM), True, None, SCRAM, b"n,,"),
        ((b"OAUTHBEARER", SCRAM), False, None, SCRAM, b"n,,"),
    ],
)
def test_the_mechanism_chosen(
    offered: tuple[bytes, ...], tls: bool, binding: bytes | None, mechanism: bytes, header: bytes
) -> None:
    end = client(binding, tls, offered)
    assert end.mechanism == mechanism
    assert end.first() == header + b"n=,r=clientnonce"


@pytest.mark.parametrize(
    ("offered", "tls", "reason"),
    [
        ((SCRAM_PLUS, SCRAM), False, AuthReason.DOWNGRADE),
        ((SCRAM_PLUS,), True, AuthReason.UNSUPPORTED_METHOD),
        ((b"PLAIN",), True, AuthReason.UNSUPPORTED_METHOD),
        ((), True, AuthReason.UNSUPPORTED_METHOD),
    ],
)
def test_no_mechanism_that_will_do(offered: tuple[bytes, ...], tls: bool, reason: AuthReason) -> None:
    with pytest.raises(AuthError) as told:
        client(None, tls, offered)
    assert reason_of(told) is reason


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"r=clientnonce,s=c2FsdA==,i=4096", AuthReason.MALFORMED),
        (b"r=another,s=c2FsdA==,i=4096", AuthReason.MALFORMED),
        (b"r=clientnonce x,s=c2FsdA==,i=4096", AuthReason.MALFORMED),
        (b"r=clientnonce" + b"x" * MAX_NONCE + b",s=c2FsdA==,i=4096", AuthReason.MALFORMED),
        (b"r=clientnoncex,s=,i=4096", AuthReason.MALFORMED),
        (b"r=clientnoncex,s=c2FsdA,i=4096", AuthReason.MALFORMED),
        (b"r=clientnoncex,s=" + b64encode(b"x" * (MAX_SALT + 1)) + b",i=4096", AuthReason.MALFORMED),
        (b"r=clientnoncex,s=" + b"A" * MAX_MESSAGE + b",i=4096", AuthReason.MALFORMED),
        (b"r=clientnoncex,s=c2FsdA==", AuthReason.MALFORMED),
        (b"s=c2FsdA==,r=clientnoncex,i=4096", AuthReason.MALFORMED),
        (b"m=x,r=clientnoncex,s=c2FsdA==,i=4096", AuthReason.MALFORMED),
        (b"r=clientnoncex,s=c2FsdA==,i=4096,x=y", AuthReason.MALFORMED),
        (b"", AuthReason.MALFORMED),
        (b"e=other-error", AuthReason.MALFORMED),
        (b"r=clientnoncex,s=c2FsdA==,i=0", AuthReason.ITERATIONS),
        (b"r=clientnoncex,s=c2FsdA==,i=-1", AuthReason.ITERATIONS),
        (b"r=clientnoncex,s=c2FsdA==,i=", AuthReason.ITERATIONS),
        (b"r=clientnoncex,s=c2FsdA==,i= 4096", AuthReason.ITERATIONS),
        (b"r=clientnoncex,s=c2FsdA==,i=04096", AuthReason.ITERATIONS),
        (b"r=clientnoncex,s=c2FsdA==,i=%d" % (MAX_ITERATIONS + 1), AuthReason.ITERATIONS),
        (b"r=clientnoncex,s=c2FsdA==,i=" + b"9" * 3000, AuthReason.ITERATIONS),
    ],
)
def test_a_challenge_that_will_not_do(message: bytes, reason: AuthReason) -> None:
    with pytest.raises(AuthError) as told:
        client().challenge(message)
    assert reason_of(told) is reason


def test_the_most_iterations() -> None:
    end = client()
    assert end.challenge(b"r=clientnoncex,s=c2FsdA==,i=%d" % MAX_ITERATIONS).iterations == MAX_ITERATIONS


def conversation() -> tuple[ScramClient, bytes]:
    theirs, ours = server(), client()
    ours.challenge(theirs.first(SCRAM, ours.first()))
    theirs.final(ours.proof(KEYS))
    return ours, theirs.finish(VERIFIER)[0]


def test_every_change_of_the_servers_signature_is_refused() -> None:
    ours, right = conversation()
    ours.verify(right)
    changed = [right[:cut] for cut in range(len(right))]
    changed += [right + extra for extra in (b"\0", b"A", b"=", b",", b",x=y")]
    changed += [
        right[:at] + bytes((right[at] ^ 1 << bit,)) + right[at + 1 :]
        for at in range(len(right))
        for bit in range(8)
    ]
    changed.append(b"v=" + b64encode(b"\0" * 32))
    for message in changed:
        with pytest.raises(AuthError):
            ours.verify(message)


def test_a_servers_error_is_told_in_bounds() -> None:
    ours, _ = conversation()
    with pytest.raises(AuthError) as told:
        ours.verify(b"e=invalid-proof\x1b[2J\n" + b"x" * 1000)
    assert reason_of(told) is AuthReason.SERVER_ERROR
    assert told.value.detail.isprintable() and "invalid-proof" in told.value.detail
    assert len(told.value.detail) < 100


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_any_server_is_answered_or_refused(challenge: bytes, final: bytes) -> None:
    ours, _ = conversation()
    for take, message in (
        (client().challenge, challenge),
        (ours.verify, final),
        (ours.verify, b"v=" + final),
    ):
        with pytest.raises(AuthError):
            take(message)
