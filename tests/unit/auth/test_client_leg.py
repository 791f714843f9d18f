"""The login of a client: every method, and that nobody can tell who is known."""

import hashlib
import hmac
from collections.abc import Mapping
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.auth.client_leg import MAX_PAYLOAD, ClientLogin, Method
from pgproxy.auth.looks import Looks, commonest
from pgproxy.auth.secrets import (
    Credentials,
    Md5Hash,
    PlainPassword,
    ScramVerifier,
    Secret,
    format_secret,
    md5_hash,
    md5_response,
    scram_verifier,
)
from pgproxy.auth.server_leg import ServerLogin
from pgproxy.auth.steps import (
    Accepted,
    Answer,
    Ask,
    AuthReason,
    ClientStep,
    Derive,
    Refused,
    ServerStep,
)

SALT = b"sixteen bytes..."
VERIFIER = scram_verifier("secret", SALT, 4096)
HASHED = md5_hash("alice", "secret")
BINDING = b"hash of a certificate"


def login(
    method: str,
    secret: Secret | None,
    *,
    user: str = "alice",
    binding: bytes | None = None,
    name: str | None = None,
    cert_map: Mapping[str, frozenset[str]] | None = None,
    mock_key: bytes = b"mock",
    looks: Looks | None = None,
) -> ClientLogin:
    numbers = count()
    return ClientLogin(
        method,  # type: ignore[arg-type]
        user,
        secret,
        channel_binding=binding,
        mock_key=mock_key,
        certificate_cn=name,
        cert_map=cert_map or {},
        looks=looks or Looks(scram=False),
        random_bytes=lambda size: bytes((next(numbers),)) * size,
    )


def derive(step: Derive) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", step.password, step.salt, step.iterations)


def converse(client: ClientLogin, driver: ServerLogin) -> tuple[list[ClientStep], list[ServerStep]]:
    """Let the proxy's own server leg play the driver; give all steps of either."""
    step, steps = client.start(), list[ClientStep]()
    said = list[ServerStep]()
    while True:
        steps.append(step)
        if isinstance(step, Derive):
            step = client.derived(derive(step))
            continue
        if not isinstance(step, Ask):
            break
        answer = driver.received(step.code, step.data)
        if isinstance(answer, Derive):
            answer = driver.derived(derive(answer))
        said.append(answer)
        if not isinstance(answer, Answer):
            break
        step = client.received(answer.payload)
    if isinstance(step, Accepted):
        if step.final is not None:
            said.append(driver.received(12, step.final))
        said.append(driver.received(0, b""))
    return steps, said


def driver(
    password: str = "secret", user: str = "alice", binding: bytes | None = None, tls: bool | None = None
) -> ServerLogin:
    tls = binding is not None if tls is None else tls
    return ServerLogin(user, Credentials(password=password), tls=tls, channel_binding=binding)


KNOWN = [
    ("md5", PlainPassword("secret"), Credentials(password="secret")),
    ("md5", HASHED, Credentials(md5=HASHED)),
    ("scram-sha-256", PlainPassword("secret"), Credentials(password="secret")),
]


@pytest.mark.parametrize(("method", "secret", "credentials"), KNOWN)
@pytest.mark.parametrize("binding", [None, BINDING])
def test_the_right_password(
    method: Method, secret: Secret, credentials: Credentials, binding: bytes | None
) -> None:
    steps, said = converse(login(method, secret, binding=binding), driver(binding=binding))
    assert isinstance(steps[-1], Accepted) and steps[-1].credentials == credentials
    assert isinstance(said[-1], Accepted)


@pytest.mark.parametrize("method", ["md5", "scram-sha-256"])
@pytest.mark.parametrize("binding", [None, BINDING])
def test_a_verifier_gives_the_keys_for_pass_through(method: Method, binding: bytes | None) -> None:
    steps, _ = converse(login(method, VERIFIER, binding=binding), driver(binding=binding))
    assert isinstance(steps[-1], Accepted)
    credentials = steps[-1].credentials
    assert credentials.password is None and credentials.scram is not None
    assert (credentials.scram.salt, credentials.scram.iterations) == (SALT, 4096)
    # With them, and nothing else, the proxy is let in where the same verifier is stored.
    onward = ServerLogin("alice", credentials, tls=False, channel_binding=None)
    steps, said = converse(login("scram-sha-256", VERIFIER), onward)
    assert isinstance(steps[-1], Accepted) and isinstance(said[-1], Accepted)
    assert not any(isinstance(step, Derive) for step in said)


