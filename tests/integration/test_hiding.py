"""What changes in hiding the session of whoever uses it is known, however it was defined, and by whom."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pgproxy.demo.postgres import Postgres
from pgproxy.session.hidden import HIDDEN
from tests.fix_pgproxy import Pgproxy, PgproxyFactory
from tests.raw import SYNC, TERMINATE, Raw, bind, execute, message, parse

DEFINE = "create trigger marks before insert on marked for each row execute function mark()"
IN_CODE = f"do $$ begin execute '{DEFINE}'; end $$"
AS_IT_WAS = "4MB"


def query(text: str) -> bytes:
    return message("Q", text.encode() + b"\0")


@pytest.fixture
def proxy(pgproxy: PgproxyFactory, postgres: Postgres) -> Iterator[Pgproxy]:
    postgres.execute(
        "drop table if exists marked",
        "create table marked (a int)",
        "grant all on marked to public",
        "create or replace function mark() returns trigger language plpgsql"
        " as $$ begin perform set_config('work_mem', '1234kB', false); return new; end $$",
        dbname="app",
    )
    yield pgproxy(server=postgres, pool_size=1, auth="trust")
    # Other tests have the same database.
    postgres.execute("drop table marked", "drop function mark", dbname="app")


def app(proxy: Pgproxy, user: str = "boss") -> Raw:
    raw = Raw(proxy.port)
    raw.log_in(user=user, database="app")
    return raw


def met_by_another(proxy: Pgproxy) -> str | None:
    """Have a client use the trigger, and give what another meets in the one server."""
    with app(proxy) as one, app(proxy) as other:
        one.query("insert into marked values (1)")
        met = other.value("show work_mem")
        assert one.value("show work_mem") in ("1234kB", AS_IT_WAS)
        return met


def found(proxy: Pgproxy) -> list[dict[str, Any]]:
    return [event for event in proxy.log() if event["event"] == "hiding_found"]


def test_it_is_met_where_nobody_knows(proxy: Pgproxy, postgres: Postgres) -> None:
    """What the other tests are about would be seen."""
    with app(proxy) as first:
        first.query("select 1")
        postgres.execute(DEFINE, dbname="app")
        assert met_by_another(proxy) == "1234kB"


def until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.1)


LEAVE: dict[str, bytes] = {
    "with the statement": query(DEFINE) + TERMINATE,
    "with the batch": parse(DEFINE) + bind() + execute() + SYNC + TERMINATE,
    "with the end of the transaction": query("begin") + query(DEFINE) + query("commit") + TERMINATE,
    "behind code": query(IN_CODE) + TERMINATE,
    "and it goes on": query("begin")
    + query(DEFINE)
    + query("select pg_sleep(1.5)")
    + query("commit")
    + TERMINATE,
}


@pytest.mark.parametrize("said", LEAVE.values(), ids=LEAVE.keys())
def test_who_defines_it_leaves_at_once(proxy: Pgproxy, said: bytes) -> None:
    with app(proxy) as there:
        there.query("select 1")
        with app(proxy) as raw:
            raw.send(said)
            while not raw.ended():
                pass
        until(lambda: met_by_another(proxy) == AS_IT_WAS)


def test_who_defines_it_vanishes(proxy: Pgproxy, postgres: Postgres) -> None:
    with app(proxy) as there:
        there.query("select 1")
        with app(proxy) as raw:
            raw.send(query("begin"), query(DEFINE), query("commit"))
        until(lambda: met_by_another(proxy) == AS_IT_WAS)


@pytest.mark.parametrize("leaves", [True, False])
def test_it_is_defined_by_code(proxy: Pgproxy, leaves: bool) -> None:
    """An idle server is asked soon."""
    with app(proxy) as raw:
        raw.query(IN_CODE)
        if leaves:
            raw.send(TERMINATE)
        until(lambda: met_by_another(proxy) == AS_IT_WAS)


def test_it_is_prepared_and_committed_later(proxy: Pgproxy) -> None:
    with app(proxy) as raw:
        for text in ("begin", DEFINE, "prepare transaction 'a'", "commit prepared 'a'"):
            raw.query(text)
        until(lambda: met_by_another(proxy) == AS_IT_WAS)


def test_the_clients_of_other_pools_are_safe_as_well(proxy: Pgproxy) -> None:
    with app(proxy) as there, app(proxy, "app") as raw:
        there.query("select 1")
        raw.query(DEFINE)
        raw.query("select 1")
        assert met_by_another(proxy) == AS_IT_WAS
        assert len(found(proxy)) == 1


def test_it_is_said_where_it_was_there_before(proxy: Pgproxy, postgres: Postgres) -> None:
    postgres.execute(DEFINE, dbname="app")
    with app(proxy) as there:
        there.query("select 1")
    assert met_by_another(proxy) == AS_IT_WAS
    (event,) = found(proxy)
    assert (event["level"], event["database"], event["user"]) == ("warning", "app", "boss")
    assert "SET LOCAL" in event["remedy"]


@pytest.mark.parametrize("setting", ["backslash_quote to off", "client_encoding to 'SJIS'"])
def test_it_can_be_asked_whatever_quotes_are_taken(proxy: Pgproxy, setting: str) -> None:
    with app(proxy) as raw, app(proxy) as other:
        raw.query(f"set {setting}")
        raw.query("create table quoted (a int); drop table quoted")
        assert other.value("select 1") == "1"
    assert not [event for event in proxy.log() if event["event"] == "session_question_failed"]


SETS = "set_config('work_mem', '1234kB', false)"
MARKS = "create trigger t before insert on seen for each row execute function marks()"


def function(body: str) -> str:
    return f"create function marks() returns trigger language plpgsql as $$ {body} return new; end $$"


SEEN = {
    "a trigger": (function(f"begin perform {SETS};"), MARKS),
    "a trigger with a comment before it": (function("begin -- more\n set work_mem = 1234;"), MARKS),
    "a trigger by a view": (function("begin update pg_settings set setting = 1234;"), MARKS),
    "a trigger that sets one for the transaction, and one for longer": (
        function(f"begin perform set_config('a.b', new.a::text, true); perform {SETS};"),
        MARKS,
    ),
    "a trigger that sets one for longer, before what ends with true": (
        function("begin perform set_config('a.b', ')', false), coalesce(false, true);"),
        MARKS,
    ),
    "a trigger that says it in a comment": (
        function("begin perform set_config('a.b', 'c', false /* not ('*/); -- '), true)\n"),
        MARKS,
    ),
    "a trigger that computes for how long": (
        function("begin perform set_config('a.b', 'c', new.a > 0 or true);"),
        MARKS,
    ),
    "a trigger with other quotes": (
        function("begin perform set_config('a.b', E'\\'', false), length(', true)');"),
        MARKS,
    ),
    "a trigger's condition": (
        function("begin"),
        MARKS.replace("execute", f"when ({SETS} is null) execute"),
    ),
    "a default": (f"alter table seen add b text default {SETS}",),
    "a check": (f"alter table seen add check ({SETS} is not null)",),
    "a domain's check": (f"create domain checked as int check ({SETS} is not null)",),
    "a view": (f"create view looks as select {SETS}",),
    "a rule": (f"create rule r as on insert to seen where {SETS} is null do also select 1",),
    "a policy": (f"create policy p on seen using ({SETS} is null)",),
    "an operator": (
        "create function sets(int, int) returns int language plpgsql as"
        f" $$ begin perform {SETS}; return 1; end $$",
        "create operator === (leftarg = int, rightarg = int, function = sets)",
    ),
}
NOT_SEEN = {
    "what sets it for the transaction": (function("begin set local work_mem = 1234;"), MARKS),
    "what is set by a function, for the transaction": (
        function("begin perform set_config('a.b', coalesce(new.a::text, (1 + 2)::text), TRUE);"),
        MARKS,
    ),
    "the same in SQL that is computed": (
        function("begin execute 'select pg_catalog.set_config (''a.b'', $1, true)' using 'c';"),
        MARKS,
    ),
    "the same with the argument's name": (
        function("begin perform set_config('a.b', 'c', is_local => true);"),
        MARKS,
    ),
    "plain things": (
        "alter table seen add b text default lower('B')",
        "create view looks as select * from seen",
    ),
    "a function that nothing calls": (function(f"begin perform {SETS};"),),
}


@pytest.mark.parametrize(
    ("defined", "hides"),
    [*((one, True) for one in SEEN.values()), *((one, False) for one in NOT_SEEN.values())],
    ids=[*SEEN, *NOT_SEEN],
)
def test_what_is_seen(postgres: Postgres, defined: tuple[str, ...], hides: bool) -> None:
    with postgres.admin() as connection:
        connection.autocommit = False
        for text in ("create table seen (a int)", *defined):
            connection.execute(text.encode())
        assert connection.execute(b"select " + HIDDEN).fetchone() == (hides,)
        connection.rollback()
