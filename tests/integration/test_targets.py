"""Crowds that come at once, and databases that move, or go, while they are in use."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

from pgproxy.demo.ports import free_port
from pgproxy.demo.postgres import Postgres
from pgproxy.demo.process import wait_until
from tests.fix_pgproxy import PgproxyFactory
from tests.fix_postgres import PostgresFactory
from tests.raw import Raw, startup

_CONFIG = """
[proxy]
listen = "127.0.0.1:{port}"
auth = "trust"
users_file = "users.txt"
connection_borrow_timeout = 5
min_pool_size = {least}
[targets.a]
server = "127.0.0.1:{a}"
max_server_connections = 3
[targets.b]
server = "127.0.0.1:{b}"
[databases.postgres]
target = "b"
"""


def servers(server: Postgres) -> int:
    """Count what a PostgreSQL has of pgproxy's."""
    (row,) = server.execute(
        "select count(*) from pg_stat_activity where backend_type = 'client backend'"
        " and pid <> pg_backend_pid()"
    )
    return int(row[0])


def test_a_crowd_that_waits_for_the_first_server(
    pgproxy: PgproxyFactory, postgres_factory: PostgresFactory
) -> None:
    """Each is done with the server as soon as it has been greeted, and hands it to the next."""
    server = postgres_factory()
    proxy = pgproxy(server=server, pool_size=1, auth="trust")
    server.stop()
    with ExitStack() as crowd:
        clients = [crowd.enter_context(Raw(proxy.port)) for _ in range(300)]
        for client in clients:
            client.send(startup(user="app", database="app"))
        proxy.await_event("server_open_failed")
        time.sleep(1)
        server.start()
        for client in clients:
            assert client.tags().endswith("Z")


@pytest.mark.parametrize("goes", ["elsewhere", "away"])
def test_no_servers_are_kept_where_a_database_was(
    pgproxy: PgproxyFactory, postgres_factory: PostgresFactory, goes: str
) -> None:
    a, b, port = postgres_factory(), postgres_factory(), free_port()
    config = _CONFIG.format(port=port, a=a.port, b=b.port, least=3)
    there, after = '[databases.app]\ntarget = "a"\n', '[databases.app]\ntarget = "b"\n'
    proxy = pgproxy(config=config + there, port=port)
    with Raw(proxy.port) as client:
        client.log_in()
        client.query("begin")
        assert wait_until(lambda: servers(a) == 3, 30)
        proxy.write_config(config + (after if goes == "elsewhere" else ""))
        proxy.reload()
        proxy.await_event("reloaded")
        assert wait_until(lambda: (servers(a), servers(b)) == (1, 0), 30)
        # Two looks at what is to be kept.
        time.sleep(2.5)
        assert (servers(a), servers(b)) == (1, 0)
    assert wait_until(lambda: servers(a) == 0, 30)


def test_a_minimum_is_given_up_with_its_database(
    pgproxy: PgproxyFactory, postgres_factory: PostgresFactory
) -> None:
    a, port = postgres_factory(), free_port()
    config = _CONFIG.format(port=port, a=a.port, b=a.port, least=0).replace('target = "b"', 'target = "a"')
    minimum = '[databases.app]\ntarget = "a"\nmin_server_connections = 2\n'
    proxy = pgproxy(config=config + minimum, port=port)
    with ExitStack() as all_servers:
        for number in range(3):
            client = all_servers.enter_context(Raw(proxy.port))
            client.log_in(database="postgres")
            client.query("begin")
            if not number:
                proxy.write_config(config)
                proxy.reload()
                proxy.await_event("reloaded")
