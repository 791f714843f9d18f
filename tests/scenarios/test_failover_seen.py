"""A failover as the operator sees it: on the console and in the metrics; one process, and several."""

from __future__ import annotations

import urllib.request

import pytest
from psycopg.rows import dict_row

from pgproxy.demo.ports import free_port
from pgproxy.demo.process import wait_until
from tests.cluster import Cluster
from tests.failover import kill, place, proxy_before
from tests.fix_pgproxy import PgproxyFactory


@pytest.mark.parametrize("workers", [1, 2])
def test_the_console_and_the_metrics_tell(pgproxy: PgproxyFactory, cluster: Cluster, workers: int) -> None:
    port = free_port()
    run = proxy_before(
        pgproxy,
        cluster,
        proxy={"admin_users": ["toil"], "workers": workers},
        extra=f'[http]\nlisten = "127.0.0.1:{port}"\n',
    )
    run.await_event("started")
    parameters = {"user": "toil", "dbname": "pgproxy", "password": "toil", "autocommit": True}
    with run.connect(**parameters, row_factory=dict_row) as console:

        def roles() -> dict[str, str]:
            rows = console.execute("show targets").fetchall()
            return {f"{row['host']}:{row['port']}": row["role"] for row in rows}  # type: ignore[call-overload]

        before = place(cluster.writer)
        expected = {place(host): "writer" if place(host) == before else "reader" for host in cluster.hosts}
        assert wait_until(lambda: roles() == expected, 20)
        kill(cluster)
        after = place(cluster.writer)
        assert after != before
        assert wait_until(lambda: roles().get(after) == "writer" and roles()[before] == "none", 20)
        history = [(row["host"], row["event"]) for row in console.execute("show history")]  # type: ignore[call-overload]
        assert history.index((before, "became_writer")) < history.index((after, "became_writer"))

    def failovers() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
            return b'pgproxy_failovers_total{target="main"} 1.0' in answer.read()

    assert wait_until(failovers, 20)
