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

COUNT, MICROSECONDS, PERCENT = "Count", "Microseconds", "Percent"
MOST_IN_A_BATCH = 150
"""Metrics in one PutMetricData: a thousand are allowed, and 1 MB."""
_BORROW_TIMEOUT = "08000"
_GROUP = ("TargetGroup", "default")
_MOST = "MaxDatabaseConnectionsAllowed"
_OF_SERVERS = {
    "DatabaseConnections": "servers",
    "DatabaseConnectionsWithTLS": "tls",
    "DatabaseConnectionsCurrentlyBorrowed": "borrowed",
    "DatabaseConnectionsCurrentlyInTransaction": "in_transaction",
    "DatabaseConnectionsCurrentlySessionPinned": "pinned",
}
"""By target and role: whose key is which metric."""


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
    for endpoint, figures in now.get("endpoints", {}).items():
        of_endpoint = (*ours, ("EndpointName", endpoint))
        found += [Datum(name, value, COUNT, of_endpoint) for name, value in _of_clients([figures])]
    found += _of_targets(now, before, ours)
    for reason, figures in now.get("pins", {}).items():
        of_reason = (*ours, ("Reason", reason))
        known = before.get("pins", {}).get(reason, {})
        found.append(Datum("Pins", figures["pins"] - known.get("pins", 0), COUNT, of_reason))
        found.append(Datum("PinnedClients", figures["now"], COUNT, of_reason))
    return found


def _of_proxy(now: Figures, before: Figures) -> Iterator[tuple[str, float]]:
    clients = now["clients"]
    yield from (
        _of_clients(now["endpoints"].values()) if "endpoints" in now else [("ClientConnections", clients)]
    )
    yield "ClientConnectionsInSetup", now["logging_in"]
    yield "ClientConnectionsWaiting", now["waiting"]
    if "received" in now:
        received = now["received"] - before.get("received", 0)
        yield "ClientConnectionsReceived", received
        yield "ClientConnectionsClosed", received - (clients - before.get("clients", 0))
    yield "DatabaseConnections", sum(now["servers"].values())
    yield "DatabaseConnectionsCurrentlyBorrowed", now["servers"].get("linked", 0)
    if "pinned_clients" in now:
        yield "DatabaseConnectionsCurrentlySessionPinned", now["pinned_clients"]
    roles = [figures for target in now.get("targets_now", {}).values() for figures in target.values()]
    if roles:
        counted = ("DatabaseConnectionsWithTLS", "DatabaseConnectionsCurrentlyInTransaction", _MOST)
        yield from ((name, value) for name, value in _of_servers(roles) if name in counted)
    if "databases" in now:
        yield "ClientConnectionsSetupSucceeded", _more(now, before, "logins")
        yield "DatabaseConnectionsBorrowRequests", _more(now, before, "links")
        queries, in_tls = (_more(now, before, key) for key in ("queries", "queries_in_tls"))
        yield "QueryRequests", queries
        yield "QueryRequestsTLS", in_tls
        yield "QueryRequestsNoTLS", queries - in_tls
        yield "TransactionRequests", _more(now, before, "transactions")
    if "login_refused" in now:
        yield "ClientConnectionsSetupFailedAuth", now["login_refused"] - before.get("login_refused", 0)
    if "refused" in now:
        timeouts = now["refused"].get(_BORROW_TIMEOUT, 0) - before.get("refused", {}).get(_BORROW_TIMEOUT, 0)
        yield "DatabaseConnectionsBorrowTimeouts", timeouts
        if "databases" in now:
            yield "DatabaseConnectionsBorrowRequestsAborted", timeouts + _more(now, before, "aborted")
    if "opened" in now:
        opened = sum(now["opened"].values()) - sum(before.get("opened", {}).values())
        failed = _nested(now, "open_failed") - _nested(before, "open_failed")
        in_tls = sum(now["opened_in_tls"].values()) - sum(before.get("opened_in_tls", {}).values())
        yield "DatabaseConnectionRequests", opened + failed
        yield "DatabaseConnectionRequestsWithTLS", in_tls
        yield "DatabaseConnectionsSetupSucceeded", opened
        yield "DatabaseConnectionsSetupFailed", failed
    if "secrets" in now:
        yield "Secrets", now["secrets"]
        yield "SecretsNotRead", now["secrets_not_read"]
        yield "MetricsDropped", now["metrics_dropped"] - before.get("metrics_dropped", 0)


