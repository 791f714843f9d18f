"""What statements may leave behind: a table of them, each of the flags it must and may have."""

import time

import pytest

from pgproxy.session.suspicion import (
    CACHED_TEXT,
    LOOK,
    MOST_NAMES,
    Verdicts,
    classify,
    dotted_names,
    quick,
)
from pgproxy.session.verdict import (
    ASK,
    DATABASE,
    DYNAMIC,
    HARMLESS,
    LOCAL,
    OPAQUE,
    RESETS,
    ROLE_DEFAULTS,
    SEED,
    SEQUENCE_READ,
    SEQUENCE_WRITE,
    STATEMENTS,
    UNDOES,
    UNREADABLE,
    WRITES,
)

QUICK = [
    "SELECT abalance FROM pgbench_accounts WHERE aid = 123;",
    "UPDATE pgbench_accounts SET abalance = abalance + 5 WHERE aid = 3;",
    "BEGIN;",
    "END;",
    "select count(*) from t where a in (1,2) and b = 'x'",
    "select\n1",
    "SELECT c FROM sbtest1 WHERE id BETWEEN $1 AND $2 ORDER BY c",
    'SELECT "a"."b", \'\' FROM "a" WHERE lower ("a"."b") IN ($1, $2)',
    "update t set a = 1 where insert or merge",
    "delete from t where insert = any($1::int[]) returning b",
    "with x as (select max(a) from t) select * from x where a > (1)",
    "rollback to savepoint a",
    "select sum(a) filter (where b) over(order by b), over from t",
    "savepoint a ; ",
]

HARMLESS_TEXTS = [
    *QUICK,
    "",
    " ; ;\n",
    "-- only a comment",
    "/* a /* nested */ set x = 1 */ select 1",
    "select 1 -- set x = 1",
    "select 'set_config(''a.b'', 1, false)'",
    "select $$ set_config('a', 'b', false) $$",
    "select $a$ $$; discard all; $$ $a$",
    "select E'it\\'s; discard all; --'",
    "select '\\d+', 'a\\\\'",
    "select 'a' 'b' ; select 2",
    "((select 1) union (select 2)) order by 1",
    "values (1), (2)",
    "table t",
    "copy t (a, b) to stdout (format csv)",
    "copy (select lower(a) from t) to stdout",
    "explain analyze select count(*) from t",
    "explain (analyze, format json) (select 1)",
    "explain (select 1)",
    "begin isolation level serializable read only",
    "start transaction",
    "commit and chain",
    "commit prepared 'a'",
    "rollback prepared 'a'",
    "prepare transaction 'a'",
    "abort",
    "release a",
    "fetch 10 from c",
    "move c",
    "show all",
    "lock table t in share mode",
    "notify a, 'b'",
    "set constraints all deferred",
    'SET CONSTRAINTS "a" IMMEDIATE',
    "truncate t",
    "vacuum (verbose) t",
    "analyze t (a)",
    "declare c cursor for select upper(a) from t",
    "declare c scroll cursor without hold for select 1",
    "with x (a, b) as (select 1, 2), y (a) as not materialized (select 3) select * from x, y",
    "with recursive t(n) as (values (1) union all select n + 1 from t where n < 9) select sum(n) from t",
    "select * from (values (1, 2)) as v (a, b)",
    "select * from (values (1, 2)) v (a, b)",
    "select * from generate_series(1, 3) g(i) where i between (1) and (2)",
    "select a::numeric(10, 2), b::s.vector(3), cast(c as varchar(3)), interval '1 2' day to second(2)",
    "select cast(c as character varying (3)), time with time zone '1:00' at time zone ('x')",
    "select count(*) filter (where a) over w from t window w as (partition by (b))",
    "select percentile_cont(0.5) within group (order by a) from t group by grouping sets ((a), (b))",
    'select pg_catalog.lower(a), "pg_catalog"."upper"(b), "lower"(c), LOWER (d) from t',
    "select extract(year from now()), coalesce(a, b), row(1, 2), array(select 1), nullif(1, 2) from t",
    "select pg_advisory_xact_lock(1), pg_try_advisory_xact_lock(2), pg_notify('a', 'b'), pg_sleep(1)",
    "select a operator(pg_catalog.+) (b) from t tablesample system (10) repeatable (1)",
    "update t set (a, b) = (1, 2)",
    "update only s.t as x set (a, b) = (select 1, 2)",
    "select a from t where (a, b) in ((1, 2)) fetch first (3) rows only",
    "select * from t where a like ('x') for update of t",
    "select * from t join (select 1) x on (true) left join (u cross join v) on a like ('b')",
    "select a from t where a not like ('c') and (a, b) overlaps (c, d)",
    "select temp, temporary from weather where local",
    "select u&'d\\0061t'",
    "select 1as a, 2from t",
]


