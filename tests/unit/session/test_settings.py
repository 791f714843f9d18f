"""The statements between what a server has set and what a client has: said to a model of PostgreSQL."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.session.question import read_answer
from pgproxy.session.settings import (
    NOTHING_SET,
    ROLE,
    SESSION_AUTHORIZATION,
    Difference,
    Settings,
    difference,
    meaning,
    setting,
    settings_of,
)
from pgproxy.wire.messages import query_of
from tests.unit.session.model import DEFAULTS, SUPERUSER, Postgres, World, context, data_row, read

VALUES = st.one_of(
    st.sampled_from(
        [
            "",
            "on",
            "it's",
            "'; DROP TABLE t; --",
            "a\\'b\\",
            "\\x41",
            '"a", "B"',
            "$$ $1",
            "é ü 漢",
            "\t\n",
            "E'x'",
            "DEFAULT",
        ]
    ),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12),
)
NAMES = st.sampled_from([name for name in DEFAULTS if name != b"search_path"])
ROLES = st.sampled_from([b"", b"owner", b"clerk"])


@st.composite
def some_settings(draw: st.DrawFn) -> Settings:
    """What a session may have set; whom it acts as."""
    values = draw(st.dictionaries(NAMES, VALUES, max_size=4))
    pairs = {name: setting(name, value.encode(), context(name)) for name, value in values.items()}
    if draw(st.booleans()):
        pairs[b"search_path"] = setting(b"search_path", draw(VALUES).encode(), b"user")
    for name in (ROLE, SESSION_AUTHORIZATION):
        if who := draw(ROLES):
            pairs[name] = setting(name, who, b"")
    if SESSION_AUTHORIZATION in pairs and ROLE in pairs:
        # A clerk may act as nobody else.
        pairs[SESSION_AUTHORIZATION] = setting(SESSION_AUTHORIZATION, b"owner", b"")
    return settings_of(pairs)


def said(postgres: Postgres, change: Difference) -> None:
    """Have a server run the statements as they are sent, each Query for itself."""
    for statements in change.queries:
        answers = read(postgres.feed(query_of(statements)))
        assert not [payload for tag, payload in answers if tag == b"E"], statements


def held(postgres: Postgres) -> Settings:
    """What a server's answer to the question says of its settings."""
    rows = [(ord("D"), data_row(row)) for row in postgres.held({b"my.tenant", b"my.hidden"}, False)]
    answer = read_answer([*rows, (ord("C"), b"SELECT 9\0")], b"app", b"none")
    custom = postgres.values.session.keys()
    return settings_of(
        {name: one for name, one in answer.settings.items() if b"." not in name or name in custom}
    )


@given(some_settings(), some_settings(), some_settings(), st.booleans())
def test_the_difference_gives_exactly_what_is_wanted(
    have: Settings, want: Settings, unknown: Settings, doubtful: bool
) -> None:
    postgres = Postgres(World())
    said(postgres, difference(NOTHING_SET, have))
    assert held(postgres) is have
    if doubtful:
        # Something else that nobody knows of, but for whom it acts as.
        there = {name: one for name, one in unknown.items() if name not in (ROLE, SESSION_AUTHORIZATION)}
        postgres = Postgres(World())
        said(postgres, difference(NOTHING_SET, settings_of({**there, **have})))
    said(postgres, difference(have, want, doubtful))
    assert held(postgres) is want


@given(some_settings())
def test_between_the_same_there_is_nothing(have: Settings) -> None:
    assert difference(have, have) == Difference() and difference(have, have).queries == []


@given(some_settings(), some_settings())
def test_what_may_fail_is_guarded(have: Settings, want: Settings) -> None:
    change = difference(have, want)
    changed = [name for name in {*have, *want} if have.get(name) != want.get(name)]
    # To be oneself again is always allowed.
    acting = ROLE in want or SESSION_AUTHORIZATION in want
    assert change.guarded == (have is not want and (acting or any(name in SUPERUSER for name in changed)))
    assert bool(change.queries) == (have is not want)
    assert all(change.queries)


