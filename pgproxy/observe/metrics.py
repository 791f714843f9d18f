"""
The figures in Prometheus's words.

Names follow https://prometheus.io/docs/practices/naming/: base units, `_total` for what only grows. This is
imported where metrics are served only, as prometheus_client is an extra.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from pgproxy import __version__
from pgproxy.config import Config
from pgproxy.figures.histogram import cumulative
from pgproxy.observe.http import Page

Figures = Mapping[str, Any]

_BY_DATABASE = {
    "links": ("pgproxy_links", "How often a client was given a server."),
    "transactions": ("pgproxy_transactions", "Transactions that have ended."),
    "queries": ("pgproxy_queries", "Queries, and batches of the extended protocol, that were answered."),
    "received": ("pgproxy_client_received_bytes", "Bytes from clients, logins and TLS included."),
    "sent": ("pgproxy_client_sent_bytes", "Bytes to clients, logins and TLS included."),
    "logins": ("pgproxy_client_logins", "Clients that have logged in."),
}
_TIMES = {
    "wait": (
        "pgproxy_borrow_wait_seconds",
        "How long clients have waited for a server; those that got one at once are in the first bucket.",
    ),
    "query": ("pgproxy_query_seconds", "How long queries took, as seen here: of a sample, weighted."),
    "transaction": ("pgproxy_transaction_seconds", "How long transactions took: of a sample, weighted."),
}


def page(figures: Figures, config: Config) -> Page:
    """Give all metrics, in the text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(families(figures, config)))
    return Page(CONTENT_TYPE_LATEST, generate_latest(registry))


