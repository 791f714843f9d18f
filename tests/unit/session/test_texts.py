"""What holds for any text: of the lexer, the suspicion and the digest."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from pgproxy.session.digest import LENGTH, digest
from pgproxy.session.lexer import QUOTED, WORD, tokens
from pgproxy.session.suspicion import Verdicts, classify, dotted_names, quick
from pgproxy.session.verdict import (
    ASK,
    DYNAMIC,
    HARMLESS,
    OPAQUE,
    SEQUENCE_WRITE,
    UNKNOWN,
    UNREADABLE,
    WRITES,
)

PIECES = [
    "select",
    "set",
    "E'",
    "'",
    "''",
    '"',
    '""',
    "$",
    "$$",
    "$a$",
    "$1",
    "/*",
    "*/",
    "/* f('x') */",
    "/*'*/",
    "--",
    "\n",
    " ",
    "\\",
    ";",
    "(",
    ")",
    ",",
    ".",
    "1",
    "e5",
    "0x1F",
    "U&'",
    'u&"',
    "N'",
    "B'",
    "x'",
    "a",
    "\u00e9",
    "+",
    "-",
    "/",
    "*",
    "::",
    "set_config",
    "lower",
    "insert into",
    "into",
    "as",
    "with",
    "f",
    "=",
    "to",
    "in",
    "on",
    "password",
    "\0",
    "pg_temp",
    "a.b",
    "true",
]
TEXTS = st.one_of(
    st.binary(max_size=60),
    st.lists(st.sampled_from(PIECES), max_size=30).map(lambda pieces: "".join(pieces).encode()),
    st.lists(st.sampled_from(PIECES), max_size=30).map(lambda pieces: " ".join(pieces).encode()),
)

SECRETS = [
    "'{}'",
    "'{}",
    "E'{}'",
    "E'{}",
    "E'\\'{}'",
    "'\\'{}'",
    "$${}$$",
    "$x${}$x$",
    "$x${}",
    "N'{}'",
    "U&'{}'",
    "u&'{}",
    "'a''{}'",
    "'a'\n'{}'",
    "E'a'\n'\\'{}'",
    "/* {} */",
    "/* /* */ {}",
    "-- {}",
    "X'{}",
    "B'{}'",
    "$a$ $$ {} $a$",
]


@given(TEXTS)
def test_tokens_cover_the_text(text: bytes) -> None:
    position = 0
    for kind, value, start, end in tokens(text):
        assert position <= start < end <= len(text)
        assert only_space(text[position:start])
        if kind == WORD:
            assert value == text[start:end].lower()
        elif kind != QUOTED:
            assert value == text[start:end]
        position = end
    assert only_space(text[position:])


def only_space(gap: bytes) -> bool:
    """Whether it is white space and comments, the last one perhaps not terminated."""
    return re.fullmatch(rb"(?:\s|--[^\r\n]*|/\*.*)*", gap, re.DOTALL) is not None


@given(TEXTS)
def test_verdicts_on_any_text(text: bytes) -> None:
    verdict = classify(text)
    assert (verdict.flags == 0) is (verdict is HARMLESS)
    assert (verdict.flags == SEQUENCE_WRITE) is (verdict is WRITES)
    for comes_with in (OPAQUE, DYNAMIC, UNKNOWN):
        assert not verdict.flags & comes_with or verdict.flags & ASK
    assert Verdicts().of(text) == verdict
    assert classify(text, whole=False).flags == verdict.flags | UNREADABLE
    assert all(b"." in name for name in dotted_names(text))


@given(st.sampled_from("select delete update insert with begin".split()), TEXTS)
def test_the_quick_test_knows_no_better(head: str, rest: bytes) -> None:
    for text in (head.encode() + b" " + rest, head.encode() + b" into t " + rest):
        said = quick(text)
        assert said is None or said is classify(text)


@given(st.sampled_from("select delete update insert with begin".split()), TEXTS, st.integers(0), TEXTS)
def test_the_quick_test_does_not_read_numbers(head: str, before: bytes, number: int, behind: bytes) -> None:
    verdicts = Verdicts()
    for digits in (b"7", b"%d" % number, b"7"):
        text = head.encode() + b" " + before + digits + behind
        assert verdicts.of(text) == classify(text)
        assert quick(text) in (None, verdicts.of(text))


@given(TEXTS, st.sampled_from(SECRETS), TEXTS)
def test_digests_show_no_literals(before: bytes, literal: str, behind: bytes) -> None:
    text = b"select a, " + literal.format("Geheim7").encode() + b" " + behind
    assert "Geheim7" not in digest(text)
    # What is before may be in the middle of a string or a comment, which the literal would then end.
    if [token[:2] for token in tokens(before + b" code")][-1:] == [(WORD, b"code")]:
        assert "Geheim7" not in digest(before + b" " + text)


@given(TEXTS)
def test_digests_of_any_text(text: bytes) -> None:
    shown = digest(text)
    assert len(shown) <= LENGTH
    assert shown.isprintable()
    assert digest(text) == shown