@pytest.mark.parametrize("text", HARMLESS_TEXTS)
def test_harmless(text: str) -> None:
    assert classify(text.encode()) is HARMLESS
    assert Verdicts().of(text.encode()) is HARMLESS


@pytest.mark.parametrize("text", QUICK)
def test_quickly_harmless(text: str) -> None:
    assert quick(text.encode()) is HARMLESS


COMMENTED = [
    "/*dddbs='shop',traceparent='00-4bf92f3577b34da6-00f067aa0ba902b7-01'*/ select * from t where a = 5",
    "select a from t where b = 'it''s' /*action='show',route='/users/(id)'*/",
    "/**/ select /***/ a /* x * / y */ from t /*/ z */ where b = '/*' || \"/*\" /* ' */;",
    "/*+ SeqScan(t) */ delete from t/* into */where a = 1",
    "/* set_config('a', 'b') */ commit /* ; discard all */",
]


@pytest.mark.parametrize("text", COMMENTED)
def test_comments_are_no_matter(text: str) -> None:
    assert quick(text.encode()) is HARMLESS
    assert Verdicts().of(text.encode()) is HARMLESS


@pytest.mark.parametrize(
    "text",
    [
        "select '/*', nextval('s'), '*/'",
        "select '/*', nextval('s') /* x */",
        'select "/*", nextval("*/")',
        "select 'a''/*', nextval('s'), '*/'",
        "select /* ' */ nextval('s') /* ' */",
        "select /* /* */ */ nextval('s') /* */",
        "select next/* */val('s'), nextval/* x */('s')",
        "/* x */ select nextval('s')",
    ],
)
def test_what_is_called_between_comments_is_seen(text: str) -> None:
    assert quick(text.encode()) is None
    assert Verdicts().of(text.encode()) is not HARMLESS


def test_a_text_is_not_taken_for_another_with_other_comments() -> None:
    verdicts = Verdicts()
    for text in (
        "select md5/* 1 */('a')",
        "select md6/* 2 */('a')",
        "select md5/* 6 */('a')",
        "/* 7 */ select 1",
        "select 1 /* 8 */",
        "select 1, '/* 8 */'",
        "select 1, '/* 9 */', nextval('s')",
    ):
        assert verdicts.of(text.encode()) == classify(text.encode()), text


WRITING = [
    "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (1, 2, 3, 4, CURRENT_TIMESTAMP);",
    'insert into "s"."t" ("a", "b") values ($1, $2) returning "a"',
    "insert into t values (1) on conflict do nothing",
    "insert into t select count(*) from u",
    "insert into t default values",
]
ALSO_WRITING = [
    *WRITING,
    "insert into s.t as x (a) values (1) on conflict (a) do update set (a, b) = (1, 2)",
    "insert into t values (nextval('s'))",
    "select nextval('s')",
    "select pg_catalog.setval('s', 3)",
    "with x as (insert into t (a) values (1) returning a) select * from x",
    "merge into t using u on (t.a = u.a) when matched then delete",
    "merge into t using u on t.a = u.a when not matched then insert (a) values (1)",
    "update t set a = default",
    "copy t (a) from stdin",
    "copy t from stdin (format csv) where a > 1",
    "explain insert into t values (1)",
    "begin; insert into t values (1); commit",
]


@pytest.mark.parametrize("text", ALSO_WRITING)
def test_writing(text: str) -> None:
    assert classify(text.encode()) is WRITES
    assert Verdicts().of(text.encode()) is WRITES


@pytest.mark.parametrize("text", WRITING)
def test_quickly_writing(text: str) -> None:
    assert quick(text.encode()) is WRITES


