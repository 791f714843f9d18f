"""
What each kind of statement may leave behind, by its first words.

The law: a statement is harmless if it is of a kind that leaves nothing by itself, and calls nothing but
harmless functions. Everything else has to be asked about; it is rare, and a question is cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pgproxy.session.calls import Calls
from pgproxy.session.lexer import ESCAPED, QUOTED, STRING, WORD, Token, inside
from pgproxy.session.verdict import (
    ASK,
    DATABASE,
    DYNAMIC,
    LOCAL,
    OPAQUE,
    RESETS,
    ROLE_DEFAULTS,
    SEED,
    SEQUENCE_WRITE,
    STATEMENTS,
    UNDOES,
)

_LEAVE_NOTHING = """
    begin start commit end rollback abort savepoint release fetch move show lock notify truncate vacuum
    analyze analyse checkpoint
"""
_TEMPORARY = frozenset({b"temp", b"temporary", b"local", b"global"})
_OF_TABLES = frozenset({b"table", b"temp", b"temporary", b"unlogged", b"local", b"global", b"materialized"})
_QUERIES = frozenset({b"select", b"values", b"table", b"with", b"execute", b"("})
_MAY_STORE = frozenset({b"insert", b"merge", b"default"})
_SETS_ANYTHING = ASK | OPAQUE | DYNAMIC
_EXECUTES = _SETS_ANYTHING | STATEMENTS


def suspected(statement: Sequence[Token]) -> int:
    """The flags of one statement, which has no semicolon."""
    for kind, value, _, _ in statement:
        if value != b"(":
            return _KINDS.get(value, _unknown)(statement) if kind == WORD else ASK
    return ASK if statement else 0


def unlisted(statement: Sequence[Token]) -> list[bytes]:
    """The functions on no list that a statement calls, or may call: all of them are among these."""
    calls = Calls(statement)
    calls.flags()
    return calls.unlisted


def database_names(statement: Sequence[Token]) -> list[bytes]:
    """All that may be a database's name behind CREATE, ALTER or DROP DATABASE."""
    names: list[bytes] = []
    if _word(statement, 1) == b"database" and _word(statement, 0) in (b"create", b"alter", b"drop"):
        for token in statement[2:]:
            if token[0] in (WORD, QUOTED):
                names.append(token[1])
            elif token[0] in (STRING, ESCAPED):
                names.append(inside(token))
    return names


def _word(statement: Sequence[Token], at: int) -> bytes:
    """The word or the mark there; empty where the statement has ended, or has something in quotes."""
    if at < len(statement) and statement[at][0] != QUOTED:
        return statement[at][1]
    return b""


def _is_name(statement: Sequence[Token], at: int) -> bool:
    return at < len(statement) and statement[at][0] in (WORD, QUOTED) and _word(statement, at) != b"to"


def _nothing(statement: Sequence[Token]) -> int:
    return 0


def _unknown(statement: Sequence[Token]) -> int:
    return ASK


def _query(statement: Sequence[Token], storing: frozenset[bytes] = _MAY_STORE) -> int:
    """A statement with values and functions in it; which of its words say that rows may be stored."""
    flags = Calls(statement).flags()
    if sets_by_view(statement):
        flags |= _SETS_ANYTHING
    before = b""
    for kind, value, _, _ in statement:
        if kind == WORD:
            if value == b"into" and before not in storing:
                flags |= ASK
            elif before == b"into" and value in _TEMPORARY:
                # `WITH ... SELECT insert INTO TEMP a`: a column may be called insert.
                flags |= ASK
            elif value in storing:
                flags |= SEQUENCE_WRITE
        if kind in (WORD, QUOTED) and value.startswith(b"pg_temp"):
            flags |= ASK
        before = value
    return flags


def sets_by_view(statement: Sequence[Token]) -> bool:
    """Whether it may be an UPDATE of pg_settings, whose rule calls set_config()."""
    words = [value for kind, value, _, _ in statement if kind in (WORD, QUOTED)]
    return b"pg_settings" in words and b"update" in words


def _only_reads(statement: Sequence[Token]) -> int:
    # To store rows takes a WITH at the beginning of the statement.
    return _query(statement, frozenset())


def _update(statement: Sequence[Token]) -> int:
    return _query(statement, frozenset({b"default"}))


def _copy(statement: Sequence[Token]) -> int:
    reads = _word(statement, 1) != b"(" and any(token[:2] == (WORD, b"from") for token in statement)
    return _query(statement) | (SEQUENCE_WRITE if reads else 0)


def _declare(statement: Sequence[Token]) -> int:
    held = any(
        _word(statement, at) == b"with" and _word(statement, at + 1) == b"hold"
        for at in range(len(statement))
    )
    return _query(statement) | (ASK if held else 0)


