"""Temporary objects and held cursors pin their client, for as long as they are there."""

from __future__ import annotations

from tests.fix_twin import Theatre, Twin
from tests.programs import (
    Pinned,
    Program,
    Unpinned,
    bound,
    compare,
    each,
    each_way,
    program,
)

MAKE = "create temp table t (a int)"
TEMP = Pinned("temporary_object")
HELD = Pinned("held_cursor")
ME = "locktype = 'advisory' and pid = pg_backend_pid()"


def temporary(name: str, make: str | bytes, look: str, drop: str | bytes) -> Program:
    """Something temporary is made, is there for its owner alone, and is dropped."""
    return program(
        f"temporary: {name}",
        ("a", "select 1", "1"),
        ("a", make),
        TEMP,
        ("a", look),
        ("a", "begin; rollback"),
        ("a", look),
        ("a", drop),
        Unpinned(),
        ("b", look),
        ("a", look),
    )


TEMPORARY = [
    temporary("a table", "create temp table t (a int)", "select * from t", "drop table t"),
    temporary(
        "a table in the extended protocol",
        bound("create temporary table t ()"),
        "table t",
        bound("drop table t"),
    ),
    temporary("a table AS", "create local temp table t as select 1 a", "table t", "drop table t"),
    temporary("SELECT INTO", "select 7 a into temp t", "table t", "discard temp"),
    temporary("a view", "create temp view t as select 1 a", "table t", "drop view t"),
    temporary("a sequence", "create temp sequence t", "select is_called from t", "drop sequence t"),
    temporary("by its schema", "create table pg_temp.t (a int)", "table t", "drop table pg_temp.t"),
    temporary(
        "a function",
        "create function pg_temp.f() returns int language sql as 'select 1'",
        "select count(*) from pg_proc where proname = 'f'",
        "drop function pg_temp.f()",
    ),
    temporary(
        "a type",
        "create type pg_temp.t as enum ('x')",
        "select count(*) from pg_type where typname = 't'",
        "discard all",
    ),
    temporary(
        "among others", "select 1; create temp table t (); select 2", "table t", "drop table t; select 3"
    ),
    temporary(
        "in a block",
        "do $$ begin execute 'create te' || 'mp table t (a int)'; end $$",
        "table t",
        "do $$ begin drop table t; end $$",
    ),
    temporary(
        "in a transaction",
        "begin; create temp table t (a int); commit",
        "table t",
        "begin; drop table t; commit",
    ),
    program(
        "temporary: by search_path, and a view over it",
        ("a", "set search_path = pg_temp, public"),
        ("b", "select 1", "1"),
        ("a", "create table t as select 1 a"),
        TEMP,
        ("a", "create view v as select * from t"),
        ("a", "table v", "1"),
        ("a", "drop table t cascade"),
        Unpinned(),
        ("b", "table v", "!42P01"),
    ),
    program(
        "temporary: in a function, of which the query's text tells nothing",
        ("a", f"create function f() returns void language plpgsql as $$ begin {MAKE}; end $$"),
        ("b", "select 1"),
        ("a", "select f()"),
        TEMP,
        ("a", "table t", ""),
        ("a", "drop table t"),
        Unpinned(),
        ("b", "table t", "!42P01"),
    ),
    program(
        "temporary: dropped in a transaction that is rolled back",
        ("a", "create temp table t as select 1 a"),
        TEMP,
        ("a", "begin; drop table t"),
        ("a", "rollback"),
        ("a", "table t", "1"),
        ("a", "begin; savepoint s; drop table t; rollback to s; commit"),
        ("a", "table t", "1"),
        ("a", "drop table t; select 1/0", "!22012"),
        ("a", "table t", "1"),
        ("a", "drop table t"),
        Unpinned(),
    ),
    program(
        "temporary: two of them",
        ("a", "create temp table t (a int); create temp table u (a int)"),
        TEMP,
        ("a", "drop table t"),
        ("a", "table u", ""),
        ("a", "drop table u"),
        Unpinned(),
        ("b", "table u", "!42P01"),
    ),
    program(
        "temporary: gone by itself",
        ("a", "begin; create temp table t (a int) on commit drop; insert into t values (1)"),
        ("a", "table t", "1"),
        ("a", "commit"),
        ("b", "table t", "!42P01"),
        ("a", "table t", "!42P01"),
        ("a", "begin; create temp table t (a int); rollback"),
        ("b", "table t", "!42P01"),
        ("a", "create temp table t (a int); drop table t"),
        ("b", "table t", "!42P01"),
        ("a", "create temp table t (a int); select 1/0", "!22012"),
        ("b", "table t", "!42P01"),
        ("a", "create temp table t (a int) on commit drop"),
        ("b", "table t", "!42P01"),
        ("a", "select 'create temp table'; create table temp (temp int); drop table temp"),
        ("b", "select 1", "1"),
    ),
    program(
        "temporary: two clients with a table of the same name",
        ("a", "create temp table t as select 'a' x"),
        TEMP,
        ("b", "create temp table t as select 'b' x"),
        TEMP,
        ("a", "table t", "a"),
        ("b", "table t", "b"),
        ("a", "drop table t"),
        Unpinned(),
        ("b", "table t", "b"),
        ("a", "table t", "!42P01"),
        servers=(2,),
    ),
]

CURSORS = [
    program(
        "held cursor: CLOSE",
        ("a", "begin; declare c cursor with hold for select generate_series(1, 3); commit"),
        HELD,
        ("a", "fetch 2 from c", "1;2"),
        ("a", "select name, is_holdable from pg_cursors", "c|t"),
        ("a", bound("fetch 1 from c"), "3"),
        ("a", "close c"),
        Unpinned(),
        ("b", "fetch 1 from c", "!34000"),
        ("a", "fetch 1 from c", "!34000"),
    ),
    program(
        "held cursor: several, and CLOSE ALL",
        (
            "a",
            "declare c cursor with hold for select 1; declare d binary scroll cursor with hold for select 2",
        ),
        HELD,
        ("a", "close c"),
        ("a", "begin; fetch d; rollback"),
        ("a", "move backward all from d"),
        ("a", "close all"),
        Unpinned(),
        ("b", "select count(*) from pg_cursors where is_holdable", "0"),
        ("a", bound("declare c cursor with hold for select 1")),
        HELD,
        ("a", "discard all"),
        Unpinned(),
        ("b", "select count(*) from pg_cursors where is_holdable", "0"),
    ),
    program(
        "cursors that end with their transaction",
        ("a", "begin; declare c cursor for select 1; fetch c"),
        ("a", "commit"),
        ("b", "fetch c", "!34000"),
        ("a", "fetch c", "!34000"),
        ("a", "begin; declare c cursor with hold for select 1; rollback"),
        ("b", "fetch c", "!34000"),
        ("a", "begin; declare c cursor with hold for select 1; close c; commit"),
        ("b", "fetch c", "!34000"),
        ("a", "declare c cursor for select 1", "!25P01"),
        ("a", "select 'with hold'"),
        ("b", "fetch c", "!34000"),
    ),
]

PROGRAMS = [*TEMPORARY, *CURSORS]


@each(PROGRAMS)
def test_directly(twin: Twin, program: Program) -> None:
    """PostgreSQL itself answers as the program wants, and twice the same."""
    compare(program, twin.directly(program), twin.directly(program, "twin"))


@each_way(PROGRAMS)
def test_through_pgproxy(theatre: Theatre, program: Program, servers: int) -> None:
    theatre.compare(program, servers)