UNSEEN = ASK | OPAQUE
STORED = ASK | OPAQUE | DYNAMIC | STATEMENTS


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        # SET and its relatives
        ("set search_path to a", ASK),
        ("SET SESSION a.b = 'c'", ASK),
        ("set session characteristics as transaction read only", ASK),
        ("set session authorization a", ASK),
        ("set role a", ASK),
        ("set time zone 'UTC'", ASK),
        ("reset all", RESETS),
        ("reset all; reset role", ASK | RESETS),
        ('reset "all"', ASK),
        ("reset my.tenant", ASK),
        ("reset role", ASK),
        ("discard all", ASK),
        ("discard temp", UNDOES),
        ("discard sequences", UNDOES),
        ("set local a.b = 'c'", LOCAL),
        ('set local "a"."b" to c', LOCAL),
        ("set /* */ local -- \n a = 1", LOCAL),
        ("set transaction isolation level serializable", LOCAL),
        ("set local.a = 1", ASK),
        ("set local = 1", ASK),
        ("set local to 1", ASK),
        ('set "local" to 1', ASK),
        ("set transaction.a = 1", ASK),
        ("set constraints.a to 1", ASK),
        ("set local a = 1; set b = 2", ASK | LOCAL),
        ("begin; set a = 1", ASK),
        ("select 1; set a = 1; select 2", ASK),
        ("set seed to 0.5", ASK | SEED),
        ('set session "SEED" = 0.5', ASK | SEED),
        ("set local seed to 0.5", LOCAL | SEED),
        ("select setseed(0.5)", SEED),
        ("do $$ begin perform setseed(0.5); end $$", UNSEEN | SEED),
        ("do 'begin set seed = 0.5; end'", UNSEEN | SEED),
        ("select f('Seed', '0.5')", UNSEEN | SEED),
        ("select f($$seed$$, E'0.5')", UNSEEN | SEED),
        ("select f('seedling')", UNSEEN),
        # the rule of a view
        ("update pg_settings set setting = 'b' where name = 'search_path'", UNSEEN | DYNAMIC),
        ('update pg_catalog."pg_settings" set setting = $1', UNSEEN | DYNAMIC),
        ("with a as (update pg_settings set setting = 'b') select 1", UNSEEN | DYNAMIC),
        # set_config
        ("select set_config('a.b', 'c', false)", ASK),
        ("select pg_catalog.set_config('a.b', $1, false)", ASK),
        ("select \"set_config\"('a.b', $1, $2)", ASK),
        ("select SET_CONFIG ('a.b', $1, true)", LOCAL),
        ("select set_config('a.b'::text, $1, 't'::bool)", LOCAL),
        ("select set_config($1, $2, true)", LOCAL),
        ("select set_config($1, $2, 'on')", LOCAL),
        ("select set_config($1, $2, false)", ASK | DYNAMIC),
        ("select set_config('a.' || b, 'c', false) from t", ASK | DYNAMIC),
        ("select set_config(E'\\x61.b', 'c', false)", ASK | DYNAMIC),
        ("select set_config('a.b', f(1), true)", LOCAL | UNSEEN),
        ("select set_config('a.b', upper(lower('x')), true)", LOCAL),
        ("select set_config('a.b', set_config('c.d', 'e', true), false)", ASK | LOCAL),
        ("select set_config('a.b', 'c', not true)", ASK),
        ("select set_config('a.b', 'c', 'f')", ASK),
        ("select set_config(setting_name => 'a.b', new_value => 'c', is_local => true)", ASK | DYNAMIC),
        ("select set_config('seed', '0.5', false)", ASK | SEED),
        ("select set_config(", ASK | DYNAMIC),
        ("insert into t (a) values (set_config('a.b', 'c', false))", ASK | SEQUENCE_WRITE),
        ("explain analyze select set_config('a.b', 'c', false)", ASK),
        ("select s.set_config('a.b', 'c', true)", UNSEEN),
        # Locks, channels, cursors, tables, libraries
        ("select pg_advisory_lock(1)", ASK),
        ("with x as (select pg_try_advisory_lock_shared(1)) select * from x", ASK),
        ("explain (analyze) select pg_advisory_unlock(1)", ASK),
        ("select pg_advisory_unlock_all()", UNDOES),
        ("select pg_catalog.pg_advisory_unlock_all ( )", UNDOES),
        ("select pg_advisory_unlock_all('one''s own')", ASK),
        ("select pg_advisory_unlock_all(), pg_advisory_lock(2)", ASK | UNDOES),
        ("update t set a = 1 where pg_advisory_lock(a) is null", ASK),
        ("listen a", ASK),
        ("unlisten *", UNDOES),
        ("declare c cursor with hold for select 1", ASK),
        ("close c", UNDOES),
        ("close all", UNDOES),
        ("load 'x'", ASK),
        ("create temp table t (a int default f(), b int check (g(b)))", ASK),
        ("create table t (a int generated always as (f(b)) stored)", ASK),
        ("create table pg_temp.t ()", ASK),
        ("create temp table t as select f(1)", UNSEEN),
        ("create table t (a) as with x as (select 1) select nextval('s')", ASK | SEQUENCE_WRITE),
        ("create materialized view v as select count(*) from t", ASK),
        ("create view v as select f(1)", ASK),
        ("create function f() returns int language sql as 'select 1'", ASK),
        ("create trigger t after insert on a for each row execute function f()", ASK),
        ("select * into t from u", ASK),
        ("select 1 into temp t", ASK),
        ("select insert into t from u", ASK),
        ("with u as (select 1) select insert into temp t from u", ASK | SEQUENCE_WRITE),
        ("select a from pg_temp.t", ASK),
        ('select a from "pg_temp_3".t', ASK),
        ("explain analyze create table t as select 1", ASK),
        ("grant a to b", ASK),
        ("import foreign schema a from server b into c", ASK),
        ("nonsense", ASK),
        ("'x'", ASK),
        ("(", ASK),
        # Code that isn't seen
        ("do $$ begin perform set_config('a.b', 'c', false); end $$", UNSEEN),
        ("call p(1)", UNSEEN),
        ("select f(1)", UNSEEN),
        ("select f /* */ (1)", UNSEEN),
        ("select f -- \n (1)", UNSEEN),
        ("select s . lower(1)", UNSEEN),
        ('select "s"."lower"(1)', UNSEEN),
        ("select a.pg_catalog.lower(1)", UNSEEN),
        ('select "Lower"(1)', UNSEEN),
        ('select "select"(1)', UNSEEN),
        ("select (a).f(1)", UNSEEN),
        ("select operator(1), operator((2))", UNSEEN),
        ("select over(1)", UNSEEN),
        ("select a, like(b)", UNSEEN),
        ("select join (b)", UNSEEN),
        ("select distinct on (a) join (b)", UNSEEN),
        ("select distinct on (a) over (b)", UNSEEN),
        ("select a from stdin(1)", UNSEEN),
        ("copy (select a from stdin(1)) to stdout", UNSEEN),
        ("copy t (a, b) to stdout (format csv, force_quote (a))", UNSEEN),
        ("select distinct on (a) f(b) from t", UNSEEN),
        ("select a operator(pg_catalog.+) f(b)", UNSEEN),
        ("select set(a), filter(b), first(c)", UNSEEN),
        ("select * from a, f(x) as (b int)", UNSEEN),
        ("select * from t where a in (select f(b) from u)", UNSEEN),
        ("select query_to_xml('select 1', true, true, '')", UNSEEN),
        ("copy (select f(1)) to stdout", UNSEEN),
        ("declare c cursor for select f(1)", UNSEEN),
        ("update t set (a) = (f(1))", UNSEEN),
        ("select caf\u00e9(1)", UNSEEN),
        ("select lower$(1)", UNSEEN),
        # Prepared statements
        ("prepare a as select 1", ASK | STATEMENTS),
        ("prepare a (int, numeric(3)) as select f($1)", UNSEEN | STATEMENTS),
        ("prepare transaction as select 1", ASK | STATEMENTS),
        ("execute a('b.c')", STORED),
        ("explain analyze execute a", STORED),
        ("create table t as execute a", STORED),
        ("deallocate all", ASK),
        ("select * from pg_prepared_statements", STATEMENTS),
        ("select name from PG_PREPARED_STATEMENT()", STATEMENTS),
        ("do 'select from pg_prepared_statements'", UNSEEN | STATEMENTS),
        # Sequences
        ("select currval('s')", SEQUENCE_READ),
        ("insert into t values (lastval())", SEQUENCE_READ | SEQUENCE_WRITE),
        # Databases and roles
        ("create database a", ASK | DATABASE),
        ("drop database if exists a", ASK | DATABASE),
        ("alter database a rename to b", ASK | DATABASE),
        ("alter database a set b = c", ASK | DATABASE | ROLE_DEFAULTS),
        ("alter role a in database b reset all", ASK | ROLE_DEFAULTS),
        ("alter user a set b to c", ASK | ROLE_DEFAULTS),
        ("alter role a password 'set'", ASK),
        ("alter system set a = b", ASK),
        ("drop table database", ASK),
        # What can be read in two ways
        ("select 'a\\' ; discard all; --'", UNREADABLE),
        ("select 'a\\\\\\''", UNREADABLE),
        ("select E'a'\n'b\\' ; discard all; --'", UNREADABLE),
        ('select U&"f\\0061"(1)', UNREADABLE),
    ],
)
def test_suspected(text: str, flags: int) -> None:
    assert classify(text.encode()).flags == flags
    assert Verdicts().of(text.encode()).flags == flags
    assert quick(text.encode()) is None


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("drop database a", ["a"]),
        ('DROP DATABASE IF EXISTS "A b" WITH (FORCE)', ["if", "exists", "A b", "with", "force"]),
        ('alter database A rename to "b""c"', ["a", "rename", "to", 'b"c']),
        ("create database a template 'b'", ["a", "template", "b"]),
        ("drop database a; drop database b; set c.d = 1", ["a", "b", "c.d"]),
        ("set my.tenant = 1", ["my.tenant"]),
        ("set My.Tenant = 1; set my.tenant = 2", ["My.Tenant"]),
        ('set "My"."tenant" = 1', ["My.tenant"]),
        ('set "my.tenant" = 1', ["my.tenant"]),
        ("set my /* */ . tenant = 1", ["my.tenant"]),
        ("select set_config('my.tenant', 'x', false)", ["my.tenant"]),
        ("select set_config($$my.tenant$$, 'x', false)", ["my.tenant"]),
        ("select set_config(E'\\nmy.\\x74enant', 'x', false)", ["nmy.", "my.tenant"][1:]),
        ("do $$ begin perform set_config($q$my.a$q$, '', false); set my.b.c = 1; end $$", ["my.b.c", "my.a"]),
        ("execute a('my.tenant')", ["my.tenant"]),
        ("select f(1), a.b, 1.5, .e, c.", ["a.b"]),
        ("set caf\u00e9.x = 1 /* no.name */ -- no.name", ["caf\u00e9.x"]),
        ("select a.b from t", []),
    ],
)
def test_names(text: str, names: list[str]) -> None:
    assert [name.decode() for name in classify(text.encode()).names] == names


