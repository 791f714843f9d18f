"""The question to a server that has been logged in to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.session.hidden import HIDDEN
from pgproxy.session.lexer import SEMICOLON, tokens
from pgproxy.session.opening import (
    Opening,
    defaults_question,
    opening_question,
    read_defaults,
    read_opening,
)
from pgproxy.session.question import START, NoAnswer, literal
from pgproxy.wire import messages, tags
from pgproxy.wire.skim import Malformed
from tests.unit.session.model import data_row, read

NAMES = st.binary(min_size=1, max_size=30).filter(lambda user: b"\0" not in user)
END = (tags.COMMAND_COMPLETE, b"SELECT 1\0")


@given(NAMES)
def test_the_first_question_is_one_query_of_three_statements_with_the_user_quoted(user: bytes) -> None:
    ((tag, payload),) = read(opening_question(user))
    assert HIDDEN in payload
    assert tag == b"Q" and payload.count(b"\0") == 1 and payload.startswith(START)
    assert [kind for kind, *_ in tokens(payload[:-1])].count(SEMICOLON) == 2
    assert b"to_regrole(" + literal(b'"' + user.replace(b'"', b'""') + b'"') in payload


@given(NAMES, st.integers(0, 2**32 - 1))
def test_the_later_question_is_one_query_of_two_statements(user: bytes, database: int) -> None:
    ((tag, payload),) = read(defaults_question(user, b"%d" % database))
    assert HIDDEN not in payload and b"{0,%d}" % database in payload
    assert tag == b"Q" and payload.count(b"\0") == 1 and payload.startswith(START)
    assert [kind for kind, *_ in tokens(payload[:-1])].count(SEMICOLON) == 1
    assert b"to_regrole(" + literal(b'"' + user.replace(b'"', b'""') + b'"') in payload


@pytest.mark.parametrize(
    ("texts", "opening"),
    [
        ([b"o", b"f", b"none", b"97", b"t", b"5"], Opening(b"", False, b"none", 97, True, b"5")),
        ([b"o", b"t", b"clerk", b"", b"", b"5"], Opening(b"", True, b"clerk", None, False, b"5")),
        ([b"o", b"f", b"none", b"9" * 100, b"f", b"5"], Opening(b"", False, b"none", None, False, b"5")),
        ([b"o", b"f", b"none", b"-3", b"f", b"5"], Opening(b"", False, b"none", None, False, b"5")),
    ],
)
def test_an_answer(texts: list[bytes], opening: Opening) -> None:
    replies = [(tags.COMMAND_COMPLETE, b"SET\0"), (tags.DATA_ROW, data_row(texts)), END]
    assert read_opening(replies) == opening


DEFAULTS = [
    (tags.DATA_ROW, data_row([b"d", b"0", b"10", b"{TimeZone=UTC}"])),
    (tags.DATA_ROW, data_row([b"d", b"5", b"0", b"{search_path=x}"])),
]


def test_defaults_are_the_same_in_any_order_and_asked_for_in_either_way() -> None:
    itself = (tags.DATA_ROW, data_row([b"o", b"f", b"none", b"97", b"t", b"5"]))
    first = read_opening([itself, END, *DEFAULTS, END]).defaults
    assert first == read_defaults([*DEFAULTS, END]) == read_defaults([*reversed(DEFAULTS), END]) != b""
    assert read_defaults([DEFAULTS[0], END]) != first
    assert read_defaults([END]) == b""


@pytest.mark.parametrize("replies", [[END], [*DEFAULTS[:1], END]])
def test_no_row(replies: list[tuple[int, bytes]]) -> None:
    with pytest.raises(NoAnswer, match="no row"):
        read_opening(replies)


@pytest.mark.parametrize("database", [b"", b"t", b"-1"])
def test_no_database(database: bytes) -> None:
    row = data_row([b"o", b"f", b"none", b"97", b"t", database])
    with pytest.raises(NoAnswer, match="no database"):
        read_opening([(tags.DATA_ROW, row), END])


@pytest.mark.parametrize("replies", [[], [(tags.COMMAND_COMPLETE, b"SET\0")], DEFAULTS])
def test_no_end(replies: list[tuple[int, bytes]]) -> None:
    with pytest.raises(NoAnswer, match="no end"):
        read_opening(replies)
    with pytest.raises(NoAnswer, match="no end"):
        read_defaults(replies)


def test_an_error() -> None:
    error = messages.error_response({"C": "42501", "M": "permission denied"})
    for read_it in (read_opening, read_defaults):
        with pytest.raises(NoAnswer, match="42501 permission denied"):
            read_it([(tags.ERROR_RESPONSE, error[5:]), END])


def test_malformed() -> None:
    with pytest.raises(Malformed):
        read_opening([(tags.DATA_ROW, data_row([b"o", b"f", b"none", b"97", b"t", b"5"])[:-1]), END])
