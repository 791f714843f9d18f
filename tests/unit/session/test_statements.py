"""What of our statements one server has."""

from __future__ import annotations

from struct import unpack

from hypothesis import given
from hypothesis import strategies as st

from pgproxy.session.settings import NOTHING_SET
from pgproxy.session.statements import (
    _OVERHEAD,
    Copy,
    Key,
    ServerStatements,
    Statement,
    close,
    next_turn,
    parse,
)
from pgproxy.session.verdict import HARMLESS
from tests.unit.session.model import close as said_close
from tests.unit.session.model import parse as said_parse


def key(number: int) -> Key:
    return b"%d\0\0\0" % number, NOTHING_SET


@given(
    st.lists(st.tuples(st.sampled_from(["use", "anew", "forget"]), st.integers(0, 5)), max_size=30),
    st.integers(1, 4),
    st.integers(0, 2),
)
def test_the_one_used_longest_ago_goes_first(steps: list[tuple[str, int]], limit: int, more: int) -> None:
    statements = ServerStatements(b"p", limit)
    used: list[int] = []
    names: dict[int, bytes] = {}
    copies: dict[int, Copy] = {}
    given_out: set[bytes] = set()
    for what, number in steps:
        there = number in used
        if there:
            used.remove(number)
        if what == "use":
            copy = statements.find(key(number))
            assert (copy is not None) == there
            if copy is not None:
                assert copy.name == names[number]
                used.append(number)
        elif what == "forget":
            copy = copies.get(number)
            if copy is not None:
                statements.forget(key(number), copy)
        else:
            turn = next_turn()
            copy, is_there = statements.anew(key(number), turn)
            assert is_there == there and copy.turn == turn and copy.description is None
            assert copy.name == names[number] if there else copy.name not in given_out
            names[number] = copy.name
            copies[number] = copy
            given_out.add(copy.name)
            used.append(number)
            closed = statements.surplus(more)
            assert closed == [names[one] for one in used[: max(0, len(used) - limit - more)]]
            used = used[len(closed) :]
        assert len(statements) == len(used) <= limit + more
        assert statements.names == {names[one] for one in used}


def test_only_some_are_kept() -> None:
    statements = ServerStatements(b"p", 9)
    names = [statements.anew(key(number), next_turn())[0].name for number in range(3)]
    statements.keep_only(frozenset({names[1], b"another"}))
    assert statements.names == {names[1]} and statements.find(key(0)) is None
    assert statements.anew(key(0), next_turn())[0].name not in names


def test_turns_go_up() -> None:
    first, second = next_turn(), next_turn()
    assert first < second


def test_messages() -> None:
    assert parse(b"a", b"SELECT 1\0\0\0") == said_parse(b"a", b"SELECT 1")
    assert close(b"abc") == said_close(b"abc") and unpack(">I", close(b"abc")[1:5])[0] == 9


def test_a_statement_shows_its_text() -> None:
    statement = Statement(b"SELECT $1\0\0\1\0\0\0\x17", HARMLESS, NOTHING_SET, True, 1)
    assert statement.text == b"SELECT $1" and statement.size == len(statement.body) + _OVERHEAD
