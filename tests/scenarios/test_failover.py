"""A failover is a pause: a real cluster, clients at work, and each way in which a writer can go."""

from pathlib import Path

import psycopg
import pytest

from tests.cluster import Change, Cluster
from tests.failover import (
    SILENT,
    Happens,
    at_work,
    await_spares,
    few,
    freeze,
    freeze_and_wait,
    kill,
    place,
    proxy_before,
    restart,
    stop,
    switch_over,
    the_next,
    until,
    was_told,
)
from tests.fix_pgproxy import Pgproxy, PgproxyFactory


@pytest.mark.parametrize("happens", [kill, stop, freeze, freeze_and_wait, switch_over, restart])
def test_200_clients_at_work(
    pgproxy: PgproxyFactory, cluster: Cluster, tmp_path: Path, happens: Happens
) -> None:
    run = proxy_before(pgproxy, cluster)

    def with_spares(cluster: Cluster) -> Change:
        await_spares(run, cluster)
        return happens(cluster)

    verdict = at_work(run, cluster, with_spares, tmp_path, hangs=happens in SILENT)
    assert not verdict.faults


def test_a_switchover_that_is_planned_loses_nothing_at_all(
    pgproxy: PgproxyFactory, cluster: Cluster, tmp_path: Path
) -> None:
    run = proxy_before(pgproxy, cluster, proxy={"admin_users": ["toil"]})

    def in_order(cluster: Cluster) -> Change:
        await_spares(run, cluster)
        with run.connect(user="toil", dbname="pgproxy", password="", autocommit=True) as console:
            console.execute("SWITCHOVER main")
        return switch_over(cluster)

    verdict = at_work(run, cluster, in_order, tmp_path)
    assert not verdict.faults
    assert not verdict.in_transaction and not verdict.under_way


def test_a_switchover_that_nobody_performs_is_given_up(pgproxy: PgproxyFactory, cluster: Cluster) -> None:
    run = proxy_before(pgproxy, cluster, proxy={"admin_users": ["toil"], "connection_borrow_timeout": 2.0})
    console = run.connect(user="toil", dbname="pgproxy", password="", autocommit=True)
    client = run.connect(user="toil", dbname="toil", password="")
    client.execute("select 1")
    with pytest.raises(psycopg.errors.ObjectInUse, match="still in use"):
        console.execute("SWITCHOVER main")
    client.commit()
    console.execute("SWITCHOVER main")
    run.await_event("switchover_given_up", target="main")
    assert client.execute("select 1").fetchone() == (1,)
    client.close()
    console.close()


def test_200_clients_that_wait_for_a_server_wait_on(
    pgproxy: PgproxyFactory, cluster: Cluster, tmp_path: Path
) -> None:
    run = proxy_before(pgproxy, cluster, pool_size=3)
    # With so many at three servers, all but three of those who want something wait.
    verdict = at_work(run, cluster, kill, tmp_path)
    assert not verdict.faults
    assert verdict.under_way.total() + verdict.in_transaction.total() <= 2 * 3


def twice(cluster: Cluster) -> Change:
    """The second writer dies as soon as the third has all that it has acknowledged."""
    first = kill(cluster)
    third = next(host for host in cluster.standbys if host.is_up)
    # It may have received what the second had not: it is rewound then.
    cluster.rejoin(third)
    cluster.make_synchronous(third)
    second = kill(cluster)
    return Change(first.cut, second.gone, second.ordered, second.writable)


def there_and_back(cluster: Cluster) -> Change:
    """The old writer is rewound, follows, and becomes the writer again when the new one dies."""
    old = cluster.writer
    first = kill(cluster)
    cluster.rejoin(old)
    cluster.make_synchronous(old)
    second = kill(cluster)
    assert cluster.writer is old
    return Change(first.cut, second.gone, second.ordered, second.writable)


@pytest.mark.parametrize("happens", [twice, there_and_back])
def test_two_failovers(pgproxy: PgproxyFactory, cluster: Cluster, tmp_path: Path, happens: Happens) -> None:
    run = proxy_before(pgproxy, cluster)
    verdict = at_work(run, cluster, happens, tmp_path, few(run))
    assert not verdict.faults
    assert len(was_told(run, "became_writer")) >= 3


def test_reloads_in_the_middle(pgproxy: PgproxyFactory, cluster: Cluster, tmp_path: Path) -> None:
    run = proxy_before(pgproxy, cluster, pool_size=5)
    config = (run.directory / "pgproxy.toml").read_text()
    third = cluster.standbys[1]

    def reload(changed: str) -> None:
        assert changed != config
        before = reloads(run)
        run.write_config(changed)
        run.reload()
        until(lambda: reloads(run) > before, "it has not reloaded")

    def happens(cluster: Cluster) -> Change:
        after, fault = the_next(cluster), cluster.kill()
        reload(config.replace("pool_size = 5", "pool_size = 6"))
        change = cluster.promote(after, fault)
        # With a host less: the writer, to whom nothing has happened, serves on.
        reload(config.replace(f', "{place(third)}"', ""))
        return change

    verdict = at_work(run, cluster, happens, tmp_path, few(run))
    assert not verdict.faults


def reloads(run: Pgproxy) -> int:
    return sum(event["event"] == "reloaded" for event in run.log())
