"""Metrics: in CloudWatch, in the log, and nowhere where nobody takes them."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pgproxy.demo.process import wait_until
from tests.fix_aws import ENVIRONMENT, Door, Moto
from tests.fix_pgproxy import PgproxyFactory, Toml
from tests.fix_tls import Tls
from tests.raw import Raw, message


def config(send: str, name: str) -> str:
    return f'[aws.cloudwatch]\nsend = "{send}"\nnamespace = "tests"\nproxy_name = "{name}"\ninterval = 0.5\n'


def environment(door: Door) -> dict[str, str]:
    return {**ENVIRONMENT, "AWS_ENDPOINT_URL": door.url}


def maximum(client: Any, name: str, dimensions: dict[str, str]) -> float:
    """Give the greatest value of a metric, 0 where there is none yet."""
    now = datetime.now(UTC)
    answer = client.get_metric_statistics(
        Namespace="tests",
        MetricName=name,
        Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
        StartTime=now - timedelta(hours=1),
        EndTime=now + timedelta(hours=1),
        Period=60,
        Statistics=["Maximum"],
    )
    return max((point["Maximum"] for point in answer["Datapoints"]), default=0.0)


@pytest.mark.parametrize("workers", [1, 2])
def test_by_the_api(pgproxy: PgproxyFactory, moto: Moto, door: Door, workers: int) -> None:
    name = f"api-{workers}"
    proxy = pgproxy(extra=config("api", name), env=environment(door), proxy={"workers": workers})
    client = moto.client("cloudwatch")
    limit = time.monotonic() + 60
    target = {"ProxyName": name, "TargetGroup": "default", "Target": "main"}
    role = {"ProxyName": name, "TargetGroup": "default", "TargetRole": "READ_WRITE"}
    with proxy.connect(autocommit=True) as connection:
        connection.execute("listen something")
        connection.execute("begin")
        while time.monotonic() < limit:
            if maximum(client, "DatabaseConnectionsCurrentlyInTransaction", role):
                break
            time.sleep(0.1)
    assert maximum(client, "ClientConnections", {"ProxyName": name}) == 1
    assert maximum(client, "ClientConnections", {"ProxyName": name, "EndpointName": "default"}) == 1
    assert maximum(client, "DatabaseConnectionsCurrentlyInTransaction", role) == 1
    assert maximum(client, "AvailabilityPercentage", role) == 100
    # Each worker tells its part of it.
    assert (
        maximum(client, "MaxDatabaseConnectionsAllowed", role)
        == proxy.await_event("budget")["servers"] / workers
    )
    assert maximum(client, "DatabaseConnectionsCurrentlyBorrowed", target) == 1
    assert maximum(client, "PinnedClients", {"ProxyName": name, "Reason": "listen"}) == 1


def test_in_the_log(pgproxy: PgproxyFactory, door: Door) -> None:
    proxy = pgproxy(extra=config("emf", "emf"), env=environment(door))
    with proxy.connect():
        line = proxy.await_event("metrics", ClientConnections=1, ProxyName="emf")
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "tests" and directive["Dimensions"] == [["ProxyName"]]
    assert {"Name": "ClientConnections", "Unit": "Count"} in directive["Metrics"]


@pytest.mark.one_process("with several each tells its part")
def test_queries_in_tls_and_waits_in_vain(pgproxy: PgproxyFactory, door: Door, tls: Tls) -> None:
    options: dict[str, Toml] = {
        "tls.mode": "allow",
        "tls.certificate": str(tls.server.certificate),
        "tls.key": str(tls.server.key),
        "connection_borrow_notice": 0.2,
    }
    proxy = pgproxy(
        extra=config("emf", "counts"), env=environment(door), proxy=options, pool_size=1, auth="trust"
    )

    def told(name: str) -> float:
        return sum(float(event.get(name, 0)) for event in proxy.log() if event["event"] == "metrics")

    with proxy.connect(sslmode="require", autocommit=True) as secure:
        for _ in range(3):
            secure.execute("select 1")
        with Raw(proxy.port) as waits:
            waits.log_in()
            waits.query("select 1")
            secure.execute("begin")
            waits.send(message("Q", b"select 1\0"))
            # A notice says that it waits; it goes.
            waits.until("N")
    assert wait_until(lambda: told("DatabaseConnectionsBorrowRequestsAborted") == 1, 20)
    assert wait_until(lambda: told("QueryRequestsTLS") >= 4 and told("QueryRequestsNoTLS") == 1, 20)
    assert told("DatabaseConnectionRequestsWithTLS") == 0


@pytest.mark.parametrize("mood", ["refuses", "hangs", "errs"])
def test_nobody_takes_them(pgproxy: PgproxyFactory, moto: Moto, door: Door, mood: str) -> None:
    """They are dropped and counted; who is served does not notice."""
    proxy = pgproxy(extra=config("api", f"lost-{mood}"), env=environment(door))
    door.be(mood)  # type: ignore[arg-type]
    proxy.await_event("metrics_dropped")
    with proxy.connect() as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    door.be("open")
    assert proxy.await_event("metrics_sent_again")["dropped"] > 0
    client, limit = moto.client("cloudwatch"), time.monotonic() + 30
    while not maximum(client, "MetricsDropped", {"ProxyName": f"lost-{mood}"}):
        assert time.monotonic() < limit
        time.sleep(0.1)
