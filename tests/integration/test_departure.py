"""A client that goes while its server works: the server counts until it has stopped, and does stop."""

from __future__ import annotations

import time

import pytest

from pgproxy.demo.postgres import Postgres
from tests.fix_pgproxy import Pgproxy, PgproxyFactory
from tests.raw import TERMINATE, Raw, bind, execute, extended, message, parse


@pytest.fixture(scope="module", params=["transaction", "session"])
def proxy(pgproxy_of_module: PgproxyFactory, postgres: Postgres, request: pytest.FixtureRequest) -> Pgproxy:
    return pgproxy_of_module(server=postgres, pool_mode=request.param, pool_size=1, auth="trust")


def app(proxy: Pgproxy) -> Raw:
    raw = Raw(proxy.port)
    raw.log_in(user="boss", database="app")
    return raw


def working(postgres: Postgres) -> int:
    """Say how many servers of ours work on what these tests have asked for."""
    ((number,),) = postgres.execute(
        "select count(*) from pg_stat_activity where state = 'active' and query like '%departure%'"
        " and pid <> pg_backend_pid()"
    )
    return int(number)


def await_work(postgres: Postgres) -> None:
    for _ in range(500):
        if working(postgres):
            return
        time.sleep(0.02)
    raise AssertionError("the statement doesn't run")


def query(text: str) -> bytes:
    return message("Q", text.encode() + b"\0")


SLEEP = "select pg_sleep(600) /* departure */"
LEAVE_AT_WORK = {
    "without a word": query(SLEEP),
    "with more behind it": query(SLEEP) * 3,
    "in the middle of a message": query(SLEEP) + query("select 1")[:9],
    "in the middle of a message, with more behind it": query(SLEEP) * 3 + query("select 1")[:9],
    "in the middle of a batch": extended(SLEEP),
    "in the middle of a batch and of a message": extended(SLEEP) + parse("select 1")[:9],
    "behind an open batch": extended("select 1") + query(SLEEP),
    "in the middle of a COPY": query("copy slow from stdin /* departure */") + message("d", b"1\n"),
    "in the middle of a COPY's data": query("copy slow from stdin /* departure */")
    + message("d", b"1\n")
    + message("d", b"2222222\n")[:8],
}


@pytest.fixture
def slow_table(postgres: Postgres) -> None:
    postgres.execute(
        "drop table if exists slow",
        "create table slow (a int)",
        "create or replace function sleep() returns trigger language plpgsql"
        " as 'begin perform pg_sleep(600); return new; end'",
        "create trigger sleeps before insert on slow for each row execute function sleep()",
        dbname="app",
    )


@pytest.mark.parametrize("said", LEAVE_AT_WORK.values(), ids=LEAVE_AT_WORK.keys())
def test_no_server_works_on_beside_the_pool(
    proxy: Pgproxy, postgres: Postgres, slow_table: None, said: bytes
) -> None:
    """Whoever gets the one place of the pool is alone."""
    for _ in range(3):
        with app(proxy) as raw:
            raw.send(said)
            await_work(postgres)
        with app(proxy) as later:
            assert later.value("select 1") == "1"
            assert working(postgres) == 0


def test_a_server_that_a_polite_client_leaves_in_doubt_counts_until_it_has_stopped(
    proxy: Pgproxy, postgres: Postgres
) -> None:
    before = len(proxy.closings())
    postgres.execute("drop table if exists done", "create table done (a int)", dbname="app")
    insert = "insert into done select 1 from pg_sleep(1) /* departure */"
    with app(proxy) as raw:
        raw.send(extended("select 1"), query(insert), TERMINATE)
        await_work(postgres)
    with app(proxy) as later:
        assert later.value("select count(*) from done") == "1"
        assert working(postgres) == 0
    assert proxy.closings()[before:] == ["irregular"]


def test_a_statement_of_a_polite_client_is_done(proxy: Pgproxy, postgres: Postgres) -> None:
    postgres.execute("drop table if exists done", "create table done (a int)", dbname="app")
    say = "do $$ begin raise notice 'departure'; perform pg_sleep(1); insert into done values (1); end $$"
    with app(proxy) as raw:
        raw.send(query(say), query("insert into done values (2)"), TERMINATE)
    with app(proxy) as later:
        assert later.value("select count(*) from done") == "2"


@pytest.mark.parametrize(
    "endless",
    [
        "select generate_series(1, 1000000000000) /* departure */",
        "copy (select generate_series(1, 1000000000000)) to stdout /* departure */",
    ],
)
def test_a_result_for_a_polite_client_that_has_gone_ends(
    proxy: Pgproxy, postgres: Postgres, endless: str
) -> None:
    with app(proxy) as raw:
        raw.send(query(endless))
        assert raw.message()[0] in "TH"
        raw.send(TERMINATE)
    with app(proxy) as later:
        assert later.value("select 1") == "1"
        assert working(postgres) == 0


@pytest.mark.parametrize("goodbye", [b"", TERMINATE], ids=["without a word", "politely"])
def test_what_was_not_complete_is_not_committed(proxy: Pgproxy, postgres: Postgres, goodbye: bytes) -> None:
    """Without its Sync a batch is undone, as directly."""
    postgres.execute("drop table if exists done", "create table done (a int)", dbname="app")
    with app(proxy) as raw:
        raw.send(parse("insert into done values (1)"), bind(), execute(), message("H"))
        raw.until("C")
        raw.send(goodbye)
    with app(proxy) as later:
        assert later.value("select count(*) from done") == "0"
