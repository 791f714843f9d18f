"""Enhanced logging of a running pgproxy: lines for those who were chosen, and for nobody else."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from pgproxy.demo.postgres import Postgres
from tests.fix_pgproxy import Pgproxy, PgproxyFactory
from tests.raw import client


def statements(proxy: Pgproxy) -> list[dict[str, Any]]:
    return [event for event in proxy.log() if event["event"] == "statement"]


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_client_server_and_statement_are_joined(
    pgproxy: PgproxyFactory, postgres: Postgres, mode: str
) -> None:
    proxy = pgproxy(
        server=postgres, auth="trust", pool_mode=mode, extra="[users.boss]\nenhanced_logging = true\n"
    )
    with psycopg.connect(proxy.dsn("boss"), autocommit=True, prepare_threshold=0) as connection:
        connection.execute("select %s::text, pg_sleep(0.2)", ("a secret",))
        connection.execute("select %s::text, pg_sleep(0.2)", ("a secret",))
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("select 1/0")
        with connection.pipeline():
            connection.execute("select 1")
            connection.execute("select 2")
    with psycopg.connect(proxy.dsn("app")) as connection:
        connection.execute("select 'unheard'")
    proxy.stop()
    said = statements(proxy)
    assert "secret" not in proxy.text() and "unheard" not in proxy.text()
    assert {one["user"] for one in said} == {"boss"}
    slept = [one for one in said if any("pg_sleep" in text for text in one["digests"])]
    assert len(slept) == 2 and all(one["seconds"] >= 0.2 for one in slept)
    login = proxy.await_event("client_logged_in", user="boss")
    assert {one["client"] for one in said} == {login["client"]}
    opened = {event["server"] for event in proxy.log() if event["event"] == "server_opened"}
    assert {one["server"] for one in said} <= opened
    assert any("/" in text for one in said for text in one["digests"])


def test_transactions_go_on_as_without(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(
        server=postgres, auth="trust", pool_size=1, extra="[users.boss]\nenhanced_logging = true\n"
    )
    with (
        client(proxy.port, user="boss", database="app") as one,
        client(proxy.port, user="boss", database="app") as other,
    ):
        one.query("begin")
        one.query("set local work_mem = '1MB'")
        one.query("commit")
        one.query("set work_mem = '2MB'")
        assert other.value("show work_mem") != "2MB"
        assert one.value("show work_mem") == "2MB"
    proxy.stop()
    assert sum("work_mem" in text for event in statements(proxy) for text in event["digests"]) == 4
