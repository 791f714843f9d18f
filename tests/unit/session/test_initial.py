"""What `init_query` makes of a session."""

from __future__ import annotations

import pytest

from pgproxy.session.initial import InitQueryFailed, initial_question, initial_settings, is_last
from pgproxy.session.settings import NOTHING_SET, Setting, beginning_with, setting, settings_of
from pgproxy.wire import messages, tags
from pgproxy.wire.skim import Malformed
from tests.unit.session.model import data_row

WORK_MEM = setting(b"work_mem", b"7168", b"user")
TENANT = setting(b"my.tenant", b"nobody", b"custom")
INITIAL = settings_of({b"work_mem": WORK_MEM, b"my.tenant": TENANT})
ROLES = [
    (tags.DATA_ROW, data_row([b"r", b"role", b"none", b""])),
    (tags.DATA_ROW, data_row([b"r", b"session_authorization", b"app", b""])),
]
END = [(tags.COMMAND_COMPLETE, b"SELECT 3\0")]


@pytest.mark.parametrize("tag", [*b"TDCIN", tags.NOTIFICATION_RESPONSE])
def test_what_is_of_no_interest(tag: int) -> None:
    assert not is_last(tag, b"")


def test_the_end() -> None:
    assert is_last(tags.READY_FOR_QUERY, b"I")


@pytest.mark.parametrize("status", [b"T", b"E", b""])
def test_an_end_in_a_transaction(status: bytes) -> None:
    with pytest.raises(InitQueryFailed, match="transaction open"):
        is_last(tags.READY_FOR_QUERY, status)


@pytest.mark.parametrize("tag", b"GHW")
def test_a_copy(tag: int) -> None:
    with pytest.raises(InitQueryFailed, match="COPY"):
        is_last(tag, b"")


def test_an_error_is_kept() -> None:
    with pytest.raises(InitQueryFailed) as raised:
        is_last(tags.ERROR_RESPONSE, b"SERROR\0\0")
    assert raised.value.said == b"SERROR\0\0"


@pytest.mark.parametrize("tag", b"R1K")
def test_nonsense(tag: int) -> None:
    with pytest.raises(Malformed):
        is_last(tag, b"")


def test_the_question_looks_custom_settings_up_by_name() -> None:
    assert b"E'my.tenant'" in initial_question(b"SET my.tenant = 'x'; SET work_mem = '7MB'")
    assert b"E'my.other'" in initial_question(b"SELECT set_config('my.other', 'x', false)")
    assert b"prosrc" in initial_question(b"SELECT begin_session()")
    assert b"prosrc" not in initial_question(b"SET work_mem = '7MB'")


def test_what_is_set() -> None:
    row = (tags.DATA_ROW, data_row([b"s", b"work_mem", b"7168", b"user"]))
    assert initial_settings([*ROLES, row, *END], b"app", b"none") is settings_of({b"work_mem": WORK_MEM})


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ([b"t", b"", b"", b""], "temporary_object"),
        ([b"l", b"a", b"", b""], "listen"),
        ([b"p", b"a", b"true", b""], "sql_statement"),
    ],
)
def test_what_it_must_not_leave(row: list[bytes], word: str) -> None:
    with pytest.raises(InitQueryFailed, match=word):
        initial_settings([*ROLES, (tags.DATA_ROW, data_row(row)), *END], b"app", b"none")


def test_no_answer() -> None:
    error = messages.error_response({"C": "57014", "M": "too slow"})
    with pytest.raises(InitQueryFailed, match="57014 too slow"):
        initial_settings([(tags.ERROR_RESPONSE, error[5:])], b"app", b"none")


def own(**settings: Setting) -> dict[bytes, Setting]:
    return {name.replace("__", ".").encode(): one for name, one in settings.items()}


@pytest.mark.parametrize(
    ("set_by_client", "seen"),
    [
        ({}, dict(INITIAL)),
        (
            own(work_mem=setting(b"work_mem", b"9216", b"user")),
            own(work_mem=setting(b"work_mem", b"9216", b"user"), my__tenant=TENANT),
        ),
        (own(jit=setting(b"jit", b"off", b"user")), {**INITIAL, **own(jit=setting(b"jit", b"off", b"user"))}),
        (own(my__tenant=setting(b"my.tenant", b"", b"custom")), dict(INITIAL)),
        (own(My__Tenant=setting(b"My.Tenant", b"", b"custom")), dict(INITIAL)),
        (
            own(My__Tenant=setting(b"My.Tenant", b"x", b"custom")),
            own(work_mem=WORK_MEM, My__Tenant=setting(b"My.Tenant", b"x", b"custom")),
        ),
        (
            own(my__other=setting(b"my.other", b"", b"custom")),
            {**INITIAL, **own(my__other=setting(b"my.other", b"", b"custom"))},
        ),
    ],
)
def test_a_client_begins_with_it(set_by_client: dict[bytes, Setting], seen: dict[bytes, Setting]) -> None:
    found = beginning_with(INITIAL, settings_of(set_by_client))
    assert dict(found) == seen
    assert beginning_with(INITIAL, found) is found


def test_without_it_a_client_has_what_it_sets() -> None:
    assert beginning_with(NOTHING_SET, INITIAL) is INITIAL
