"""The read-only endpoint: clients of the readers, whatever becomes of these."""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from pgproxy.demo.ports import free_port
from pgproxy.demo.process import wait_until
from tests.cluster import Cluster, Host
from tests.fix_pgproxy import WORKERS, Pgproxy, PgproxyFactory

WHERE = "select host(inet_server_addr()), pg_is_in_recovery()"
Client = psycopg.Connection[tuple[object, ...]]


class Proxy:
    """A proxy with both endpoints."""

    def __init__(self, pgproxy: PgproxyFactory, cluster: Cluster, **proxy: bool | float) -> None:
        self.port = free_port()
        hosts = [f"{address}:{port}" for address, port in (host.at for host in cluster.hosts)]
        self.run: Pgproxy = pgproxy(
            auth="trust",
            proxy={"listen_read_only": f"127.0.0.1:{self.port}", **proxy},
            target={
                "server": hosts,
                "watch_user": "toil",
                "watch_database": "toil",
                "host_timeout": 2.0,
                "max_reader_lag": 3.0,
            },
        )
        self.clients: list[Client] = []

    def client(self, patience: int = 20) -> Client:
        client = psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user="toil",
            dbname="toil",
            autocommit=True,
            connect_timeout=patience,
        )
        self.clients.append(client)
        return client

    def await_readers(self, *hosts: Host) -> None:
        self._await("reader_in", *hosts)

    def await_out(self, *hosts: Host) -> None:
        """Wait until it has noticed that these are readers no more: until then their clients may see that."""
        self._await("reader_out", *hosts)

    def _await(self, change: str, *hosts: Host) -> None:
        for address, port in (host.at for host in hosts):
            self.run.await_everywhere("role_changed", host=f"{address}:{port}", change=change)


@pytest.fixture
def proxy(pgproxy: PgproxyFactory, cluster: Cluster) -> Iterator[Proxy]:
    made = Proxy(pgproxy, cluster)
    made.await_readers(*cluster.standbys)
    yield made
    for client in made.clients:
        client.close()


def where(client: Client) -> str:
    address, in_recovery = client.execute(WHERE).fetchone() or ("", False)
    assert in_recovery
    return str(address)


def test_clients_are_spread_over_the_readers_and_stay(proxy: Proxy, cluster: Cluster) -> None:
    clients = [proxy.client() for _ in range(10)]
    found = [where(client) for client in clients]
    assert set(found) == {standby.at[0] for standby in cluster.standbys}
    # Each worker spreads its own.
    numbers = Counter(found).values()
    assert max(numbers) - min(numbers) <= WORKERS - 1
    assert [where(client) for client in clients] == found


def test_a_reader_that_goes_takes_nobody_with_it(proxy: Proxy, cluster: Cluster) -> None:
    clients = [proxy.client() for _ in range(6)]
    for client in clients:
        client.execute("set statement_timeout = '77s'")
        # The answer to the next statement says that it is known what the first has left.
        client.execute("select 1")
    gone, other = cluster.standbys
    gone.kill()
    proxy.await_out(gone)
    assert {where(client) for client in clients} == {other.at[0]}
    assert {client.execute("show statement_timeout").fetchone() for client in clients} == {("77s",)}


def test_a_reader_that_comes_back_gets_clients_again(proxy: Proxy, cluster: Cluster) -> None:
    clients = [proxy.client() for _ in range(6)]
    back, other = cluster.standbys
    back.kill()
    proxy.await_out(back)
    assert {where(client) for client in clients} == {other.at[0]}
    back.start()
    wait_until(lambda: {where(client) for client in clients} == {back.at[0], other.at[0]}, 20.0)


def test_a_reader_that_lags_gets_nobody(proxy: Proxy, cluster: Cluster) -> None:
    clients = [proxy.client() for _ in range(6)]
    late, other = cluster.standbys[1], cluster.standbys[0]
    cluster.pause_replay(late)
    cluster.writer.execute("create table late (a int)", dbname="toil")
    wait_until(lambda: {where(client) for client in clients} == {other.at[0]}, 20.0)
    cluster.resume_replay(late)
    wait_until(lambda: {where(client) for client in clients} == {late.at[0], other.at[0]}, 20.0)
    cluster.writer.execute("drop table late", dbname="toil")


def test_without_a_reader_clients_wait_for_one(proxy: Proxy, cluster: Cluster) -> None:
    client = proxy.client()
    assert where(client)
    back, other = cluster.standbys
    for standby in (back, other):
        standby.kill()
    proxy.await_out(back, other)
    with ThreadPoolExecutor() as threads:
        # One that is logged in waits, and so does one that logs in, until there is a reader again.
        asks = threads.submit(where, client)
        logs_in = threads.submit(lambda: where(proxy.client(patience=60)))
        time.sleep(0.5)
        assert not asks.done() and not logs_in.done()
        back.start()
        assert {asks.result(60), logs_in.result(60)} == {back.at[0]}


def test_falls_back_to_the_writer_only_if_told_to(pgproxy: PgproxyFactory, cluster: Cluster) -> None:
    made = Proxy(pgproxy, cluster, read_only_fallback=True)
    made.await_readers(*cluster.standbys)
    client = made.client()
    assert where(client)
    for standby in cluster.standbys:
        standby.kill()
    wait_until(lambda: client.execute(WHERE).fetchone() == (cluster.writer.at[0], False), 20.0)
    cluster.standbys[0].start()
    wait_until(lambda: client.execute(WHERE).fetchone() == (cluster.standbys[0].at[0], True), 20.0)
    client.close()


def test_a_reader_that_is_promoted_changes_its_pool_not_its_clients(proxy: Proxy, cluster: Cluster) -> None:
    clients = [proxy.client() for _ in range(6)]
    writing = proxy.run.connect(user="toil", dbname="toil", password="", autocommit=True)
    next_writer, other = cluster.standbys
    assert {where(client) for client in clients} == {next_writer.at[0], other.at[0]}
    cluster.promote(next_writer, cluster.kill())
    proxy.await_out(next_writer)
    assert {where(client) for client in clients} == {other.at[0]}
    assert writing.execute(WHERE).fetchone() == (next_writer.at[0], False)
    writing.close()
