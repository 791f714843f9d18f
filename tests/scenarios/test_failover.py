"""A failover is a pause: a real cluster, clients at work, and each way in which a writer can go."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from pgproxy.demo.process import wait_until
from tests.cluster import Change, Cluster, Host
from tests.fix_pgproxy import Pgproxy, PgproxyFactory
from tests.ledger import Verdict
from tests.toil import Plan, Toil, lay_table

SPARES = 2
"""The default of standby_connections."""
USERS = {"app": "app-password", "boss": "boss-password", "toil": "toil"}


def proxy_before(pgproxy: PgproxyFactory, cluster: Cluster, **proxy: str | int | float) -> Pgproxy:
    hosts = [f"{address}:{port}" for address, port in (host.at for host in cluster.hosts)]
    return pgproxy(
        server=None,
        auth="trust",
        pool_size=20,
        proxy={"max_client_connections": 1000, **proxy},
        target={
            "server": hosts,
            "watch_user": "toil",
            "watch_database": "toil",
            "standby_connections": SPARES,
        },
    )


def the_next(cluster: Cluster) -> Host:
    """Give the standby that has all that was acknowledged."""
    assert cluster.synchronous is not None
    return cluster.synchronous


def kill(cluster: Cluster) -> Change:
    after = the_next(cluster)
    return cluster.promote(after, cluster.kill())


def stop(cluster: Cluster) -> Change:
    after = the_next(cluster)
    return cluster.promote(after, cluster.stop())


def freeze(cluster: Cluster) -> Change:
    after = the_next(cluster)
    return cluster.promote(after, cluster.freeze())


def freeze_and_wait(cluster: Cluster) -> Change:
    """As whoever decides about a failover does: not before some time has passed."""
    after, fault = the_next(cluster), cluster.freeze()
    time.sleep(2.0)
    return cluster.promote(after, fault)


def switch_over(cluster: Cluster) -> Change:
    return cluster.switch_over(the_next(cluster))


def await_spares(run: Pgproxy, cluster: Cluster) -> None:
    """Wait until servers are open at both standbys, for the case that one becomes the writer."""
    hosts = {f"{address}:{port}" for address, port in (standby.at for standby in cluster.standbys)}
    wait_until(
        lambda: (
            Counter(
                event["host"]
                for event in run.log()
                if event["event"] == "server_opened" and event["host"] in hosts
            )
            == dict.fromkeys(hosts, SPARES)
        ),
        20.0,
    )


def at_work(
    pgproxy: PgproxyFactory, cluster: Cluster, happens: Callable[[Cluster], Change], directory: Path
) -> Verdict:
    run = proxy_before(pgproxy, cluster)
    lay_table(cluster.writer)
    with Toil(Plan([("127.0.0.1", run.port)]), directory) as toil:
        toil.await_work()
        await_spares(run, cluster)
        change = happens(cluster)
        outcomes = toil.finish(since=change.writable)
        # What is sent to a host that hangs is under way until it is known that another is the writer.
        until = change.writable + 0.1 if happens in (freeze, freeze_and_wait) else None
        verdict = outcomes.judge(cluster.writer, change, until=until)
        print(verdict)
        return verdict


@pytest.mark.parametrize("happens", [kill, stop, freeze, freeze_and_wait, switch_over])
def test_clients_at_work(
    pgproxy: PgproxyFactory, cluster: Cluster, tmp_path: Path, happens: Callable[[Cluster], Change]
) -> None:
    verdict = at_work(pgproxy, cluster, happens, tmp_path)
    assert not verdict.faults
