"""A statement means what it did when it was prepared, whoever else prepares the same text; SQL's PREPARE."""

from __future__ import annotations

import re

import pytest

from pgproxy.demo.process import wait_until
from tests.answers import Player
from tests.fix_twin import Theatre, Twin
from tests.programs import (
    Free,
    Program,
    bound,
    compare,
    each,
    each_way,
    program,
)
from tests.raw import (
    SYNC,
    TIMEOUT,
    bind,
    close_statement,
    describe,
    describe_statement,
    execute,
    parse,
)
from tests.stages import Log

NAMES = "select name, statement, parameter_types, from_sql from pg_prepared_statements order by name"


def run(name: str, *values: str | None) -> bytes:
    """Run a prepared statement, with its Sync."""
    return bind(name, values=values) + execute() + SYNC


MEANING = [
    program(
        "one text, two search paths",
        ("a", "create schema s1; create schema s2"),
        ("a", "create table s1.t as select 1 x; create table s2.t as select 'two'::text x, 2 y"),
        ("a", "set search_path = s1"),
        ("b", "set search_path = s2"),
        ("a", parse("select x from t", "s") + SYNC),
        ("b", parse("select x from t", "s") + SYNC),
        ("a", run("s"), "1"),
        ("b", run("s"), "two"),
        ("a", describe_statement("s") + run("s"), "1"),
        ("b", describe_statement("s") + run("s"), "two"),
        ("a", parse("select 't'::regclass::oid = 's1.t'::regclass::oid", "r") + SYNC),
        ("b", parse("select 't'::regclass::oid = 's1.t'::regclass::oid", "r") + SYNC),
        ("a", run("r"), "t"),
        ("b", run("r"), "f"),
    ),
    program(
        "one text, two ways to read its constants",
        ("a", "set datestyle = 'iso, dmy'; set timezone = 'Asia/Tokyo'"),
        (
            "a",
            parse("select '01/02/2003'::date, '2003-01-01 12:00'::timestamptz at time zone 'UTC'", "s")
            + SYNC,
        ),
        (
            "b",
            parse("select '01/02/2003'::date, '2003-01-01 12:00'::timestamptz at time zone 'UTC'", "s")
            + SYNC,
        ),
        ("a", run("s"), "2003-02-01|2003-01-01 03:00:00"),
        ("b", run("s"), "2003-01-02|2003-01-01 12:00:00"),
    ),
    program(
        "one text, two ways to read its backslashes",
        ("a", "set standard_conforming_strings = off; set escape_string_warning = off"),
        ("a", parse(r"select 'a\\b'", "s") + SYNC),
        ("b", parse(r"select 'a\\b'", "s") + SYNC),
        ("a", run("s"), r"a\b"),
        ("b", run("s"), r"a\\b"),
        ("a", run("s"), r"a\b"),
    ),
    program(
        "what a text meant when it was prepared",
        ("a", "set datestyle = 'iso, dmy'"),
        ("a", parse("select '01/02/2003'::date", "s") + SYNC),
        ("a", "set datestyle = 'iso, mdy'"),
        ("b", bound("select '01/02/2003'::date"), "2003-01-02"),
        ("a", run("s"), "2003-02-01"),
    ),
    program(
        "the same, in another encoding",
        ("a", "set client_encoding = 'latin1'"),
        ("a", parse("select length('é')", "s") + SYNC),
        ("b", parse("select length('é')", "s") + SYNC),
        ("a", run("s"), "2"),
        ("b", run("s"), "1"),
        ("a", "set client_encoding = 'utf8'"),
        ("b", "select 0"),
        ("a", run("s"), "2"),
    ),
    program(
        "what is prepared under a role",
        ("a", "create table secret as select 1 x"),
        ("a", parse("select * from secret", "s") + SYNC),
        ("b", "select 0"),
        ("a", "set role app"),
        ("b", "select 0"),
        ("a", run("s"), "!42501"),
        ("a", parse("select * from secret", "t") + SYNC),
        ("a", "reset role"),
        ("b", "select 0"),
        ("a", run("s") + run("t"), "1;1"),
    ),
    program(
        "DDL that a statement survives",
        ("a", "create table d as select 1 x"),
        ("a", parse("select x from d", "s") + parse("insert into d values ($1)", "i") + SYNC),
        ("b", "alter table d add y int; create index on d (x)"),
        ("a", run("s"), "1"),
        ("b", "drop table d"),
        ("a", run("s"), "!42P01"),
        ("b", "create table d as select 2 x"),
        ("a", run("s"), "2"),
        ("a", run("i", "3")),
        ("b", "alter table d rename x to z"),
        ("a", run("s"), "!42703"),
        ("a", run("i", "4")),
    ),
    program(
        "cached plan must not change result type, in a transaction",
        ("a", "create table d as select 1 x"),
        ("a", "begin"),
        ("a", parse("select * from d", "s") + run("s"), "1"),
        ("a", "alter table d add y int"),
        ("a", run("s"), "!0A000"),
        ("a", "rollback"),
        ("b", "select 0"),
        ("a", run("s"), "1"),
    ),
]

