"""Logins while passwords change: several that are right, and one that was not known yet. And tokens."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.auth.client_leg import MAX_PAYLOAD, ClientLogin, Method
from pgproxy.auth.looks import Looks
from pgproxy.auth.secrets import (
    Credentials,
    Known,
    Md5Hash,
    Passwords,
    PlainPassword,
    credentials_of,
    passwords_of,
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
    Renew,
    Verify,
)

METHODS: list[Method] = ["md5", "scram-sha-256"]
BOTH = Passwords(("current", "pending"))


def login(
    method: Method,
    known: Known | None,
    password: str,
    *,
    anew: Known | None = None,
    renewable: bool = False,
    looks: Looks | None = None,
) -> tuple[ClientStep, list[type[ClientStep]]]:
    """Have a driver log in with a password; `anew` is what is known when it is asked for once more."""
    client = ClientLogin(
        method,
        "alice",
        known,
        channel_binding=None,
        mock_key=b"mock",
        certificate_cn=None,
        cert_map={},
        looks=looks or Looks(scram=False),
        renewable=renewable,
    )
    driver = ServerLogin("alice", Credentials(password=password), tls=False, channel_binding=None)
    step, kinds = client.start(), list[type[ClientStep]]()
    while True:
        kinds.append(type(step))
        match step:
            case Ask(code, data):
                answer = driver.received(code, data)
                if isinstance(answer, Derive):
                    answer = driver.derived(pbkdf2(answer))
                assert isinstance(answer, Answer)
                step = client.received(answer.payload)
            case Derive():
                step = client.derived(pbkdf2(step))
            case Renew():
                step = client.renewed(anew)
            case _:
                break
    if isinstance(step, Accepted) and step.final is not None:
        # The server's signature is that of the password which the client has.
        driver.received(12, step.final)
        assert isinstance(driver.received(0, b""), Accepted)
    return step, kinds


def pbkdf2(step: Derive) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", step.password, step.salt, step.iterations)


@pytest.mark.parametrize("method", METHODS)
@given(st.lists(st.text("abc\N{BULLET}", min_size=1, max_size=3), min_size=1, max_size=4), st.data())
def test_each_of_several_lets_in(method: Method, passwords: list[str], data: st.DataObject) -> None:
    known = Passwords(tuple(passwords))
    password = data.draw(st.sampled_from(passwords))
    step, _ = login(method, known, password)
    assert isinstance(step, Accepted) and step.credentials == Credentials(password=password)
    step, _ = login(method, known, "another")
    assert isinstance(step, Refused) and step.reason is AuthReason.WRONG_PASSWORD


@pytest.mark.parametrize("method", METHODS)
def test_the_likeliest_is_tried_first(method: Method) -> None:
    _, kinds = login("scram-sha-256", BOTH, "current")
    assert kinds.count(Derive) == 1
    _, kinds = login("scram-sha-256", BOTH, "pending")
    assert kinds.count(Derive) == 2


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("known", [Passwords(("old",)), None])
def test_one_that_was_not_known_yet(method: Method, known: Known | None) -> None:
    """What the client has sent is judged again, without its being asked for anything more."""
    step, kinds = login(method, known, "new", anew=Passwords(("new", "old")), renewable=True)
    assert isinstance(step, Accepted) and step.credentials == Credentials(password="new")
    assert kinds.count(Renew) == 1
    asked = kinds.count(Ask)
    _, kinds = login(method, known, "new", renewable=True, anew=known)
    assert kinds.count(Ask) == asked


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("known", [Passwords(("old",)), None, Passwords(()), Passwords(("",))])
@pytest.mark.parametrize("anew", [Passwords(("old",)), None])
def test_once_more_and_no_more(method: Method, known: Known | None, anew: Known | None) -> None:
    step, kinds = login(method, known, "wrong", anew=anew, renewable=True)
    assert isinstance(step, Refused)
    assert kinds.count(Renew) == 1


@pytest.mark.parametrize("method", METHODS)
def test_not_where_nobody_can_know_more(method: Method) -> None:
    for known in (PlainPassword("secret"), None):
        step, kinds = login(method, known, "wrong")
        assert isinstance(step, Refused) and Renew not in kinds


@pytest.mark.parametrize("method", METHODS)
def test_whoever_is_unknown_is_asked_the_same(method: Method) -> None:
    """Also the times that it is asked for once more: who asks learns nothing."""
    known = login(method, BOTH, "wrong", anew=BOTH, renewable=True)[1]
    unknown = login(method, None, "wrong", anew=None, renewable=True)[1]
    assert [one for one in known if one is not Derive] == [one for one in unknown if one is not Derive]


def test_a_user_who_becomes_known_by_a_verifier() -> None:
    """It has another salt than the one that the client was told: this login fails, the next does not."""
    verifier = scram_verifier("new", b"another salt", 4096)
    step, _ = login("scram-sha-256", None, "new", anew=verifier, renewable=True)
    assert isinstance(step, Refused) and step.reason is AuthReason.WRONG_PASSWORD


def test_what_may_be_logged_in_with() -> None:
    assert credentials_of(BOTH) == Credentials(password="current")
    assert passwords_of(Passwords(("", "x"))) == ("x",)
    assert passwords_of(Md5Hash("0" * 32)) == passwords_of(None) == passwords_of(PlainPassword("")) == ()
    assert credentials_of(Passwords(())) == Credentials()
    assert "current" not in repr(BOTH)


def token(payload: bytes) -> ClientStep:
    return token_login(payload)[1]


def token_login(payload: bytes) -> tuple[ClientLogin, ClientStep]:
    client = ClientLogin(
        "token",
        "alice",
        None,
        channel_binding=None,
        mock_key=b"",
        certificate_cn=None,
        cert_map={},
        looks=Looks(),
    )
    assert client.start() == Ask(3, b"")
    return client, client.received(payload)


def test_a_token_is_somebody_elses_to_judge() -> None:
    client, step = token_login(b"a token\0")
    assert step == Verify("a token") and "a token" not in repr(step)
    credentials = Credentials(password="x")
    assert client.verified(credentials) == Accepted(None, credentials)
    with pytest.raises(RuntimeError):
        client.verified(credentials)
    with pytest.raises(RuntimeError):
        client.renewed(None)


@pytest.mark.parametrize("payload", [b"", b"x", b"x\0y\0", b"\xff\0", b"x" * MAX_PAYLOAD + b"\0"])
def test_what_is_no_token(payload: bytes) -> None:
    step = token(payload)
    assert isinstance(step, Refused) and step.reason is AuthReason.MALFORMED
