"""Roles, and settings whose values are hard to hand on: quotes, encodings, lists, what others depend upon."""

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
    message,
)

MEM = "show work_mem"
TENANT = "select nullif(current_setting('my.tenant', true), '')"
WHO = "select session_user, current_user, current_setting('role')"


ROLES = [
    program(
        "SET ROLE",
        ("a", "create table secret (a int)"),
        ("a", "set role app"),
        ("b", WHO, "boss|boss|none"),
        ("a", WHO, "boss|app|app"),
        ("a", "select * from secret", "!42501"),
        ("b", "select * from secret", ""),
        ("a", "set role none"),
        ("a", WHO, "boss|boss|none"),
        ("a", bound("select set_config('role', 'other', false)"), "other"),
        ("b", WHO, "boss|boss|none"),
        ("a", WHO, "boss|other|other"),
        ("a", "reset role"),
        ("b", WHO, "boss|boss|none"),
        ("a", WHO, "boss|boss|none"),
    ),
    program(
        "SET SESSION AUTHORIZATION",
        ("a", "set session authorization app"),
        ("b", WHO, "boss|boss|none"),
        ("a", WHO, "app|app|none"),
        ("a", "set role other"),
        ("b", WHO, "boss|boss|none"),
        ("a", WHO, "app|other|other"),
        ("a", "set role boss", "!42501"),
        ("a", "set log_statement = 'all'", "!42501"),
        ("a", "reset session authorization"),
        ("b", WHO, "boss|boss|none"),
        ("a", WHO, "boss|boss|none"),
    ),
    program(
        "roles follow transactions",
        ("a", "begin; set local role app"),
        ("a", WHO, "boss|app|app"),
        ("a", "commit"),
        ("b", WHO, "boss|boss|none"),
        ("a", "begin; set role app; rollback"),
        ("a", WHO, "boss|boss|none"),
        ("a", "begin; set session authorization app; savepoint s; set role other; rollback to s; commit"),
        ("b", WHO, "boss|boss|none"),
        ("a", WHO, "app|app|none"),
        ("a", "begin; set local session authorization other; commit"),
        ("a", WHO, "app|app|none"),
    ),
    program(
        "what only a superuser may set, under a role that isn't",
        ("a", "set log_min_duration_statement = '7s'; set session_replication_role = replica; set role app"),
        ("b", "show log_min_duration_statement; show session_replication_role", "-1;origin"),
        ("a", "show log_min_duration_statement; show session_replication_role; show role", "7s;replica;app"),
        ("a", "set session_replication_role = origin", "!42501"),
        ("a", "reset role; set session_replication_role = origin"),
        ("b", "show log_min_duration_statement", "-1"),
        ("a", "show log_min_duration_statement; show session_replication_role", "7s;origin"),
    ),
    program(
        "the same statement under two roles, one of which sees less",
        ("a", "create table rls (owner text); insert into rls values ('app'), ('other')"),
        ("a", "alter table rls enable row level security; grant select on rls to app, other"),
        ("a", "create policy p on rls using (owner = current_user)"),
        ("a", "set role app"),
        ("b", "set role other"),
        ("a", bound("select owner from rls"), "app"),
        ("b", bound("select owner from rls"), "other"),
        ("a", bound("select owner from rls"), "app"),
    ),
]

