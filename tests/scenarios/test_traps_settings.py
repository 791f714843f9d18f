"""Settings follow the client from server to server, in whatever way they are set, and reach nobody else."""

from __future__ import annotations

from tests.fix_twin import Theatre, Twin
from tests.programs import (
    Program,
    bound,
    compare,
    each,
    each_way,
    program,
)
from tests.raw import (
    SYNC,
    extended,
)

MEM = "show work_mem"
TENANT = "select nullif(current_setting('my.tenant', true), '')"
SET = "set_config('work_mem', '8MB', false)"
SETS = (
    "create function {name}(a int) returns int language sql as $$"
    "select set_config('work_mem', a || 'MB', false); select a $$"
)
CALLS = (
    "create function {name}(a int) returns int language plpgsql as $$"
    "declare b int; begin b := {called}(a); return b + 1; end $$"
)


WAYS_TO_SET = [
    program(
        "among other statements of one query",
        ("a", "select 1; set work_mem = '77MB'; select 2", "1;2"),
        ("b", MEM, "4MB"),
        ("a", MEM, "77MB"),
        ("b", MEM, "4MB"),
    ),
    program(
        "one is reset and the other stays",
        ("a", "set work_mem = '77MB'"),
        ("a", "set statement_timeout = '55s'"),
        ("a", "reset work_mem"),
        ("b", f"{MEM}; show statement_timeout", "4MB;0"),
        ("a", f"{MEM}; show statement_timeout", "4MB;55s"),
        ("a", "reset all"),
        ("b", f"{MEM}; show statement_timeout", "4MB;0"),
        ("a", f"{MEM}; show statement_timeout", "4MB;0"),
    ),
    program(
        "set to default",
        ("a", "set work_mem = '77MB'; set my.tenant = '7'"),
        ("a", "set work_mem to default; set my.tenant to default"),
        ("a", f"{MEM}; {TENANT}", "4MB;NULL"),
        ("b", MEM, "4MB"),
    ),
    program(
        "set_config in a SELECT",
        ("a", "select set_config('work_mem', '77MB', false), set_config('my.tenant', '7', false)", "77MB|7"),
        ("b", f"{MEM}; {TENANT}", "4MB;NULL"),
        ("a", f"{MEM}; {TENANT}", "77MB;7"),
        ("a", "select set_config('work_mem', null, false)", "4MB"),
        ("a", MEM, "4MB"),
    ),
    program(
        "set_config of a computed name, qualified, in a WHERE",
        ("a", "select 1 where pg_catalog . set_config('work' || '_mem', 76 + 1 || 'MB', 1 = 2) = 'x'", ""),
        ("b", MEM, "4MB"),
        ("a", MEM, "77MB"),
    ),
    program(
        "set_config with parameters",
        ("a", bound("select set_config($1, $2, $3)", "my.tenant", "it's", "false"), "it's"),
        ("b", bound("select set_config($1, $2, $3)", "my.tenant", "other\\", "false"), "other\\"),
        ("a", TENANT, "it's"),
        ("b", TENANT, "other\\"),
    ),
    program(
        "set_config in a DO block, and SET there",
        ("a", "do $$ begin perform set_config('work_mem', '77MB', false); end $$"),
        ("b", "do $$ begin set work_mem = '55MB'; execute 'set my.tenant = 7'; end $$"),
        ("a", f"{MEM}; {TENANT}", "77MB;NULL"),
        ("b", f"{MEM}; {TENANT}", "55MB;7"),
    ),
    program(
        "set_config in a function, of which the query's text tells nothing",
        (
            "a",
            "create function mine(text) returns text language plpgsql as "
            "$$ begin return set_config('my.tenant', $1, false); end $$",
        ),
        ("a", "select mine('7')", "7"),
        ("b", TENANT, "NULL"),
        ("a", TENANT, "7"),
        ("b", bound("select mine($1)", "8"), "8"),
        ("a", TENANT, "7"),
        ("b", TENANT, "8"),
    ),
    program(
        "a function that sets only for itself",
        (
            "a",
            "create function own() returns text language sql set work_mem = '9MB' "
            "as $$ select current_setting('work_mem') $$",
        ),
        ("a", "select own()", "9MB"),
        ("a", MEM, "4MB"),
        ("b", MEM, "4MB"),
    ),
    program(
        "in a block that catches its error",
        (
            "a",
            "do $$ begin set work_mem = '5MB'; begin set work_mem = '6MB'; raise 'x'; "
            "exception when others then null; end; end $$",
        ),
        ("b", MEM, "4MB"),
        ("a", MEM, "5MB"),
    ),
    program(
        "in a procedure that commits",
        (
            "a",
            "create procedure steps() language plpgsql as $$ begin set work_mem = '5MB'; commit; "
            "set work_mem = '6MB'; rollback; set my.tenant = '7'; commit; end $$",
        ),
        ("a", "call steps()"),
        ("b", f"{MEM}; {TENANT}", "4MB;NULL"),
        ("a", f"{MEM}; {TENANT}", "5MB;7"),
    ),
    program(
        "a trigger's",
        ("a", "create table t (a int)"),
        (
            "a",
            "create function f() returns trigger language plpgsql as "
            "$$ begin perform set_config('my.tenant', new.a::text, false); return new; end $$",
        ),
        ("a", "create trigger t before insert on t for each row execute function f()"),
        ("a", bound("insert into t values ($1)", "7")),
        ("b", TENANT, "NULL"),
        ("a", TENANT, "7"),
        may_pin="unknown",
        hidden=True,
        servers=(2,),
    ),
    program(
        "in the extended protocol, in pipelines with errors",
        ("a", bound("set work_mem = '77MB'")),
        ("b", bound(MEM), "4MB"),
        ("a", bound(MEM), "77MB"),
        ("a", extended("set work_mem = '5MB'") + extended("select 1/0") + SYNC, "!22012"),
        ("a", MEM, "77MB"),
        ("a", extended("set work_mem = '5MB'") + SYNC + extended("select 1/0") + SYNC, "!22012"),
        ("b", MEM, "4MB"),
        ("a", MEM, "5MB"),
    ),
    program(
        "a statement that is long pins as little as one that is short",
        ("a", f"select length('{'x' * 100_000}')", "100000"),
        ("a", bound(f"/* {'y' * 40_000} */ select 1"), "1"),
        ("a", f"set my.tenant = '{'z' * 30_000}'"),
        ("b", TENANT, "NULL"),
        ("a", "select length(current_setting('my.tenant'))", "30000"),
    ),
    program(
        "many at a time",
        ("a", "; ".join(f"set my.s{n} = '{n}'" for n in range(100))),
        (
            "b",
            "select count(*) from generate_series(0, 99) n where current_setting('my.s' || n, true) <> ''",
            "0",
        ),
        ("a", "select sum(current_setting('my.s' || n)::int) from generate_series(0, 99) n", "4950"),
    ),
]