def test_whom_it_acts_as_is_undone_first_and_redone_last() -> None:
    have = settings_of(
        {
            SESSION_AUTHORIZATION: setting(SESSION_AUTHORIZATION, b"clerk", b""),
            b"work_mem": setting(b"work_mem", b"1MB", b"user"),
        }
    )
    want = settings_of(
        {
            ROLE: setting(ROLE, b"Owner", b""),
            SESSION_AUTHORIZATION: setting(SESSION_AUTHORIZATION, b"it's", b""),
            b"TimeZone": setting(b"TimeZone", b"UTC", b"user"),
            b"my.a": setting(b"my.a", b"x", b"custom"),
            b"jit": setting(b"jit", b"on", b"user"),
            b"my.b": setting(b"my.b", b"y", b"custom"),
        }
    )
    resets = (b"SET SESSION AUTHORIZATION DEFAULT", b"RESET ROLE", b'RESET "work_mem"')
    together = {b"SET \"TimeZone\" TO E'UTC'", b"SET \"jit\" TO E'on'"}
    alone = {(b'SET "my"."a" TO E\'x\'',), (b'SET "my"."b" TO E\'y\'',)}
    last = (b"SET SESSION AUTHORIZATION E'it''s'", b'SET ROLE "Owner"')
    change = difference(have, want)
    assert change.guarded and change.resets == resets
    assert set(change.sets[0]) == together and len(change.sets[0]) == 2
    assert set(change.sets[1:-1]) == alone and change.sets[-1] == last and len(change.sets) == 4
    # What undoes another client's goes by itself, so that its failure is known to be none of this one's.
    assert change.queries == [resets, *change.sets]


def test_with_a_doubt_everything_is_reset_even_if_nothing_is_known_to_be_set() -> None:
    change = difference(NOTHING_SET, NOTHING_SET, doubtful=True)
    assert change.queries == [(b"SET SESSION AUTHORIZATION DEFAULT", b"RESET ROLE", b"RESET ALL")]
    assert change.queries == [change.resets] and not change.guarded


@pytest.mark.parametrize(
    ("name", "value", "who_may", "statement", "guarded"),
    [
        (b"work_mem", b"4MB", b"user", b"SET \"work_mem\" TO E'4MB'", False),
        (b"log_min_messages", b"log", b"superuser", b"SET \"log_min_messages\" TO E'log'", True),
        (b"log_min_messages", b"log", b"user", b"SET \"log_min_messages\" TO E'log'", True),
        (b"temp_buffers", b"4MB", b"user", b"SET \"temp_buffers\" TO E'4MB'", True),
        (b"auto_explain.log_format", b"json", b"user", b'SET "auto_explain"."log_format" TO E\'json\'', True),
        (b"default_tablespace", b"fast", b"user", b"SET \"default_tablespace\" TO E'fast'", True),
        (b"DateStyle", b"ISO, DMY", b"user", b"SET \"DateStyle\" TO E'ISO, DMY'", False),
        (b"a.b\"c'", b"'\\", b"custom", b'SET "a"."b""c\'" TO E\'\'\'\\\\\'', False),
        (
            b"search_path",
            b'"$user", public',
            b"user",
            b"SELECT pg_catalog.set_config(E'search_path', E'\"$user\", public', false)",
            False,
        ),
        (
            b"temp_tablespaces",
            b"a, b",
            b"user",
            b"SELECT pg_catalog.set_config(E'temp_tablespaces', E'a, b', false)",
            True,
        ),
        (
            b"my.a",
            "é".encode(),
            b"custom",
            b"SELECT pg_catalog.set_config(E'my.a', "
            b"pg_catalog.convert_from(E'\\\\xc3a9'::pg_catalog.bytea, 'UTF8'), false)",
            False,
        ),
        (
            b"my.a",
            b"a\nb",
            b"custom",
            b"SELECT pg_catalog.set_config(E'my.a', "
            b"pg_catalog.convert_from(E'\\\\x610a62'::pg_catalog.bytea, 'UTF8'), false)",
            False,
        ),
        (b"role", b'a"b', b"", b'SET ROLE "a""b"', True),
        (b"session_authorization", b"it's", b"", b"SET SESSION AUTHORIZATION E'it''s'", True),
    ],
)
def test_how_a_setting_is_said(
    name: bytes, value: bytes, who_may: bytes, statement: bytes, guarded: bool
) -> None:
    one = setting(name, value, who_may)
    assert (one.statement, one.guarded, one.custom) == (statement, guarded, who_may == b"custom")


@given(
    st.binary(min_size=1, max_size=20).filter(lambda value: b"\0" not in value),
    st.sampled_from([b"work_mem", b"a.b", b"search_path", b"role"]),
)
def test_a_statement_is_plain_ascii_if_its_name_is(value: bytes, name: bytes) -> None:
    text = setting(name, value, b"custom" if b"." in name else b"user").statement
    assert name == b"role" or (text.isascii() and text.decode().isprintable())


def test_what_gives_a_text_its_meaning() -> None:
    zone, path = setting(b"TimeZone", b"CET", b"user"), setting(b"search_path", b"a", b"user")
    role, memory = setting(b"role", b"a", b""), setting(b"work_mem", b"1MB", b"user")
    every = settings_of({b"TimeZone": zone, b"work_mem": memory, b"search_path": path, b"role": role})
    assert meaning(every) is settings_of({b"TimeZone": zone, b"search_path": path, b"role": role})
    assert meaning(settings_of({b"work_mem": memory})) is NOTHING_SET
