"""Prepared statements follow the client from server to server, and are answered for as directly."""

from __future__ import annotations

import re

import pytest

from pgproxy.demo.process import wait_until
from tests.fix_twin import Log, Theatre, Twin
from tests.programs import Free, Player, Program, bound, compare, program
from tests.raw import (
    FLUSH,
    SYNC,
    TIMEOUT,
    bind,
    close_portal,
    close_statement,
    describe,
    describe_statement,
    execute,
    extended,
    parse,
)

NAMES = "select name, statement, parameter_types, from_sql from pg_prepared_statements order by name"
MANY = 700
"""More statements than any server is likely to be allowed to keep."""

ODD_NAMES = ("Ünï", "x" * 200, "a b", "'\"\\", "pgproxy_1", "S_1")


def run(name: str, *values: str | None) -> bytes:
    """Run a prepared statement, with its Sync."""
    return bind(name, values=values) + execute() + SYNC


PROTOCOL = [
    program(
        "one name, two clients, two texts",
        ("a", parse("select 'a', $1::int + 1", "s") + SYNC),
        ("b", parse("select 'b', $1::text", "s") + SYNC),
        ("a", run("s", "1"), "a|2"),
        ("b", run("s", "x"), "b|x"),
        ("a", run("s", "2"), "a|3"),
        ("a", describe_statement("s") + SYNC),
        ("b", describe_statement("s") + SYNC),
        ("c", run("s"), "!26000"),
        ("c", describe_statement("s") + SYNC, "!26000"),
        ("c", close_statement("s") + SYNC, ""),
    ),
    program(
        "one text, two clients",
        ("a", parse("select $1::int", "x") + SYNC),
        ("b", parse("select $1::int", "y") + SYNC),
        ("a", close_statement("x") + SYNC),
        ("b", run("y", "7"), "7"),
        ("a", run("x", "7"), "!26000"),
        ("a", parse("select $1::int", "x") + run("x", "8"), "8"),
        ("b", run("y", "9"), "9"),
    ),
    program(
        "one text, with types and without",
        ("a", parse("select $1", "s", [23]) + SYNC),
        ("b", parse("select $1", "s") + SYNC),
        ("c", parse("select $1", "s", [0, 0]) + SYNC),
        ("a", describe_statement("s") + SYNC),
        ("b", describe_statement("s") + SYNC),
        ("a", run("s", "x"), "!22P02"),
        ("b", run("s", "x"), "x"),
        ("a", run("s", "1"), "1"),
        ("c", describe_statement("s") + SYNC),
    ),
    program(
        "a name that is taken",
        ("a", parse("select 1", "s") + SYNC),
        ("b", "select 0"),
        ("a", parse("select 2", "s") + SYNC, "!42P05"),
        ("a", run("s"), "1"),
        ("a", close_statement("s") + parse("select 2", "s") + run("s"), "2"),
        ("b", run("s"), "!26000"),
        ("a", run("s"), "2"),
    ),
    program(
        "an error in the middle of a pipeline, and its name again",
        ("a", parse("select nothing", "s") + parse("select 1", "t") + SYNC, "!42703"),
        ("b", "select 0"),
        ("a", run("t"), "!26000"),
        ("a", parse("select 1", "s") + parse("select 2", "t") + bind("s") + execute() + run("t"), "1;2"),
        ("a", extended("select 1/0") + parse("select 3", "u") + close_statement("s") + SYNC, "!22012"),
        ("b", "select 0"),
        ("a", run("u"), "!26000"),
        ("a", run("s"), "1"),
        ("a", parse("select 4", "v") + extended("select 1/0") + SYNC + run("v"), "!22012;4"),
        ("b", "select 0"),
        ("a", run("v"), "4"),
        ("a", parse("selec", "w") + SYNC + parse("select 5", "w") + SYNC + run("w"), "!42601;5"),
        ("b", "select 0"),
        ("a", run("w"), "5"),
    ),
    program(
        "Parse and Close undone by nothing, not by ROLLBACK",
        ("a", "begin"),
        ("a", parse("select 1", "s") + SYNC),
        ("a", "rollback"),
        ("b", "select 0"),
        ("a", run("s"), "1"),
        ("a", "begin"),
        ("a", close_statement("s") + SYNC),
        ("a", "rollback"),
        ("b", "select 0"),
        ("a", run("s"), "!26000"),
    ),
    program(
        "in a transaction that has failed",
        ("a", parse("select 1", "s") + SYNC),
        ("a", "begin; select 1/0", "!22012"),
        ("a", parse("select 2", "t") + SYNC, "!25P02"),
        ("a", run("s"), "!25P02"),
        ("a", parse("rollback", "r") + SYNC),
        ("a", close_statement("s") + SYNC),
        ("a", run("r")),
        ("b", "select 0"),
        ("a", run("t"), "!26000"),
        ("a", run("s"), "!26000"),
        ("a", "begin"),
        ("a", run("r")),
    ),
    program(
        "the statement without a name",
        ("a", parse("select $1::int") + SYNC),
        ("b", bound("select 'other'"), "other"),
        ("a", run("", "1"), "1"),
        ("b", run(""), "other"),
        ("a", describe_statement() + SYNC),
        ("a", parse("select nothing") + SYNC, "!42703"),
        ("b", run(""), "other"),
        ("a", run(""), "!26000"),
        ("b", "select 0"),
        ("b", run(""), "!26000"),
        ("a", parse("select 1") + SYNC + close_statement() + SYNC + run(""), "!26000"),
    ),
    program(
        "what can't be prepared",
        ("a", parse("select 1; select 2", "s") + SYNC, "!42601"),
        ("a", parse("", "e") + SYNC),
        ("b", "select 0"),
        ("a", describe_statement("e") + SYNC),
        ("a", run("e"), ""),
        ("a", parse("select $1 + $2", "p") + SYNC, "!42725"),
        ("a", parse("select $2::int", "p") + SYNC, "!42P18"),
        ("a", parse("select $1::int", "q") + SYNC),
        ("b", "select 0"),
        ("a", run("q"), "!08P01"),
        ("a", run("q", "x"), "!22P02"),
        ("a", run("q", "1"), "1"),
    ),
    program(
        "names and texts of all kinds",
        *(("a", parse(f"select {number}", name) + SYNC) for number, name in enumerate(ODD_NAMES)),
        ("b", parse("select 'b'", "S_1") + SYNC),
        *(("a", run(name), str(number)) for number, name in enumerate(ODD_NAMES)),
        ("b", run("S_1"), "b"),
        # Names are the same where their first 63 bytes are.
        ("a", parse("select 'long'", "x" * 201) + SYNC, "!42P05"),
        ("a", run("x" * 63 + "y"), "1"),
        ("a", run("x" * 62), "!26000"),
        ("a", parse("select 'é', 'it''s', $1 -- comment", "odd") + SYNC),
        ("b", "select 0"),
        ("a", run("odd", "ü"), "é|it's|ü"),
        ("a", run("nöt"), "!26000"),
    ),
    program(
        "portals: in parts, several, and past their end",
        ("a", parse("select generate_series(1, 5)", "g") + SYNC),
        ("b", "select 0"),
        ("a", bind("g") + execute(limit=2) + execute(limit=2) + execute(limit=2) + SYNC, "1;2;3;4;5"),
        ("a", bind("g") + execute(limit=2) + SYNC + execute() + SYNC, "1;2!34000"),
        ("a", "begin"),
        ("a", bind("g", "p1") + bind("g", "p2") + execute("p1", 1) + execute("p2", 2) + SYNC, "1;1;2"),
        ("a", describe("p1") + execute("p1", 1) + close_portal("p1") + SYNC, "2"),
        ("a", execute("p2") + bind("g", "p2") + SYNC, "3;4;5!42P03"),
        ("a", "rollback"),
        ("b", "select 0"),
        ("a", execute("p2") + SYNC, "!34000"),
        ("a", close_portal("p2") + SYNC),
        ("a", bind("g") + close_portal() + execute() + SYNC, "!34000"),
    ),
    program(
        "Flush, and what comes between it and the Sync",
        ("a", parse("select 1", "s") + FLUSH),
        ("a", bind("s") + describe() + execute() + FLUSH, "1"),
        ("a", SYNC),
        ("b", "select 0"),
        ("a", bind("s") + FLUSH),
        ("a", execute() + FLUSH, "1"),
        ("a", parse("select 1/0", "z") + bind("z") + execute() + FLUSH, "!22012"),
        ("a", parse("select 2", "t") + FLUSH, ""),
        ("a", SYNC),
        ("b", "select 0"),
        ("a", run("t"), "!26000"),
        ("a", run("s"), "1"),
        ("a", run("z"), "!22012"),
        ("a", describe_statement("z") + SYNC, ""),
    ),
    program(
        "more of them than a server may keep",
        ("a", b"".join(parse(f"select {n}", f"s{n}") for n in range(MANY)) + SYNC),
        ("b", b"".join(parse(f"select -{n}", f"s{n}") for n in range(MANY)) + SYNC),
        ("a", b"".join(run(f"s{n}") for n in range(0, MANY, 50)), ";".join(map(str, range(0, MANY, 50)))),
        ("b", run("s1") + run("s699"), "-1;-699"),
        ("a", b"".join(bind(f"s{n}") + execute() for n in range(MANY)) + SYNC),
        ("a", b"".join(bind(f"s{n}") + execute() for n in range(MANY)) + bind("none") + SYNC),
        ("b", run("s1") + run("s699"), "-1;-699"),
        ("a", parse("select 'u'", "u") + FLUSH),
        ("a", b"".join(parse(f"select 'v{n}'", f"v{n}") for n in range(MANY)) + FLUSH),
        ("a", bind("u") + execute() + SYNC, "u"),
        ("a", b"".join(close_statement(f"s{n}") for n in range(MANY)) + SYNC),
        ("b", run("s1") + run("s699"), "-1;-699"),
        ("a", run("s1"), "!26000"),
    ),
    program(
        "DEALLOCATE ALL and DISCARD ALL, with names of the protocol",
        ("a", parse("select 1", "s") + parse("select 2", "t") + SYNC),
        ("b", parse("select 'b'", "s") + SYNC),
        ("a", "deallocate all"),
        ("b", run("s"), "b"),
        ("a", run("s"), "!26000"),
        ("a", parse("select 3", "s") + SYNC),
        ("b", run("s"), "b"),
        ("a", run("s"), "3"),
        ("a", "discard all"),
        ("b", run("s"), "b"),
        ("a", run("s"), "!26000"),
        ("a", parse("select 4", "s") + SYNC),
        ("a", bound("discard plans")),
        ("b", run("s"), "b"),
        ("a", run("s"), "4"),
        ("a", bound("deallocate all")),
        ("b", run("s"), "b"),
        ("a", run("s"), "!26000"),
        ("a", parse("deallocate all", "d") + run("d") + SYNC),
        ("a", run("d"), "!26000"),
    ),
    program(
        "DEALLOCATE ALL in a transaction that fails, and in a query that fails",
        ("a", parse("select 1", "s") + SYNC),
        ("a", "begin; deallocate all; rollback"),
        ("b", "select 0"),
        ("a", run("s"), "!26000"),
        ("a", parse("select 1", "s") + SYNC),
        ("a", "deallocate all; select 1/0", "!22012"),
        ("b", "select 0"),
        ("a", run("s"), "!26000"),
        ("a", parse("select 1", "s") + SYNC),
        ("a", "begin; discard all", "!25001"),
        ("a", "rollback"),
        ("b", "select 0"),
        ("a", run("s"), "1"),
    ),
]

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