SQL = [
    program(
        "PREPARE, EXECUTE, DEALLOCATE",
        ("a", "prepare p (int) as select $1 + 1"),
        ("b", "execute p (1)", "!26000"),
        ("b", "prepare p as select 'b'"),
        ("a", "execute p (1)", "2"),
        ("b", "execute p", "b"),
        ("a", bound("execute p (2)"), "3"),
        ("a", NAMES, "p|prepare p (int) as select $1 + 1|{integer}|t"),
        ("a", "prepare p as select 2", "!42P05"),
        ("a", "deallocate p"),
        ("a", "execute p (1)", "!26000"),
        ("a", "deallocate p", "!26000"),
        ("b", "deallocate prepare all"),
        ("b", "execute p", "!26000"),
        servers=(2,),
        may_pin="sql_statement",
    ),
    program(
        "PREPARE is not undone by ROLLBACK",
        ("a", "begin; prepare p as select 1; rollback"),
        ("a", "execute p", "1"),
        ("a", "begin; deallocate p; rollback"),
        ("a", "execute p", "!26000"),
        ("b", "execute p", "!26000"),
        ("a", "prepare p as select 1; select 1/0", "!22012"),
        ("a", "execute p", "1"),
        ("a", "do $$ begin execute 'prepare q as select 2'; end $$"),
        ("a", "execute q", "2"),
        ("a", "discard all"),
        ("a", NAMES, ""),
        servers=(2,),
        may_pin="sql_statement",
    ),
    program(
        "PREPARE, until DEALLOCATE",
        *(
            part
            for prepare, deallocate in (
                ("prepare p as select 1", "deallocate p"),
                ("prepare p as select 1; prepare q as select 2", "deallocate p; deallocate q"),
                ("prepare p as select 1", "deallocate all"),
                ("prepare p as select 1", "discard all"),
                (bound("prepare p as select 1"), bound("deallocate p")),
                ("begin; prepare p as select 1; commit", "begin; deallocate p; rollback"),
                ("do $$ begin execute 'prepare p as select 1'; end $$", close_statement("p") + SYNC),
            )
            for part in (
                ("a", prepare),
                ("a", "execute p", "1"),
                ("a", deallocate),
                Free(),
                ("b", "execute p", "!26000"),
                ("a", "execute p", "!26000"),
            )
        ),
        servers=(1,),
        may_pin="sql_statement",
    ),
    program(
        "one name, both ways",
        ("a", "prepare p as select 1"),
        ("a", describe_statement("p") + run("p"), "1"),
        ("a", parse("select 2", "p") + SYNC, "!42P05"),
        ("a", close_statement("p") + SYNC),
        ("a", "execute p", "!26000"),
        ("a", parse("select $1::int", "s") + SYNC),
        ("a", "execute s (3)", "3"),
        ("a", "explain (costs off) execute s (3)", "Result"),
        ("a", "create table made as execute s (4); select * from made", "4"),
        ("a", "prepare s as select 1", "!42P05"),
        ("a", NAMES, "s|select $1::int|{integer}|f"),
        ("a", "deallocate s"),
        ("a", run("s", "1"), "!26000"),
        ("b", NAMES, ""),
        servers=(2,),
        may_pin="sql_statement",
    ),
]

PROGRAMS = [*MEANING, *SQL]


@each(PROGRAMS)
def test_directly(twin: Twin, program: Program) -> None:
    """PostgreSQL itself answers as the program wants, and twice the same."""
    compare(program, twin.directly(program), twin.directly(program, "twin"))


@each_way(PROGRAMS)
def test_through_pgproxy(theatre: Theatre, program: Program, servers: int) -> None:
    theatre.compare(program, servers)


@pytest.mark.one_process("a server that is opened anew for another worker has nothing to be healed")
def test_a_result_type_that_has_changed_is_healed(theatre: Theatre) -> None:
    """
    ... where the client asks what it gets. One that relies on what it was told before has to be told, as
    directly; its next try works.
    """
    theatre.twin.clean("proxied")
    proxy = theatre.proxy(1)
    log = Log(proxy)
    login = {"user": "boss", "database": "proxied"}
    with Player(proxy.port, login) as one, Player(proxy.port, login) as other:
        other.query("create table d as select 1 x")
        one.perform(parse("select * from d", "s") + SYNC)
        assert one.perform(run("s")).said == "1"
        other.query("alter table d add y int default 2")
        asks = bind("s") + describe() + execute() + SYNC
        assert one.perform(asks).said == "1|2"
        other.query("alter table d add z int default 3")
        assert one.perform(run("s")).said == "!0A000"
        assert one.perform(run("s")).said == "1|2|3"
        other.query("alter table d drop z")
        one.query("begin")
        assert one.perform(asks).said == "!0A000"
        one.query("rollback")
        assert one.perform(asks).said == "1|2"
    assert not log.events("client_pinned")


@pytest.mark.one_process("each worker has a server, and in it names, of its own")
def test_equal_texts_have_one_name_in_a_server(theatre: Theatre, twin: Twin) -> None:
    """PostgreSQL's own log tells."""
    login = {"user": "boss", "database": "proxied"}
    proxy = theatre.proxy(1)
    with theatre.logging_all(), Player(proxy.port, login) as first:
        assert wait_until(lambda: first.value("show log_min_duration_statement") == "0", TIMEOUT)
        clients = [first, *(Player(proxy.port, login) for _ in range(4))]
        for client in clients:
            client.perform(b"".join(parse(f"select {n} /* shared */", f"s{n}") for n in range(20)) + SYNC)
        for client in clients:
            assert client.perform(b"".join(run(f"s{n}") for n in range(20))).said.startswith("0;1;2;3;")
        for client in clients[1:]:
            client.leave()
        lines = re.findall(r"parse [^:]*: select \d+ /\* shared", twin.server.log.read_text())
    # Each client's own Parse is done, so that it says what it would directly; under one name for all of them.
    assert len(lines) == 5 * 20 and len(set(lines)) == 20
