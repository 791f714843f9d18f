"""The console, with psql and drivers: one process, and several."""

from __future__ import annotations

import asyncio  # noqa: TID251 - asyncpg runs on it
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pg8000.dbapi
import psycopg
import pytest
from psycopg import errors
from psycopg.rows import dict_row

from pgproxy.console.columns import SHOWN
from pgproxy.demo.binaries import Binaries
from pgproxy.demo.postgres import Postgres
from pgproxy.demo.process import children, wait_until
from tests.fix_pgproxy import Pgproxy, PgproxyFactory

ADMIN, READER = "boss", "other"
USERS = {"admin_users": [ADMIN], "stats_users": [READER]}


@pytest.fixture(params=[1, 3], ids=["one process", "3 workers"])
def workers(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def started(pgproxy: PgproxyFactory, workers: int, **options: Any) -> Pgproxy:
    proxy = {**USERS, "workers": workers, **options.pop("proxy", {})}
    run = pgproxy(auth="trust", proxy=proxy, **options)
    run.await_event("started")
    return run


@pytest.fixture
def proxy(pgproxy: PgproxyFactory, workers: int) -> Pgproxy:
    return started(pgproxy, workers)


@pytest.fixture
def shared(pgproxy_of_module: PgproxyFactory, workers: int) -> Pgproxy:
    """Of those who only look on, and count nothing."""
    return started(pgproxy_of_module, workers)


class Console:
    """An administrator at the console."""

    def __init__(self, proxy: Pgproxy, user: str = ADMIN, dbname: str = "pgproxy") -> None:
        self.connection = proxy.connect(user=user, dbname=dbname, autocommit=True)

    def show(self, what: str) -> list[dict[str, Any]]:
        with self.connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(f"SHOW {what}".encode()).fetchall()

    def say(self, command: str) -> str | None:
        return self.connection.execute(command.encode()).statusmessage

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_how: object) -> None:
        self.connection.close()


@pytest.fixture
def console(proxy: Pgproxy) -> Iterator[Console]:
    with Console(proxy) as console:
        yield console


def app(proxy: Pgproxy, **options: Any) -> psycopg.Connection[Any]:
    return proxy.connect(autocommit=True, **options)


# How it is spoken to.


def test_psql(proxy: Pgproxy, binaries: Binaries) -> None:
    psql = shutil.which("psql", path=str(binaries.bindir)) or shutil.which("psql")
    if psql is None:
        pytest.skip("no psql here")

    def run(user: str, *commands: str) -> subprocess.CompletedProcess[str]:
        said = [word for command in commands for word in ("-c", command)]
        return subprocess.run(
            [psql or "", "-X", "-At", *said, proxy.dsn(user=user, dbname="pgbouncer")],
            capture_output=True,
            text=True,
            timeout=60,
        )

    done = run(
        ADMIN, "SHOW VERSION; SHOW STATE", "show lists;", "pause nowhere", "SHOW STATEMENT", "select 1"
    )
    assert "pgproxy" in done.stdout and "active|yes" in done.stdout and "used_clients|1" in done.stdout
    assert 'ERROR:  there is nothing called "statement" to show' in done.stderr
    assert "HINT:  Did you mean SHOW STATEMENTS?" in done.stderr and done.stdout.endswith("1\n")
    denied = run(READER, "SHOW POOLS", "PAUSE", "RELOAD", "SET pool_size = 3", "KILL_CLIENT 1", "SHUTDOWN")
    assert denied.stderr.count("permission denied for") == 5, denied.stderr


def test_psycopg_in_a_transaction(shared: Pgproxy) -> None:
    with shared.connect(user=READER, dbname="pgproxy") as connection:
        assert connection.info.server_version == 150000
        pools = connection.execute("show pools", prepare=True)
        assert [column.name for column in pools.description or ()] == [one.name for one in SHOWN["pools"]]
        with pytest.raises(errors.SyntaxError):
            connection.execute("frobnicate")
        with pytest.raises(errors.InFailedSqlTransaction):
            connection.execute("show pools")
        connection.rollback()
        with connection.cursor(binary=True) as cursor:
            for what in SHOWN:
                cursor.execute(f"show {what}".encode())
                cursor.fetchall()
        with connection.pipeline():
            assert connection.execute("show version").fetchone() is not None


