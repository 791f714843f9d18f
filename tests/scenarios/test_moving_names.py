"""Targets whose hosts are told by others, who tell of a failover in their own time: DNS, RDS, Patroni."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pgproxy.demo.process import wait_until
from tests.cluster import Change, Cluster
from tests.failover import at_work, few, kill, known, place, proxy_before, the_next, was_told
from tests.fix_pgproxy import PgproxyFactory
from tests.patroni import Patroni
from tests.rds import Rds
from tests.zone import Zone

NAME = "db.example"


def moving(tell: Callable[[Cluster], object]) -> Callable[[Cluster], Change]:
    """Have the writer die and another take its place, of which somebody tells a moment later."""

    def happens(cluster: Cluster) -> Change:
        change = kill(cluster)
        tell(cluster)
        return change

    return happens


def test_one_name_that_is_the_writers(
    pgproxy: PgproxyFactory, cluster: Cluster, zone: Zone, tmp_path: Path
) -> None:
    """As the endpoint of an RDS instance, or a name that a script moves: one address, another afterwards."""
    zone.alias(NAME, "first.example", ttl=60)
    zone.set("first.example", cluster.writer.at[0], ttl=60)
    zone.set("second.example", the_next(cluster).at[0], ttl=60)
    old = cluster.writer
    run = proxy_before(
        pgproxy, cluster, server=f"{NAME}:{cluster.port}", extra=dns(zone), standby_connections=0
    )
    happens = moving(lambda _: zone.alias(NAME, "second.example", ttl=60))
    verdict = at_work(run, cluster, happens, tmp_path, few(run))
    assert not verdict.faults
    # The TTL has not passed: it was asked anew because of the trouble.
    assert was_told(run, "found") == [place(old), place(cluster.writer)]


def test_a_name_that_moves_while_all_is_well(pgproxy: PgproxyFactory, cluster: Cluster, zone: Zone) -> None:
    """Nobody notices trouble: the TTL says when it is to be asked again."""
    zone.set(NAME, cluster.writer.at[0], ttl=1)
    run = proxy_before(
        pgproxy, cluster, server=f"{NAME}:{cluster.port}", extra=dns(zone), standby_connections=0
    )
    with run.connect(user="toil", dbname="toil", password="", autocommit=True) as client:
        where = "select host(inet_server_addr())"
        assert client.execute(where).fetchone() == (cluster.writer.at[0],)
        cluster.promote(cluster.standbys[0])
        zone.set(NAME, cluster.writer.at[0], ttl=1)
        known(run, cluster.writer)
        assert client.execute(where).fetchone() == (cluster.writer.at[0],)


def test_one_name_with_the_addresses_of_all_hosts(
    pgproxy: PgproxyFactory, cluster: Cluster, zone: Zone, tmp_path: Path
) -> None:
    zone.set(NAME, *(host.at[0] for host in cluster.hosts), ttl=5)
    run = proxy_before(pgproxy, cluster, server=f"{NAME}:{cluster.port}", extra=dns(zone))
    verdict = at_work(run, cluster, kill, tmp_path, few(run))
    assert not verdict.faults


def test_patroni(pgproxy: PgproxyFactory, cluster: Cluster, patroni: Patroni, tmp_path: Path) -> None:
    """It names the old leader for a while, and then the new one."""
    patroni.show(cluster)
    cluster.observers.append(patroni.show)
    run = proxy_before(
        pgproxy,
        cluster,
        server=place(cluster.writer),
        extra=f'\n[targets.main.discovery]\nkind = "patroni"\nurls = ["{patroni.url}"]\n',
    )
    try:
        verdict = at_work(run, cluster, kill, tmp_path, few(run))
    finally:
        cluster.observers.remove(patroni.show)
    assert not verdict.faults
    assert set(was_told(run, "found")) == set(map(place, cluster.hosts))


def test_rds(
    pgproxy: PgproxyFactory,
    cluster: Cluster,
    rds: Rds,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The API tells of the failover late; who is the writer, the hosts have said themselves by then."""
    names = {host: f"rds-{host.name}" for host in cluster.hosts}
    rds.make_aurora("failing", [names[cluster.writer], *(names[host] for host in cluster.standbys)])
    for name, value in rds.environment.items():
        monkeypatch.setenv(name, value)
    addresses = "".join(f'"{name}" = "{place(host)}"\n' for host, name in names.items())
    run = proxy_before(
        pgproxy,
        cluster,
        server=f"{cluster.writer.at[0]}:{cluster.port}",
        extra=(
            f'\n[targets.main.discovery]\nkind = "rds"\ncluster = "failing"\nendpoint_url = "{rds.url}"\n'
            f'region = "eu-central-1"\ninterval = 1.0\n[targets.main.discovery.addresses]\n{addresses}'
        ),
    )
    happens = moving(lambda cluster: rds.fail_over("failing", names[cluster.writer]))
    verdict = at_work(run, cluster, happens, tmp_path, few(run))
    assert not verdict.faults
    assert rds.writer("failing") == names[cluster.writer]
    assert set(was_told(run, "found")) == set(map(place, cluster.hosts))
    # An instance that the API does not know any more is a host no more.
    gone = next(host for host in cluster.standbys if host.is_up)
    rds.client.delete_db_instance(DBInstanceIdentifier=names[gone], SkipFinalSnapshot=True)
    wait_until(lambda: place(gone) in was_told(run, "gone"), 20.0)
    assert was_told(run, "gone") == [place(gone)]


def dns(zone: Zone) -> str:
    return f'\n[targets.main.discovery]\nkind = "dns"\ndns_server = "127.0.0.1:{zone.port}"\n'
