"""Prometheus's metrics, read by its own parser; the dashboard and the alerts ask for what there is."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pgproxy.demo.ports import free_port
from pgproxy.demo.process import wait_until
from tests.fix_pgproxy import Pgproxy, PgproxyFactory

ETC = Path(__file__).parents[2] / "etc"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def get(port: int, path: str = "/metrics", **headers: str) -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        return str(answer.read().decode())


def samples(port: int, **headers: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(get(port, **headers))
        for sample in family.samples
    }


def value(port: int, name: str, **labels: str) -> float:
    return samples(port).get((name, frozenset(labels.items())), 0.0)


@pytest.fixture(params=[1, 3], ids=["one process", "3 workers"])
def served(pgproxy: PgproxyFactory, request: pytest.FixtureRequest) -> tuple[Pgproxy, int]:
    port = free_port()
    proxy = pgproxy(proxy={"workers": request.param}, extra=f'[http]\nlisten = "127.0.0.1:{port}"\n')
    proxy.await_event("started")
    return proxy, port


def test_what_was_done_is_counted(served: tuple[Pgproxy, int]) -> None:
    proxy, port = served
    clients = [proxy.connect(autocommit=True) for _ in range(6)]
    for client in clients:
        for _ in range(5):
            client.execute("select 1")
    clients[0].execute("create temporary table t ()")
    with pytest.raises(psycopg.OperationalError):
        proxy.connect(password="wrong")
    assert wait_until(lambda: value(port, "pgproxy_queries_total", database="app") == 31, 20)
    assert wait_until(lambda: value(port, "pgproxy_pinned_clients", reason="temporary_object") == 1, 20)
    assert wait_until(lambda: value(port, "pgproxy_client_login_failures_total") == 1, 20)
    found = samples(port)

    def now(name: str, **labels: str) -> float:
        return found[name, frozenset(labels.items())]

    assert (
        now("pgproxy_clients") == 6 == now("pgproxy_pool_clients", database="app", user="app", state="served")
    )
    assert now("pgproxy_transactions_total", database="app") == 31
    assert now("pgproxy_client_logins_total", database="app") == 6
    assert now("pgproxy_clients_refused_total", sqlstate="28P01") == 1
    assert now("pgproxy_pins_total", reason="temporary_object") == 1
    assert now("pgproxy_target_up", target="main") == 1 and now("pgproxy_failovers_total", target="main") == 0
    assert now("pgproxy_pool_servers", database="app", user="app", state="linked") == 1
    assert now("pgproxy_pool_servers_max", database="app", user="app") == 20
    for name in ("query", "transaction"):
        assert now(f"pgproxy_{name}_seconds_count", database="app") == 31
        assert 0 < now(f"pgproxy_{name}_seconds_sum", database="app") < 60
    links = now("pgproxy_links_total", database="app")
    assert now("pgproxy_borrow_wait_seconds_count", database="app") == links >= 31
    for client in clients:
        client.close()
    assert wait_until(lambda: value(port, "pgproxy_clients") == 0, 20)
    assert value(port, "pgproxy_queries_total", database="app") == 31


def test_the_dashboard_and_the_alerts_ask_for_what_there_is(served: tuple[Pgproxy, int]) -> None:
    proxy, port = served
    with proxy.connect(autocommit=True) as client:
        client.execute("create temporary table t ()")
        assert wait_until(lambda: value(port, "pgproxy_pinned_clients", reason="temporary_object") == 1, 20)
        text = get(port)
    known = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    # Those that have labels are there once there is something to count.
    known |= {
        f"{name}_total" for name in re.findall(r"^# TYPE (\w+?)(?:_total)? counter", text, re.MULTILINE)
    }
    for name in ("grafana-dashboard.json", "prometheus-alerts.yml"):
        asked = set(re.findall(r"pgproxy_\w+", (ETC / name).read_text()))
        assert len(asked) > 10 and asked <= known, asked - known
    dashboard = json.loads((ETC / "grafana-dashboard.json").read_text())
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    documented = set(re.findall(r"pgproxy_\w+", (ETC.parent / "docs/metrics.md").read_text()))
    ours = {name for name in known if not re.search(r"_(bucket|count|sum|created)$", name)}
    assert ours <= documented, ours - documented
    assert {name for name in documented if not re.search(r"_(bucket|count|sum|seconds)$", name)} <= known


def test_who_may_read_them(pgproxy: PgproxyFactory, tmp_path: Path) -> None:
    open_port, closed_port = free_port(), free_port()
    open_to_all = pgproxy(extra=f'[http]\nlisten = "127.0.0.1:{open_port}"\n')
    token = tmp_path / "token"
    token.write_text("very secret\n")
    closed = pgproxy(extra=f'[http]\nlisten = "127.0.0.1:{closed_port}"\ntoken_file = "{token}"\n')
    for proxy in (open_to_all, closed):
        proxy.await_event("started")

    def status(port: int, path: str = "/metrics", **headers: str) -> int:
        try:
            get(port, path, **headers)
        except urllib.error.HTTPError as error:
            return error.code
        return 200

    assert status(open_port) == 200 == status(open_port, Host="localhost:1")
    assert status(open_port, Host="rebound.example") == 403
    assert status(open_port, "/nothing") == 404
    assert status(closed_port) == 401 == status(closed_port, Authorization="Bearer very")
    assert status(closed_port, "/", Authorization="Bearer wrong") == 401
    assert status(closed_port, Authorization="Bearer very secret") == 200
    with socket.create_connection(("127.0.0.1", open_port), timeout=20) as raw:
        raw.sendall(
            b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 100
        )
        assert b"200 OK" not in raw.recv(1000)
    assert "very secret" not in open_to_all.text()


def test_nothing_is_imported_where_nothing_is_served() -> None:
    code = (
        "import sys, pgproxy.service, pgproxy.workers.supervisor, pgproxy.workers.worker; print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    modules = done.stdout.split()
    assert "pgproxy.observe.serving" in modules
    assert not any(name.startswith(("prometheus_client", "twisted.web", "pgproxy.page")) for name in modules)


@pytest.mark.parametrize("workers", [1, 2])
def test_they_are_there_through_a_restart(pgproxy: PgproxyFactory, workers: int) -> None:
    port = free_port()
    proxy = pgproxy(proxy={"workers": workers}, extra=f'[http]\nlisten = "127.0.0.1:{port}"\n')
    proxy.await_event("started")
    assert value(port, "pgproxy_workers") in (0, workers)
    proxy.restart()
    (before,) = proxy.predecessors
    assert before.wait(20) == 0
    assert wait_until(lambda: value(port, "pgproxy_workers") == workers, 20)
