"""The question, and the reading of its answer."""

from __future__ import annotations

import re
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.session.hidden import HIDDEN
from pgproxy.session.lexer import SEMICOLON, tokens
from pgproxy.session.pins import PinReason
from pgproxy.session.question import START, Answer, NoAnswer, literal, question, read_answer, read_row
from pgproxy.session.settings import setting
from pgproxy.wire import messages, tags
from pgproxy.wire.skim import Malformed
from tests.unit.session.model import data_row, read
from tests.unit.session.model import literal as meant

SET, END = (tags.COMMAND_COMPLETE, b"SET\0"), (tags.COMMAND_COMPLETE, b"SELECT 9\0")
NAMES = st.lists(st.binary(min_size=1, max_size=12).filter(lambda name: b"\0" not in name), max_size=4)


def row(*texts: bytes) -> tuple[int, bytes]:
    return tags.DATA_ROW, data_row(texts)


def answered(*rows: tuple[int, bytes], role: bytes = b"none") -> Answer:
    return read_answer([SET, *rows, END], b"app", role)


@given(NAMES, st.booleans(), st.booleans())
def test_the_question_is_one_query_of_two_statements(
    names: list[bytes], functions: bool, hidden: bool
) -> None:
    ((tag, payload),) = read(question(names, functions, hidden))
    assert tag == b"Q" and payload.count(b"\0") == 1 and payload.startswith(START)
    found = list(tokens(payload[:-1]))
    assert [kind for kind, *_ in found].count(SEMICOLON) == 1
    assert (HIDDEN in payload) is hidden
    for name in names:
        assert literal(name) in payload


@given(st.binary(max_size=30).filter(lambda text: b"\0" not in text))
def test_a_name_is_one_literal_whatever_is_in_it(text: bytes) -> None:
    written = literal(text).removesuffix(b"::pg_catalog.text")
    ((_kind, value, _start, _stop),) = tokens(written)
    assert value == written and meant(written) == text


def test_names_are_looked_up_only_if_there_are_any() -> None:
    assert b"VALUES" not in question((), False)
    assert b"VALUES (E'a.b'::pg_catalog.text), (E'c''.d'::pg_catalog.text)" in question(
        [b"a.b", b"c'.d"], False
    )
    assert b"pg_catalog.regexp_matches(prosrc" in question((), True)
    assert b"pg_catalog.regexp_matches(prosrc" not in question([b"a.b"], False)


@pytest.mark.parametrize("text", [question([b"my.tenant"], functions=True, hidden=True)])
def test_no_search_path_changes_what_it_means(text: bytes) -> None:
    bare = re.sub(rb"E?'[^']*'", b"''", text[5:-1])
    for before, name in re.findall(rb"(\w+\.)?\b([a-z_]\w*)\s*\(", bare):
        assert before == b"pg_catalog." or name in (b"names", b"m"), name
    assert not re.search(rb"\s(=|!=|~|~\*|\|\||>|<)\s", bare)
    for before, name in re.findall(rb"(?:FROM|JOIN) (\w+\.)?(\w+)", bare):
        assert before == b"pg_catalog." or b" %b AS MATERIALIZED (" % name in text, name


ROWS = [
    ([b"s", b"work_mem", b"1MB", b"user"], {b"work_mem": setting(b"work_mem", b"1MB", b"user")}),
    ([b"s", b"log_x", b"a", b"superuser"], {b"log_x": setting(b"log_x", b"a", b"superuser")}),
    ([b"s", b"a.b", b"c3a90a", b"custom/hex"], {b"a.b": setting(b"a.b", "é\n".encode(), b"custom")}),
    ([b"s", b"a.b", b"", b"custom/hex"], {b"a.b": setting(b"a.b", b"", b"custom")}),
    ([b"s", b"a.b", b"", b"custom"], {b"a.b": setting(b"a.b", b"", b"custom")}),
    ([b"s", b"log_x", b"0a", b"superuser/hex"], {b"log_x": setting(b"log_x", b"\n", b"superuser")}),
    ([b"r", b"role", b"none", b""], {}),
    ([b"r", b"role", b"app", b""], {b"role": setting(b"role", b"app", b"")}),
    ([b"r", b"role", b"c3a9", b"/hex"], {b"role": setting(b"role", "é".encode(), b"")}),
    ([b"r", b"session_authorization", b"app", b""], {}),
    (
        [b"r", b"session_authorization", b"none", b""],
        {b"session_authorization": setting(b"session_authorization", b"none", b"")},
    ),
]


