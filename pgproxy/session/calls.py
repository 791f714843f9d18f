"""
Finds what a statement calls: the names before parentheses that aren't key words, column lists or types.

The law: where it isn't certain that a name before a parenthesis is something else, it is a call; and a call
of a function that isn't known to be harmless is one of CALLS.
"""

from __future__ import annotations

from collections.abc import Sequence

from pgproxy.session import vocabulary
from pgproxy.session.lexer import (
    DOLLAR,
    ESCAPED,
    LONGEST_NAME,
    OPERATOR,
    QUOTED,
    STRING,
    WORD,
    Token,
    inside,
)
from pgproxy.session.verdict import (
    ASK,
    CALLS,
    DYNAMIC,
    LOCAL,
    SEED,
    SEQUENCE_READ,
    SEQUENCE_WRITE,
    UNDOES,
)

_KNOWN = {
    **dict.fromkeys(vocabulary.FUNCTIONS, 0),
    **dict.fromkeys(vocabulary.SESSION_LOCKS, ASK),
    b"nextval": SEQUENCE_WRITE,
    b"setval": SEQUENCE_WRITE,
    b"currval": SEQUENCE_READ,
    b"lastval": SEQUENCE_READ,
    b"setseed": SEED,
    b"pg_prepared_statement": 0,
}
_NEVER_CALLED = vocabulary.KEYWORDS - vocabulary.NEW_KEYWORDS
_TRUE = frozenset({b"true", b"t", b"on", b"yes", b"y", b"1"})
_NAMES = frozenset({WORD, QUOTED})
_STRINGS = frozenset({ESCAPED, STRING, DOLLAR})
_NOTHING: Token = (0, b"", 0, 0)


