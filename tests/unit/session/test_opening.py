"""The question to a server that has been logged in to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.session.hidden import HIDDEN
from pgproxy.session.lexer import SEMICOLON, tokens
from pgproxy.session.opening import Opening, opening_question, read_opening
from pgproxy.session.question import START, NoAnswer, literal
from pgproxy.wire import messages, tags
from pgproxy.wire.skim import Malformed
from tests.unit.session.model import data_row, read


@given(st.binary(min_size=1, max_size=30).filter(lambda user: b"\0" not in user), st.booleans())
def test_the_question_is_one_query_of_two_statements_with_the_user_quoted(user: bytes, hidden: bool) -> None:
    ((tag, payload),) = read(opening_question(user, hidden))
    assert (HIDDEN in payload) is hidden
    assert tag == b"Q" and payload.count(b"\0") == 1 and payload.startswith(START)
    assert [kind for kind, *_ in tokens(payload[:-1])].count(SEMICOLON) == 1
    assert b"rolname OPERATOR(pg_catalog.=) " + literal(user) in payload


@pytest.mark.parametrize(
    ("texts", "opening"),
    [
        ([b"o", b"", b"f", b"none", b"97", b"t"], Opening(b"", False, b"none", 97, True)),
        (
            [b"o", b"0 10 {TimeZone=UTC}", b"t", b"clerk", b"", b""],
            Opening(b"0 10 {TimeZone=UTC}", True, b"clerk"),
        ),
        ([b"o", b"", b"f", b"none", b"9" * 100, b"f"], Opening(b"", False, b"none")),
        ([b"o", b"", b"f", b"none", b"-3", b"f"], Opening(b"", False, b"none")),
    ],
)
def test_an_answer(texts: list[bytes], opening: Opening) -> None:
    replies = [(tags.COMMAND_COMPLETE, b"SET\0"), (tags.DATA_ROW, data_row(texts))]
    assert read_opening(replies) == opening


@pytest.mark.parametrize("replies", [[], [(tags.COMMAND_COMPLETE, b"SET\0")]])
def test_no_row(replies: list[tuple[int, bytes]]) -> None:
    with pytest.raises(NoAnswer, match="no row"):
        read_opening(replies)


def test_an_error() -> None:
    error = messages.error_response({"C": "42501", "M": "permission denied"})
    with pytest.raises(NoAnswer, match="42501 permission denied"):
        read_opening([(tags.ERROR_RESPONSE, error[5:])])


@pytest.mark.parametrize("payload", [b"", data_row([b"o", b"", b"f"])])
def test_malformed(payload: bytes) -> None:
    with pytest.raises(Malformed):
        read_opening([(tags.DATA_ROW, payload)])
