"""Figures as CloudWatch takes them: names, units, dimensions, differences."""

from __future__ import annotations

from typing import Any

import pytest

from pgproxy.aws.metrics import MOST_IN_A_BATCH, Datum, as_embedded, as_metric_data, data

BEFORE: dict[str, Any] = {
    "clients": 3,
    "logging_in": 0,
    "waiting": 0,
    "servers": {"idle": 1, "linked": 2},
    "pins": {"listen": {"pins": 1, "now": 1, "seconds": 0.0}},
    "received": 10,
    "pinned_clients": 1,
    "endpoints": {"default": {"clients": 2, "tls": 1}, "read-only": {"clients": 1, "tls": 0}},
    "targets_now": {
        "main": {
            "READ_WRITE": {
                **{"servers": 2, "borrowed": 2, "in_transaction": 1, "pinned": 1, "tls": 2},
                **{"most": 60, "up": 1.0},
            },
            "READ_ONLY": {
                **{"servers": 1, "borrowed": 0, "in_transaction": 0, "pinned": 0, "tls": 1},
                **{"most": 37, "up": 0.5},
            },
        }
    },
    "secrets": 2,
    "secrets_not_read": 1,
    "metrics_dropped": 0,
}
NOW: dict[str, Any] = {
    **BEFORE,
    "clients": 5,
    "received": 16,
    "endpoints": {"default": {"clients": 3, "tls": 1}, "read-only": {"clients": 2, "tls": 0}},
    "pins": {
        "listen": {"pins": 4, "now": 2, "seconds": 1.5},
        "temporary": {"pins": 1, "now": 0, "seconds": 1},
    },
    "metrics_dropped": 7,
}
COUNTED: dict[str, Any] = {
    "databases": {
        "a": {
            "links": 10,
            "transactions": 8,
            "queries": 20,
            "queries_in_tls": 10,
            "aborted": 2,
            "logins": 2,
            "wait": {"count": 10, "seconds": 0.5},
            "query": {"count": 20, "seconds": 2.0},
        },
        "b": {
            "links": 1,
            "transactions": 1,
            "queries": 1,
            "queries_in_tls": 0,
            "aborted": 1,
            "logins": 1,
            "wait": {"count": 0, "seconds": 0.0},
            "query": {"count": 0, "seconds": 0.0},
        },
    },
    "refused": {"08000": 3, "28P01": 2},
    "login_refused": 2,
    "opened": {"main": 4},
    "opened_in_tls": {"main": 3},
    "open_failed": {"main": {"login": 1, "connect": 2}},
}
OURS = (("ProxyName", "p"),)


def values(found: list[Datum]) -> dict[str, float]:
    return {one.name: one.value for one in found if one.dimensions == OURS}


def test_of_the_proxy() -> None:
    assert values(data(NOW, BEFORE, "p")) == {
        "ClientConnections": 5,
        "ClientConnectionsInSetup": 0,
        "ClientConnectionsWaiting": 0,
        "ClientConnectionsTLS": 1,
        "ClientConnectionsNoTLS": 4,
        "ClientConnectionsReceived": 6,
        "ClientConnectionsClosed": 4,
        "DatabaseConnections": 3,
        "DatabaseConnectionsWithTLS": 3,
        "DatabaseConnectionsCurrentlyBorrowed": 2,
        "DatabaseConnectionsCurrentlySessionPinned": 1,
        "DatabaseConnectionsCurrentlyInTransaction": 1,
        "MaxDatabaseConnectionsAllowed": 97,
        "Secrets": 2,
        "SecretsNotRead": 1,
        "MetricsDropped": 7,
    }