VALUES = [
    program(
        "search_path, which PostgreSQL before 18 doesn't report",
        (
            "a",
            "create schema s1; create table s1.t as select 1 a; "
            "create schema s2; create table s2.t as select 2 a",
        ),
        ("a", "set search_path = s1"),
        ("b", "set search_path to s2, public"),
        ("a", "select a from t", "1"),
        ("b", "select a from t; show search_path", "2;s2, public"),
        ("a", bound("select a from t"), "1"),
        ("b", bound("select a from t"), "2"),
        ("a", "reset search_path"),
        ("a", "select a from t", "!42P01"),
        ("b", "select a from t", "2"),
        ("a", "show search_path", '"$user", public'),
    ),
    program(
        "names that need quotes",
        ("a", """set search_path = "$user", "a b", 'it''s', "dou""ble", Upper, "Upper", '', "a,b" """),
        ("b", "show search_path", '"$user", public'),
        ("a", "show search_path"),
        ("a", "select current_setting('search_path')"),
        ("a", "select set_config('search_path', 'x, \"y z\"', false)"),
        ("b", "select 1"),
        ("a", "show search_path", 'x, "y z"'),
        ("a", "set \"My.Mixed\" = 'V'; set my.\"Odd\" = '; drop table x; --'"),
        ("b", "select nullif(current_setting('my.odd', true), '')", "NULL"),
        ("a", "show my.mixed; show my.odd", "V;; drop table x; --"),
    ),
    program(
        "backslashes where they escape",
        ("a", "set standard_conforming_strings = off; set escape_string_warning = off"),
        ("a", r"set my.tenant = 'a\\b''c\'d'"),
        ("b", rf"{TENANT}; select 'a\\b'", r"NULL;a\\b"),
        ("a", rf"{TENANT}; select 'a\\b'", r"a\b'c'd;a\b"),
        ("a", "set standard_conforming_strings = on"),
        ("b", TENANT, "NULL"),
        ("a", TENANT, r"a\b'c'd"),
    ),
    program(
        "another encoding",
        ("a", "set client_encoding = 'latin1'"),
        ("a", message("Q", b"set my.tenant = 'caf\xe9'\0")),
        ("b", "select 'café'; set my.tenant = 'thé'", "café"),
        ("a", TENANT, "caf\udce9"),
        ("b", TENANT, "thé"),
        ("a", message("Q", b"select '\xe9' = U&'\\00e9', length('\xe9')\0"), "t|1"),
        ("a", "set names 'utf8'"),
        ("b", "select 1"),
        ("a", TENANT, "café"),
        ("a", "select 'é'", "é"),
    ),
    program(
        "dates, times and intervals",
        ("a", "set datestyle = 'german'"),
        ("b", "set datestyle to sql, dmy"),
        ("a", "select date '2001-02-03'", "03.02.2001"),
        ("b", "select date '2001-02-03', '04/05/2006'::date", "03/02/2001|04/05/2006"),
        ("a", "set datestyle = 'ymd'; show datestyle", "German, YMD"),
        ("a", "set time zone interval '-08:00' hour to minute"),
        ("b", "set timezone = 'Asia/Kolkata'; set intervalstyle = 'iso_8601'"),
        ("a", "show timezone; select timestamptz '2001-01-01 00:00+00'", "<-08>+08;31.12.2000 16:00:00 -08"),
        ("b", "show timezone; select interval '1 day 2 hours'", "Asia/Kolkata;P1DT2H"),
        ("a", "set time zone -3.5; show timezone", "<-03:30>+03:30"),
        ("b", "set time zone local"),
        ("a", "show timezone", "<-03:30>+03:30"),
        ("b", "show timezone", "UTC"),
        ("a", "set time zone default"),
        ("a", "show timezone", "UTC"),
    ),
    program(
        "forms of output",
        ("a", "set bytea_output = 'escape'; set extra_float_digits = -10; set xmloption = document"),
        ("b", "select '\\x41'::bytea, 0.1::float8 + 0.2::float8", "\\x41|0.30000000000000004"),
        ("a", "select '\\x41'::bytea, 0.1::float8 + 0.2::float8", "A|0.3"),
        ("a", "set xml option content; set array_nulls = off; set lc_monetary = 'C'"),
        ("b", "select '{NULL}'::text[] is null or ('{NULL}'::text[])[1] is null", "t"),
        ("a", "select ('{NULL}'::text[])[1]; show xmloption", "NULL;content"),
    ),
    program(
        "the time that a statement may take",
        ("a", "set statement_timeout = '100ms'; set lock_timeout = '90ms'"),
        ("b", "select pg_sleep(0.15)"),
        ("a", "select pg_sleep(5)", "!57014"),
        ("b", "show statement_timeout", "0"),
        ("a", "show lock_timeout", "90ms"),
    ),
    program(
        "what the server reports is the client's own",
        (
            "a",
            "set application_name = 'a''s'; set role app; set timezone = 'CET'; "
            "set session authorization app",
        ),
        ("b", "set application_name = 'b'"),
        ("a", "begin; set application_name = 'gone'"),
        ("a", "rollback"),
        ("b", "show application_name", "b"),
        ("a", "show application_name", "a's"),
        ("a", "reset all; show application_name"),
        ("a", "reset session authorization"),
        ("b", "show application_name", "b"),
    ),
    program(
        "notices about all that the server does",
        ("a", "set client_min_messages = log; set log_statement = 'all'"),
        ("b", "select 1", "1"),
        ("a", "select 1", "1"),
        ("b", "set work_mem = '5MB'"),
        ("a", "set my.tenant = 7"),
        ("b", MEM, "5MB"),
        ("a", "select 2", "2"),
        ("a", "set client_min_messages = error; set log_statement = none"),
        ("b", "do $$ begin raise warning 'heard'; end $$"),
        ("a", "do $$ begin raise warning 'not heard'; end $$"),
    ),
    program(
        "settings of an extension",
        ("a", "do $$ begin end $$; set plpgsql.variable_conflict = 'use_column'"),
        ("a", "create table v as select 1 as x"),
        ("b", "do $$ declare x int; begin select x into x from v; end $$", "!42702"),
        ("a", "do $$ declare x int; begin select x into x from v; end $$", ""),
    ),
]

PROGRAMS = [*ROLES, *VALUES]


@each(PROGRAMS)
def test_directly(twin: Twin, program: Program) -> None:
    """PostgreSQL itself answers as the program wants, and twice the same."""
    compare(program, twin.directly(program), twin.directly(program, "twin"))


@each_way(PROGRAMS)
def test_through_pgproxy(theatre: Theatre, program: Program, servers: int) -> None:
    theatre.compare(program, servers)
