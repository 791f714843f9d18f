"""The login at a server: every request it may make, in every state, and a server that is hostile."""

import hashlib
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.auth.scram_client import MAX_ITERATIONS
from pgproxy.auth.scram_server import ScramServer
from pgproxy.auth.secrets import Credentials, ScramKeys, keys_of, md5_hash, md5_response, scram_verifier
from pgproxy.auth.server_leg import ServerLogin
from pgproxy.auth.steps import Accepted, Answer, AuthReason, Derive, Refused, ServerStep, Wait

SALT = b"sixteen bytes..."
VERIFIER = scram_verifier("secret", SALT, 4096)
SALTED = hashlib.pbkdf2_hmac("sha256", b"secret", SALT, 4096)
KEYS = keys_of(SALTED, SALT, 4096)
PASSWORD = Credentials(password="secret")
BOTH = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"
PLAIN = b"SCRAM-SHA-256\0\0"


def login(
    credentials: Credentials = PASSWORD, tls: bool = False, binding: bytes | None = None
) -> ServerLogin:
    return ServerLogin("alice", credentials, tls=tls, channel_binding=binding, random_bytes=bytes)


def refused(step: ServerStep) -> AuthReason | None:
    return step.reason if isinstance(step, Refused) else None


def begin(
    end: ServerLogin, mechanisms: bytes = PLAIN, binding: bytes | None = None
) -> tuple[ScramServer, bytes]:
    """Let a server that knows the verifier begin SCRAM; give it, and its challenge."""
    step = end.received(10, mechanisms)
    assert isinstance(step, Answer)
    mechanism, _, rest = step.payload.partition(b"\0")
    assert int.from_bytes(rest[:4], "big") == len(rest) - 4
    server = ScramServer(SALT, 4096, channel_binding=binding, own_nonce=b"theirs")
    return server, server.first(mechanism, rest[4:])


def prove(end: ServerLogin, mechanisms: bytes = PLAIN, binding: bytes | None = None) -> bytes:
    """Go on to where the server's signature is due; give it."""
    server, challenge = begin(end, mechanisms, binding)
    step = end.received(11, challenge)
    if isinstance(step, Derive):
        assert (step.password, step.salt, step.iterations) == (b"secret", SALT, 4096)
        step = end.derived(SALTED)
    assert isinstance(step, Answer)
    server.final(step.payload)
    return server.finish(VERIFIER)[0]


def test_no_password_asked_for() -> None:
    assert login(Credentials()).received(0, b"") == Accepted(None, Credentials())


@pytest.mark.parametrize("credentials", [PASSWORD, Credentials(md5=md5_hash("alice", "secret"))])
def test_md5(credentials: Credentials) -> None:
    end = login(credentials)
    response = md5_response(md5_hash("alice", "secret"), b"salt")
    assert end.received(5, b"salt") == Answer(response + b"\0")
    assert end.received(0, b"") == Accepted(None, credentials)


def test_cleartext() -> None:
    assert login(tls=True).received(3, b"") == Answer(b"secret\0")
    assert refused(login(tls=False).received(3, b"")) is AuthReason.CLEARTEXT_REFUSED


@pytest.mark.parametrize(
    ("mechanisms", "tls", "binding", "chosen"),
    [
        (PLAIN, False, None, b"SCRAM-SHA-256\0\0\0\0\x20n,,n=,r="),
        (PLAIN, True, None, b"SCRAM-SHA-256\0\0\0\0\x20n,,n=,r="),
        (PLAIN, True, b"hash", b"SCRAM-SHA-256\0\0\0\0\x20y,,n=,r="),
        (BOTH, True, b"hash", b"SCRAM-SHA-256-PLUS\0\0\0\0\x35p=tls-server-end-point,,n=,r="),
        (BOTH, True, None, b"SCRAM-SHA-256\0\0\0\0\x20n,,n=,r="),
    ],
)
@pytest.mark.parametrize("credentials", [PASSWORD, Credentials(scram=KEYS)])
def test_scram(
    mechanisms: bytes, tls: bool, binding: bytes | None, chosen: bytes, credentials: Credentials
) -> None:
    first = login(credentials, tls, binding).received(10, mechanisms)
    assert isinstance(first, Answer) and first.payload.startswith(chosen)
    end = login(credentials, tls, binding)
    signature = prove(end, mechanisms, binding if mechanisms == BOTH else None)
    assert end.received(12, signature) == Wait()
    assert end.received(0, b"") == Accepted(None, credentials)


