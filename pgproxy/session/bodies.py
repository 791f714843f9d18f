"""
What the body of a function may leave behind in a session, as far as it can be read.

The law:

1. A body in SQL is judged as any text is (suspicion.py). One in PL/pgSQL leaves nothing if it has none of the
   words that begin something that lasts, or that run SQL from a text, wherever they stand.
2. What it calls is given by name: it may leave what these leave. What stands before a parenthesis is called,
   unless no function can be: tables and PL/pgSQL's own words are among the names.
3. Whatever isn't known, can't be read, or can be read in two ways, may leave anything.

Documentation: PostgreSQL manual, "PL/pgSQL", "SQL Functions".
"""

from __future__ import annotations

from functools import lru_cache

from pgproxy.session.calls import Calls
from pgproxy.session.lexer import OPERATOR, QUOTED, SEMICOLON, STRING, WORD, Token, ambiguous, tokens
from pgproxy.session.suspects import sets_by_view
from pgproxy.session.suspicion import LOOK, classify
from pgproxy.session.verdict import CALLS, LOCAL, SEQUENCE_READ, SEQUENCE_WRITE

_ENDS_WITH_IT = LOCAL | SEQUENCE_READ | SEQUENCE_WRITE
"""What is over when the transaction is, or is seen to otherwise (sequences.py)."""
_LASTING = frozenset(
    b"alter call cluster comment copy create deallocate discard drop execute grant import listen load "
    b"prepare refresh reindex reset revoke temp temporary unlisten".split()
)
_BEGINS = frozenset(b"begin else loop then".split())
"""Words behind which a statement begins."""
_KEPT = 200
"""Bodies that need not be read again."""
_MOST_TARGETS = 200
"""Names and marks behind an INTO that are looked at."""
_SEMICOLON: Token = (SEMICOLON, b";", 0, 0)


@lru_cache(_KEPT)
def called_by(language: bytes, body: bytes) -> tuple[bytes, ...] | None:
    """Give the functions on no list that a body calls; None where it may leave something by itself."""
    if not body.isascii() or len(body) > LOOK:
        return None
    if language == b"sql":
        return _in_sql(body)
    return _in_plpgsql(body, list(tokens(body))) if language == b"plpgsql" else None


def _in_sql(body: bytes) -> tuple[bytes, ...] | None:
    says = classify(body)
    if not says.calls and says.flags & ~_ENDS_WITH_IT:
        return None
    return _called(list(tokens(body)))


def _in_plpgsql(body: bytes, read: list[Token]) -> tuple[bytes, ...] | None:
    if sets_by_view(read):
        return None
    for at, token in enumerate(read):
        kind, value, start, _ = token
        if (kind == STRING and ambiguous(token)) or (kind == QUOTED and body[start] != ord('"')):
            return None
        if kind != WORD or (at and read[at - 1][:2] == (OPERATOR, b".")):
            continue
        if value in _LASTING or (value in _UNLESS and not _UNLESS[value](read, at)):
            return None
    return _called(read)


def _called(read: list[Token]) -> tuple[bytes, ...] | None:
    # A first word counts as a command.
    calls = Calls([_SEMICOLON, *read], strict=True)
    return tuple(dict.fromkeys(calls.unlisted)) if not calls.flags() & ~(CALLS | _ENDS_WITH_IT) else None


def _is_update(read: list[Token], at: int) -> bool:
    """Whether a SET is that of an UPDATE: `UPDATE ONLY a.b * AS c SET`, `DO UPDATE SET`."""
    for kind, value, _, _ in reversed(read[max(at - 10, 0) : at]):
        if kind == WORD and value == b"update":
            return True
        if (kind == WORD and value in _BEGINS) or (kind not in (WORD, QUOTED) and value not in (b".", b"*")):
            return False
    return False


def _is_on_conflict(read: list[Token], at: int) -> bool:
    """Whether a DO is that of `ON CONFLICT ... DO NOTHING`."""
    return [token[1] for token in read[at + 1 : at + 2]] in ([b"nothing"], [b"update"])


def _is_before_no_parenthesis(read: list[Token], at: int) -> bool:
    """
    Whether no parenthesis stands behind the targets of an INTO.

    PL/pgSQL cuts them out: `SELECT f INTO a (1)` calls f.
    """
    if read[at - 1][:2] in ((WORD, b"insert"), (WORD, b"merge")):
        return True
    behind = at + 1
    if read[behind : behind + 1] and read[behind][:2] == (WORD, b"strict"):
        behind += 1
    while behind < len(read) and read[behind][0] in (WORD, QUOTED):
        if behind > at + _MOST_TARGETS:
            return False
        behind += 1
        if behind < len(read) and read[behind][1] in (b".", b","):
            behind += 1
        else:
            break
    return behind >= len(read) or read[behind][1] not in (b"(", b"[")


_UNLESS = {b"set": _is_update, b"do": _is_on_conflict, b"into": _is_before_no_parenthesis}
