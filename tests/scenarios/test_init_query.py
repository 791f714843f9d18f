"""`init_query`: what it sets is what every client begins with, whoever was there before."""

from __future__ import annotations

import time
from typing import Any

import pytest

from pgproxy.demo.postgres import Postgres
from pgproxy.demo.process import wait_until
from pgproxy.wire import messages
from tests.faults import Relay
from tests.fix_pgproxy import WORKERS, Pgproxy, PgproxyFactory
from tests.fix_postgres import PASSWORDS
from tests.raw import SYNC, Raw, bind, client, execute, message, parse, startup

INIT = "set work_mem = '7MB'; select set_config('my.tenant', 'nobody', false); set datestyle = 'german'"
SEEN = (
    "select concat_ws(',', current_setting('work_mem'), current_setting('my.tenant'),"
    " current_setting('DateStyle'))"
)
BEGINS = "7MB,nobody,German, DMY"


def start(
    pgproxy: PgproxyFactory,
    init_query: str = INIT,
    pool_size: int = 1,
    mode: str = "transaction",
    **more: Any,
) -> Pgproxy:
    target = {"tls": "disable", "init_query": init_query}
    return pgproxy(pool_size=pool_size, pool_mode=mode, auth="trust", users=PASSWORDS, target=target, **more)


def refused(proxy: Pgproxy, **settings: str) -> dict[str, str]:
    with Raw(proxy.port) as raw:
        raw.send(startup(protocol=3 << 16, user="app", database="app", **settings))
        fields = raw.error()
        assert fields["S"] == "FATAL" and raw.ended()
        return fields


def failures(proxy: Pgproxy) -> list[tuple[str, str, bool]]:
    return [
        (event["stage"], event["scope"], event["passing"])
        for event in proxy.log()
        if event["event"] == "server_open_failed"
    ]


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_every_client_begins_with_it(pgproxy: PgproxyFactory, mode: str) -> None:
    proxy = start(pgproxy, mode=mode)
    for _ in range(3):
        with Raw(proxy.port) as raw:
            reported = raw.log_in()
            assert reported["DateStyle"] == "German, DMY"
            assert raw.value(SEEN) == BEGINS
            raw.query("set work_mem = '9MB'; set my.tenant = 'somebody'; set datestyle = 'iso'")
            assert raw.value(SEEN) == "9MB,somebody,ISO, DMY"
            raw.send(message("X"))
            assert raw.ended()


RESETS = {
    "reset": "reset work_mem; reset my.tenant; reset datestyle",
    "reset all": "reset all",
    "discard all": "discard all",
    "set to default": "set work_mem to default; set my.tenant to default; set datestyle to default",
}


@pytest.mark.parametrize("reset", RESETS.values(), ids=RESETS.keys())
def test_a_client_that_resets_comes_back_to_it(pgproxy: PgproxyFactory, reset: str) -> None:
    proxy = start(pgproxy)
    with client(proxy.port) as one, client(proxy.port) as other:
        one.query("set work_mem = '9MB'; set my.tenant = 'somebody'; set datestyle = 'iso'")
        assert other.value(SEEN) == BEGINS
        assert one.value(SEEN) == "9MB,somebody,ISO, DMY"
        one.query(reset)
        assert other.value(SEEN) == BEGINS
        assert one.value(SEEN) == BEGINS
        # Nobody else in between: the same server, and the next transaction.
        one.query(reset)
        assert one.value(SEEN) == BEGINS
    assert not proxy.closings()


def test_what_a_client_sets_itself_is_its_own(pgproxy: PgproxyFactory) -> None:
    """Even the value that the server would have without."""
    proxy = start(pgproxy)
    with client(proxy.port) as one, client(proxy.port) as other:
        one.query("select set_config('work_mem', reset_val, false) from pg_settings where name = 'work_mem'")
        assert other.value("show work_mem") == "7MB"
        assert one.value("show work_mem") == "4MB"
        one.query("set work_mem = '4MB'")
        assert other.value("show work_mem") == "7MB"
        assert one.value("show work_mem") == "4MB"


def test_within_a_transaction_a_reset_shows_what_is_underneath(pgproxy: PgproxyFactory) -> None:
    proxy = start(pgproxy)
    with client(proxy.port) as one:
        one.query("begin; reset work_mem")
        assert one.value("show work_mem") == "4MB"
        one.query("commit")
        assert one.value("show work_mem") == "7MB"


def test_a_pinned_client_that_resets(pgproxy: PgproxyFactory) -> None:
    proxy = start(pgproxy)
    with client(proxy.port) as one:
        one.query("create temp table t (a int)")
        one.query("reset all")
        assert one.value(SEEN) == BEGINS
        one.query("discard all")
        assert one.value(SEEN) == BEGINS


