"""What becomes of single clients when the writer is another, and of a target that has one host only."""

from pathlib import Path

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from pgproxy.demo.process import wait_until
from tests.cluster import Cluster
from tests.failover import at_work, few, kill, known, place, proxy_before, restart, was_told
from tests.fix_pgproxy import Pgproxy, PgproxyFactory

Client = psycopg.Connection[tuple[object, ...]]
WHERE = "select host(inet_server_addr())"
NOT_ASKED = (
    "select count(*) from pg_stat_activity where datname = 'toil' and application_name <> 'pgproxy watcher'"
    " and (state = 'active' or query ~* '^(set (search_path|role)|create temp)')"
)


def connect(run: Pgproxy, **options: object) -> Client:
    return run.connect(user="toil", dbname="toil", password="", **{"autocommit": True, **options})


def fail_over(run: Pgproxy, cluster: Cluster) -> None:
    # Until what a statement has left behind was asked for, nobody knows what a session is set to.
    assert wait_until(lambda: cluster.writer.execute(NOT_ASKED) == [(0,)], 20.0)
    kill(cluster)
    known(run, cluster.writer)


def test_idle_clients_have_all_that_is_theirs(pgproxy: PgproxyFactory, cluster: Cluster) -> None:
    run = proxy_before(pgproxy, cluster)
    with connect(run) as client, connect(run, options="-c work_mem=7MB") as other:
        client.execute("set search_path = one, two; set my.tenant = 'seven'; set time zone 'Asia/Kolkata'")
        client.cursor().execute("select %s::int", [1], prepare=True)
        other.execute("set role none; set statement_timeout = '77s'")
        fail_over(run, cluster)
        assert client.execute("show search_path").fetchone() == ("one, two",)
        assert client.execute("select current_setting('my.tenant')").fetchone() == ("seven",)
        assert client.execute("show timezone").fetchone() == ("Asia/Kolkata",)
        assert client.execute("select %s::int", [2], prepare=True).fetchone() == (2,)
        assert other.execute("show work_mem").fetchone() == ("7MB",)
        assert other.execute("show statement_timeout").fetchone() == ("77s",)
        assert client.execute(WHERE).fetchone() == (cluster.writer.at[0],)
        assert client.execute("show in_hot_standby").fetchone() == ("off",)
        assert client.info.parameter_status("in_hot_standby") == "off"


def test_one_in_a_transaction_has_one_error_and_is_in_a_failed_transaction(
    pgproxy: PgproxyFactory, cluster: Cluster
) -> None:
    run = proxy_before(pgproxy, cluster)
    with connect(run) as client:
        client.execute("create table if not exists begun (a int)")
        client.execute("begin")
        client.execute("insert into begun values (1)")
        fail_over(run, cluster)
        with pytest.raises(psycopg.OperationalError) as lost:
            client.execute("select 1")
        assert lost.value.sqlstate in ("08006", "57P01")
        assert client.info.transaction_status is TransactionStatus.INERROR
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            client.execute("select 1")
        client.execute("rollback")
        assert client.execute("select count(*) from begun").fetchone() == (0,)
        client.execute("drop table begun")


def test_a_pinned_one_is_told_once_what_is_gone(pgproxy: PgproxyFactory, cluster: Cluster) -> None:
    run = proxy_before(pgproxy, cluster)
    with connect(run) as client:
        client.execute("create temporary table mine (a int)")
        fail_over(run, cluster)
        with pytest.raises(psycopg.OperationalError) as lost:
            client.execute("select 1")
        assert "temporary_object" in str(lost.value)
        assert client.execute(WHERE).fetchone() == (cluster.writer.at[0],)


def test_clients_of_session_mode_end_and_may_come_back_at_once(
    pgproxy: PgproxyFactory, cluster: Cluster
) -> None:
    """A session that a server holds goes with it, as it would directly."""
    run = proxy_before(pgproxy, cluster, proxy={"pool_mode": "session"})
    with connect(run) as client:
        assert client.execute(WHERE).fetchone() == (cluster.writer.at[0],)
        fail_over(run, cluster)
        with pytest.raises(psycopg.OperationalError):
            client.execute("select 1")
        assert client.closed
    with connect(run) as client:
        assert client.execute(WHERE).fetchone() == (cluster.writer.at[0],)


def test_a_target_with_one_host_that_is_restarted(
    pgproxy: PgproxyFactory, cluster: Cluster, tmp_path: Path
) -> None:
    run = proxy_before(pgproxy, cluster, server=place(cluster.writer))
    verdict = at_work(run, cluster, restart, tmp_path, few(run))
    assert not verdict.faults
    assert was_told(run, "became_writer") == [place(cluster.writer)]
    assert not was_told(run, "no_longer_writer")