@pytest.mark.parametrize(("texts", "settings"), ROWS)
def test_what_is_set(texts: list[bytes], settings: dict[bytes, object]) -> None:
    assert answered(row(*texts)) == Answer(settings, frozenset(), frozenset(), None)  # type: ignore[arg-type]


def test_the_role_that_a_session_begins_with_is_not_set() -> None:
    assert answered(row(b"r", b"role", b"owner", b""), role=b"owner").settings == {}
    none = answered(row(b"r", b"role", b"none", b""), role=b"owner").settings
    assert none == {b"role": setting(b"role", b"none", b"")}
    assert none[b"role"].statement == b"SET ROLE NONE"


@pytest.mark.parametrize(
    ("texts", "answer"),
    [
        ([b"p", b"a", b"false", b""], Answer({}, frozenset({b"a"}), frozenset(), None)),
        ([b"p", b"a", b"true", b""], Answer({}, frozenset(), frozenset({PinReason.SQL_STATEMENT}), None)),
        ([b"u", b"c", b"", b""], Answer({}, frozenset(), frozenset({PinReason.HELD_CURSOR}), None)),
        ([b"l", b"c", b"", b""], Answer({}, frozenset(), frozenset({PinReason.LISTEN}), None)),
        ([b"a", b"", b"", b""], Answer({}, frozenset(), frozenset({PinReason.ADVISORY_LOCK}), None)),
        ([b"t", b"", b"", b""], Answer({}, frozenset(), frozenset({PinReason.TEMPORARY_OBJECT}), None)),
        ([b"w", b"", b"true", b""], Answer({}, frozenset(), frozenset(), True)),
        ([b"w", b"", b"false", b""], Answer({}, frozenset(), frozenset(), False)),
        ([b"?", b"", b"", b""], Answer({}, frozenset(), frozenset(), None)),
    ],
)
def test_what_else_is_there(texts: list[bytes], answer: Answer) -> None:
    assert answered(row(*texts), row(*texts)) == answer


def test_the_first_of_a_name_in_any_case_counts() -> None:
    answer = answered(row(b"s", b"My.a", b"1", b"custom"), row(b"s", b"my.A", b"2", b"custom"))
    assert answer.settings == {b"My.a": setting(b"My.a", b"1", b"custom")}


def test_a_null_is_an_empty_text() -> None:
    payload = pack(">H", 4) + pack(">i", 1) + b"s" + pack(">i", 3) + b"a.b" + pack(">i", -1) * 2
    assert read_row(payload) == [b"s", b"a.b", b"", b""]


def test_an_error_is_no_answer() -> None:
    error = messages.error_response({"C": "57014", "M": "canceled"})
    with pytest.raises(NoAnswer, match="57014 canceled"):
        read_answer([row(b"l", b"c", b"", b""), (tags.ERROR_RESPONSE, error[5:])], b"app", b"none")


@pytest.mark.parametrize(
    "replies",
    [
        [],
        [row(b"l", b"c", b"", b"")],
        [SET],
        [SET, row(b"l", b"c", b"", b"")],
        [END, SET],
        [(tags.COMMAND_COMPLETE, b"ROLLBACK\0")],
    ],
)
def test_an_answer_without_its_end_is_none(replies: list[tuple[int, bytes]]) -> None:
    with pytest.raises(NoAnswer, match="no end"):
        read_answer(replies, b"app", b"none")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\0",
        pack(">H", 3),
        pack(">H", 4),
        data_row([b"s", b"a", b"b"]),
        data_row([b"s", b"a", b"b", b"c", b"d"]),
        data_row([b"s", b"a", b"b", b"c"])[:-5],
    ],
)
def test_malformed_rows(payload: bytes) -> None:
    with pytest.raises(Malformed):
        read_row(payload)


@given(st.one_of(st.binary(max_size=40), st.binary(max_size=30).map(lambda rest: b"\0\4" + rest)))
def test_reading_a_row_raises_nothing_else(payload: bytes) -> None:
    try:
        texts = read_row(payload)
    except Malformed:
        return
    assert len(texts) == 4


@pytest.mark.parametrize("value", [b"zz", b"a", b"\xff\xff"])
def test_a_value_that_is_not_hex_is_said_to_be_malformed(value: bytes) -> None:
    with pytest.raises((Malformed, NoAnswer)):
        answered(row(b"s", b"a.b", value, b"custom/hex"))


def test_a_text_that_is_longer_than_its_row_is_malformed() -> None:
    with pytest.raises(Malformed):
        read_row(data_row([b"s", b"a", b"b", b"c"])[:-1])