def test_what_is_said_with_a_farewell_is_done(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    """Although it has to wait until the server is as it was at the beginning."""
    postgres.execute("drop table if exists init_done", "create table init_done (a text)", dbname="app")
    postgres.execute("grant all on init_done to app", dbname="app")
    proxy = start(pgproxy)
    with client(proxy.port) as one:
        one.query("reset all")
        one.send(messages.query("insert into init_done values (current_setting('work_mem'))"), message("X"))
    done = "select a from init_done"
    assert wait_until(lambda: postgres.execute(done, dbname="app") == [("7MB",)], 30)


def test_a_pipeline_behind_a_reset(pgproxy: PgproxyFactory) -> None:
    """What does not wait for the answer to a RESET may find what is underneath; the next does not."""
    proxy = start(pgproxy)
    with client(proxy.port) as one:
        one.send(messages.query("reset work_mem"), messages.query("select 1"), messages.query("select 2"))
        assert [one.tags() for _ in range(3)] == ["CZ", "TDCZ", "TDCZ"]
        assert one.value("show work_mem") == "7MB"


def test_a_role(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    postgres.execute("drop role if exists init_clerk", "create role init_clerk", "grant init_clerk to app")
    proxy = start(pgproxy, "set role init_clerk")
    with client(proxy.port) as one, client(proxy.port) as other:
        assert one.value("select current_user") == "init_clerk"
        one.query("set role none")
        assert other.value("select current_user") == "init_clerk"
        one.query("set role app")
        assert other.value("select current_user") == "init_clerk"
        assert one.value("select current_user") == "app"
        one.query("discard all")
        assert one.value("select current_user") == "init_clerk"
    with client(proxy.port) as after:
        assert after.value("select current_user") == "init_clerk"


def test_a_client_that_is_cleaned_away(pgproxy: PgproxyFactory) -> None:
    """After our own DISCARD ALL it is run again, on the same server."""
    proxy = start(pgproxy)
    pids = set()
    for _ in range(2):
        with client(proxy.port) as raw:
            assert raw.value(SEEN) == BEGINS
            pids.add(raw.value("select pg_backend_pid()"))
            raw.query("begin; set work_mem = '9MB'; create temp table t (a int)")
        with client(proxy.port) as raw:
            assert raw.value(SEEN) == BEGINS
            raw.query("create temp table t (a int)")
            raw.send(message("X"))
    with client(proxy.port) as raw:
        assert raw.value(SEEN) == BEGINS
        pids.add(raw.value("select pg_backend_pid()"))
    assert not proxy.closings()
    assert len(pids) == 1 or WORKERS > 1


def test_opaque_code_that_sets(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    """A server of which more may be set than is known is reset, and begins anew."""
    postgres.execute(
        "create or replace function init_secretly() returns void language plpgsql as"
        " $$ begin perform set_config('my' || '.hidden', 'x', false); end $$",
        "grant execute on function init_secretly to app",
        dbname="app",
    )
    proxy = start(pgproxy)
    with client(proxy.port) as one, client(proxy.port) as other:
        one.query("select init_secretly()")
        assert other.value(SEEN) == BEGINS
        assert one.value(SEEN) == BEGINS


def test_a_function_that_sets(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    postgres.execute(
        "create or replace function init_tenant() returns void language plpgsql as"
        " $$ begin perform set_config('init.tenant', 'x', false); set work_mem = '5MB'; end $$",
        dbname="app",
    )
    proxy = start(pgproxy, "select init_tenant()")
    seen = "select concat(current_setting('init.tenant'), current_setting('work_mem'))"
    with client(proxy.port) as one, client(proxy.port) as other:
        one.query("set init.tenant = 'y'; set work_mem = '6MB'")
        assert other.value(seen) == "x5MB"
        assert one.value(seen) == "y6MB"


@pytest.mark.parametrize("named", [False, True])
def test_prepared_statements_know_the_settings(pgproxy: PgproxyFactory, named: bool) -> None:
    proxy = start(pgproxy, "set search_path = pg_catalog; set datestyle = 'german'")
    name = "s" if named else ""
    with client(proxy.port) as one, client(proxy.port) as other:
        one.send(parse("select date '2020-02-01'", name), bind(name), execute(), SYNC)
        assert b"01.02.2020" in dict(one.until("Z"))["D"]
        other.query("set datestyle = 'iso'")
        one.send(parse("select date '2020-02-01'", name), bind(name), execute(), SYNC) if not named else (
            one.send(bind(name), execute(), SYNC)
        )
        assert b"01.02.2020" in dict(one.until("Z"))["D"]


def test_the_database_goes_before_the_target(pgproxy: PgproxyFactory) -> None:
    databases = "".join(
        f'[databases.{name}]\nname = "app"\n{line}\n'
        for name, line in {
            "app": "",
            "other": "init_query = \"set work_mem = '3MB'\"",
            "none": 'init_query = ""',
        }.items()
    )
    proxy = start(pgproxy, extra=databases)
    for name, value in {"app": "7MB", "other": "3MB", "none": "4MB"}.items():
        with client(proxy.port, database=name) as raw:
            assert raw.value("show work_mem") == value


def test_a_reload(pgproxy: PgproxyFactory) -> None:
    """Who is there keeps what it began with; who comes gets the new one."""
    proxy = start(pgproxy, "set work_mem = '7MB'")
    with client(proxy.port) as old:
        assert old.value("show work_mem") == "7MB"
        config = (proxy.directory / "pgproxy.toml").read_text()
        proxy.write_config(config.replace("7MB", "8MB"))
        proxy.reload()
        assert wait_until(lambda: proxy.closings() == ["init_query_changed"], 30)
        with client(proxy.port) as new:
            assert new.value("show work_mem") == "8MB"
            assert old.value("show work_mem") == "7MB"
            old.query("reset work_mem")
            assert old.value("show work_mem") == "8MB"


def test_a_walsender_does_not_run_it(pgproxy: PgproxyFactory) -> None:
    proxy = start(pgproxy, "set no.such = 1; nonsense")
    with Raw(proxy.port) as raw:
        raw.log_in(replication="database")
        assert raw.value("show work_mem") == "4MB"


# Failures.


def test_an_error(pgproxy: PgproxyFactory) -> None:
    proxy = start(pgproxy, "set work_mem = '7MB'; set nonsense = 1")
    fields = refused(proxy)
    assert fields["C"] == "42704" and "nonsense" in fields["M"] and "init_query" in fields["H"]
    assert failures(proxy) == [("init_query", "parameters", False)]


UNFIT = {
    "copy in": ("copy init_t from stdin", "COPY"),
    "copy out": ("copy (select 1) to stdout", "COPY"),
    "a transaction": ("begin; set work_mem = '7MB'", "transaction open"),
    "listen": ("listen a", "listen"),
    "a temporary table": ("create temp table a (b int)", "temporary_object"),
    "a prepared statement": ("prepare a as select 1", "sql_statement"),
    "a lock": ("select pg_advisory_lock(1)", "advisory_lock"),
    "a cursor": ("begin; declare a cursor with hold for select 1; commit", "held_cursor"),
}


@pytest.mark.parametrize(("init_query", "why"), UNFIT.values(), ids=UNFIT.keys())
def test_what_it_must_not_do(pgproxy: PgproxyFactory, postgres: Postgres, init_query: str, why: str) -> None:
    postgres.execute("create table if not exists init_t (a int)", "grant all on init_t to app", dbname="app")
    proxy = start(pgproxy, init_query)
    fields = refused(proxy)
    assert fields["C"] == "08001" and fields["M"] == 'init_query has failed in database "app"'
    assert why in fields["D"]
    assert failures(proxy) == [("init_query", "parameters", False)]


def test_one_that_does_not_end(pgproxy: PgproxyFactory) -> None:
    waits = {"connect_timeout": 0.5, "connection_borrow_timeout": 1}
    proxy = start(pgproxy, "select pg_sleep(600)", proxy=waits)
    fields = refused(proxy)
    assert fields["C"] == "08000" and "while waiting for the end of init_query" in fields["D"]
    assert set(failures(proxy)) == {("init_query", "parameters", True)}


def test_rows_and_notices_are_of_no_interest(pgproxy: PgproxyFactory) -> None:
    proxy = start(
        pgproxy,
        "select generate_series(1, 20000); do $$ begin raise notice 'x'; end $$; ; set work_mem = '7MB'",
    )
    with client(proxy.port) as raw:
        assert raw.value("show work_mem") == "7MB"


def test_one_that_fails_after_a_cleaning(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    """The server is closed, and who waits gets what a new one says."""
    postgres.execute("drop table if exists init_once", "create table init_once (a text)", dbname="app")
    postgres.execute("insert into init_once values ('7MB')", "grant all on init_once to app", dbname="app")
    proxy = start(pgproxy, "select set_config('work_mem', (select a from init_once), false)", mode="session")
    with client(proxy.port) as raw:
        assert raw.value("show work_mem") == "7MB"
        postgres.execute("update init_once set a = 'much'", dbname="app")
    assert wait_until(lambda: proxy.closings() == ["init_query_failed"], 30)
    assert [event["sqlstate"] for event in proxy.log() if event["event"] == "init_query_failed"] == ["22023"]
    assert refused(proxy)["C"] == "22023"
    postgres.execute("update init_once set a = '6MB'", dbname="app")
    # For a moment those who come are told what was wrong.
    time.sleep(0.3)
    with client(proxy.port) as raw:
        assert raw.value("show work_mem") == "6MB"


def test_one_whose_answer_makes_no_sense(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    with Relay(postgres.port) as relay:
        relay.fault = lambda data: b"K\0\0\0\x0cabcdefgh" if b"init_marker" in data else data
        proxy = pgproxy(
            server=relay,
            auth="trust",
            target={"tls": "disable", "init_query": "select 'init_marker'"},
        )
        fields = refused(proxy)
        assert "broke the protocol" in fields["D"]
        assert failures(proxy) == [("init_query", "parameters", False)]
