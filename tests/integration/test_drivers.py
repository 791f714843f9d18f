"""Real clients, with only host and port changed: psql, pgbench, psycopg, asyncpg, pg8000, node-postgres."""

from __future__ import annotations

import asyncio  # noqa: TID251 - asyncpg runs on it
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pg8000.dbapi
import psycopg
import pytest

from pgproxy.demo.binaries import Binaries
from pgproxy.demo.postgres import Postgres
from tests.fix_pgproxy import Pgproxy, PgproxyFactory
from tests.fix_postgres import PASSWORDS
from tests.fix_tls import Tls

PASSWORD = PASSWORDS["app"]


@pytest.fixture(scope="module", params=["session", "transaction"])
def proxy(
    pgproxy_of_module: PgproxyFactory, postgres: Postgres, tls: Tls, request: pytest.FixtureRequest
) -> Pgproxy:
    extra = (
        f'[proxy.tls]\nmode = "allow"\ncertificate = "{tls.server.certificate}"\nkey = "{tls.server.key}"\n'
    )
    return pgproxy_of_module(server=postgres, pool_mode=request.param, pool_size=4, extra=extra)


@pytest.fixture(params=["disable", "verify-full"])
def sslmode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_psql(proxy: Pgproxy, binaries: Binaries, tls: Tls, sslmode: str) -> None:
    psql = shutil.which("psql", path=str(binaries.bindir)) or shutil.which("psql")
    if psql is None:
        pytest.skip("no psql here")
    if sslmode != "disable" and not binaries.has_openssl:
        pytest.skip("this psql was built without OpenSSL")
    script = r"""
\set ON_ERROR_STOP on
\conninfo
create table if not exists from_psql (a int primary key, b text);
truncate from_psql;
\copy from_psql from program 'seq -f "%.0f	row" 1000'
select count(*) as rows from from_psql \gset
\echo rows :rows
begin; insert into from_psql values (0, 'gone'); rollback;
\d from_psql
\copy (select a from from_psql order by a limit 3) to stdout
do $$ begin raise notice 'noticed'; end $$;
"""
    done = subprocess.run(
        [psql, "-X", proxy.dsn(sslmode=sslmode, sslrootcert=str(tls.ca))],
        input=script,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "rows 1000" in done.stdout and "1\n2\n3\n" in done.stdout and "noticed" in done.stderr


@pytest.mark.parametrize(
    "options",
    [["-S"], ["-N"], ["-S", "-M", "extended"], ["-S", "-C"], ["-S", "-M", "prepared"]],
    ids=["select", "simple update", "extended", "reconnect", "prepared"],
)
def test_pgbench(pgproxy: PgproxyFactory, postgres: Postgres, binaries: Binaries, options: list[str]) -> None:
    pgbench = shutil.which("pgbench", path=str(binaries.bindir)) or shutil.which("pgbench")
    if pgbench is None:
        pytest.skip("no pgbench here")
    # SQL-level names of statements live as long as a server is kept: in session mode.
    mode = "session" if "prepared" in options else "transaction"
    proxy = pgproxy(server=postgres, pool_mode=mode, pool_size=5)

    def run(*arguments: str) -> str:
        done = subprocess.run([pgbench, *arguments, proxy.dsn()], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("-i", "-q", "-I", "dtg", "-s", "1")
    assert "transactions actually processed: 200/200" in run("-n", "-c", "5", "-t", "40", *options)


def test_psycopg(proxy: Pgproxy, tls: Tls, sslmode: str) -> None:
    with proxy.connect(sslmode=sslmode, sslrootcert=str(tls.ca), prepare_threshold=None) as connection:
        connection.execute("create table if not exists from_psycopg (a int, b bytea)")
        connection.execute("truncate from_psycopg")
        binary = "copy from_psycopg from stdin (format binary)"
        with connection.cursor() as cursor, cursor.copy(binary) as copy:
            copy.set_types(["int4", "bytea"])
            for number in range(1000):
                copy.write_row((number, bytes([number % 256]) * number))
        connection.commit()
        with connection.pipeline():
            cursors = [
                connection.execute("select sum(length(b)) from from_psycopg where a < %s", (n,))
                for n in range(50)
            ]
            assert [cursor.fetchone() for cursor in cursors[1:]] == [(sum(range(n)),) for n in range(1, 50)]
        with connection.cursor(name="named") as named:
            named.execute("select a from from_psycopg order by a")
            assert len(named.fetchall()) == 1000
        connection.commit()
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("select 1/0")
        connection.rollback()
        with pytest.raises(psycopg.errors.BadCopyFileFormat), connection.cursor() as cursor:
            with cursor.copy("copy from_psycopg from stdin") as copy:
                copy.write(b"1\n")
        connection.rollback()
        assert connection.execute("select 1").fetchone() == (1,)
        connection.commit()
        with connection.transaction():
            made = connection.execute("select lo_from_bytea(0, 'large')").fetchone()
            assert made is not None
            assert connection.execute("select lo_get(%s)", made).fetchone() == (b"large",)


def test_notifications_in_session_mode(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(server=postgres, pool_mode="session")
    with proxy.connect(autocommit=True) as hears, proxy.connect(autocommit=True) as says:
        hears.execute("listen news")
        says.execute("select pg_notify('news', 'it''s here')")
        (heard,) = hears.notifies(timeout=10, stop_after=1)
        assert (heard.channel, heard.payload) == ("news", "it's here")


def test_asyncpg(proxy: Pgproxy, tls: Tls, sslmode: str) -> None:
    context = ssl.create_default_context(cafile=str(tls.ca)) if sslmode != "disable" else False

    async def main() -> None:
        connection = await asyncpg.connect(
            host="127.0.0.1",
            port=proxy.port,
            user="app",
            password=PASSWORD,
            database="app",
            ssl=context,
            statement_cache_size=0,
            timeout=10,
        )
        await connection.execute("create table if not exists from_asyncpg (a int, b text)")
        await connection.execute("truncate from_asyncpg")
        async with connection.transaction():
            await connection.copy_records_to_table("from_asyncpg", records=[(n, "x" * n) for n in range(500)])
        async with connection.transaction():
            rows = [row async for row in connection.cursor("select a from from_asyncpg order by a")]
        assert [row["a"] for row in rows] == list(range(500))
        async with connection.transaction():
            assert await connection.fetchval("select sum(a) from from_asyncpg where a < $1", 100) == 4950
            with pytest.raises(asyncpg.DivisionByZeroError):
                async with connection.transaction():
                    await connection.execute("select 1/0")
        with pytest.raises(asyncio.TimeoutError):
            await connection.execute("select pg_sleep(600)", timeout=1.0)
        assert await connection.fetchval("select 1") == 1
        await connection.reset()
        await connection.close()

    asyncio.run(main())


def test_pg8000(proxy: Pgproxy, tls: Tls, sslmode: str) -> None:
    """Within transactions, as its DB-API does it: it parses in one round trip and executes in the next."""
    context = ssl.create_default_context(cafile=str(tls.ca)) if sslmode != "disable" else None
    connection = pg8000.dbapi.connect(
        "app", host="127.0.0.1", port=proxy.port, password=PASSWORD, database="app", ssl_context=context
    )
    try:
        cursor = connection.cursor()
        cursor.execute("select %s::int + 1", (41,))
        assert cursor.fetchall() == ([42],)
        with pytest.raises(pg8000.dbapi.DatabaseError):
            cursor.execute("select 1/0")
        connection.rollback()
        cursor.execute("create temporary table t (a int)")
        cursor.execute("insert into t select generate_series(1, 100)")
        cursor.execute("select count(*) from t")
        assert cursor.fetchall() == ([100],)
        connection.rollback()
    finally:
        connection.close()


NODE = """
const { Client, Pool } = require('pg');
const [, , url] = process.argv;
(async () => {
  const client = new Client({ connectionString: url });
  await client.connect();
  const one = await client.query('select $1::int + 1 as n', [41]);
  let code = '';
  try { await client.query('select 1/0'); } catch (error) { code = error.code; }
  await client.query('begin');
  await client.query('create temporary table t (a int)');
  await client.query('rollback');
  await client.end();
  const pool = new Pool({ connectionString: url, max: 10 });
  const all = await Promise.all([...Array(50).keys()].map(n => pool.query('select $1::int as n', [n])));
  await pool.end();
  const sum = all.reduce((total, result) => total + result.rows[0].n, 0);
  console.log(JSON.stringify([one.rows[0].n, code, sum]));
})();
"""


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory in which node-postgres is installed."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("no node and npm here")
    place = tmp_path_factory.mktemp("node")
    (place / "package.json").write_text('{"private": true}')
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "pg@8"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=100)
    if done.returncode:
        pytest.skip(f"npm cannot install pg: {done.stderr.strip().splitlines()[-1:]}")
    (place / "main.js").write_text(NODE)
    yield place


@pytest.mark.long
def test_node_postgres(proxy: Pgproxy, node_modules: Path) -> None:
    done: Any = subprocess.run(
        ["node", "main.js", proxy.dsn()], cwd=node_modules, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == '[42,"22012",1225]', done.stderr