def test_keys_that_fit_spare_the_derivation() -> None:
    end = login(Credentials(password="secret", scram=KEYS))
    _, challenge = begin(end)
    assert isinstance(end.received(11, challenge), Answer)


@pytest.mark.parametrize(
    "keys", [keys_of(SALTED, b"another salt", 4096), keys_of(SALTED, SALT, 4097)], ids=["salt", "iterations"]
)
def test_keys_of_another_verifier(keys: ScramKeys) -> None:
    end = login(Credentials(scram=keys))
    _, challenge = begin(end)
    step = end.received(11, challenge)
    assert isinstance(step, Refused) and step.reason is AuthReason.OTHER_KEYS
    assert "salt" in step.detail and "pg_authid" in step.detail
    end = login(Credentials(password="secret", scram=keys))
    _, challenge = begin(end)
    assert isinstance(end.received(11, challenge), Derive)


@pytest.mark.parametrize(
    ("credentials", "code", "data"),
    [
        (Credentials(), 3, b""),
        (Credentials(), 5, b"salt"),
        (Credentials(), 10, PLAIN),
        (Credentials(password=""), 3, b""),
        (Credentials(password="a\0b"), 3, b""),
        (Credentials(password=""), 5, b"salt"),
        (Credentials(password=""), 10, PLAIN),
        (Credentials(scram=KEYS), 3, b""),
        (Credentials(scram=KEYS), 5, b"salt"),
        (Credentials(md5=md5_hash("alice", "secret")), 3, b""),
        (Credentials(md5=md5_hash("alice", "secret")), 10, PLAIN),
    ],
)
def test_nothing_to_log_in_with(credentials: Credentials, code: int, data: bytes) -> None:
    assert refused(login(credentials, tls=True).received(code, data)) is AuthReason.NO_PASSWORD


@pytest.mark.parametrize("code", [1, 2, 4, 6, 7, 8, 9, 13, 2**32 - 1])
def test_methods_that_we_do_not_have(code: int) -> None:
    assert refused(login().received(code, b"")) is AuthReason.UNSUPPORTED_METHOD


@pytest.mark.parametrize(
    ("code", "data", "reason"),
    [
        (0, b"x", AuthReason.MALFORMED),
        (3, b"x", AuthReason.MALFORMED),
        (5, b"", AuthReason.MALFORMED),
        (5, b"abc", AuthReason.MALFORMED),
        (5, b"abcde", AuthReason.MALFORMED),
        (10, b"", AuthReason.MALFORMED),
        (10, b"\0", AuthReason.MALFORMED),
        (10, b"\0\0", AuthReason.MALFORMED),
        (10, b"SCRAM-SHA-256\0", AuthReason.MALFORMED),
        (10, b"SCRAM-SHA-256", AuthReason.MALFORMED),
        (10, b"SCRAM-SHA-256\0\0x\0\0", AuthReason.MALFORMED),
        (10, PLAIN + b"\0", AuthReason.MALFORMED),
        (10, b"x\0" * 5000 + b"\0", AuthReason.MALFORMED),
        (10, b"OAUTHBEARER\0\0", AuthReason.UNSUPPORTED_METHOD),
        (10, b"SCRAM-SHA-256-PLUS\0\0", AuthReason.UNSUPPORTED_METHOD),
    ],
)
def test_requests_that_will_not_do(code: int, data: bytes, reason: AuthReason) -> None:
    assert refused(login(tls=True).received(code, data)) is reason


def test_channel_binding_offered_where_there_is_no_channel() -> None:
    assert refused(login().received(10, BOTH)) is AuthReason.DOWNGRADE


REQUESTS = {0: b"", 3: b"", 5: b"salt", 10: PLAIN, 11: b"r=x", 12: b"v=x"}


