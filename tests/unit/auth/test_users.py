"""The users file: PgBouncer's format, and errors that name the line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.auth.secrets import MAX_SECRET, Md5Hash, PlainPassword, ScramVerifier, format_secret
from pgproxy.auth.users import MAX_USER, UsersFileError, format_entry, parse_entries, parse_users

VERIFIER = (
    "SCRAM-SHA-256$4096:/pwDvzn6lUER+RPNjQBLuA=="
    "$F7ml1BLoFt5rtt8U2nqwWXhnNyY3uvvw/sQ1m1jyiGo=:CMGQAw4QOOtnjQcCerOipohZxSbeOABbyKI46B7rS/8="
)


def test_a_users_file() -> None:
    users = parse_users(
        "\ufeff; a comment\n"
        '"alice" "pass word"\r\n'
        "# another\n"
        "\n  \t \n"
        f'  "bob"\t"{VERIFIER}"  ; his comment "x" "y"\n'
        '"carol ""the"" third" "a""b"#\n'
        f'"dave" "md5{"0" * 32}"\n'
        '"eve" ""',
        "users.txt",
    )
    assert list(users) == ["alice", "bob", 'carol "the" third', "dave", "eve"]
    assert users["alice"] == PlainPassword("pass word")
    assert isinstance(users["bob"], ScramVerifier) and format_secret(users["bob"]) == VERIFIER
    assert users['carol "the" third'] == PlainPassword('a"b')
    assert users["dave"] == Md5Hash("0" * 32)
    assert users["eve"] == PlainPassword("")


def test_no_users() -> None:
    assert parse_users("", "x") == {} == parse_users("\ufeff", "x")


def test_a_file_that_begins_with_a_byte_order_mark() -> None:
    assert parse_users('\ufeff"a" "b"', "x") == {"a": PlainPassword("b")}


names = st.text(
    st.characters(exclude_characters="\0\n\r", exclude_categories=["Cs"]), min_size=1, max_size=30
)


# What looks like a verifier is one.
plain = st.text(st.characters(exclude_characters="\0\n", exclude_categories=["Cs"])).filter(
    lambda secret: not secret.startswith(("SCRAM-SHA-256$", "md5"))
)


@given(st.dictionaries(names, plain))
def test_what_is_written_is_read(users: dict[str, str]) -> None:
    text = "\n".join(format_entry(user, PlainPassword(secret)) for user, secret in users.items())
    assert parse_users(text, "x") == {user: PlainPassword(secret) for user, secret in users.items()}


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("alice secret", "not a user and a secret"),
        ('"alice"', "not a user and a secret"),
        ('"alice" "secret', "not a user and a secret"),
        ('"alice""secret"', "not a user and a secret"),
        ('"alice" "sec"ret"', "not a user and a secret"),
        ('"alice" "secret" "2030-01-01"', "not a user and a secret"),
        ('"alice" "secret" x', "not a user and a secret"),
        ('"" "secret"', "name"),
        (f'"{"x" * (MAX_USER + 1)}" "secret"', "name"),
        (f'"{"é" * (MAX_USER // 2 + 1)}" "secret"', "name"),
        ('"a\rb" "secret"', "name"),
        ('"a\0b" "secret"', "name"),
        ('"alice" "SCRAM-SHA-256$secret"', "verifier"),
        (f'"alice" "{"secret" * MAX_SECRET}"', "not a user"),
        (f'"alice" "{"s" * (MAX_SECRET + 1)}"', "65537 bytes"),
        ('"first" "secret"', "line 1 already"),
    ],
)
def test_a_bad_line_is_named_and_its_secret_is_not(line: str, what: str) -> None:
    with pytest.raises(UsersFileError, match=what) as told:
        parse_users(f'"first" "one"\n\n{line}\n', "/etc/users.txt")
    assert (told.value.source, told.value.line) == ("/etc/users.txt", 3)
    assert str(told.value).startswith("/etc/users.txt:3: ") and told.value.remedy in str(told.value)
    assert "secret" not in str(told.value).replace('"user" "secret"', "").replace("the secret", "").replace(
        "and a secret", ""
    )


def test_the_longest_secret() -> None:
    secret = '"' * MAX_SECRET
    assert parse_users(format_entry("u", PlainPassword(secret)), "x") == {"u": PlainPassword(secret)}


def test_an_endless_quote_is_refused_at_once() -> None:
    with pytest.raises(UsersFileError):
        parse_users('"' + '""a' * 80_000 + '" ' + '""' * 10_000 + "x", "x")


def test_entries_say_where_they_stand() -> None:
    line = '  "a" "b"  # c'
    (entry,) = parse_entries("\n" + line, "x")
    assert (entry.line, line[entry.start : entry.stop]) == (2, '"a" "b"')


@given(st.text(alphabet='"ab ;#\n\t\\', max_size=60))
def test_anything_is_read_or_refused(text: str) -> None:
    try:
        parse_users(text, "x")
    except UsersFileError as error:
        assert 1 <= error.line <= text.count("\n") + 1
