"""
What a statement text may leave behind in a server session: quickly and from a cache where possible.

The law:

1. `HARMLESS` and `WRITES` are said only of texts that have been understood to the end. Whatever isn't known,
   can't be read, or can be read in two ways, has to be asked about.
2. The quick test says them only where the full one would. It looks for what makes a text difficult, without
   telling code from strings: so it may find too much, never too little.
3. Time is linear in the text, and the full test looks at `LOOK` bytes at most.

Texts in an encoding that the lexer doesn't understand (see its law 4) must be given as not whole.
"""

from __future__ import annotations

import re
from typing import TypeVar

from pgproxy.session import verdict
from pgproxy.session.assignments import assigned, telling_tag, value_of
from pgproxy.session.known import LEARNED, Known
from pgproxy.session.lexer import (
    DOLLAR,
    ESCAPED,
    OPERATOR,
    QUOTED,
    SEMICOLON,
    STRING,
    WORD,
    Token,
    ambiguous,
    inside,
    tokens,
    unescaped,
)
from pgproxy.session.suspects import database_names, suspected, unlisted
from pgproxy.session.verdict import HARMLESS, WRITES, Verdict
from pgproxy.session.vocabulary import FUNCTIONS, KEYWORDS
from pgproxy.twin import know
from pgproxy.wire.skim import HEADER

LOOK = 16 * 1024
"""Bytes of a text that are looked at."""

CACHED_TEXT = 2048
"""Bytes: a longer text has its values in it, and doesn't come again."""

MOST_NAMES = 100
_MOST_CALLS = 20
"""Functions that are asked about for one text."""

Kept = TypeVar("Kept", Verdict, Known)

_find_dotted_names = re.compile(
    rb"(?<![\w$\x80-\xff])[A-Za-z_\x80-\xff][\w$\x80-\xff]*+(?:\.[A-Za-z_\x80-\xff][\w$\x80-\xff]*+)++"
).findall
_dollar_quotes = re.compile(rb"\$(?:[A-Za-z_\x80-\xff][\w\x80-\xff]*+)?\$")

# The quick test's
_ENDS = frozenset(b"begin start commit end rollback abort savepoint release".split())
_READS = frozenset({b"select", b"delete"})
_head = re.compile(rb"\s*+([a-z]++)(?![\w$\x80-\xff])").match
_insert_head = re.compile(
    rb'\s*+insert\s++into\s++(?!temp|local|global|into)(?:[\w.]|"[^"]*+")++\s*+\(?'
).match
_DIGITS_ARE_ZERO = bytes.maketrans(b"123456789", b"000000000")
_find_called = re.compile(rb'\(\s*+([\w$"\x80-\xff]++)').findall
"""On the text backwards, as below."""
_not_parameter = re.compile(rb"\$(?!\d)").search
_each_comment = re.compile(
    rb"""'[^']*+'|"[^"]*+"|(?P<comment>/\*[^*/]*+(?:\*(?!/)[^*/]*+|/(?!\*)[^*/]*+)*+\*/)|(?P<open>/\*)"""
).sub
"""What is quoted is found as well, so that no comment is seen in it. One that has another in it is `open`."""
# On the text backwards: a pattern that begins with a fixed byte is found at memchr's speed.
# A `) over (` or `) filter (` is passed over, its group is empty.
_find_sllac = re.compile(rb'\(\s*+(?:(?:revo|retlif)\s*+\)|([\w$"\x80-\xff]*+(?:\s*+\.)?))').findall
_sllac_harmless = frozenset(word[::-1] for word in FUNCTIONS | KEYWORDS | {b""}).issuperset


know(words=FUNCTIONS | KEYWORDS)


