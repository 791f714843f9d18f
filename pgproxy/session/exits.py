"""
What a statement's text does to a transaction that has failed.

The law:

1. In doubt a text is OTHER, which is refused.
2. Only words and comments are read, so this holds in every encoding, and whatever the settings are.

Documentation: PostgreSQL manual, "ROLLBACK", "COMMIT"; IsTransactionExitStmt() in its tcop/postgres.c.
"""

from __future__ import annotations

from enum import Enum
from itertools import islice

from pgproxy.session.lexer import QUOTED, SEMICOLON, WORD, tokens

_MOST_TOKENS = 16
"""So many of a text are read: the longest of these statements has seven, and semicolons may go before it."""


class Exit(Enum):
    """What a text, as one Query or one prepared statement, does."""

    EMPTY = 0
    """Nothing: there is no statement in it."""
    ROLLBACK = 1
    ROLLBACK_AND_MORE = 2
    """It begins with ROLLBACK and goes on with other statements."""
    ROLLBACK_TO = 3
    """Goes back to a savepoint."""
    COMMIT = 4
    OTHER = 5


_MAY_BEGIN_AN_EXIT = frozenset({b"rollback", b"abort", b"commit", b"end", b"prepare"})


def may_exit(text: bytes) -> bool:
    """Say whether a text may end a failed transaction, or go back to before it failed, and then do more."""
    for kind, value, _start, _stop in tokens(text):
        if kind != SEMICOLON:
            return kind == WORD and value in _MAY_BEGIN_AN_EXIT
    return False


def exit_of(text: bytes, whole: bool = True) -> tuple[Exit, bytes]:
    """Say what a text does, and for ROLLBACK_TO the savepoint's name; `whole`: whether this is all of it."""
    said = list(islice(tokens(text), _MOST_TOKENS))
    begin = 0
    while begin < len(said) and said[begin][0] == SEMICOLON:
        begin += 1
    end = begin
    while end < len(said) and said[end][0] != SEMICOLON:
        end += 1
    alone = whole and len(said) < _MOST_TOKENS and all(one[0] == SEMICOLON for one in said[end:])
    if begin == end:
        return (Exit.EMPTY if alone else Exit.OTHER), b""
    words = [value if kind == WORD else None for kind, value, _start, _stop in said[begin:end]]
    first = words.pop(0)
    if words and words[0] in (b"work", b"transaction"):
        del words[0]
    if first in (b"rollback", b"abort"):
        if words[:1] == [b"to"] and len(words) == 2 + (words[1:2] == [b"savepoint"]) and alone:
            if first != b"rollback":
                return Exit.OTHER, b""
            kind, name, _start, _stop = said[end - 1]
            return (Exit.ROLLBACK_TO, name) if kind in (WORD, QUOTED) else (Exit.OTHER, b"")
        if words in ([], [b"and", b"no", b"chain"]):
            return (Exit.ROLLBACK if alone else Exit.ROLLBACK_AND_MORE), b""
    elif first in (b"commit", b"end") and alone and words in ([], [b"and", b"no", b"chain"]):
        return Exit.COMMIT, b""
    return Exit.OTHER, b""
