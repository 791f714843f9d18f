"""
Metrics for CloudWatch, made of figures: RDS Proxy's names, units and dimensions, and ours for what it lacks.

What a period has added is the difference of two figures of one process. Each process sends its own; summed up
they are right, as RDS Proxy's are, which come from several nodes. Figures that are not there make no metric.

Documentation: Amazon RDS User Guide, "Monitoring RDS Proxy metrics"; CloudWatch, "Embedded metric format".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from attrs import frozen

Figures = Mapping[str, Any]

COUNT, MICROSECONDS = "Count", "Microseconds"
MOST_IN_A_BATCH = 150
"""Metrics in one PutMetricData: a thousand are allowed, and 1 MB."""
_BORROW_TIMEOUT = "08000"


@frozen
class Datum:
    """One value of one metric."""

    name: str
    value: float
    unit: str
    dimensions: tuple[tuple[str, str], ...]
    times: int = 1
    """How often it was measured, where it is an average."""


def data(now: Figures, before: Figures, proxy: str) -> list[Datum]:
    """Give the metrics of the time between two figures of a process; `proxy` is its ProxyName."""
    ours = (("ProxyName", proxy),)
    found = [Datum(name, value, COUNT, ours) for name, value in _of_proxy(now, before)]
    found += _averages(now, before, ours)
    for target, figures in now.get("targets_now", {}).items():
        of_target = (*ours, ("TargetGroup", "default"), ("Target", target))
        found += [Datum(name, value, COUNT, of_target) for name, value in _of_target(figures)]
    for reason, figures in now.get("pins", {}).items():
        of_reason = (*ours, ("Reason", reason))
        known = before.get("pins", {}).get(reason, {})
        found.append(Datum("Pins", figures["pins"] - known.get("pins", 0), COUNT, of_reason))
        found.append(Datum("PinnedClients", figures["now"], COUNT, of_reason))
    return found


def _of_proxy(now: Figures, before: Figures) -> Iterator[tuple[str, float]]:
    clients = now["clients"]
    yield "ClientConnections", clients
    yield "ClientConnectionsInSetup", now["logging_in"]
    yield "ClientConnectionsWaiting", now["waiting"]
    if "clients_with_tls" in now:
        yield "ClientConnectionsTLS", now["clients_with_tls"]
        yield "ClientConnectionsNoTLS", clients - now["clients_with_tls"]
    if "received" in now:
        received = now["received"] - before.get("received", 0)
        yield "ClientConnectionsReceived", received
        yield "ClientConnectionsClosed", received - (clients - before.get("clients", 0))
    yield "DatabaseConnections", sum(now["servers"].values())
    yield "DatabaseConnectionsCurrentlyBorrowed", now["servers"].get("linked", 0)
    if "pinned_clients" in now:
        yield "DatabaseConnectionsCurrentlySessionPinned", now["pinned_clients"]
    targets = now.get("targets_now", {})
    if targets:
        yield "DatabaseConnectionsWithTLS", _sum(targets, "tls")
        if all(figures["most"] for figures in targets.values()):
            yield "MaxDatabaseConnectionsAllowed", _sum(targets, "most")
    if "databases" in now:
        yield "ClientConnectionsSetupSucceeded", _more(now, before, "logins")
        yield "DatabaseConnectionsBorrowRequests", _more(now, before, "links")
        yield "QueryRequests", _more(now, before, "queries")
        yield "TransactionRequests", _more(now, before, "transactions")
    if "login_refused" in now:
        yield "ClientConnectionsSetupFailedAuth", now["login_refused"] - before.get("login_refused", 0)
    if "refused" in now:
        timeouts = now["refused"].get(_BORROW_TIMEOUT, 0) - before.get("refused", {}).get(_BORROW_TIMEOUT, 0)
        yield "DatabaseConnectionsBorrowTimeouts", timeouts
    if "opened" in now:
        opened = sum(now["opened"].values()) - sum(before.get("opened", {}).values())
        failed = _nested(now, "open_failed") - _nested(before, "open_failed")
        yield "DatabaseConnectionRequests", opened + failed
        yield "DatabaseConnectionsSetupSucceeded", opened
        yield "DatabaseConnectionsSetupFailed", failed
    if "secrets" in now:
        yield "Secrets", now["secrets"]
        yield "SecretsNotRead", now["secrets_not_read"]
        yield "MetricsDropped", now["metrics_dropped"] - before.get("metrics_dropped", 0)


def _of_target(figures: Figures) -> Iterator[tuple[str, float]]:
    yield "DatabaseConnections", figures["servers"]
    yield "DatabaseConnectionsWithTLS", figures["tls"]
    yield "DatabaseConnectionsCurrentlyBorrowed", figures["borrowed"]
    if figures["most"]:
        yield "MaxDatabaseConnectionsAllowed", figures["most"]


def _averages(now: Figures, before: Figures, dimensions: tuple[tuple[str, str], ...]) -> Iterator[Datum]:
    for name, key in (("DatabaseConnectionsBorrowLatency", "wait"), ("QueryResponseLatency", "query")):
        count, seconds = (_times(now, key, what) - _times(before, key, what) for what in ("count", "seconds"))
        if count > 0:
            yield Datum(name, max(0.0, seconds) / count * 1e6, MICROSECONDS, dimensions, int(count))


def _sum(tables: Figures, key: str) -> float:
    return float(sum(figures[key] for figures in tables.values()))


def _more(now: Figures, before: Figures, key: str) -> float:
    return _sum(now["databases"], key) - _sum(before.get("databases", {}), key)


def _times(figures: Figures, key: str, what: str) -> float:
    return float(sum(one[key][what] for one in figures.get("databases", {}).values()))


def _nested(figures: Figures, key: str) -> int:
    return sum(sum(one.values()) for one in figures.get(key, {}).values())


# In the forms that CloudWatch takes.


def as_metric_data(found: Iterable[Datum], timestamp: float) -> list[list[dict[str, Any]]]:
    """Give batches for PutMetricData; `timestamp` is in seconds since 1970."""
    entries = [
        {
            "MetricName": one.name,
            "Dimensions": [{"Name": name, "Value": value} for name, value in one.dimensions],
            "Timestamp": timestamp,
            "Values": [float(one.value)],
            "Counts": [float(one.times)],
            "Unit": one.unit,
        }
        for one in found
    ]
    return [entries[at : at + MOST_IN_A_BATCH] for at in range(0, len(entries), MOST_IN_A_BATCH)]


def as_embedded(found: Iterable[Datum], namespace: str, timestamp: float) -> list[dict[str, Any]]:
    """Give what stands at the root of a line of the log, for each set of dimensions."""
    lines: dict[tuple[tuple[str, str], ...], list[Datum]] = {}
    for one in found:
        lines.setdefault(one.dimensions, []).append(one)
    return [
        {
            "_aws": {
                "Timestamp": int(timestamp * 1000),
                "CloudWatchMetrics": [
                    {
                        "Namespace": namespace,
                        "Dimensions": [[name for name, _ in dimensions]],
                        "Metrics": [{"Name": one.name, "Unit": one.unit} for one in several],
                    }
                ],
            },
            **dict(dimensions),
            **{one.name: one.value for one in several},
        }
        for dimensions, several in lines.items()
    ]