@pytest.mark.parametrize("method", ["md5", "scram-sha-256"])
@pytest.mark.parametrize("secret", [PlainPassword("secret"), HASHED, VERIFIER])
def test_a_wrong_password(method: Method, secret: Secret) -> None:
    steps, _ = converse(login(method, secret), driver("wrong"))
    assert isinstance(steps[-1], Refused)
    assert steps[-1].reason in (AuthReason.WRONG_PASSWORD, AuthReason.UNUSABLE_SECRET)


text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(text, text, st.sampled_from(["md5", "scram-sha-256"]))
def test_any_user_and_password(user: str, password: str, method: Method) -> None:
    steps, said = converse(login(method, PlainPassword(password), user=user), driver(password, user))
    assert isinstance(steps[-1], Accepted) and isinstance(said[-1], Accepted)


def shapes(steps: list[ClientStep]) -> list[object]:
    """What a client sees of a login: request codes and the lengths of what came with them."""
    return [(step.code, len(step.data)) for step in steps if isinstance(step, Ask)]


@pytest.mark.parametrize("binding", [None, BINDING])
@pytest.mark.parametrize("password", ["secret", "wrong"])
@pytest.mark.parametrize(
    ("method", "secret"),
    [
        ("scram-sha-256", PlainPassword("secret")),
        ("scram-sha-256", VERIFIER),
        ("md5", PlainPassword("secret")),
        ("md5", HASHED),
    ],
)
@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (None, AuthReason.UNKNOWN_USER),
        (PlainPassword(""), AuthReason.UNUSABLE_SECRET),
        (HASHED, AuthReason.UNUSABLE_SECRET),
    ],
)
def test_who_may_not_come_in_takes_the_same_steps(
    binding: bytes | None,
    password: str,
    method: Method,
    secret: Secret,
    other: Secret | None,
    reason: AuthReason,
) -> None:
    if method == "md5" and other == HASHED:
        return
    known, _ = converse(login(method, secret, binding=binding), driver(password, binding=binding))
    mock, _ = converse(login(method, other, binding=binding), driver(password, binding=binding))
    assert shapes(mock) == shapes(known)
    assert isinstance(mock[-1], Refused) and mock[-1].reason is reason
    assert not any(isinstance(step, Derive) for step in mock)


def salt_of(secret: Secret | None, user: str, mock_key: bytes = b"mock") -> bytes:
    steps, _ = converse(login("scram-sha-256", secret, user=user, mock_key=mock_key), driver("x", user))
    (challenge,) = (step for step in steps if isinstance(step, Ask) and step.code == 11)
    return challenge.data.split(b",")[1]


def test_salts_are_the_same_each_time_and_of_nobody_else() -> None:
    assert salt_of(None, "bob") == salt_of(None, "bob") == salt_of(PlainPassword("x"), "bob")
    assert salt_of(None, "bob") != salt_of(None, "bop")
    assert salt_of(None, "bob") != salt_of(None, "bob", b"another process")


def test_a_password_that_saslprep_leaves_empty() -> None:
    steps, _ = converse(login("scram-sha-256", PlainPassword("\u00ad")), driver("\u00ad"))
    assert isinstance(steps[-1], Accepted)


@pytest.mark.parametrize(
    ("secret", "credentials"),
    [
        (None, Credentials()),
        (PlainPassword("secret"), Credentials(password="secret")),
        (HASHED, Credentials(md5=HASHED)),
        (VERIFIER, Credentials()),
    ],
)
def test_trust_and_certificates_go_with_what_is_stored(
    secret: Secret | None, credentials: Credentials
) -> None:
    assert login("trust", secret).start() == Accepted(None, credentials)
    assert login("cert", secret, name="alice").start() == Accepted(None, credentials)