class Calls:
    """The parentheses of one statement, and what stands before them."""

    def __init__(self, tokens: Sequence[Token], strict: bool = False) -> None:
        """With `strict` what stands before a parenthesis is a call unless no function can be called so."""
        self._strict = strict
        self._tokens = tokens
        self._closing: dict[int, int] = {}
        self._opening: dict[int, int] = {}
        self._opens: list[int] = []
        self.unlisted: list[bytes] = []
        """The functions that are on no list, in whatever schema; known behind `flags`."""
        self._merges = False
        """Whether there is a MERGE INTO, in which INSERT stands behind THEN."""
        pending: list[int] = []
        for at, token in enumerate(tokens):
            if token[0] != OPERATOR:
                if token[:2] == (WORD, b"merge"):
                    self._merges = self._merges or self._is(at + 1, b"into")
                continue
            if token[1] == b"(":
                pending.append(at)
                self._opens.append(at)
            elif token[1] == b")" and pending:
                opening = pending.pop()
                self._closing[opening] = at
                self._opening[at] = opening

    def flags(self) -> int:
        """All that is suspected of the calls."""
        flags = 0
        for at in self._opens:
            flags |= self._before(at)
        return flags

    def _at(self, at: int) -> Token:
        return self._tokens[at] if 0 <= at < len(self._tokens) else _NOTHING

    def _is(self, at: int, *words: bytes) -> bool:
        """Whether one of these words or marks is there, and isn't quoted."""
        kind, value, _, _ = self._at(at)
        return kind in (WORD, OPERATOR) and value in words

    def _before(self, at: int) -> int:
        """What is suspected of the name before the parenthesis that opens here."""
        last = at - 1
        kind, name, _, _ = self._at(last)
        # The first word of a statement is a command.
        if last <= 0 or kind not in _NAMES:
            return 0
        first = last
        while self._is(first - 1, b".") and first >= 2:
            first -= 2
        if self._strict:
            if first == last and kind == WORD and name in _NEVER_CALLED:
                return 0
        elif (first == last and kind == WORD and self._is_keyword(last, name)) or self._is_list(
            first, last, at
        ):
            return 0
        if first == last - 2 and self._at(first)[:2] not in ((WORD, b"pg_catalog"), (QUOTED, b"pg_catalog")):
            return self._unlisted(name)
        if first < last - 2:
            return self._unlisted(name)
        if name == b"set_config":
            return self._set_config(at)
        if name == b"pg_advisory_unlock_all" and self._is(at + 1, b")"):
            # With arguments it may be another function of that name, as those with a key may be.
            return UNDOES
        known = _KNOWN.get(name)
        return known if known is not None else self._unlisted(name)

    def _unlisted(self, name: bytes) -> int:
        # What is longer PostgreSQL cuts.
        self.unlisted.append(name[:LONGEST_NAME])
        return CALLS

    def _is_keyword(self, at: int, word: bytes) -> bool:
        if word in vocabulary.KEYWORDS:
            return True
        if word == b"set":
            return self._is_update(at)
        if word == b"operator":
            last = self._at(self._closing.get(at + 1, 0) - 1)
            return last[0] == OPERATOR and last[1] not in (b")", b"]")
        if word in vocabulary.INFIX:
            return self._is_operand(at - 1)
        if word == b"stdin":
            return self._is(0, b"copy") and not self._is(1, b"(") and self._is(at - 1, b"from")
        if word == b"insert" and not self._merges:
            return False
        before = vocabulary.KEYWORDS_AFTER.get(word)
        if before is None or not self._is(at - 1, *before):
            return False
        return not self._is(at - 1, b")") or self._is_operand(at - 1)

    def _is_operand(self, at: int) -> bool:
        """Whether an operand can end here (or the NOT of NOT LIKE stands here)."""
        kind, value, _, _ = self._at(at)
        if kind == WORD:
            return value not in vocabulary.KEYWORDS or value in (b"not", b"end")
        if kind == OPERATOR and value == b")":
            # But an operand begins behind DISTINCT ON (...) and OPERATOR(...).
            opening = self._opening.get(at, 0)
            return not (self._is(opening - 2, b"distinct") or self._is(opening - 1, b"operator"))
        return kind != OPERATOR or value == b"]"

    def _is_update(self, at: int) -> bool:
        """Whether this SET is the one of `UPDATE ONLY a.b.c * AS d SET`."""
        for back in range(at - 1, at - 11, -1):
            if self._is(back, b"update"):
                return True
            if not (self._at(back)[0] in _NAMES or self._is(back, b".", b"*")):
                return False
        return False

    def _is_list(self, first: int, last: int, at: int) -> bool:
        """Whether the name between these two stands before its columns, or is a type before its measures."""
        before = first - 1
        if self._is(before, b"as", b"::"):
            return True
        if self._is(before, b"into"):
            return self._is(before - 1, b"insert")
        if self._is(before, b"copy"):
            return before == 0
        if first != last:
            return False
        if self._is(before, b"with", b"recursive"):
            return True
        if self._is(before, b")"):
            # `(...) AS t (a, b)` without its AS. But DISTINCT ON (...) f(), and a OPERATOR(...) f().
            return not self._is(self._opening.get(before, 0) - 1, b"on", b"operator")
        return self._is(before, b",") and self._is_with_query(at)

    def _is_with_query(self, at: int) -> bool:
        """Whether `(a, b) AS [[NOT] MATERIALIZED] (SELECT` begins here, and not `(x) AS (column type`."""
        behind = self._closing.get(at, len(self._tokens)) + 1
        if not self._is(behind, b"as"):
            return False
        behind += 1
        if self._is(behind, b"not"):
            behind += 1
        if self._is(behind, b"materialized"):
            behind += 1
        return self._is(behind, b"(") and self._is(behind + 1, b"select", b"with", b"table", b"(")

    def _set_config(self, at: int) -> int:
        if at not in self._closing:
            return ASK | DYNAMIC
        arguments = self._arguments(at, self._closing[at])
        if len(arguments) != 3:
            return ASK | DYNAMIC
        name, _, local = arguments
        flags = LOCAL if _is_true(local) else ASK
        if not _is_literal(name):
            return flags if flags == LOCAL else flags | DYNAMIC
        if inside(name[0]).lower() == b"seed":
            flags |= SEED
        return flags

    def _arguments(self, at: int, end: int) -> list[list[Token]]:
        arguments: list[list[Token]] = [[]]
        behind = at + 1
        while behind < end:
            if self._is(behind, b"("):
                # What is nested is of no interest but for its being there.
                arguments[-1].append(self._at(behind))
                behind = self._closing[behind]
            elif self._is(behind, b","):
                arguments.append([])
            else:
                arguments[-1].append(self._at(behind))
            behind += 1
        return arguments


def _is_literal(argument: Sequence[Token]) -> bool:
    """Whether an argument is a string without escapes, bare or with a simple cast."""
    if not argument or argument[0][0] not in _STRINGS or b"\\" in argument[0][1]:
        return False
    return len(argument) == 1 or (
        len(argument) == 3 and argument[1][1] == b"::" and argument[2][1] in (b"text", b"bool", b"boolean")
    )


def _is_true(argument: Sequence[Token]) -> bool:
    if len(argument) == 1 and argument[0][0] == WORD:
        return argument[0][1] == b"true"
    return _is_literal(argument) and inside(argument[0]).lower() in _TRUE