def _explain(statement: Sequence[Token]) -> int:
    at = 1
    if _word(statement, 1) == b"(" and _word(statement, 2) not in _QUERIES:
        while at < len(statement) and _word(statement, at) != b")":
            at += 1
        at += 1
    while _word(statement, at) in (b"analyze", b"analyse", b"verbose"):
        at += 1
    return _within(statement[at:])


def _within(statement: Sequence[Token]) -> int:
    """The flags of what is explained or prepared. By the grammar it is neither of these: nothing nests."""
    first = next((value for kind, value, _, _ in statement if value != b"("), b"")
    return _EXECUTES if first in (b"explain", b"prepare") else suspected(statement)


def _set(statement: Sequence[Token]) -> int:
    # Each of these words may itself be the (first part of the) name of a setting.
    scope = _word(statement, 1)
    scoped = _is_name(statement, 2)
    if scope == b"constraints" and scoped:
        return 0
    if scope == b"transaction" and scoped:
        return LOCAL
    flags = LOCAL if scope == b"local" and scoped else ASK
    name = statement[2:3] if scope in (b"local", b"session") and scoped else statement[1:2]
    return flags | (SEED if name and name[0][1].lower() == b"seed" else 0)


def _prepare(statement: Sequence[Token]) -> int:
    if _word(statement, 1) == b"transaction" and statement[2:] and statement[2][0] in (STRING, ESCAPED):
        return 0
    # What it calls is called by EXECUTE, whose text doesn't show it.
    return ASK | STATEMENTS | _within(_behind_as(statement))


def _execute(statement: Sequence[Token]) -> int:
    return _EXECUTES


def _deallocate(statement: Sequence[Token]) -> int:
    if b"all" in (_word(statement, 1), _word(statement, 2)):
        # Its command tag says so.
        return ASK
    return ASK | STATEMENTS


def _ends_what_is_held(statement: Sequence[Token]) -> int:
    return UNDOES


def _reset(statement: Sequence[Token]) -> int:
    # A custom setting is there after its RESET, though it was not before.
    return RESETS if _word(statement, 1) == b"all" else ASK


def _discard(statement: Sequence[Token]) -> int:
    # With ALL prepared statements go as well, which others may have had prepared.
    return ASK if _word(statement, 1) == b"all" else UNDOES


def _code(statement: Sequence[Token]) -> int:
    # What random() gives next is shown by nothing that can be asked.
    seeds = any(b"seed" in value.lower() for _, value, _, _ in statement)
    return ASK | OPAQUE | (SEED if seeds else 0)


def _create(statement: Sequence[Token]) -> int:
    what = _word(statement, 1)
    if what in _OF_TABLES:
        # Functions in defaults and checks aren't called now, but those of CREATE TABLE ... AS SELECT are.
        query = _behind_as(statement)
        return ASK | (suspected(query) if _word(query, 0) in _QUERIES else 0)
    return ASK | (DATABASE if what == b"database" else 0)


def _alter(statement: Sequence[Token]) -> int:
    what = _word(statement, 1)
    flags = ASK | (DATABASE if what == b"database" else 0)
    if what in (b"role", b"user", b"database") and any(
        kind == WORD and value in (b"set", b"reset") for kind, value, _, _ in statement[2:]
    ):
        flags |= ROLE_DEFAULTS
    return flags


def _drop(statement: Sequence[Token]) -> int:
    return ASK | (DATABASE if _word(statement, 1) == b"database" else 0)


def _behind_as(statement: Sequence[Token]) -> Sequence[Token]:
    """What is behind the first AS that isn't in parentheses."""
    depth = 0
    for at in range(len(statement)):
        word = _word(statement, at)
        depth += (word == b"(") - (word == b")")
        if word == b"as" and not depth:
            return statement[at + 1 :]
    return ()


_KINDS: dict[bytes, Callable[[Sequence[Token]], int]] = {
    **dict.fromkeys(_LEAVE_NOTHING.encode().split(), _nothing),
    **dict.fromkeys((b"with", b"insert", b"merge"), _query),
    **dict.fromkeys((b"select", b"values", b"table", b"delete"), _only_reads),
    b"update": _update,
    b"copy": _copy,
    b"declare": _declare,
    b"explain": _explain,
    b"set": _set,
    b"prepare": _prepare,
    b"execute": _execute,
    b"deallocate": _deallocate,
    **dict.fromkeys((b"close", b"unlisten"), _ends_what_is_held),
    b"reset": _reset,
    b"discard": _discard,
    b"do": _code,
    b"call": _code,
    b"create": _create,
    b"alter": _alter,
    b"drop": _drop,
}