def test_asyncpg(shared: Pgproxy) -> None:
    async def talk() -> None:
        connection = await asyncpg.connect(
            host="127.0.0.1", port=shared.port, user=ADMIN, password="x", database="pgproxy"
        )
        async with connection.transaction():
            for what in SHOWN:
                rows = await connection.fetch(f"show {what}")
                assert all(len(row) == len(SHOWN[what]) for row in rows)
        row = await connection.fetchrow("show lists")
        assert row["list"] == "databases" and isinstance(row["items"], int)
        async with connection.transaction():
            assert [one["list"] async for one in connection.cursor("show lists", prefetch=2)][2] == "peers"
        await connection.execute("pause app; resume app")
        with pytest.raises(asyncpg.FeatureNotSupportedError):
            await connection.execute("select * from pg_class")
        await connection.reset()
        await connection.close()

    asyncio.run(talk())


def test_pg8000(proxy: Pgproxy) -> None:
    connection = pg8000.dbapi.connect(
        user=READER, host="127.0.0.1", port=proxy.port, database="pgbouncer", password="x"
    )
    cursor = connection.cursor()
    cursor.execute("show lists")
    assert ["used_clients", 1] in list(map(list, cursor.fetchall()))
    connection.commit()
    connection.close()


def test_who_may_not_enter(shared: Pgproxy) -> None:
    with pytest.raises(psycopg.OperationalError, match='user "app" may not use the console') as refused:
        shared.connect(dbname="pgproxy")
    assert "stats_users" in str(refused.value)


def test_with_a_password(pgproxy: PgproxyFactory) -> None:
    proxy = pgproxy(proxy=USERS)
    with Console(proxy) as console:
        assert console.show("version")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        proxy.connect(user=ADMIN, dbname="pgproxy", password="wrong")


def test_a_database_of_that_name(pgproxy: PgproxyFactory) -> None:
    """One that the configuration names is itself; the other name is still the console."""
    proxy = pgproxy(auth="trust", proxy=USERS, extra='[databases.pgbouncer]\nname = "app"\n')
    with proxy.connect(user=ADMIN, dbname="pgbouncer") as connection:
        assert connection.execute("select current_database()").fetchone() == ("app",)
    with Console(proxy) as console:
        assert "pgbouncer" in {row["name"] for row in console.show("databases")}


# What it shows.


