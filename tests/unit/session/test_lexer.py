"""How texts are cut into tokens."""

import pytest

from pgproxy.session.lexer import (
    DOLLAR,
    ESCAPED,
    NUMBER,
    OPERATOR,
    PARAMETER,
    QUOTED,
    SEMICOLON,
    STRING,
    WORD,
    ambiguous,
    closed,
    inside,
    tokens,
    unescaped,
)

LETTERS = {
    "w": WORD,
    "q": QUOTED,
    "e": ESCAPED,
    "s": STRING,
    "n": NUMBER,
    "p": PARAMETER,
    "d": DOLLAR,
    "o": OPERATOR,
    ";": SEMICOLON,
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \t\r\n\f\v", []),
        ("SELECT a$1, B_2", ["w select", "w a$1", "o ,", "w b_2"]),
        ("caf\u00e9", ["w caf\u00e9"]),
        ('"A ""b"""."c"', ['q A "b"', "o .", "q c"]),
        ('"" U&"d\\0061" u&x', ["q ", "q d\\0061", "w u", "o &", "w x"]),
        ("'a''b' 'c'", ["s 'a''b'", "s 'c'"]),
        ("N'a' b'1' X'f' u&'x' xb'1'", ["s N'a'", "s b'1'", "s X'f'", "s u&'x'", "w xb", "s '1'"]),
        ("'a\\' b", ["s 'a\\'", "w b"]),
        ("E'a\\'b' e'\\\\' ee'\\'", ["e E'a\\'b'", "e e'\\\\'", "w ee", "s '\\'"]),
        ("$$a$b$ '$$ $x$ $$ $X$ $x$", ["d $$a$b$ '$$", "d $x$ $$ $X$ $x$"]),
        ("$1$$a$$ a$$b$$ $ $1a", ["p $1", "d $$a$$", "w a$$b$$", "o $", "p $1", "w a"]),
        ("$1x$ a $1x$", ["p $1", "w x$", "w a", "p $1", "w x$"]),
        ("1 1.5 .5e-3 1e5", ["n 1", "n 1.5", "n .5e-3", "n 1e5"]),
        ("1_000 0xfF 0b1 1.", ["n 1_000", "n 0xfF", "n 0b1", "n 1."]),
        ("1else 0xg 1e 1_a", ["n 1", "w else", "n 0", "w xg", "n 1", "w e", "n 1", "w _a"]),
        ("a--b\nc /* d /* e */ ' */f/*/ g */h", ["w a", "w c", "w f", "w h"]),
        ("a+--b\n-/*c*/*", ["w a", "o +", "o -", "o *"]),
        ("a::b :=c<=>d", ["w a", "o ::", "w b", "o :=", "w c", "o <=>", "w d"]),
        ("((a))", ["o (", "o (", "w a", "o )", "o )"]),
        ("a;b\\;", ["w a", "; ;", "w b", "o \\", "; ;"]),
        ("/* a /* b */ c", []),
        ("-- a", []),
        ("'a b", ["s 'a b"]),
        ("'a''", ["s 'a''"]),
        ("E'a\\", ["e E'a\\"]),
        ('"a b', ["q a b"]),
        ("$a$ b $a", ["d $a$ b $a"]),
    ],
)
def test_tokens(text: str, expected: list[str]) -> None:
    kinds = {kind: letter for letter, kind in LETTERS.items()}
    assert [f"{kinds[kind]} {value.decode()}" for kind, value, _, _ in tokens(text.encode())] == expected


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ("'a''b'", "a'b"),
        ("''", ""),
        ("''''", "'"),
        ("'a", "a"),
        ("E'a\\n'", "a\\n"),
        ("U&'a'", "a"),
        ("$$a$$", "a"),
        ("$b$a$b$", "a"),
        ("$b$a$b", "a$b"),
    ],
)
def test_inside(text: str, body: str) -> None:
    (token,) = tokens(text.encode())
    assert inside(token) == body.encode()


def test_unescaped() -> None:
    assert unescaped(b"a\\nb\\x41\\101\\u00e9\\U0001F600\\'\\\\") == "a bAA\u00e9\U0001f600'\\".encode()
    assert unescaped(b"\\ud800\\UFFFFFFFF\\777\\9\\xg\\") == b"??\xff9xg\\"


@pytest.mark.parametrize(
    ("text", "two_ways"),
    [
        ("'a'", False),
        ("'\\d'", False),
        ("'\\\\'", False),
        ("'\\'", True),
        ("'\\\\\\'", True),
        ("'\\''x'", True),
        ("N'\\'", True),
        ("E'\\''", False),
        ("$$\\'$$", False),
        ("'\\a\\\\''b'", False),
    ],
)
def test_ambiguous(text: str, two_ways: bool) -> None:
    (token,) = tokens(text.encode())
    assert ambiguous(token) is two_ways


@pytest.mark.parametrize(
    ("text", "terminated"), [('"a"', True), ('""', True), ('"', False), ('"a""', False), ('U&"a"""', True)]
)
def test_closed(text: str, terminated: bool) -> None:
    assert closed(text.encode()) is terminated