@pytest.mark.parametrize(
    ("name", "accepted"),
    [("alice", True), ("Alice", False), ("bob", False), ("app.example", True), ("db.example", False)],
)
def test_certificates_and_their_names(name: str, accepted: bool) -> None:
    cert_map = {"app.example": frozenset({"alice", "carol"}), "db.example": frozenset({"carol"})}
    step = login("cert", None, name=name, cert_map=cert_map).start()
    assert isinstance(step, Accepted) if accepted else isinstance(step, Refused)


def test_a_mapped_name_is_no_user_of_its_own_name() -> None:
    step = login("cert", None, name="alice", cert_map={"alice": frozenset({"bob"})}).start()
    assert isinstance(step, Refused) and step.reason is AuthReason.CERTIFICATE


def test_no_certificate() -> None:
    step = login("cert", None).start()
    assert isinstance(step, Refused) and step.reason is AuthReason.CERTIFICATE


def test_a_method_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="kerberos"):
        login("kerberos", None).start()


def test_messages_where_none_are_due() -> None:
    for method in ("trust", "cert"):
        client = login(method, PlainPassword("secret"), name="alice")
        client.start()
        step = client.received(b"secret\0")
        assert isinstance(step, Refused) and step.reason is AuthReason.OUT_OF_ORDER
    client = login("md5", HASHED)
    assert isinstance(client.received(b"x\0"), Refused)
    with pytest.raises(RuntimeError):
        client.derived(b"x" * 32)


def test_a_login_ends_with_the_first_refusal() -> None:
    client = login("md5", HASHED)
    ask = client.start()
    assert isinstance(ask, Ask)
    assert isinstance(client.received(b"wrong\0"), Refused)
    step = client.received(md5_response(HASHED, ask.data) + b"\0")
    assert isinstance(step, Refused) and step.reason is AuthReason.OUT_OF_ORDER


def test_what_was_asked_for_comes_once() -> None:
    client = login("scram-sha-256", PlainPassword("secret"))
    steps, _ = converse(client, driver())
    assert isinstance(steps[-1], Accepted)
    with pytest.raises(RuntimeError):
        client.derived(b"x" * 32)


@pytest.mark.parametrize("secret", [PlainPassword("secret"), HASHED, None])
def test_every_change_of_an_md5_answer_is_refused(secret: Secret | None) -> None:
    right = md5_response(HASHED, b"\0" * 4) + b"\0"
    changed = [right[:cut] for cut in range(len(right))]
    changed += [right + b"\0", right + b"x", b"\0" + right, right.upper(), b"x" * MAX_PAYLOAD + b"\0"]
    changed += [right[:at] + bytes((right[at] ^ 1,)) + right[at + 1 :] for at in range(len(right))]
    for payload in changed:
        client = login("md5", secret)
        client.start()
        assert isinstance(client.received(payload), Refused)


def initial(mechanism: bytes, message: bytes, length: int | None = None) -> bytes:
    size = len(message) if length is None else length
    return mechanism + b"\0" + size.to_bytes(4, "big", signed=True) + message


FIRST = b"n,,n=,r=abc"


@pytest.mark.parametrize("secret", [PlainPassword("secret"), VERIFIER, None])
@pytest.mark.parametrize(
    "payload",
    [
        *(initial(b"SCRAM-SHA-256", FIRST)[:cut] for cut in range(29)),
        initial(b"SCRAM-SHA-256", FIRST) + b"\0",
        initial(b"SCRAM-SHA-256", FIRST, 2**31 - 1),
        initial(b"SCRAM-SHA-256", FIRST, -1),
        initial(b"SCRAM-SHA-256", FIRST, -2),
        initial(b"SCRAM-SHA-256", FIRST, 0),
        initial(b"SCRAM-SHA-256", FIRST + b"x" * MAX_PAYLOAD),
        initial(b"SCRAM-SHA-1", FIRST),
        initial(b"SCRAM-SHA-256-PLUS", b"p=tls-server-end-point,,n=,r=abc"),
        b"secret\0",
        b"",
    ],
)
def test_initial_responses_that_will_not_do(secret: Secret | None, payload: bytes) -> None:
    client = login("scram-sha-256", secret)
    client.start()
    assert isinstance(client.received(payload), Refused)


def test_an_initial_response_that_comes_later() -> None:
    client = login("scram-sha-256", VERIFIER)
    client.start()
    assert client.received(initial(b"SCRAM-SHA-256", b"", -1)) == Ask(11, b"")
    step = client.received(FIRST)
    assert isinstance(step, Ask) and step.data.startswith(b"r=abc")