def quick(text: bytes) -> Verdict | None:
    """Say `HARMLESS` or `WRITES` where a few searches are enough to be certain; else nothing."""
    bare = without_comments(text)
    if bare is None or b"\\" in bare or b"--" in bare or b'&"' in bare:
        return None
    text = bare.lower()
    head = _head(text)
    if head is None or b"pg_" in text or (b"$" in text and _not_parameter(text)):
        return None
    semicolon = text.find(b";")
    if semicolon >= 0 and text[semicolon + 1 :].strip():
        return None
    word = head[1]
    if word in _ENDS:
        return HARMLESS
    says = HARMLESS
    if word == b"insert":
        table = _insert_head(text)
        if table is None:
            return None
        text = text[table.end() :]
        says = WRITES
    elif word == b"update":
        if b"default" in text:
            return None
    elif word == b"with":
        if b"insert" in text or b"merge" in text or b"default" in text:
            return None
    elif word not in _READS:
        return None
    if b"into" in text:
        return None
    # Behind DISTINCT ON (...) even `over (` is a call.
    if b"(" in text and (b"distinct" in text or not _sllac_harmless(_find_sllac(text[::-1]))):
        return None
    return says


def without_comments(text: bytes) -> bytes | None:
    """
    Give a text with a space for each comment; None where these can't be told from strings at one look.

    Who marks statements, with a route or a trace, has another comment in each of them.
    """
    if b"/*" not in text:
        return text
    if b"\\" in text or b"--" in text or b'&"' in text or (b"$" in text and _not_parameter(text)):
        return None
    # Without all those, a quote ends where the next one like it stands.
    bare = _each_comment(_space_for_comment, text)
    return bare if b"\\" not in bare else None


def _space_for_comment(found: re.Match[bytes]) -> bytes:
    """Put a space for a comment, and what is in no such text for the beginning of one that can't be read."""
    return b" " if found["comment"] is not None else found[0] if found["open"] is None else b"\\"


def classify(text: bytes, whole: bool = True) -> Verdict:
    """Say what a text may leave behind; it may be the beginning of a text that is not there as a `whole`."""
    if len(text) > LOOK:
        text = text[:LOOK]
        whole = False
    flags = 0 if whole else verdict.UNREADABLE
    if b"pg_prepared_statement" in text.lower():
        flags |= verdict.STATEMENTS
    read = list(tokens(text))
    statement: list[Token] = []
    statements = [statement]
    for token in read:
        kind = token[0]
        if kind == SEMICOLON:
            statement = []
            statements.append(statement)
            continue
        statement.append(token)
        if kind == STRING:
            if ambiguous(token):
                flags |= verdict.UNREADABLE
        elif kind == QUOTED and text[token[2]] != ord('"'):
            # U&"...": with an escape character that may be said behind it, it can be any identifier.
            flags |= verdict.UNREADABLE
    databases: list[bytes] = []
    sets: list[bytes | None] = []
    calls: dict[bytes, None] = {}
    for statement in statements:
        says = suspected(statement)
        flags |= says
        databases += database_names(statement)
        if says & ~verdict.UNDOES:
            sets.append(assigned(statement))
        if says & verdict.CALLS:
            calls.update(dict.fromkeys(unlisted(statement)))
    if flags & verdict.CALLS:
        if any(token[0] in (STRING, ESCAPED, DOLLAR) and inside(token).lower() == b"seed" for token in read):
            # A function may hand it to set_config(), which nothing that can be asked shows.
            flags |= verdict.SEED
        flags &= ~verdict.CALLS
        if flags & ~verdict.SEQUENCE_WRITE or len(calls) > _MOST_CALLS:
            calls.clear()
        flags |= verdict.ASK | verdict.OPAQUE
    if not flags & verdict.FORESEEABLE:
        return {0: HARMLESS, verdict.SEQUENCE_WRITE: WRITES}.get(flags) or Verdict(flags, ())
    dotted = dotted_names(_with_names(text, read))
    if len(dotted) == MOST_NAMES:
        flags |= verdict.UNREADABLE
    names = tuple(dict.fromkeys(databases[:MOST_NAMES])) + dotted
    # What is not ASCII has another meaning in each encoding.
    if not flags & ~verdict.FORESEEABLE and text.isascii():
        known = tuple(name for name in sets if name is not None)
        if len(known) == len(sets):
            told = tuple(filter(None, map(telling_tag, filter(None, statements))))
            return Verdict(flags, names, known, told, _custom_value(statements, known))
    return Verdict(flags, names, calls=tuple(calls))


def _custom_value(statements: list[list[Token]], sets: tuple[bytes, ...]) -> bytes | None:
    said = [statement for statement in statements if statement]
    return value_of(said[0]) if len(said) == len(sets) == 1 and b"." in sets[0] else None


