"""Hosts that are there and can't be reached: their packets are lost. host_timeout finds them."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from pgproxy.demo.ports import free_port
from tests.cable import can_drop
from tests.cluster import Cluster, Host
from tests.failover import at_work, cut_off, few, place, proxy_before, until
from tests.fix_pgproxy import WORKERS, PgproxyFactory

pytestmark = pytest.mark.skipif(not can_drop(), reason="this kernel lets only root attach socket filters")

Client = psycopg.Connection[tuple[object, ...]]


def test_another_is_promoted(pgproxy: PgproxyFactory, cabled_cluster: Cluster, tmp_path: Path) -> None:
    run = proxy_before(pgproxy, cabled_cluster)
    verdict = at_work(run, cabled_cluster, cut_off, tmp_path, few(run))
    assert not verdict.faults


def test_nobody_is_promoted(pgproxy: PgproxyFactory, cabled_cluster: Cluster) -> None:
    """Who has a statement under way is told when host_timeout has passed; the others wait for the writer."""
    cluster = cabled_cluster
    run = proxy_before(pgproxy, cluster)
    at = place(cluster.writer)
    with connect(run.port) as sleeps, connect(run.port) as asks, ThreadPoolExecutor() as threads:
        asks.execute("set work_mem = '5MB'")
        slept = threads.submit(sleeps.execute, "select pg_sleep(600)")
        until(lambda: sleepers(cluster.writer) == 1, "nobody sleeps")
        began = time.monotonic()
        cluster.cut_off()
        with pytest.raises(psycopg.OperationalError) as lost:
            slept.result(60)
        assert lost.value.sqlstate == "08006"
        assert time.monotonic() - began >= 2.5
        run.await_event("role_changed", host=at, change="writer_silent")
        answer = threads.submit(lambda: asks.execute("show work_mem").fetchone())
        assert cluster.writer.cable is not None
        cluster.writer.cable.mend()
        assert answer.result(60) == ("5MB",)
        assert sleeps.execute("select 1").fetchone() == (1,)
        run.await_event("role_changed", host=at, change="writer_back")


def test_a_reader_that_is_cut_off(pgproxy: PgproxyFactory, cabled_cluster: Cluster) -> None:
    """Its clients go to another; who has a statement under way there is told."""
    cluster, port = cabled_cluster, free_port()
    run = proxy_before(pgproxy, cluster, proxy={"listen_read_only": f"127.0.0.1:{port}"})
    for standby in cluster.standbys:
        run.await_event("role_changed", host=place(standby), change="reader_in")
    with ThreadPoolExecutor() as threads:
        clients = [connect(port) for _ in range(4)]
        gone, other = cluster.standbys
        at_gone = [client for client in clients if name_of(client, cluster) == gone.name]
        # Each worker shares its own clients out.
        assert len(at_gone) == 2 or (WORKERS > 1 and 0 < len(at_gone) < len(clients))
        slept = threads.submit(at_gone[0].execute, "select pg_sleep(600)")
        until(lambda: sleepers(gone) == 1, "nobody sleeps")
        assert gone.cable is not None
        gone.cable.drop()
        with pytest.raises(psycopg.OperationalError):
            slept.result(60)
        run.await_event("role_changed", host=place(gone), change="reader_out")
        assert {name_of(client, cluster) for client in clients} == {other.name}
        gone.cable.mend()
        until(
            lambda: {name_of(client, cluster) for client in clients} == {gone.name, other.name},
            "nobody goes back",
        )
        for client in clients:
            client.close()


def connect(port: int) -> Client:
    return psycopg.connect(
        host="127.0.0.1", port=port, user="toil", dbname="toil", autocommit=True, connect_timeout=20
    )


def name_of(client: Client, cluster: Cluster) -> str:
    """Say at which standby a client is: behind a cable, each has a port of its own."""
    [[recovery, port]] = client.execute("select pg_is_in_recovery(), current_setting('port')::int").fetchall()
    assert recovery
    return next(host.name for host in cluster.hosts if host.port == port)


def sleepers(host: Host) -> int:
    [[count]] = host.execute("select count(*) from pg_stat_activity where query = 'select pg_sleep(600)'")
    return int(count)
