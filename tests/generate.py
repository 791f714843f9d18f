"""Random programs of SQL: what a client may do next, for hypothesis to choose from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
from hypothesis import strategies as st

from tests.answers import tell
from tests.raw import (
    SYNC,
    bind,
    close_portal,
    close_statement,
    describe,
    describe_statement,
    execute,
    extended,
    parse,
)

SETUP = """
create table t (a int);
create sequence q;
create schema s1;
create schema s2;
create table s1.v as select 's1' x;
create table s2.v as select 's2' x;
grant usage on schema s1, s2 to app;
grant select on s1.v to app;
grant insert, select on t to app;
create function setter(text, text, bool) returns text language plpgsql as
  $$ begin return set_config($1, $2, $3); end $$;
create procedure committer(text) language plpgsql as
$$ begin
  perform set_config('my.x', $1, false); commit;
  perform set_config('my.x', 'no', false); rollback;
end $$
"""
"""What all programs find, in both databases."""


@attrs.frozen(repr=False)
class Move:
    """Something that a client does. `pins` says that it may have itself pinned by it."""

    client: str
    data: str | bytes
    pins: bool = False

    def __repr__(self) -> str:
        return f"<{self.client}: {tell(self.data)}>"


@attrs.frozen
class Act:
    """What clients do in turn. What may pin has users, so pools, of its own: it bears on no other act."""

    user: str
    moves: list[Move]


NAMES = ("", "s1", "p1")
"""Of prepared statements; SQL may prepare p1, too, where it may pin."""

SETTINGS = {
    "work_mem": ("'5MB'", "6144", "'1GB'", "default", "'much'"),
    "timezone": ("'CET'", "'Asia/Kolkata'", "-3.5", "default"),
    "datestyle": ("'german'", "'sql, dmy'", "'iso'", "default"),
    "search_path": ("s1", "s2, public", "s2, s1", "''", "default"),
    "application_name": ("'it''s'", "'é'", "''", "default"),
    "my.x": ("1", "'two words'", "'a\\b'", "''", "default"),
    "bytea_output": ("escape", "hex"),
    "default_transaction_isolation": ("'repeatable read'", "default"),
    "standard_conforming_strings": ("off", "on"),
    "client_min_messages": ("error", "notice"),
}
ROLES = (
    "set role app",
    "set role none",
    "set session authorization app",
    "reset session authorization",
    "set session authorization other",
    "set local role other",
    "reset role",
)
LOOKS = (
    "show work_mem",
    "select nullif(current_setting('my.x', true), '')",
    "select session_user, current_user, current_setting('role')",
    "show search_path",
    "select timestamptz '2001-02-03 04:05+00', current_setting('timezone')",
    "show application_name",
    "select x from v",
    "select '\\x41'::bytea",
    "select count(*) from t",
    "show transaction_isolation",
    "select objid, mode from pg_locks where locktype = 'advisory' and pid = pg_backend_pid() order by 1, 2",
)
TRANSACTIONS = (
    "begin",
    "begin",
    "begin; savepoint s",
    "commit",
    "commit",
    "commit",
    "rollback",
    "rollback to s",
    "release s",
    "commit and chain",
    "begin read only",
)
REST = (
    "select 1 / 0",
    "selec",
    "insert into t values (1)",
    "insert into t select generate_series(1, 3)",
    "select pg_advisory_xact_lock(%(own)s)",
    "select pg_try_advisory_xact_lock(1)",
    "select pg_try_advisory_xact_lock_shared(1)",
    "create table own_%(client)s (a int)",
    "drop table own_%(client)s",
    "insert into own_%(client)s values (1) returning a",
    "begin; create temp table gone (a int) on commit drop; commit",
    "begin; declare short cursor for select generate_series(1, 3); fetch 2 from short; commit",
    "do $$ begin raise notice 'noticed'; end $$",
    "notify c1, 'it''s'",
    "select pg_notify('c2', 'by %(client)s')",
    "unlisten *",
    "close all",
    "deallocate all",
    "discard all",
    "discard plans",
    "reset all",
    "call committer('7')",
    "select pg_advisory_unlock(1)",
    "",
)
FAMILIES: dict[str, tuple[str, ...]] = {
    "temporary": (
        "create temp table tt (a int)",
        "create temp table tt as select 7 a",
        "do $$ begin create temp table tt (a int); end $$",
        "insert into tt values (1) returning a",
        "table tt",
        "table tt",
        "drop table tt",
        "discard temp",
    ),
    "cursors": (
        "declare c cursor with hold for select generate_series(1, 4)",
        "declare c cursor with hold for select x from v",
        "begin; declare c cursor with hold for select generate_series(1, 4)",
        "fetch 2 from c",
        "fetch 2 from c",
        "move backward 1 from c",
        "close c",
    ),
    "locks": (
        "select pg_try_advisory_lock(1)",
        "select pg_try_advisory_lock(2), pg_try_advisory_lock(2)",
        "select pg_try_advisory_lock_shared(1)",
        "do $$ begin perform pg_try_advisory_lock(3); end $$",
        "select pg_advisory_unlock(1)",
        "select pg_advisory_unlock(2)",
        "select pg_advisory_unlock_shared(1)",
        "select pg_advisory_unlock_all()",
    ),
    "channels": (
        "listen c1",
        "listen c1",
        "listen c2",
        "unlisten c1",
        "notify c1, 'again'",
        "select pg_notify('c2', current_user)",
        "select * from pg_listening_channels() order by 1",
    ),
    "sequences": (
        "select nextval('q')",
        "select nextval('q')",
        "select currval('q')",
        "select currval('q')",
        "select lastval()",
        "select setval('q', 50)",
        "discard sequences",
    ),
    "prepared": (
        "prepare p1 as select 'prepared', current_setting('work_mem')",
        "prepare p1 as insert into t values (5) returning a",
        "prepare p2 (int) as select $1 + 1",
        "execute p1",
        "execute p1",
        "execute p2 (1)",
        "execute s1",
        "deallocate p1",
        "deallocate s1",
    ),
}
"""What may pin, by what it has to do with each other: a program is about two of these."""

TEXTS = (
    "select 1",
    "select current_setting('work_mem')",
    "select x from v",
    "select generate_series(1, 5)",
    "insert into t values (7)",
    "set work_mem = '7MB'",
    "select set_config('my.x', 'prepared', false)",
    "select 1 / (select count(*) from t where a = 99)",
    "select nothing",
    "begin",
    "commit",
    "",
)
"""Of statements without parameters, to be prepared."""


def _set(draw: st.DrawFn) -> str:
    name = draw(st.sampled_from(sorted(SETTINGS)))
    value = draw(st.sampled_from(SETTINGS[name]))
    how = draw(st.sampled_from(("set", "set", "set local", "reset", "select", "do", "function", "local")))
    text = "null" if value == "default" else value if value.startswith("'") else f"'{value}'"
    if name == "search_path" and how not in ("set", "set local"):
        text = f"'{value}'" if value not in ("default", "''") else text
    match how:
        case "set" | "set local":
            return f"{how} {name} = {value}" if name != "timezone" else f"{how} time zone {value}"
        case "reset":
            return f"reset {name}"
        case "select":
            return f"select set_config('{name}', {text}, false)"
        case "local":
            return f"select set_config('{name}', {text}, true)"
        case "do":
            return f"do $$ begin perform set_config('{name}', {text}, false); end $$"
        case _:
            return f"select setter('{name}', {text}, false)"


def _sql(draw: st.DrawFn, client: str, pins: Sequence[str]) -> str:
    kinds: Sequence[Callable[[], str]] = [
        lambda: _set(draw),
        lambda: draw(st.sampled_from(ROLES)),
        lambda: draw(st.sampled_from(LOOKS)),
        lambda: draw(st.sampled_from(TRANSACTIONS)),
        lambda: draw(st.sampled_from(REST)) % {"client": client, "own": ord(client)},
        lambda: draw(st.sampled_from(pins)),
    ]
    weights = (0, 0, 0, 1, 2, 2, 3, 3, 4, 4, *((5,) * 8 if pins else ()))
    text: str = kinds[draw(st.sampled_from(weights))]()
    return text


def _piece(draw: st.DrawFn, client: str, pins: Sequence[str], texts: Sequence[str]) -> bytes:
    """Draw a piece of a pipeline."""
    name = draw(st.sampled_from(NAMES if pins else NAMES[:-1]))
    portal = draw(st.sampled_from(("", "", "r1")))
    match draw(st.sampled_from(("parse", "parse", "run", "run", "run", "sql", "sql", "look", "rare"))):
        case "parse":
            # Mostly behind a Close: a name that is taken is an error.
            again = close_statement(name) if name and draw(st.sampled_from((True, True, False))) else b""
            return again + parse(draw(st.sampled_from(texts)), name)
        case "run":
            return bind(name, portal) + execute(portal, draw(st.sampled_from((0, 0, 2))))
        case "sql":
            return extended(_sql(draw, client, pins))
        case "look":
            return describe_statement(name)
    rare = (close_statement(name), close_portal(portal), describe(portal), execute(portal), SYNC)
    return draw(st.sampled_from(rare))


@st.composite
def acts(draw: st.DrawFn, clients: str = "abc") -> Act:
    """Draw what some clients do, of which some may have themselves pinned."""
    pinning = draw(st.sampled_from(("", clients, clients[:1])))
    families = draw(st.lists(st.sampled_from(sorted(FAMILIES)), min_size=1, max_size=2, unique=True))
    texts = draw(st.lists(st.sampled_from(TEXTS), min_size=2, max_size=4, unique=True))
    user = "chief" if pinning else "boss"
    if pinning and "sequences" in families:
        # Where somebody asks for a sequence's last value, whoever inserts a row may be pinned.
        pinning, user = clients, "counter"
    statements = tuple(statement for family in families for statement in FAMILIES[family])

    def move() -> Move:
        client = draw(st.sampled_from(clients))
        pins = statements if client in pinning else ()
        data: str | bytes
        if draw(st.sampled_from((True, True, False))):
            size = draw(st.sampled_from((1, 1, 1, 1, 2, 3)))
            data = "; ".join(_sql(draw, client, pins) for _ in range(size))
        else:
            size = draw(st.sampled_from((1, 2, 2, 3, 4)))
            data = b"".join(_piece(draw, client, pins, texts) for _ in range(size)) + SYNC
        return Move(client, data, bool(pins))

    return Act(user, [move() for _ in range(draw(st.integers(8, 30)))])
