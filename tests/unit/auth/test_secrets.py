"""What is stored about a user: read, written, made, and never shown."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.auth.saslprep import saslprep
from pgproxy.auth.secrets import (
    MAX_SECRET,
    Credentials,
    Md5Hash,
    PlainPassword,
    ScramVerifier,
    credentials_of,
    format_secret,
    keys_of,
    md5_hash,
    md5_response,
    parse_secret,
    scram_verifier,
)

# Made by PostgreSQL 15 with CREATE USER … PASSWORD, and read from its pg_authid.
FROM_POSTGRESQL = {
    "geheim ☕ Ⅸ": "SCRAM-SHA-256$4096:L4COkdFfTKH1/zP7hhRX5Q=="
    "$XcSw1P9XPn0maXM0ZXP2zpKuw6yJah/plkG5pNfle8w=:ZZM7nMrdeoK2cMAJ1w20t7M9Q9Bv1UcNf0Cet6mJmxY=",
    "clear": "SCRAM-SHA-256$4096:/pwDvzn6lUER+RPNjQBLuA=="
    "$F7ml1BLoFt5rtt8U2nqwWXhnNyY3uvvw/sQ1m1jyiGo=:CMGQAw4QOOtnjQcCerOipohZxSbeOABbyKI46B7rS/8=",
}
VERIFIER = FROM_POSTGRESQL["clear"]


@pytest.mark.parametrize("password", FROM_POSTGRESQL)
def test_verifiers_are_those_that_postgresql_makes(password: str) -> None:
    stored = parse_secret(FROM_POSTGRESQL[password])
    assert isinstance(stored, ScramVerifier)
    assert scram_verifier(password, stored.salt, stored.iterations) == stored


def test_md5_hashes_are_those_that_postgresql_makes() -> None:
    # CREATE USER m5 PASSWORD 'p m5' with password_encryption = md5.
    assert md5_hash("m5", "p m5") == parse_secret("md5e454915818f1e9399b36a916bf36c7a4")


def test_md5_response_hashes_again_with_the_salt() -> None:
    inner = hashlib.md5(b"secretalice").hexdigest().encode()
    assert (
        md5_response(md5_hash("alice", "secret"), b"\1\2\3\4")
        == b"md5" + hashlib.md5(inner + b"\1\2\3\4").hexdigest().encode()
    )


@given(st.text(max_size=60).filter(lambda text: "\0" not in text))
def test_what_is_neither_is_a_password(text: str) -> None:
    assert parse_secret(text) == PlainPassword(text)


@given(st.binary(min_size=1, max_size=40), st.integers(1, 2**31 - 1))
def test_verifiers_are_written_and_read(salt: bytes, iterations: int) -> None:
    verifier = ScramVerifier(iterations, salt, b"s" * 32, b"k" * 32)
    assert parse_secret(format_secret(verifier)) == verifier


@pytest.mark.parametrize("text", ["password", "", VERIFIER, "md5" + "0a" * 16, 'with "quotes"', "md5short"])
def test_secrets_are_written_as_they_were_read(text: str) -> None:
    assert format_secret(parse_secret(text)) == text


def test_md5_in_capitals() -> None:
    assert parse_secret("md5" + "AB" * 16) == Md5Hash("ab" * 16)


@pytest.mark.parametrize(
    "text",
    [
        *(VERIFIER[:cut] for cut in range(len("SCRAM-SHA-256$4"), len(VERIFIER))),
        VERIFIER.replace("4096", "0"),
        VERIFIER.replace("4096", "-1"),
        VERIFIER.replace("4096", "٤"),
        VERIFIER.replace("4096", "9" * 10),
        VERIFIER.replace("4096", "9" * 5000),
        VERIFIER.replace("LuA==", "LuB=="),
        VERIFIER.replace("LuA==", "LuA="),
        VERIFIER.replace("/pw", "-pw"),
        VERIFIER.replace("/pwDvzn6lUER+RPNjQBLuA==", ""),
        VERIFIER.replace("/pwDvzn6lUER+RPNjQBLuA==", "QUFB" * 400),
        VERIFIER + "\n",
        VERIFIER + ":x",
        VERIFIER + "AAAA",
        "nul\0nul",
        "x" * (MAX_SECRET + 1),
        "lone \ud800",
    ],
)
def test_malformed_secrets_are_refused_without_being_told(text: str) -> None:
    with pytest.raises(ValueError) as told:
        parse_secret(text)
    assert type(told.value) is ValueError
    assert told.value.__suppress_context__ or told.value.__context__ is None
    assert text not in str(told.value)


def test_nothing_shows_a_secret() -> None:
    keys = keys_of(b"salted", b"saltsalt", 4096)
    shown = repr(
        [
            PlainPassword("hidden"),
            md5_hash("u", "hidden"),
            parse_secret(VERIFIER),
            keys,
            Credentials(password="hidden", md5=md5_hash("u", "hidden"), scram=keys),
        ]
    )
    assert "hidden" not in shown and md5_hash("u", "hidden").digest not in shown
    for secret in (keys.client_key, keys.server_key, b"saltsalt"):
        assert repr(secret) not in shown


def test_credentials_of_what_is_stored() -> None:
    hashed = md5_hash("u", "p")
    assert credentials_of(PlainPassword("p")) == Credentials(password="p")
    assert credentials_of(hashed) == Credentials(md5=hashed)
    for secret in (None, PlainPassword(""), parse_secret(VERIFIER)):
        assert credentials_of(secret) == Credentials()


@pytest.mark.parametrize(
    ("password", "prepared"),
    [
        # RFC 4013, section 3, and where PostgreSQL differs from it.
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("\x07", "\x07"),
        ("\u0627\u0031", "\u0627\u0031"),
        # Mapped to space, to nothing; a letter of both tables; nothing left.
        ("a\u00a0b", "a b"),
        ("a\u200cb", "ab"),
        ("a\u200bb", "a b"),
        ("\u00ad", "\u00ad"),
        # Forbidden or unassigned in Unicode 3.2: as it is, and not normalized.
        ("\u2168\u0085", "\u2168\u0085"),
        ("\u2168\u2615", "\u2168\u2615"),
        # Right to left.
        ("\u0627\u2168\u0627", "\u0627\u2168\u0627"),
        ("\u0627\u0651 \u0627\ufe8d", "\u0627\u0651 \u0627\u0627"),
        ("\u2168", "IX"),
    ],
)
def test_saslprep(password: str, prepared: str) -> None:
    assert saslprep(password) == prepared.encode()


def test_saslprep_of_what_was_not_utf_8() -> None:
    raw = "\u2168".encode() + b"\xff"
    assert saslprep(raw.decode("utf-8", "surrogateescape")) == raw


@given(st.text(max_size=30))
def test_saslprep_takes_anything(password: str) -> None:
    assert saslprep(password) or not password