def test_all_workers_clients_and_servers(proxy: Pgproxy, console: Console, workers: int) -> None:
    began = datetime.now(UTC).replace(microsecond=0)
    clients = [app(proxy) for _ in range(12)]
    for client in clients[:6]:
        client.execute("begin")
        client.execute("select 1")
    shown = [row for row in console.show("clients") if row["database"] == "app"]
    assert len(shown) == 12 and len({row["id"] for row in shown}) == 12
    assert sorted(row["state"] for row in shown) == ["active"] * 6 + ["idle"] * 6
    servers = {str(row["id"]): row for row in console.show("servers")}
    for row in [*shown, *servers.values()]:
        came = datetime.strptime(row["connect_time"], "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)
        assert began <= came <= datetime.now(UTC)
    for row in shown:
        if row["state"] == "active":
            assert servers[row["link"]]["link"] == str(row["id"])
            assert servers[row["link"]]["worker"] == row["worker"]
    (pool,) = console.show("pools")
    assert (pool["database"], pool["user"], pool["cl_active"], pool["sv_active"]) == ("app", "app", 12, 6)
    assert pool["sv_in_transaction"] == 6
    known = {row["worker"]: row for row in console.show("workers")}
    assert sorted(known) == list(range(1, workers + 1))
    assert sum(row["servers"] for row in known.values()) == len(servers)
    (target,) = console.show("targets")
    assert (target["target"], target["state"], target["max_servers"]) == ("main", "up", 97)
    for client in clients:
        client.close()


def test_pins_and_the_queue(pgproxy: PgproxyFactory, workers: int) -> None:
    proxy = started(pgproxy, workers, pool_size=1)
    with Console(proxy) as console, app(proxy) as pinned, app(proxy) as waiting:
        pinned.execute("create temporary table t (secret text)")
        assert wait_until(lambda: bool(console.show("pins")), 30)
        (pin,) = console.show("pins")
        assert pin["reason"] == "temporary_object" and pin["digest"].startswith("create temporary table t")
        assert pin["client"] in {row["id"] for row in console.show("clients")}
        thread = threading.Thread(target=waiting.execute, args=("select 1",))
        thread.start()
        # Its worker is told what others have when it has reported that somebody waits.
        assert wait_until(
            lambda: any("1 of at most 1" in row["who_holds"] for row in console.show("queue")), 20
        )
        (queued,) = console.show("queue")
        assert queued["waits_for"] == "a server of pool app/app" and "1 of at most 1" in queued["who_holds"]
        assert {row["state"] for row in console.show("clients")} == {"active", "waiting"}
        (pool,) = console.show("pools")
        assert (pool["cl_waiting"], pool["sv_pinned"]) == (1, 1)
        pinned.execute("drop table t")
        thread.join(20)
        assert wait_until(lambda: not console.show("pins") and not console.show("queue"), 30)


def test_statistics(proxy: Pgproxy, console: Console) -> None:
    with app(proxy) as client:
        for number in range(5):
            client.execute(f"select {number}, 'secret' from generate_series(1, 3)".encode())
        with pytest.raises(errors.UndefinedTable):
            client.execute("select * from there_is_none")
        with client.transaction():
            client.execute("select %s::int", (7,), prepare=True)
        client.execute("select %s::int", (8,), prepare=True)
        (row,) = console.show("stats")
        assert (row["database"], row["total_xact_count"], row["total_query_count"]) == ("app", 8, 11)
        assert row["total_received"] > 100 < row["total_sent"]
        assert row["total_client_login_count"] == 1 and row["total_bind_count"] is None
        statements = {row["digest"]: row for row in console.show("statements")}
        series = statements["select $1, $2 from generate_series($3, $4)"]
        assert (series["calls"], series["rows"], series["errors"]) == (5, 15, 0) and series["seconds"] > 0
        assert statements["select * from there_is_none"]["errors"] == 1
        assert statements["select $1::int"]["calls"] == 2
        assert "secret" not in str(statements)
    assert wait_until(lambda: console.show("lists")[6]["items"] == 1, 30)
    (after,) = console.show("stats_totals")
    assert (after["xact_count"], after["query_count"]) == (8, 11)


def test_statistics_in_session_mode_and_where_they_are_off(pgproxy: PgproxyFactory) -> None:
    proxy = started(pgproxy, 1, pool_mode="session", extra="[users.boss]\nstatement_statistics = false\n")
    with app(proxy) as client, app(proxy, user="boss", dbname="app") as unseen, Console(proxy) as console:
        for _ in range(3):
            client.execute("select 1")
            unseen.execute("select 2, 3")
        assert {row["digest"]: row["calls"] for row in console.show("statements")} == {"select $1": 3}
        assert console.show("stats")[0]["total_query_count"] == 6


# What it does.


def test_pause_holds_clients_until_resume(proxy: Pgproxy, console: Console, workers: int) -> None:
    clients = [app(proxy) for _ in range(6)]
    for client in clients:
        client.execute("select 1")
    clients[0].execute("begin")
    clients[0].execute("select 1")
    pause = threading.Thread(target=console.say, args=("PAUSE app",))
    pause.start()
    with Console(proxy) as second:
        assert wait_until(lambda: second.show("databases")[0]["paused"] == 1, 30)
        assert pause.is_alive(), "PAUSE waits for transactions"
        clients[0].execute("commit")
        pause.join(20)
        assert second.show("servers") == [] and ("paused", "yes") in [
            (row["key"], row["value"]) for row in second.show("state")
        ]
        answers: list[Any] = []
        threads = [
            threading.Thread(target=lambda one=one: answers.append(one.execute("select 2").fetchone()))
            for one in clients
        ]
        for thread in threads:
            thread.start()
        assert wait_until(lambda: len(second.show("queue")) == 6, 30)
        assert {row["waits_for"] for row in second.show("queue")} == {"RESUME"}
        assert answers == []
        second.say("RESUME app")
        for thread in threads:
            thread.join(20)
        assert answers == [(2,)] * 6
        with pytest.raises(errors.ObjectNotInPrerequisiteState, match="nothing is paused"):
            second.say("RESUME app")
    for client in clients:
        client.close()


def test_a_pause_that_cannot_be_is_taken_back(pgproxy: PgproxyFactory, workers: int) -> None:
    proxy = started(pgproxy, workers, proxy={"connection_borrow_timeout": 1.0})
    with app(proxy) as client, Console(proxy) as console:
        client.execute("begin")
        client.execute("select 1")
        with pytest.raises(errors.ObjectInUse, match="1 servers are still in use"):
            console.say("PAUSE")
        assert [row["paused"] for row in console.show("databases")] == [0]
        client.execute("rollback")
        client.execute("select 1")


def test_a_pause_that_is_cancelled_is_taken_back(proxy: Pgproxy, console: Console) -> None:
    with app(proxy) as client:
        client.execute("begin")
        client.execute("select 1")
        failed: list[Exception] = []

        def pause() -> None:
            try:
                console.say("PAUSE")
            except psycopg.Error as error:
                failed.append(error)

        thread = threading.Thread(target=pause)
        thread.start()
        with Console(proxy) as second:
            assert wait_until(lambda: second.show("databases")[0]["paused"] == 1, 30)
            console.connection.cancel_safe()
            thread.join(20)
            assert isinstance(failed[0], errors.QueryCanceled)
            assert second.show("databases")[0]["paused"] == 0


def test_reconnect(proxy: Pgproxy, console: Console) -> None:
    with app(proxy) as client:
        before = client.execute("select pg_backend_pid()").fetchone()
        assert console.say("RECONNECT app") == "RECONNECT"
        assert client.execute("select pg_backend_pid()").fetchone() != before


def test_kill_and_kill_client(proxy: Pgproxy, console: Console) -> None:
    client, other = app(proxy), app(proxy)
    ids = {row["port"]: row["id"] for row in console.show("clients")}
    port = _port(client)
    console.say(f"KILL_CLIENT {ids[port]}")
    with pytest.raises(psycopg.OperationalError, match="console"):
        client.execute("select 1")
    other.execute("select 1")
    with pytest.raises(errors.InvalidParameterValue):
        console.say(f"KILL_CLIENT {ids[port]}")
    console.say("KILL app")
    with pytest.raises(psycopg.OperationalError):
        other.execute("select 1")
    console.say("RESUME app")
    with app(proxy) as again:
        again.execute("select 1")


def _port(connection: psycopg.Connection[Any]) -> int:
    with socket.socket(fileno=socket.dup(connection.fileno())) as one:
        return int(one.getsockname()[1])


def test_disable_and_enable(proxy: Pgproxy, console: Console) -> None:
    with app(proxy) as client:
        console.say("DISABLE app")
        client.execute("select 1")
        with pytest.raises(psycopg.OperationalError, match='database "app" takes no new clients'):
            app(proxy)
        console.say('ENABLE "app"')
        app(proxy).close()


def test_set_and_reload(proxy: Pgproxy, console: Console) -> None:
    assert console.say("SET pool_size = 3") == "SET"
    config = {row["key"]: row for row in console.show("config")}
    assert config["proxy.pool_size"]["value"] == "3" == config["default_pool_size"]["value"]
    assert config["proxy.listen"]["changeable"] == "no"
    assert wait_until(lambda: [row["pool_size"] for row in console.show("pools")] in ([], [3]), 30)
    for command, sqlstate in {
        "SET pool_size = 0": "22023",
        "SET pool_sise = 3": "22023",
        "SET listen = '0.0.0.0:1'": "22023",
        "SET databases.nowhere.pool_size = 3": "22023",
        "SET query_timeout = forever": "22023",
    }.items():
        with pytest.raises(psycopg.Error) as wrong:
            console.say(command)
        assert wrong.value.sqlstate == sqlstate and wrong.value.diag.message_hint
    assert console.say("RELOAD") == "RELOAD"
    assert {row["key"]: row["value"] for row in console.show("config")}["proxy.pool_size"] == "20"


def test_a_reload_that_is_refused_says_why(proxy: Pgproxy, console: Console) -> None:
    proxy.expect_errors()
    proxy.write_config("[proxy]\npool_sise = 3\n")
    with pytest.raises(psycopg.Error) as refused:
        console.say("RELOAD")
    assert "did you mean pool_size?" in (refused.value.diag.message_detail or "")


def test_switchover_needs_another_host(console: Console) -> None:
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="has one host only"):
        console.say("SWITCHOVER main")
    with pytest.raises(errors.UndefinedObject):
        console.say("SWITCHOVER nowhere")
    assert console.show("history") == [] == console.show("secrets")


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 10).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("how", ["", " WAIT_FOR_SERVERS", " WAIT_FOR_CLIENTS"])
def test_shutdown(proxy: Pgproxy, how: str) -> None:
    client = app(proxy)
    client.execute("begin")
    client.execute("select 1")
    with Console(proxy) as console, suppress(psycopg.OperationalError):
        console.say(f"SHUTDOWN{how}")
    if how:
        assert proxy.process.poll() is None
        client.execute("commit")
    if "CLIENTS" in how:
        client.execute("select 1")
        # Who comes now is not left to wait in a backlog.
        assert wait_until(lambda: refuses(proxy.port), 20)
        client.execute("select 1")
        client.close()
    assert wait_until(lambda: proxy.process.poll() is not None, 20)
    proxy._told_to_stop = True