def test_names_in_parameters() -> None:
    assert dotted_names(b"my.tenant") == (b"my.tenant",)
    assert dotted_names(b"\0\0\0\x01\0my.a\0\0\0MY.A;my.b.c.1.d") == (b"my.a", b"my.b.c")
    assert dotted_names(b"1.5 .x y. z") == ()


def test_too_many_names_are_not_all_looked_at() -> None:
    text = b"set a = 1; select " + b", ".join(b"t.c%d" % number for number in range(MOST_NAMES + 1))
    verdict = classify(text)
    assert len(verdict.names) == MOST_NAMES
    assert verdict.flags == UNREADABLE


def test_beginnings() -> None:
    assert classify(b"select 1", whole=False).flags == UNREADABLE
    assert classify(b"set local my.a = 1", whole=False).names == (b"my.a",)
    long = b"select '\\', 1 " + b" " * LOOK
    assert classify(long).flags == UNREADABLE
    assert Verdicts().of(b"select 1" + b" " * LOOK) is HARMLESS


def test_cache() -> None:
    verdicts = Verdicts(most=2)
    first = verdicts.of(b"set a = 1")
    assert verdicts.of(b"set a = 1") is first
    assert verdicts.of(b"set a = 2") is not first
    assert verdicts.of(b"set a = 1") is first
    verdicts.of(b"set a = 3")
    assert verdicts.of(b"set a = 1") is not first
    long = b"set a = 1" + b" " * CACHED_TEXT
    assert verdicts.of(long) == first
    assert verdicts.of(long) is not verdicts.of(long)


