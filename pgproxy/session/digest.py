"""
A statement without its values, to be shown in logs and counted by.

The law:

1. Nothing of a literal is shown, nor of one that isn't terminated, nor anything behind a string that may end
   somewhere else (see the lexer's law 5): passwords and personal data are there.
2. What else can be a value is taken for one: what a setting is set to, what stands behind PASSWORD.
3. It is printable, and at most `LENGTH` characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pgproxy.session.lexer import (
    LITERALS,
    NUMBER,
    OPERATOR,
    PARAMETER,
    QUOTED,
    SEMICOLON,
    WORD,
    Token,
    ambiguous,
    closed,
    tokens,
)

LENGTH = 200
"""Characters of a digest."""

LOOK = 8 * 1024
"""Bytes of a text that are looked at: behind a list of that many constants the digest ends."""

_CUT = "..."

_FOLDED = 2048
"""Bytes of a text whose numbers are folded."""
_NUMBERS = re.compile(rb"(?<![\w$.\x80-\xff])[0-9]+(?![\w$.\x80-\xff])")
"""Numbers that are no part of a name, a parameter or a longer number."""


def fold(text: bytes) -> bytes:
    """
    Give a text with its numbers made equal: what is the same then has the same digest.

    Digests are remembered by it, as many texts differ in nothing else. Quoted names may have numbers too.
    """
    if len(text) > _FOLDED or b'"' in text:
        return text
    return _NUMBERS.sub(b"0", text)


def digest(text: bytes) -> str:
    """Give the statement on one line, with $1, $2, ... for its literals and without comments."""
    raw = bytearray()
    cut = len(text) > LOOK
    for piece in _Pieces(text[:LOOK]).all():
        raw += piece
        # A character has four bytes at most.
        if len(raw) > 4 * LENGTH:
            cut = True
            break
    letters = raw.decode("utf-8", "replace").strip()
    shown = "".join(letter if letter.isprintable() else "?" for letter in letters)
    if len(shown) <= LENGTH and not cut:
        return shown
    return shown[: LENGTH - len(_CUT)] + _CUT


class _Pieces:
    """What is shown of a text, piece by piece."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._end = 0
        """Where the token before ended."""
        self._literals = 0
        self._in_list = False
        """Between the parentheses of IN (...), with nothing but constants so far."""
        self._held: list[bytes] = []
        """A comma in that list, and what followed: dropped if another constant follows."""
        self._dropped = False
        self._begin()

    def _begin(self) -> None:
        self._head = b""
        """The statement's first word."""
        self._last = b""
        """The word or mark before."""
        self._sets = False
        self._to_value = False
        """Whether what follows is what a setting is set to."""

    def all(self) -> Iterator[bytes]:
        """Give the pieces in their order; one that ends with ... is the last."""
        before = 0
        for token in tokens(self._text):
            kind, value, start, end = token
            if kind == WORD and start == self._end and before in (NUMBER, PARAMETER):
                # 123abc: PostgreSQL takes it for a broken number, or did.
                continue
            constant = kind in LITERALS or self._is_value(token)
            yield from self._piece(token, constant)
            if ambiguous(token) or (kind == WORD and b"$$" in value) or self._is_open(token):
                yield b" ..."
                return
            self._follow(kind, value)
            self._end = end
            before = kind
        yield from self._leave_list()

    def _is_open(self, token: Token) -> bool:
        """Whether it is a quoted identifier that isn't terminated: there may be literals in it."""
        return token[0] == QUOTED and not closed(self._text[token[2] : token[3]])

    def _is_value(self, token: Token) -> bool:
        """Whether a name stands where a literal could."""
        if token[0] not in (WORD, QUOTED):
            return False
        return self._to_value or (self._last == b"password" and self._head in (b"create", b"alter"))

    def _piece(self, token: Token, constant: bool) -> Iterator[bytes]:
        kind, value, start, end = token
        gap = b" " if start > self._end else b""
        if constant:
            if self._held:
                self._held.clear()
                self._dropped = True
                return
            if not self._dropped:
                self._literals += 1
                yield gap + b"$%d" % self._literals
            return
        if self._in_list and kind == OPERATOR:
            sign = value in (b"-", b"+")
            if sign and self._last == b"(":
                yield gap + value
                return
            if (value == b"," and not self._held) or (sign and self._held):
                self._held.append(gap + value)
                return
        yield from self._leave_list()
        if kind == WORD and b"$$" in value:
            yield gap + self._text[start:end].partition(b"$$")[0]
        elif self._is_open(token):
            yield gap + b'"'
        else:
            yield gap + self._text[start:end]
        self._in_list = value == b"(" and self._last == b"in"

    def _leave_list(self) -> Iterator[bytes]:
        if self._dropped:
            yield b", ..."
        yield from self._held
        self._held.clear()
        self._dropped = False
        self._in_list = False

    def _follow(self, kind: int, value: bytes) -> None:
        """Remember where in the statement this is."""
        if kind == SEMICOLON:
            self._begin()
            return
        if kind == WORD:
            self._head = self._head or value
            if value == b"set" and self._head in (b"set", b"alter"):
                self._sets = True
        if self._sets and value in (b"to", b"=") and kind in (WORD, OPERATOR):
            self._to_value = True
        self._last = value if kind in (WORD, OPERATOR) else b""