def test_what_is_counted() -> None:
    found = values(data({**NOW, **COUNTED}, BEFORE, "p"))
    assert {name: found[name] for name in found.keys() - values(data(NOW, BEFORE, "p")).keys()} == {
        "ClientConnectionsSetupSucceeded": 3,
        "ClientConnectionsSetupFailedAuth": 2,
        "DatabaseConnectionRequests": 7,
        "DatabaseConnectionRequestsWithTLS": 3,
        "DatabaseConnectionsSetupSucceeded": 4,
        "DatabaseConnectionsSetupFailed": 3,
        "DatabaseConnectionsBorrowRequests": 11,
        "DatabaseConnectionsBorrowTimeouts": 3,
        "DatabaseConnectionsBorrowRequestsAborted": 6,
        "DatabaseConnectionsBorrowLatency": 50_000.0,
        "QueryRequests": 21,
        "QueryRequestsTLS": 10,
        "QueryRequestsNoTLS": 11,
        "QueryDatabaseResponseLatency": 100_000.0,
        "QueryResponseLatency": pytest.approx(100_000 + 500_000 / 21),
        "TransactionRequests": 9,
    }
    again = values(data({**NOW, **COUNTED}, {**BEFORE, **COUNTED}, "p"))
    assert again["QueryRequests"] == 0 and "QueryResponseLatency" not in again


def test_by_target_role_endpoint_and_reason() -> None:
    found = {(one.dimensions, one.name): one.value for one in data({**NOW, **COUNTED}, BEFORE, "p")}
    assert found[(*OURS, ("EndpointName", "read-only")), "ClientConnectionsNoTLS"] == 2
    group = (*OURS, ("TargetGroup", "default"))
    for role, connections, most, up in (("READ_WRITE", 2, 60, 100.0), ("READ_ONLY", 1, 37, 50.0)):
        of_role = (*group, ("TargetRole", role))
        assert found[of_role, "DatabaseConnections"] == connections
        assert found[of_role, "MaxDatabaseConnectionsAllowed"] == most
        assert found[of_role, "AvailabilityPercentage"] == up
    assert found[(*group, ("Target", "main")), "DatabaseConnectionsSetupFailed"] == 3
    target = (*OURS, ("TargetGroup", "default"), ("Target", "main"))
    assert found[target, "DatabaseConnections"] == 3
    assert found[target, "MaxDatabaseConnectionsAllowed"] == 97
    assert found[(*OURS, ("Reason", "listen")), "Pins"] == 3
    assert found[(*OURS, ("Reason", "listen")), "PinnedClients"] == 2
    assert found[(*OURS, ("Reason", "temporary")), "Pins"] == 1


def test_a_budget_that_is_not_known_yet_is_not_told() -> None:
    role = {**NOW["targets_now"]["main"]["READ_WRITE"], "most": 0.0}
    figures = {**NOW, "targets_now": {"main": {"READ_WRITE": role}}}
    assert not any(one.name == "MaxDatabaseConnectionsAllowed" for one in data(figures, BEFORE, "p"))


def test_batches() -> None:
    found = data({**NOW, **COUNTED}, BEFORE, "p")
    (batch,) = as_metric_data(found, 5.0)
    assert len(batch) == len(found)
    latency = next(one for one in batch if one["MetricName"] == "QueryResponseLatency")
    assert latency == {
        "MetricName": "QueryResponseLatency",
        "Dimensions": [{"Name": "ProxyName", "Value": "p"}],
        "Timestamp": 5.0,
        "Values": [pytest.approx(100_000 + 500_000 / 21)],
        "Counts": [20.0],
        "Unit": "Microseconds",
    }
    assert [len(one) for one in as_metric_data(found * 10, 5.0)][:-1] == [MOST_IN_A_BATCH] * (
        len(found) * 10 // MOST_IN_A_BATCH
    )


def test_lines_in_the_embedded_format() -> None:
    lines = as_embedded(data(NOW, BEFORE, "p"), "ours", 5.0)
    assert len(lines) == 8
    (line,) = (one for one in lines if one.get("Reason") == "listen")
    assert line == {
        "_aws": {
            "Timestamp": 5000,
            "CloudWatchMetrics": [
                {
                    "Namespace": "ours",
                    "Dimensions": [["ProxyName", "Reason"]],
                    "Metrics": [
                        {"Name": "Pins", "Unit": "Count"},
                        {"Name": "PinnedClients", "Unit": "Count"},
                    ],
                }
            ],
        },
        "ProxyName": "p",
        "Reason": "listen",
        "Pins": 3,
        "PinnedClients": 2,
    }