def test_a_downgrade_is_seen() -> None:
    steps, _ = converse(login("scram-sha-256", VERIFIER, binding=BINDING), driver(binding=BINDING))
    assert isinstance(steps[-1], Accepted)
    client = login("scram-sha-256", VERIFIER, binding=BINDING)
    client.start()
    step = client.received(initial(b"SCRAM-SHA-256", b"y,,n=,r=abc"))
    assert isinstance(step, Refused) and step.reason is AuthReason.DOWNGRADE


def test_a_client_that_sees_another_certificate() -> None:
    steps, _ = converse(login("scram-sha-256", VERIFIER, binding=BINDING), driver(binding=b"another"))
    assert isinstance(steps[-1], Refused) and steps[-1].reason is AuthReason.CHANNEL_BINDING


@given(st.lists(st.binary(max_size=60), max_size=4), st.sampled_from(["md5", "scram-sha-256"]))
def test_any_client_is_asked_or_refused(payloads: list[bytes], method: Method) -> None:
    client = login(method, VERIFIER)
    client.start()
    for payload in payloads:
        assert isinstance(client.received(payload), Ask | Refused)


@pytest.mark.parametrize(
    "secret", [PlainPassword("hidden"), md5_hash("alice", "hidden"), scram_verifier("hidden", SALT, 4096)]
)
@pytest.mark.parametrize("method", ["md5", "scram-sha-256"])
def test_no_refusal_tells_a_secret(method: Method, secret: Secret) -> None:
    steps, _ = converse(login(method, secret), driver("given"))
    assert isinstance(steps[-1], Refused)
    told = repr(steps[-1])
    assert not any(word in told for word in ("hidden", "given", *format_secret(secret).split("$")))


def test_mock_secrets_cannot_be_met() -> None:
    """Even somebody who knows what the mock is made from gets no further."""
    mock = Md5Hash(hmac.digest(b"mock", b"md5\0alice", "sha256").hex()[:32])
    client = login("md5", None)
    ask = client.start()
    assert isinstance(ask, Ask)
    step = client.received(md5_response(mock, ask.data) + b"\0")
    assert isinstance(step, Refused) and step.reason is AuthReason.UNKNOWN_USER


def test_the_verifier_used_is_the_stored_one() -> None:
    other = ScramVerifier(8192, b"other salt", VERIFIER.stored_key, VERIFIER.server_key)
    steps, _ = converse(login("scram-sha-256", other), driver())
    assert isinstance(steps[1], Ask) and steps[1].data.endswith(b",i=8192")
    assert isinstance(steps[-1], Refused)


MANY = ScramVerifier(10_000, SALT, VERIFIER.stored_key, VERIFIER.server_key)


@pytest.mark.parametrize(
    ("secrets", "looks"),
    [
        ([], Looks(True, 4096)),
        ([VERIFIER], Looks(True, 4096)),
        ([MANY, MANY, VERIFIER], Looks(True, 10_000)),
        ([HASHED, PlainPassword("x"), MANY], Looks(False, 4096)),
    ],
)
def test_the_looks_of_most_users(secrets: list[Secret], looks: Looks) -> None:
    assert commonest(secrets) == looks


@pytest.mark.parametrize("method", ["md5", "scram-sha-256"])
@pytest.mark.parametrize("known", [MANY, VERIFIER, HASHED], ids=["many iterations", "verifier", "hash"])
def test_an_unknown_user_looks_like_the_known_ones(method: str, known: Secret) -> None:
    """Up to the first thing that depends on the password."""
    shown = []
    for secret in (known, None):
        client = login(method, secret, user="somebody", looks=commonest([known]))
        step = client.start()
        assert isinstance(step, Ask)
        seen: list[object] = [step.code, len(step.data)]
        if step.code == 10:
            first = b"n,,n=,r=abcdefghijklmnop"
            step = client.received(b"SCRAM-SHA-256\0" + len(first).to_bytes(4, "big") + first)
            assert isinstance(step, Ask)
            seen.append([word[:7] if word[:2] == b"i=" else len(word) for word in step.data.split(b",")])
        shown.append(seen)
    assert shown[0] == shown[1]