PROGRAMS = [*PROTOCOL, *MEANING, *SQL]
EACH = pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)


@EACH
def test_directly(twin: Twin, program: Program) -> None:
    """PostgreSQL itself answers as the program wants, and twice the same."""
    compare(program, twin.directly(program), twin.directly(program, "twin"))


@pytest.mark.parametrize("servers", [1, 2])
@EACH
def test_through_pgproxy(theatre: Theatre, program: Program, servers: int) -> None:
    if servers in program.servers:
        theatre.compare(program, servers)


def test_a_result_type_that_has_changed_is_healed(theatre: Theatre) -> None:
    """Directly that's an error for ever; who can't know on which server it prepared is helped."""
    theatre.twin.clean("proxied")
    proxy = theatre.proxy(1)
    log = Log(proxy)
    login = {"user": "boss", "database": "proxied"}
    with Player(proxy.port, login) as one, Player(proxy.port, login) as other:
        other.query("create table d as select 1 x")
        one.perform(parse("select * from d", "s") + SYNC)
        assert one.perform(run("s")).said == "1"
        other.query("alter table d add y int default 2")
        assert one.perform(run("s")).said == "1|2"
        other.query("alter table d add z int default 3")
        assert one.perform(describe_statement("s") + bind("s") + execute() + run("s")).said == "1|2|3;1|2|3"
    assert not log.events("client_pinned")


def test_equal_texts_are_parsed_once_for_a_server(theatre: Theatre, twin: Twin) -> None:
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
    assert len(lines) == len(set(lines)) == 20