def _of_clients(endpoints: Iterable[Figures]) -> Iterator[tuple[str, float]]:
    endpoints = list(endpoints)
    clients, tls = (sum(figures[key] for figures in endpoints) for key in ("clients", "tls"))
    yield "ClientConnections", clients
    yield "ClientConnectionsTLS", tls
    yield "ClientConnectionsNoTLS", clients - tls


def _of_targets(now: Figures, before: Figures, ours: tuple[tuple[str, str], ...]) -> Iterator[Datum]:
    roles: dict[str, list[Figures]] = {}
    for target, by_role in now.get("targets_now", {}).items():
        of_target = (*ours, _GROUP, ("Target", target))
        counted = [*_of_servers(by_role.values()), *_opened(now, before, target)]
        yield from (Datum(name, value, COUNT, of_target) for name, value in counted)
        for role, figures in by_role.items():
            roles.setdefault(role, []).append(figures)
    for role, several in roles.items():
        of_role = (*ours, _GROUP, ("TargetRole", role))
        yield from (Datum(name, value, COUNT, of_role) for name, value in _of_servers(several))
        up = [figures["up"] for figures in several if "up" in figures]
        if up:
            yield Datum("AvailabilityPercentage", 100.0 * sum(up) / len(up), PERCENT, of_role)


def _of_servers(several: Iterable[Figures]) -> Iterator[tuple[str, float]]:
    several = list(several)
    for name, key in _OF_SERVERS.items():
        yield name, sum(figures[key] for figures in several)
    most = sum(figures["most"] for figures in several)
    if most:
        yield _MOST, most


def _opened(now: Figures, before: Figures, target: str) -> Iterator[tuple[str, float]]:
    if "opened" in now:
        opened = now["opened"].get(target, 0) - before.get("opened", {}).get(target, 0)
        failed = _failed(now, target) - _failed(before, target)
        in_tls = now["opened_in_tls"].get(target, 0) - before.get("opened_in_tls", {}).get(target, 0)
        yield "DatabaseConnectionRequests", opened + failed
        yield "DatabaseConnectionRequestsWithTLS", in_tls
        yield "DatabaseConnectionsSetupSucceeded", opened
        yield "DatabaseConnectionsSetupFailed", failed


def _failed(figures: Figures, target: str) -> int:
    return sum(figures.get("open_failed", {}).get(target, {}).values())


def _averages(now: Figures, before: Figures, dimensions: tuple[tuple[str, str], ...]) -> Iterator[Datum]:
    waits, waited = (
        _times(now, "wait", what) - _times(before, "wait", what) for what in ("count", "seconds")
    )
    asked, took = (
        _times(now, "query", what) - _times(before, "query", what) for what in ("count", "seconds")
    )
    if waits > 0:
        borrowing = max(0.0, waited) / waits * 1e6
        yield Datum("DatabaseConnectionsBorrowLatency", borrowing, MICROSECONDS, dimensions, int(waits))
    if asked > 0:
        database = max(0.0, took) / asked * 1e6
        queries = _more(now, before, "queries")
        # What is timed begins when a server has been borrowed; a query's client has waited for that, too.
        waiting = max(0.0, waited) / queries * 1e6 if queries > 0 else 0.0
        yield Datum("QueryDatabaseResponseLatency", database, MICROSECONDS, dimensions, int(asked))
        yield Datum("QueryResponseLatency", database + waiting, MICROSECONDS, dimensions, int(asked))


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