def test_a_shutdown_at_once_cancels_what_is_under_way(proxy: Pgproxy, postgres: Postgres) -> None:
    asleep = "select count(*) from pg_stat_activity where state = 'active' and query like '%/* at once %'"
    clients = [app(proxy) for _ in range(4)]
    for client in clients:
        client.pgconn.send_query(b"select pg_sleep(600) /* at once */")
    assert wait_until(lambda: postgres.execute(asleep + " and pid <> pg_backend_pid()") == [(4,)], 20)
    with Console(proxy) as console, suppress(psycopg.OperationalError):
        console.say("SHUTDOWN")
    assert wait_until(lambda: proxy.process.poll() is not None, 20)
    proxy._told_to_stop = True
    assert wait_until(lambda: postgres.execute(asleep + " and pid <> pg_backend_pid()") == [(0,)], 30)
    for client in clients:
        client.close()


def test_a_worker_that_is_started_anew_is_paused_too(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = started(pgproxy, 2)
    proxy.expect_errors()
    with Console(proxy) as console:
        console.say("PAUSE app")
        mine = {row["id"]: row["worker"] for row in console.show("clients")}
        other = 3 - next(iter(mine.values()))
        (pid,) = [row["pid"] for row in console.show("workers") if row["worker"] == other]
        assert pid in children(proxy.pid)
        os.kill(pid, signal.SIGKILL)
        assert wait_until(
            lambda: any(
                row["worker"] == other and row["pid"] != pid and row["state"] == "serving"
                for row in console.show("workers")
            ),
            20,
        )
        clients = [threading.Thread(target=lambda: app(proxy).close()) for _ in range(4)]
        for client in clients:
            client.start()
        assert wait_until(lambda: len(console.show("queue")) == 4, 20)
        assert console.show("servers") == []
        console.say("RESUME")
        for client in clients:
            client.join(20)
