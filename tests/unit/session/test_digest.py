"""Statements without their values."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pgproxy.session.digest import LENGTH, LOOK, digest, fold


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        (" /* a */ ;", ";"),
        ("select  a,\n\tb from t -- c\n where d='x' and e = 5;", "select a, b from t where d=$1 and e = $2;"),
        ("SELECT $3, $1, E'\\'', $$x$$, x'ff', -1.5e3", "SELECT $1, $2, $3, $4, $5, -$6"),
        ("select 'a' 'b', 'it''s'", "select $1 $2, $3"),
        ("select * from t where a in (1, 2,3) and b = 4", "select * from t where a in ($1, ...) and b = $2"),
        ("a IN ('x')", "a IN ($1)"),
        ("a in (-1, -2, +3)", "a in (-$1, ...)"),
        ("a in (1, 2, b)", "a in ($1, ..., b)"),
        ("a in (1 + 2, 3)", "a in ($1 + $2, $3)"),
        ("a in (select 1, 2)", "a in (select $1, $2)"),
        ("insert into t values (1,2), (3,4)", "insert into t values ($1,$2), ($3,$4)"),
        ("ALTER ROLE x PASSWORD 'secret'", "ALTER ROLE x PASSWORD $1"),
        ("ALTER ROLE x PASSWORD 'secret", "ALTER ROLE x PASSWORD $1"),
        ('create user x password "secret"', "create user x password $1"),
        ("create user x password 'y'; select password a", "create user x password $1; select password a"),
        ("create user x password$$secret$$", "create user x password ..."),
        ("set a.b to secret; select 'x', c", "set a.b to $1; select $2, c"),
        ('set a.b = "secret", other', "set a.b = $1, $2"),
        ("alter role x set a.b = secret", "alter role x set a.b = $1"),
        ("update t set a = b", "update t set a = b"),
        ("select 'a\\' secret '", "select $1 ..."),
        ("select E'a'\n'\\' secret '", "select $1 $2 ..."),
        ("select \"a 'secret'", 'select " ...'),
        ("select 12secret", "select $1"),
        ("select 'x' /* /* */ secret", "select $1"),
        ('select "A b"."c\x01"', 'select "A b"."c?"'),
        ("select caf\u00e9, \u202ea", "select caf\u00e9, ?a"),
    ],
)
def test_digest(text: str, shown: str) -> None:
    assert digest(text.encode()) == shown


def test_broken_encoding() -> None:
    assert digest(b"select \xff") == "select \ufffd"


def test_long() -> None:
    assert digest(b"select " + b"a" * LENGTH) == "select " + "a" * (LENGTH - 10) + "..."
    assert digest(b"select a in (1" + b", 2" * LOOK + b") or b").startswith("select a in ($1, ...")
    assert digest(b"x" * 193 + b" 'a'") == "x" * 193 + " $1"


_PIECES = st.one_of(
    st.sampled_from(
        rb"""select a1 $1 $a$ $$ 'it' E' ' \ " -- /* */ ( ) in in( , . - + set to = ; 1e5 0x1F u&""".split()
    ),
    st.sampled_from((b" ", b"\n", b"\xe9", None, None)),
)
_VALUES = st.integers(0, 10**9).map(str).map(str.encode)


@given(st.lists(st.tuples(_PIECES, _VALUES, _VALUES)))
@example([(b'"', b"", b""), (None, b"1", b"2"), (b'"', b"", b"")])
@example([(b"$", b"", b""), (None, b"1", b"2"), (b"$", b"", b"")])
@example([(b"a.", b"", b""), (None, b"1", b"2")])
def test_texts_that_are_remembered_as_one_have_one_digest(
    pieces: list[tuple[bytes | None, bytes, bytes]],
) -> None:
    one, other = (
        b"".join(values[which] if piece is None else piece for piece, *values in pieces) for which in (0, 1)
    )
    assert fold(one) != fold(other) or digest(one) == digest(other)


def test_numbers_that_are_values_are_not_remembered() -> None:
    assert fold(b"select 15, a1, $2 from t where b = 27") == fold(b"select 1, a1, $2 from t where b = 3")
    for text in (b"a1", b"$1", b'"1"', b"1.5", b"1e5", b"caf\xc3\xa91"):
        assert fold(text) == text
