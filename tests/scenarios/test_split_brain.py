"""A writer that comes back as one although another has its place: it is fenced, and nobody is sent to it."""

from pathlib import Path

from tests.cluster import Change, Cluster, Host
from tests.failover import (
    at_work,
    few,
    kill,
    known,
    opened_at,
    place,
    proxy_before,
    until,
    was_told,
)
from tests.fix_pgproxy import PgproxyFactory
from tests.toil import Toil, lay_table

ROWS = "select client, seq, part, token from toil"


def come_back(cluster: Cluster, old: Host) -> None:
    """Start a writer that was killed as what it was, ready to take commits alone."""
    old.settings["synchronous_standby_names"] = ""
    old.start()
    assert not old.in_recovery


def test_an_old_writer_that_comes_back_gets_nobody(
    pgproxy: PgproxyFactory, cluster: Cluster, tmp_path: Path
) -> None:
    run = proxy_before(pgproxy, cluster)
    old = cluster.writer

    def happens(cluster: Cluster) -> Change:
        change = kill(cluster)
        known(run, cluster.writer)
        before = opened_at(run, old)
        come_back(cluster, old)
        run.await_event("role_changed", host=place(old), change="fenced")
        # All find their way with both of them there.
        assert opened_at(run, old) == before
        return change

    verdict = at_work(run, cluster, happens, tmp_path, few(run))
    assert not verdict.faults
    # What it has and the writer has not is what was under way when it died.
    only_there = set(old.execute(ROWS, dbname="toil")) - set(cluster.writer.execute(ROWS, dbname="toil"))
    assert len(only_there) <= verdict.under_way.total() + verdict.in_transaction.total()
    assert was_told(run, "became_writer")[-1] == place(cluster.writer)


def test_an_old_writer_that_is_back_before_pgproxy_starts_gets_nobody(
    pgproxy: PgproxyFactory, cluster: Cluster, tmp_path: Path
) -> None:
    """Who begins with two that say they are the writer waits until it has heard all."""
    old = cluster.writer
    lay_table(old)
    cluster.wait_until_equal(cluster.standbys[0])
    kill(cluster)
    come_back(cluster, old)
    # The old one is named first.
    others = [host for host in cluster.hosts if host is not old]
    run = proxy_before(pgproxy, cluster, server=[place(host) for host in (old, *others)])
    with Toil(few(run), tmp_path) as toil:
        toil.await_work()
        outcomes = toil.finish()
    verdict = outcomes.judge(cluster.writer)
    assert not verdict.faults
    assert old.execute(ROWS, dbname="toil") == []
    assert opened_at(run, old) == 0


def test_a_writer_that_nobody_has_stopped_gets_nobody_once_another_is_promoted(
    pgproxy: PgproxyFactory, cluster: Cluster, tmp_path: Path
) -> None:
    """The higher timeline has it; the clients of the old one go there."""
    run = proxy_before(pgproxy, cluster)
    old = cluster.writer
    with run.connect(user="toil", dbname="toil", password="", autocommit=True) as client:
        where = "select host(inet_server_addr())"
        assert client.execute(where).fetchone() == (old.at[0],)
        cluster.promote(cluster.standbys[0])
        known(run, cluster.writer)
        assert client.execute(where).fetchone() == (cluster.writer.at[0],)
        assert not old.in_recovery
        until(lambda: place(old) in was_told(run, "fenced"), "the old writer is not fenced")
        assert client.execute(where).fetchone() == (cluster.writer.at[0],)
