"""The tables that PgBouncer's console has, too: the same columns and types as in the one that is here."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from bench.processes import pgbouncer_program
from pgproxy.demo.ports import free_port, is_listening
from pgproxy.demo.postgres import Postgres
from pgproxy.demo.process import Account, end, spawn, tail, wait_until
from tests.fix_pgproxy import PgproxyFactory

TABLES = (
    *("pools", "clients", "servers", "stats", "stats_totals", "stats_averages"),
    *("databases", "users", "lists", "config", "mem", "version"),
)
TIMEOUT = 10


@pytest.fixture
def pgbouncer(
    postgres: Postgres, tmp_path_factory: pytest.TempPathFactory, account: Account | None
) -> Iterator[int]:
    program = pgbouncer_program()
    if program is None:
        pytest.skip("no pgbouncer here")
    port, directory = free_port(), tmp_path_factory.mktemp("pgbouncer")
    directory.chmod(0o755)
    for parent in directory.parents[:3]:
        parent.chmod(0o755)
    config = directory / "pgbouncer.ini"
    users = directory / "users.txt"
    users.write_text('"boss" "x"\n"app" "app-password"\n')
    config.write_text(f"""\
[databases]
app = host=127.0.0.1 port={postgres.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
admin_users = boss
pool_mode = transaction
ignore_startup_parameters = extra_float_digits
""")
    log: Path = tmp_path_factory.mktemp("log") / "log"
    process = spawn([program, config], log=log, account=account)
    try:
        if not wait_until(lambda: is_listening(port), TIMEOUT):
            pytest.fail(f"pgbouncer does not listen:\n{tail(log, 20)}")
        yield port
    finally:
        end(process, signal.SIGTERM, 5.0)


def columns(port: int, table: str) -> dict[str, int]:
    with psycopg.connect(
        host="127.0.0.1", port=port, user="boss", dbname="pgbouncer", autocommit=True, password="x"
    ) as connection:
        cursor: psycopg.Cursor[Any] = connection.execute(f"SHOW {table}".encode())
        return {column.name: column.type_code for column in cursor.description or ()}


def test_columns_and_types_are_pgbouncers(pgbouncer: int, pgproxy: PgproxyFactory) -> None:
    proxy = pgproxy(auth="trust", proxy={"admin_users": ["boss"]})
    for port in (pgbouncer, proxy.port):
        with psycopg.connect(
            host="127.0.0.1", port=port, user="app", dbname="app", password="app-password"
        ) as connection:
            connection.execute("select 1")
    for table in TABLES:
        theirs, ours = columns(pgbouncer, table), columns(proxy.port, table)
        for name, type_code in theirs.items():
            assert name in ours, f"SHOW {table}: no {name} in {list(ours)}"
            assert ours[name] == type_code, f"SHOW {table}: {name} is of type {ours[name]}, not {type_code}"