class _Once(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterable[Metric]:
        return self._metrics

    def describe(self) -> Iterable[Metric]:
        return []


def families(figures: Figures, config: Config) -> Iterator[Metric]:
    """Give all metrics."""
    yield InfoMetricFamily("pgproxy", "The version.", {"version": __version__})
    yield _gauge("pgproxy_workers", "Processes that carry clients.", figures.get("processes", 1))
    yield _counter("pgproxy_worker_restarts", "How often one had to be started again.", figures, "restarts")
    yield _counter(
        "pgproxy_cpu_seconds", "Processor time of the processes that carry clients.", figures, "cpu"
    )
    yield _gauge("pgproxy_resident_memory_bytes", "Their memory.", figures.get("memory", 0))
    yield _gauge("pgproxy_clients", "Clients, those that log in included.", figures.get("clients", 0))
    yield _gauge("pgproxy_clients_max", "How many there may be.", config.proxy.max_client_connections)
    yield _gauge("pgproxy_clients_logging_in", "Clients that log in.", figures.get("logging_in", 0))
    yield _gauge("pgproxy_clients_waiting", "Clients that wait for a server.", figures.get("waiting", 0))
    yield _counter(
        "pgproxy_client_login_failures", "Clients whose proof was not good.", figures, "login_refused"
    )
    yield _labelled("pgproxy_clients_refused", "Clients refused.", ("sqlstate",), figures.get("refused", {}))
    yield from _pools(figures.get("pools", {}), config)
    yield from _targets(figures, config)
    yield from _databases(figures.get("databases", {}))
    yield from _pins(figures)


def _pools(pools: Figures, config: Config) -> Iterator[Metric]:
    names = ["database", "user"]
    clients = GaugeMetricFamily("pgproxy_pool_clients", "Clients of a pool.", labels=[*names, "state"])
    servers = GaugeMetricFamily("pgproxy_pool_servers", "Servers of a pool.", labels=[*names, "state"])
    most = GaugeMetricFamily("pgproxy_pool_servers_max", "How many there may be.", labels=names)
    for database, users in pools.items():
        for user, figures in users.items():
            pool = [_label(database), _label(user)]
            waiting = figures.get("clients_waiting", 0)
            clients.add_metric([*pool, "waiting"], waiting)
            clients.add_metric([*pool, "served"], max(0, figures.get("clients", 0) - waiting))
            for state in ("opening", "idle", "linked", "releasing", "checking", "closing"):
                servers.add_metric([*pool, state], figures.get(f"servers_{state}", 0))
            most.add_metric(pool, config.pool_size(database, user))
    yield from (clients, servers, most)


def _targets(figures: Figures, config: Config) -> Iterator[Metric]:
    up = GaugeMetricFamily(
        "pgproxy_target_up",
        "0 where the last attempt to open a server failed and none is open.",
        labels=["target"],
    )
    servers = GaugeMetricFamily("pgproxy_target_servers", "Servers of a target.", labels=["target"])
    failovers = CounterMetricFamily(
        "pgproxy_failovers", "How often another host has become a target's writer.", labels=["target"]
    )
    for target in config.targets:
        known = figures.get("targets", {}).get(target, {})
        up.add_metric([_label(target)], int(known.get("working", 0) > 0 or not known.get("failing", 0)))
        servers.add_metric([_label(target)], known.get("servers", 0))
        failovers.add_metric([_label(target)], figures.get("failovers", {}).get(target, {}).get("most", 0))
    yield from (up, servers, failovers)
    yield _labelled("pgproxy_server_opens", "Servers opened.", ("target",), figures.get("opened", {}))
    yield _labelled(
        "pgproxy_server_open_failures",
        "Servers that could not be opened, by how far it came.",
        ("target", "stage"),
        figures.get("open_failed", {}),
    )
    yield _labelled(
        "pgproxy_server_closes", "Servers closed.", ("target", "reason"), figures.get("closed", {})
    )


def _databases(databases: Figures) -> Iterator[Metric]:
    for key, (name, doc) in _BY_DATABASE.items():
        yield _labelled(name, doc, ("database",), {one: figures[key] for one, figures in databases.items()})
    for key, (name, doc) in _TIMES.items():
        family = HistogramMetricFamily(name, doc, labels=["database"])
        for database, figures in databases.items():
            times = figures[key]
            family.add_metric([_label(database)], cumulative(times), times.get("seconds", 0.0))
        yield family


def _pins(figures: Figures) -> Iterator[Metric]:
    total, now, seconds = {}, {}, {}
    for reason, known in figures.get("pins", {}).items():
        total[reason], now[reason] = known.get("pins", 0), known.get("now", 0)
        seconds[reason] = known.get("seconds", 0.0)
    yield _labelled("pgproxy_pins", "How often a client was pinned to its server.", ("reason",), total)
    pinned = GaugeMetricFamily("pgproxy_pinned_clients", "Clients that are pinned.", labels=["reason"])
    for reason, number in now.items():
        pinned.add_metric([reason], number)
    yield pinned
    yield _labelled(
        "pgproxy_pinned_seconds", "For how long, of the pins that have ended.", ("reason",), seconds
    )
    yield _counter("pgproxy_audit_found", "What session_audit has found.", figures, "audit_found")
    yield _counter(
        "pgproxy_session_questions_failed",
        "Servers that did not say what a session holds.",
        figures,
        "questions_failed",
    )


def _gauge(name: str, doc: str, value: float) -> Metric:
    return GaugeMetricFamily(name, doc, value)


def _counter(name: str, doc: str, figures: Figures, key: str) -> Metric:
    return CounterMetricFamily(name, doc, figures.get(key, 0))


def _labelled(name: str, doc: str, labels: tuple[str, ...], values: Mapping[str, Any]) -> Metric:
    """Give a counter with a value for each label, or pair of labels."""
    family = CounterMetricFamily(name, doc, labels=labels)
    for first, value in values.items():
        if len(labels) == 1:
            family.add_metric([_label(first)], value)
        else:
            for second, number in value.items():
                family.add_metric([_label(first), _label(second)], number)
    return family


def _label(name: str) -> str:
    # Escaped, so that two that are not UTF-8 stay two: the same series twice spoils a scrape. One that looks
    # as if it had been escaped may be a client's that wants just that.
    written = name.encode("utf-8", "backslashreplace").decode()
    if written != name or "\\udc" in name:
        written = name.replace("\\", "\\\\").encode("utf-8", "backslashreplace").decode()
    return written