def dotted_names(data: bytes) -> tuple[bytes, ...]:
    """
    Find what custom settings can be called, `my.tenant`, in a text or a Bind's parameters.

    Names are given once, as they were written first, in whatever case they come again.
    """
    names: dict[bytes, bytes] = {}
    for name in _find_dotted_names(data):
        names.setdefault(name.lower(), name)
        if len(names) == MOST_NAMES:
            break
    return tuple(names.values())


def _with_names(text: bytes, read: list[Token]) -> bytes:
    """Write out tokens so that names are plain to see: without quotes, escapes, comments and white space."""
    parts: list[bytes] = []
    for token in read:
        kind, value, start, end = token
        if kind == OPERATOR and value == b".":
            # A name goes on, if one stands before it.
            if parts and parts[-1] == b" ":
                parts.pop()
            parts.append(value)
        elif kind in (WORD, QUOTED):
            parts += (text[start:end] if kind == WORD else value, b" ")
        elif kind in (STRING, ESCAPED, DOLLAR):
            body = inside(token)
            parts += (b" ", body, b" ")
            if b"\\" in body:
                parts += (unescaped(body), b" ")
            if kind == DOLLAR and b"$" in body:
                parts += (_dollar_quotes.sub(b" ", body), b" ")
        else:
            parts.append(b"\n")
    return b"".join(parts)


class Verdicts:
    """
    The verdicts on texts that come again and again.

    The quick test reads no digits but those in the names of functions: what it says of one text is kept for
    all that are alike but for their digits. The full test reads them.
    """

    __slots__ = ("_alike", "_known", "_most", "_queries", "parses")

    def __init__(self, most: int = 4096) -> None:
        self._known: dict[bytes, Verdict] = {}
        self._alike: dict[bytes, Verdict] = {}
        self._queries: dict[bytes, Known] = {}
        """By a whole Query, with its digits made equal."""
        self.parses: dict[bytes, Known] = {}
        """By a whole Parse of the unnamed statement."""
        self._most = most

    def of(self, text: bytes) -> Verdict:
        """The verdict on a whole text."""
        known = self._known.get(text)
        if known is not None:
            return known
        if len(text) > CACHED_TEXT:
            return quick(text) or classify(text)
        bare = without_comments(text) if b"/*" in text else text
        alike = bare.translate(_DIGITS_ARE_ZERO) if bare is not None else b""
        says = self._alike.get(alike) or self._known.get(bare or text)
        if says is not None:
            return says
        says = quick(bare) if bare is not None else None
        if says is None or bare is None:
            says = classify(text)
            self._keep(self._known, text, says)
        elif alike != bare and not any(b"0" in word for word in _find_called(alike[::-1])):
            self._keep(self._alike, alike, says)
        else:
            self._keep(self._known, bare, says)
        return says

    def known_query(self, data: bytes) -> Known | None:
        """
        Give what is known of data that is one whole Query, and nothing else, that is known to leave nothing.

        What was learnt of one is known of all that are alike but for their digits. With the digits of the
        header made equal as well, that of a Query of this length is compared.
        """
        known = self._queries.get(data.translate(_DIGITS_ARE_ZERO))
        return known if known is not None and data.startswith(known.header) else None

    def learn_query(self, data: bytes) -> None:
        """Remember one whole Query that leaves nothing, if that is certain whatever its digits are."""
        text = data[HEADER:-1].translate(_DIGITS_ARE_ZERO)
        if len(data) <= LEARNED and (self._alike.get(text) is HARMLESS or b"0" not in text):
            self._keep(self._queries, data.translate(_DIGITS_ARE_ZERO), Known(data[:HEADER], b""))

    def learn_parse(self, data: bytes, body: bytes) -> None:
        """Remember one whole Parse of the unnamed statement that leaves nothing, and the body in it."""
        if len(data) <= LEARNED:
            self._keep(self.parses, data, Known(data[:HEADER], body))

    def _keep(self, book: dict[bytes, Kept], text: bytes, says: Kept) -> None:
        if len(book) >= self._most:
            book.clear()
        book[text] = says
