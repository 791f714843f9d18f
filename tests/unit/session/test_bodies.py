"""What the bodies of functions may leave: a table, and that nothing is read into what can't be read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.session.bodies import called_by
from pgproxy.session.suspicion import LOOK

SQL = [
    ("select 1", ()),
    ("select $1 + 1; insert into t values ($1)", ()),
    ("select set_config('a.b', $1, true)", ()),
    ("set local work_mem = 64; select 1", ()),
    ("select nextval('s'), currval('s')", ()),
    ("select f($1), public.g(1)", (b"f", b"g")),
    ("select case when true then insert(1) end", (b"insert",)),
    ("insert into t (a) select 1 from u where a like (b)", (b"t", b"like")),
    ("select set_config('a.b', $1, false)", None),
    ("select set_config('a.b', $1, false), f(1)", None),
    ("set work_mem = 64", None),
    ("select pg_advisory_lock(1)", None),
    ("create temp table t as select 1", None),
    ("select 1 into temp t", None),
    ("listen a", None),
    ("select setseed(1)", None),
    ("do $$ begin end $$", None),
    ("update pg_settings set setting = '1MB' where name = 'work_mem'", None),
    ("select pg_advisory_unlock_all()", None),
    ("select 'é'", None),
]

PLPGSQL = [
    ("begin return 1; end", ()),
    ("declare x numeric(10, 2) := abs(1); begin if (x > 1) then return (2); end if; end", (b"if", b"return")),
    ("begin perform f(1); x := lower(g('a')); return h.i(1); end", (b"f", b"g", b"i")),
    ("begin update only a.b * as c set x = 1; insert into t values (1) on conflict do nothing; end", ()),
    (
        "begin insert into t values (1) on conflict (a) do update set (a, b) = (1, 2); end",
        (b"conflict", b"set"),
    ),
    ('begin update "T" set x = 1; end', ()),
    ("begin merge into t using u on a when matched then update set x = 1; end", ()),
    ("begin for r in select a, b from t loop raise notice '%', r.create; end loop; end", ()),
    ("begin perform set_config('a.b', 'c', true); end", ()),
    ("begin select 1 into x; return query select 'execute'; end", ()),
    ("begin perform f(1); exception when others then perform g(1); end", (b"f", b"g")),
    ("begin while f(x) loop x := x + 1; end loop; end", (b"f",)),
    ("begin raise exception using message = f(1); end", (b"f",)),
    ('begin perform "F"(1); end', (b"F",)),
    # Nothing is called so, or it is: the server says.
    ("begin return join(x); end", (b"join",)),
    ("begin x := raise(y) || assert(y); perform query(1); end", (b"raise", b"assert", b"query")),
    ("begin return case when a then insert(x) else next(y) end; end", (b"insert", b"next")),
    ("begin for i in 1..2 by slice(1) loop end loop; end", (b"slice",)),
    ("declare c cursor (a int) for select 1; begin open c(1); end", (b"cursor", b"c")),
    ("begin with a (b) as (select 1) select b into x from t as u (v); end", (b"a", b"u")),
    ("begin insert into t (a) values (1) returning a into strict x; end", (b"t",)),
    ("begin select a, b into x.y, z from f(1); end", (b"f",)),
    ("begin select set_config into x ('a.b', 'c', false); end", None),
    ("begin select f into strict x.y, z[1] (2); end", None),
    ("begin delete from t returning f into x (2); end", None),
    ("begin select a into " + "b, " * 100 + "b from t; end", None),
    ("begin select f into position (1); end", None),
    ("begin select f into r.limit, offset (1); end", None),
    ("begin return json_value(1); end", (b"json_value",)),
    ("begin perform set_config('a.b', 'c', false); end", None),
    ("begin set work_mem = '1MB'; end", None),
    ("begin if update then set work_mem = '1MB'; end if; end", None),
    ("begin update := 1; set work_mem = '1MB'; end", None),
    ("begin execute 'select 1'; end", None),
    ("begin for r in execute x loop end loop; end", None),
    ("begin return query execute x; end", None),
    ("begin open c for execute x; end", None),
    ("begin create table t (a int); end", None),
    ("begin reset work_mem; end", None),
    ("begin perform pg_advisory_lock(1); end", None),
    ("begin perform setseed(1); end", None),
    ("begin update pg_settings set setting = '1MB' where name = 'work_mem'; end", None),
    ("begin call p(1); end", None),
    ("begin do 'begin end'; end", None),
    ("begin listen a; end", None),
    ("begin prepare p as select 1; end", None),
    ("begin discard temp; end", None),
    ("begin load 'x'; end", None),
    ('begin return U&"\\0061"(1); end', None),
    ("begin return 'a\\'' || f(1); end", None),
    ("begin return 'é'; end", None),
]


@pytest.mark.parametrize(("body", "calls"), SQL)
def test_a_body_in_sql(body: str, calls: tuple[bytes, ...] | None) -> None:
    assert called_by(b"sql", body.encode()) == calls


@pytest.mark.parametrize(("body", "calls"), PLPGSQL)
def test_a_body_in_plpgsql(body: str, calls: tuple[bytes, ...] | None) -> None:
    assert called_by(b"plpgsql", body.encode()) == calls


@pytest.mark.parametrize("language", [b"c", b"internal", b"plpython3u", b""])
def test_a_body_in_another_language_may_leave_anything(language: bytes) -> None:
    assert called_by(language, b"select 1") is None


@pytest.mark.parametrize("language", [b"sql", b"plpgsql"])
def test_so_may_a_long_one(language: bytes) -> None:
    body = b"select 1 " + b" " * (LOOK - 9)
    assert called_by(language, body) == () and called_by(language, body + b" ") is None


LASTING = st.sampled_from(
    [
        "execute x",
        "set a.b = 1",
        "perform set_config('a.b', 'c', false)",
        "perform pg_try_advisory_lock(1)",
        "create temp table t ()",
        "reset all",
        "listen a",
    ]
)
PIECES = st.lists(
    st.sampled_from(
        [
            "x := 1;",
            "if a then",
            "else",
            "end if;",
            "loop",
            "end loop;",
            "perform f(1);",
            "update t set a = 1;",
            "begin",
            "end;",
            "-- it's\n",
            "/* ( */",
            "return 'a';",
            "select 1 into x;",
            "y := (select max(a) from t);",
            "case when a then",
            "$q$ ' $q$;",
            "<<a>>",
        ]
    ),
    max_size=8,
)


@given(PIECES, LASTING, PIECES)
def test_what_lasts_is_seen_wherever_it_stands(before: list[str], lasting: str, behind: list[str]) -> None:
    body = f"begin {' '.join(before)} {lasting}; {' '.join(behind)} end"
    assert called_by(b"plpgsql", body.encode()) is None
