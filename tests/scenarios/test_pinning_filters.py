"""What the owner excludes from following and pinning is lost when its transaction ends, and nobody else's."""

from __future__ import annotations

import pytest

from pgproxy.demo.postgres import Postgres
from tests.fix_pgproxy import Pgproxy, PgproxyFactory
from tests.raw import Raw


def player(proxy: Pgproxy) -> Raw:
    raw = Raw(proxy.port)
    raw.log_in(user="boss", database="app")
    return raw


EXCLUDED = {
    "temporary_object": (
        "create temp table filtered_away ()",
        "select count(*) from pg_class where relname = 'filtered_away'",
        "0",
    ),
    "advisory_lock": (
        "select pg_advisory_lock(7)",
        "select count(*) from pg_locks where locktype = 'advisory'",
        "0",
    ),
    "listen": ("listen news", "select count(*) from pg_listening_channels()", "0"),
    "held_cursor": (
        "begin; declare c cursor with hold for select 1; commit",
        "select count(*) from pg_cursors",
        "0",
    ),
    "sql_statement": ("prepare p as select 1", "select count(*) from pg_prepared_statements", "0"),
    "work_mem": ("set work_mem = '9MB'", "show work_mem", "4MB"),
    "My.Tenant": (
        "set my.tenant = '7'",
        "select coalesce(nullif(current_setting('my.tenant', true), ''), 'none')",
        "none",
    ),
}


@pytest.mark.parametrize("filtered", EXCLUDED)
def test_what_is_excluded_is_lost_and_cleaned(
    pgproxy: PgproxyFactory, postgres: Postgres, filtered: str
) -> None:
    leave, look, clean = EXCLUDED[filtered]
    proxy = pgproxy(
        server=postgres,
        pool_size=1,
        auth="trust",
        proxy={"session_pinning_filters": [filtered], "connection_borrow_timeout": 2},
    )
    with player(proxy) as one, player(proxy) as other:
        one.query(leave)
        assert other.value(look) == clean
        assert one.value(look) == clean
        one.query("set statement_timeout = '9s'")
        assert one.value("show statement_timeout") == "9s"
        assert other.value("show statement_timeout") == "0"
    assert not [event for event in proxy.log() if event["event"] == "client_pinned"]


@pytest.mark.parametrize("filtered", ["library_loaded", "seed"])
def test_what_no_cleaning_undoes_costs_the_server(
    pgproxy: PgproxyFactory, postgres: Postgres, filtered: str
) -> None:
    proxy = pgproxy(server=postgres, pool_size=1, auth="trust", proxy={"session_pinning_filters": [filtered]})
    with player(proxy) as one, player(proxy) as other:
        before = one.value("select pg_backend_pid()")
        one.query("load 'plpgsql'" if filtered == "library_loaded" else "select setseed(0.5)")
        assert other.value("select pg_backend_pid()") != before
    assert proxy.closings() == ["lasting_state"]


def test_they_are_on_record(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(
        server=postgres, pool_size=1, auth="trust", proxy={"session_pinning_filters": ["listen", "work_mem"]}
    )
    event = proxy.await_event("pinning_filters_in_force")
    assert event["level"] == "warning" and event["filters"] == ["listen", "work_mem"]


def test_the_figures_of_pins_are_logged(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(server=postgres, pool_size=2, auth="trust")
    with player(proxy) as one:
        one.query("listen news")
        one.query("unlisten news")
        one.query("select pg_advisory_lock(7), 'a secret'")
        one.query("select 1")
        proxy.stop()
    (event,) = [event for event in proxy.log() if event["event"] == "pins"]
    assert event["reasons"]["listen"]["pins"] == 1 and event["reasons"]["listen"]["now"] == 0
    assert event["reasons"]["advisory_lock"]["pins"] == 1
    assert "a secret" not in proxy.text()