@pytest.mark.parametrize(
    "text",
    [
        b"(",
        b"f(",
        b"a.",
        b"a,",
        b"'",
        b"$a$",
        b"$a",
        b"/*",
        b"\\'",
        b"E'\\",
        b'"',
        b" ",
        b"0x",
        b"set ",
        b"--\n",
        b"set_config(",
        b"set_config('a.b',",
        b"with a as (select), b (x",
        b"a.b ",
        b"1_",
        b"(f)",
        b"f(x)",
        b"'\\",
        b"$$",
        b"x'",
        b'u&"',
        b"a$b$",
        b"*/",
        b"explain (",
        b"as (",
        b") x (",
        b"update ",
        b";set ",
        b"pg_temp ",
        b"set_config(set_config(1,2,3),",
        b"\xff",
        b"E'\xff\\",
        b"(select ",
        b"insert(",
        b"case when a then insert (",
    ],
)
def test_linear(text: bytes) -> None:
    """Where time isn't linear, these take minutes of a core."""
    for beginning in (b"", b"select ", b"update t set ", b"with ", b"explain "):
        whole = beginning + text * (LOOK // len(text))
        began = time.process_time()
        classify(whole[:LOOK])
        quick(whole * 8)
        dotted_names(whole * 8)
        assert time.process_time() - began < 2
