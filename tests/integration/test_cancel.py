"""Cancel requests reach what the client has under way, and nothing else."""

from __future__ import annotations

import time

import pytest

from pgproxy.demo.postgres import Postgres
from pgproxy.wire.startup import cancel_request
from tests.activity import running
from tests.fix_pgproxy import Pgproxy, PgproxyFactory
from tests.raw import SYNC, TERMINATE, Raw, extended, message


@pytest.fixture(scope="module", params=["transaction", "session"])
def proxy(pgproxy_of_module: PgproxyFactory, postgres: Postgres, request: pytest.FixtureRequest) -> Pgproxy:
    return pgproxy_of_module(server=postgres, pool_mode=request.param, pool_size=2, auth="trust")


def app(proxy: Pgproxy) -> Raw:
    raw = Raw(proxy.port)
    raw.log_in(user="boss", database="app")
    return raw


def cancel(proxy: Pgproxy, key: bytes) -> None:
    with Raw(proxy.port) as raw:
        raw.send(cancel_request(int.from_bytes(key[:4], "big"), key[4:]))
        assert raw.ended()


def test_a_query_under_way(proxy: Pgproxy, postgres: Postgres) -> None:
    with app(proxy) as raw:
        raw.send(message("Q", b"select pg_sleep(600) /* under way */\0"))
        running(postgres, "under way */")
        cancel(proxy, raw.key)
        assert raw.error()["C"] == "57014"
        raw.until("Z")
        assert raw.value("select 1") == "1"


def test_psycopg_cancels(proxy: Pgproxy, postgres: Postgres) -> None:
    import threading

    import psycopg

    with psycopg.connect(proxy.dsn(user="boss", dbname="app"), autocommit=True) as connection:

        def cancel_it() -> None:
            running(postgres, "psycopg */")
            connection.cancel_safe()

        threading.Thread(target=cancel_it).start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("select pg_sleep(600) /* psycopg */")
        assert connection.execute("select 1").fetchone() == (1,)


def test_an_idle_client_has_nothing_to_cancel(pgproxy_of_module: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy_of_module(server=postgres, pool_mode="transaction", pool_size=1, auth="trust")
    with app(proxy) as idle, app(proxy) as busy:
        assert idle.value("select 1") == "1"
        busy.send(message("Q", b"select pg_sleep(1)\0"))
        time.sleep(0.2)
        for _ in range(5):
            cancel(proxy, idle.key)
        assert busy.tags() == "TDCZ"


@pytest.mark.parametrize("key", [b"\0\0\0\1abcd", b"\0\0\0\0\0\0\0\0", b"\0\0\0\1" + b"x" * 200])
def test_a_key_that_nobody_has(proxy: Pgproxy, key: bytes) -> None:
    cancel(proxy, key)


def test_a_wrong_secret_for_a_right_pid(proxy: Pgproxy) -> None:
    with app(proxy) as raw:
        raw.send(message("Q", b"select pg_sleep(0.5)\0"))
        time.sleep(0.1)
        cancel(proxy, raw.key[:4] + b"none")
        assert raw.tags() == "TDCZ"


def test_cancels_never_hit_the_next_client(pgproxy_of_module: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy_of_module(server=postgres, pool_mode="transaction", pool_size=1, auth="trust")
    with app(proxy) as careless, app(proxy) as innocent:
        for _ in range(60):
            careless.send(message("Q", b"select pg_sleep(0.002)\0"))
            with Raw(proxy.port) as raw:
                raw.send(cancel_request(int.from_bytes(careless.key[:4], "big"), careless.key[4:]))
                innocent.send(message("Q", b"select pg_sleep(0.003)\0"))
                assert innocent.tags() == "TDCZ"
                assert raw.ended()
            careless.until("Z")


WAITING = {
    "a query": (message("Q", b"select 1\0"), "EZ"),
    "a batch": (extended("select 1") + SYNC, "EZ"),
    "the first of two queries": (message("Q", b"select 1\0") + message("Q", b"select 2\0"), "EZTDCZ"),
    "a query with a goodbye behind it": (message("Q", b"select 1\0") + TERMINATE, "EZ"),
}


@pytest.mark.parametrize(("said", "answers"), WAITING.values(), ids=WAITING.keys())
def test_what_waits_for_a_server(
    pgproxy_of_module: PgproxyFactory, postgres: Postgres, said: bytes, answers: str
) -> None:
    proxy = pgproxy_of_module(server=postgres, pool_mode="transaction", pool_size=1, auth="trust")
    with app(proxy) as holder, app(proxy) as waits:
        holder.query("begin")
        waits.send(said)
        time.sleep(0.2)
        cancel(proxy, waits.key)
        assert waits.error()["C"] == "57014"
        assert waits.message()[0] == "Z"
        holder.query("commit")
        if answers[2:]:
            assert waits.tags() == answers[2:]
        if said.endswith(TERMINATE):
            assert waits.ended()
        else:
            assert waits.value("select 3") == "3"
        assert holder.value("select 4") == "4"


def test_what_waits_for_a_server_and_is_not_whole_is_not_cancelled(
    pgproxy_of_module: PgproxyFactory, postgres: Postgres
) -> None:
    proxy = pgproxy_of_module(server=postgres, pool_mode="transaction", pool_size=1, auth="trust")
    with app(proxy) as holder, app(proxy) as waits:
        holder.query("begin")
        waits.send(extended("select 1"))
        time.sleep(0.2)
        cancel(proxy, waits.key)
        holder.query("commit")
        waits.send(SYNC)
        assert waits.tags() == "12TDCZ"