FUNCTIONS = [
    program(
        "functions of an extension",
        ("a", "create extension pg_trgm"),
        *[(one, "select similarity('abc', 'abd')", "0.33333334") for one in "aabb"],
        ("a", bound("select similarity('abc', 'abd')"), "0.33333334"),
        ("a", "select set_limit(0.5)", "0.5"),
        ("b", "select show_limit()", "0.3"),
        ("a", "select show_limit()", "0.5"),
        ("a", SETS.format(name="similarity")),
        ("a", "select similarity(77)", "77"),
        ("b", MEM, "4MB"),
        ("a", MEM, "77MB"),
        ("b", "select similarity('abc', 'abd')", "0.33333334"),
        ("b", MEM, "4MB"),
    ),
    program(
        "what is called where no body shows it",
        ("a", f"create function of_default(a text default {SET}) returns text language sql as 'select a'"),
        *[(one, "select of_default()", "8MB") for one in "aba"],
        ("a", "set work_mem = '5MB'"),
        ("b", MEM, "8MB"),
        ("b", "reset work_mem"),
        ("b", f"create function atomic() returns text begin atomic select {SET}; end"),
        *[(one, "select atomic()", "8MB") for one in "bb"],
        ("a", MEM, "5MB"),
        ("b", MEM, "8MB"),
    ),
    program(
        "functions of one's own",
        ("a", "create function leaf(a int) returns int language sql as 'select a'"),
        ("a", CALLS.format(name="node", called="leaf")),
        ("a", CALLS.format(name="root", called="node")),
        *[(one, "select root(1)", "3") for one in "abab"],
        ("a", bound("select root(1)"), "3"),
        ("a", SETS.format(name="leaf").replace("create", "create or replace")),
        ("b", "select root(50)", "52"),
        ("a", MEM, "4MB"),
        ("b", MEM, "50MB"),
        ("a", MEM, "4MB"),
        ("a", "select root(60)", "62"),
        ("b", MEM, "50MB"),
        ("a", MEM, "60MB"),
    ),
]

PROGRAMS = WAYS_TO_SET + FUNCTIONS


@each(PROGRAMS)
def test_directly(twin: Twin, program: Program) -> None:
    """PostgreSQL itself answers as the program wants, and twice the same."""
    compare(program, twin.directly(program), twin.directly(program, "twin"))


@each_way(PROGRAMS)
def test_through_pgproxy(theatre: Theatre, program: Program, servers: int) -> None:
    theatre.compare(program, servers)
