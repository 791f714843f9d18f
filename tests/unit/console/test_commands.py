"""What a text asks of the console, and who may say it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.console.chatter import Chat
from pgproxy.console.commands import Act, Right, Set, Show, needed, parse, split
from pgproxy.console.reference import markdown
from pgproxy.wire.errors import Complaint


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("show pools", Show("pools")),
        ("SHOW  /* all */ Stats_Totals -- of them", Show("stats_totals")),
        ("show stats totals", Show("stats_totals")),
        ("SHOW", Show("help")),
        ("pause", Act("pause")),
        ("PAUSE my_db", Act("pause", "my_db")),
        ('Pause "My ""DB"', Act("pause", 'My "DB')),
        ("pause my-db", Act("pause", "my-db")),
        ("kill 'it''s'", Act("kill", "it's")),
        ("KILL_CLIENT 1000000012", Act("kill_client", "1000000012")),
        ("shutdown", Act("shutdown")),
        ("SHUTDOWN wait_for_clients", Act("shutdown_wait_for_clients")),
        ("switchover main", Act("switchover", "main")),
        ("set pool_size=5", Set("pool_size", "5")),
        ("SET databases.app.pool_size TO 5", Set("databases.app.pool_size", "5")),
        ("set init_query = 'select 1'", Set("init_query", "select 1")),
    ],
)
def test_commands(text: str, command: object) -> None:
    assert parse(text.encode()) == command


@pytest.mark.parametrize(
    ("text", "sqlstate"),
    [
        ("frobnicate", "42601"),
        ("show statement", "42704"),
        ("enable", "42601"),
        ("reload now", "42601"),
        ("pause one two", "42601"),
        ("shutdown later", "42601"),
        ("set pool_size", "42601"),
        ("select * from pg_class", "0A000"),
        ("create table t ()", "0A000"),
        ("(", "42601"),
    ],
)
def test_what_is_none(text: str, sqlstate: str) -> None:
    wrong = parse(text.encode())
    assert (
        isinstance(wrong, Complaint)
        and wrong.sqlstate == sqlstate
        and wrong.severity == "ERROR"
        and wrong.hint
    )


@pytest.mark.parametrize(
    ("text", "tag", "row"),
    [
        ("begin", "BEGIN", None),
        ("START TRANSACTION ISOLATION LEVEL SERIALIZABLE", "START TRANSACTION", None),
        ("set client_encoding to 'UTF8'", "SET", None),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", "SET", None),
        ("discard all", "DISCARD ALL", None),
        ("select 1", "SELECT 1", (1,)),
        ("SELECT current_database(), pg_catalog.current_user as me", "SELECT 1", ("pgproxy", "alice")),
        ("show transaction isolation level", "SHOW", ("read committed",)),
        ("rollback to savepoint s", "ROLLBACK", None),
    ],
)
def test_what_drivers_say(text: str, tag: str, row: object) -> None:
    said = parse(text.encode(), "alice", "pgproxy")
    assert isinstance(said, Chat) and said.tag == tag
    assert (said.table.rows[0] if said.table is not None else None) == row


def test_who_may_say_what() -> None:
    assert needed(Show("clients")) is Right.READ
    assert needed(Chat("BEGIN")) is Right.READ
    for command in (
        Act("pause"),
        Act("kill_client", "1"),
        Act("reload"),
        Act("shutdown"),
        Set("pool_size", "1"),
    ):
        assert needed(command) is Right.ADMINISTER


def test_statements_are_split() -> None:
    assert split(b" show pools ;; show ';' ; -- nothing\n") == [b"show pools", b"show ';'"]
    assert split(b" ; ") == []


@given(st.binary(max_size=200))
def test_no_text_breaks_it(text: bytes) -> None:
    for one in split(text):
        parse(one)
    parse(text)


def test_the_document_is_current() -> None:
    from pathlib import Path

    written = (Path(__file__).parents[3] / "docs/console.md").read_text()
    assert written == markdown(), "python -m pgproxy.console > docs/console.md"
