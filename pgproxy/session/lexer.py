"""
Cuts a statement text into the tokens that PostgreSQL's own lexer sees.

The law:

1. It never raises and never hangs, whatever the bytes: each byte is looked at a bounded number of times.
2. Tokens come in the order of the text and don't overlap. What is between them is white space and comments.
3. What isn't terminated goes to the end of the text. PostgreSQL refuses such a text as a whole.
4. Bytes from 0x80 are letters. This holds where no byte of a longer character is below 0x80, as in UTF-8,
   EUC and the ISO 8859 family. It does not hold in SJIS, BIG5, GBK, UHC, JOHAB and GB18030, which exist only
   as client encodings: a text in one of these is not understood here.
5. A plain string is read as with `standard_conforming_strings` on. Where it would end somewhere else with
   `off`, `ambiguous` says so. A string that goes on from an E'...' on the line before is such a case.

Documentation: PostgreSQL manual, "Lexical Structure"; src/backend/parser/scan.l.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

Token = tuple[int, bytes, int, int]
"""Kind, value, and where in the text it starts and ends.

A word's value is in lower case, as PostgreSQL folds it; a quoted identifier's is what is inside its quotes.
Of everything else it is the piece of text itself.
"""

WORD = 1
"""An identifier or key word."""
QUOTED = 2
"""An identifier in double quotes, also with U& before."""
ESCAPED = 3
"""A string with backslash escapes: E'...'."""
STRING = 4
"""Any other string in quotes: '...', N'...', B'...', X'...', U&'...'."""
NUMBER = 5
PARAMETER = 6
DOLLAR = 7
"""A string in dollar quotes."""
_COMMENT = 8
OPERATOR = 9
"""An operator, a mark, or a byte that has no business here. Parentheses and commas stand alone."""
SEMICOLON = 10

LONGEST_NAME = 63
"""Bytes that count of a name: PostgreSQL's NAMEDATALEN - 1."""

LITERALS = frozenset({ESCAPED, STRING, NUMBER, PARAMETER, DOLLAR})

# Repeats are possessive (`*+`): they never give back, so nothing is tried twice.
# The groups' numbers are the kinds.
_next_tokens = re.compile(
    rb"""
    (?: [ \t\n\r\f\v]++ | --[^\n\r]*+ )*+
    (?: ((?![eEbBxXnN]'|[uU]&['"]) [A-Za-z_\x80-\xff] [\w$\x80-\xff]*+)
      | ((?:[uU]&)? "[^"]*+ (?:""[^"]*+)*+ "?)
      | ([eE] ' (?: [^'\\]++ | \\.? | '' )*+ '?)
      | ((?:[bBxXnN]|[uU]&)? '[^']*+ (?:''[^']*+)*+ '?)
      | ( 0 (?: [xX][\da-fA-F_]++ | [oO][0-7_]++ | [bB][01_]++ ) (?! [\w$\x80-\xff] )
        | (?: \d++(?:_\d++)*+ (?:\.(?:\d++(?:_\d++)*+)?)? | \.\d++(?:_\d++)*+ )
          (?: [eE][+-]?\d++(?:_\d++)*+ )? )
      | (\$\d++)
      | (\$ (?: [A-Za-z_\x80-\xff] [\w\x80-\xff]*+ )? \$)
      | (/\*)
      | (:: | := | [()\[\],.:] | (?: (?!--|/\*) [~!@\#^&|`?+\-*/%<>=] )++ | [^;])
      | (;)
      | \Z
    )
    """,
    re.VERBOSE | re.DOTALL,
).finditer
_next_comment_mark = re.compile(rb"/\*|\*/").search
_escaped_quote = re.compile(rb"(?<!\\)(?:\\\\)*+\\'").search
_escape = re.compile(rb"\\(x[\da-fA-F]{1,2}|[0-7]{1,3}|u[\da-fA-F]{4}|U[\da-fA-F]{8}|.)", re.DOTALL)


def tokens(text: bytes) -> Iterator[Token]:
    """Cut a text into its tokens; none for white space and comments."""
    position = 0
    while position >= 0:
        for found in _next_tokens(text, position):
            kind = found.lastindex
            if kind is None:
                return
            value = found[kind]
            start, end = found.span(kind)
            if kind == WORD:
                yield kind, value.lower(), start, end
            elif kind == QUOTED:
                yield kind, _inside_quotes(value, b'"'), start, end
            elif kind == DOLLAR:
                # A regular expression can't wait for the same tag again, nor count how deep comments nest.
                closing = text.find(value, end)
                position = len(text) if closing < 0 else closing + len(value)
                yield kind, text[start:position], start, position
                break
            elif kind == _COMMENT:
                position = _behind_comment(text, end)
                break
            else:
                yield kind, value, start, end


def inside(token: Token) -> bytes:
    """What is between the quotes of a string, its escapes left as they are."""
    kind, value, _, _ = token
    if kind == DOLLAR:
        tag = value[: value.index(b"$", 1) + 1]
        return value[len(tag) :].removesuffix(tag)
    return _inside_quotes(value, b"'")


def unescaped(body: bytes) -> bytes:
    """Undo the backslash escapes of a string's inside."""
    return _escape.sub(_unescape, body) if b"\\" in body else body


def ambiguous(token: Token) -> bool:
    """Whether a string ends somewhere else with `standard_conforming_strings` off, or behind an E'...'."""
    kind, value, _, _ = token
    return kind == STRING and b"\\" in value and _escaped_quote(value) is not None


def closed(quoted: bytes, quote: bytes = b'"') -> bool:
    """Whether a piece of text that begins with a quote, or a prefix and a quote, is terminated."""
    body = quoted[quoted.index(quote) + 1 :]
    return (len(body) - len(body.rstrip(quote))) % 2 == 1


def _inside_quotes(value: bytes, quote: bytes) -> bytes:
    body = value[value.index(quote) + 1 :]
    if closed(value, quote):
        body = body[:-1]
    return body.replace(quote + quote, quote)


def _behind_comment(text: bytes, position: int) -> int:
    depth = 1
    while depth:
        mark = _next_comment_mark(text, position)
        if mark is None:
            return -1
        depth += 1 if mark[0] == b"/*" else -1
        position = mark.end()
    return position


def _unescape(found: re.Match[bytes]) -> bytes:
    code: bytes = found[1]
    if code[:1] == b"x" and len(code) > 1:
        return bytes((int(code[1:], 16),))
    if code[:1] in b"uU" and len(code) > 1:
        point = int(code[1:], 16)
        return chr(point).encode("utf-8", "replace") if point < 0x110000 else b"?"
    if code.isdigit() and code < b"8":
        return bytes((int(code, 8) & 0xFF,))
    return b" " if code in b"bfnrt" else code