def started() -> ServerLogin:
    return login(tls=True)


def answered() -> ServerLogin:
    end = login(tls=True)
    end.received(5, b"salt")
    return end


def sasl_begun() -> ServerLogin:
    end = login(tls=True)
    begin(end)
    return end


def deriving() -> ServerLogin:
    end = login(tls=True)
    _, challenge = begin(end)
    end.received(11, challenge)
    return end


def proved() -> ServerLogin:
    end = login(tls=True)
    prove(end)
    return end


def verified() -> ServerLogin:
    end = login(tls=True)
    end.received(12, prove(end))
    return end


def over() -> ServerLogin:
    end = login(tls=True)
    end.received(0, b"")
    return end


@pytest.mark.parametrize(
    ("state", "due"),
    [
        (started, {0, 3, 5, 10}),
        (answered, {0}),
        (sasl_begun, {11}),
        (deriving, set()),
        (proved, {12}),
        (verified, {0}),
        (over, set()),
    ],
)
@pytest.mark.parametrize("code", REQUESTS)
def test_requests_in_every_state(state: object, due: set[int], code: int) -> None:
    assert callable(state)
    end = state()
    step = end.received(code, REQUESTS[code])
    assert (refused(step) is AuthReason.OUT_OF_ORDER) == (code not in due)
    if code not in due:
        assert refused(end.received(0, b"")) is AuthReason.OUT_OF_ORDER


def test_nothing_is_derived_unasked() -> None:
    for state in (started, answered, sasl_begun, proved, verified, over):
        with pytest.raises(RuntimeError):
            state().derived(SALTED)


def test_a_server_that_does_not_know_the_verifier() -> None:
    end = login()
    prove(end)
    assert refused(end.received(12, b"v=" + b64encode(b"x" * 32))) is AuthReason.SERVER_SIGNATURE
    assert refused(end.received(0, b"")) is AuthReason.OUT_OF_ORDER


def test_a_server_that_asks_for_too_much_work() -> None:
    end = login()
    _, challenge = begin(end)
    step = end.received(11, challenge.replace(b"i=4096", b"i=%d" % (MAX_ITERATIONS + 1)))
    assert refused(step) is AuthReason.ITERATIONS


@pytest.mark.parametrize("code", [11, 12])
def test_every_change_of_what_the_server_says_is_refused(code: int) -> None:
    """Cut, flipped or longer: the login does not come to its end, and nothing is raised."""

    def right() -> tuple[ServerLogin, ScramServer | None, bytes]:
        end = login(Credentials(scram=KEYS))
        if code == 12:
            return end, None, prove(end)
        server, challenge = begin(end)
        return end, server, challenge

    length = len(right()[2])
    for at in range(length):
        for change in ("cut", 1, 4, 64, 128):
            end, _, message = right()
            if isinstance(change, int):
                message = message[:at] + bytes((message[at] ^ change,)) + message[at + 1 :]
            else:
                message = message[:at]
            step = end.received(code, message)
            if isinstance(step, Answer):
                # A nonce of the server's that was changed on the way: its own check of our answer fails.
                assert code == 11
                assert message[: message.index(b",")] != right()[2][: message.index(b",")]
            else:
                assert isinstance(step, Refused)
    end, _, message = right()
    assert isinstance(end.received(code, message + b"," * 5000), Refused)


@given(st.lists(st.tuples(st.sampled_from([0, 3, 5, 10, 11, 12, 7]), st.binary(max_size=60)), max_size=5))
def test_any_server_is_answered_or_refused(requests: list[tuple[int, bytes]]) -> None:
    end = login(tls=True)
    for code, data in requests:
        assert isinstance(end.received(code, data), Answer | Derive | Wait | Accepted | Refused)


def test_no_step_shows_a_secret() -> None:
    end = login()
    _, challenge = begin(end)
    derive = end.received(11, challenge)
    assert "secret" not in repr(derive) and repr(SALT) not in repr(derive)
    assert "secret" not in repr(login(tls=True).received(3, b""))
    assert "secret" not in repr(login().received(0, b""))
