"""The tables that are made of figures: SHOW STATS and its like, SHOW STATEMENTS."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pgproxy.console.columns import TOTALS
from pgproxy.console.tables import Row, Value
from pgproxy.workers.figures import total

_MICROSECONDS = 1_000_000
_OURS = {
    "server_assignment_count": "links",
    "xact_count": "transactions",
    "query_count": "queries",
    "received": "received",
    "sent": "sent",
    "client_login_count": "logins",
}
"""PgBouncer's names and ours."""
_TIMES = {
    "xact_time": ("transaction", "transactions"),
    "query_time": ("query", "queries"),
    "wait_time": ("wait", "links"),
}


def rows(what: str, several: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Give a table's rows from the figures of all processes."""
    figures = total(several)
    if what == "statements":
        return _statements(figures.get("statements", {}))
    databases = figures.get("databases", {})
    period = figures.get("period", {})
    first, last = period.get("first", {}), period.get("last", {})
    seconds = period.get("seconds", 0.0) / max(1, period.get("processes", 1))
    found: list[Row] = []
    for database in sorted(databases):
        totals = _totals(databases[database])
        averages = _averages(first.get(database, {}), last.get(database, {}), seconds)
        if what == "stats":
            found.append((database, *totals, *averages))
        else:
            found.append((database, *(totals if what == "stats_totals" else averages)))
    return found


def _totals(figures: Mapping[str, Any]) -> list[Value]:
    return [_number(figures, name) for name, _doc in TOTALS]


def _number(figures: Mapping[str, Any], name: str) -> int | None:
    """Give a figure by PgBouncer's name; None for what is not counted."""
    if name in _TIMES:
        return int(figures.get(_TIMES[name][0], {}).get("seconds", 0.0) * _MICROSECONDS)
    if name in _OURS:
        return int(figures.get(_OURS[name], 0))
    return None


def _averages(first: Mapping[str, Any], last: Mapping[str, Any], seconds: float) -> list[Value]:
    """Give what it was in a second, and of times what it was for one, as PgBouncer does."""
    found: list[Value] = []
    for name, _doc in TOTALS:
        before, after = _number(first, name), _number(last, name)
        if before is None or after is None:
            found.append(None)
        elif name in _TIMES:
            counted, ours = _TIMES[name]
            if name == "wait_time":
                number = last.get(ours, 0) - first.get(ours, 0)
            else:
                number = last.get(counted, {}).get("count", 0) - first.get(counted, {}).get("count", 0)
            found.append((after - before) // number if number > 0 else 0)
        else:
            found.append(int((after - before) / seconds) if seconds else 0)
    return found


def _statements(databases: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[Row]:
    found: list[Row] = []
    for database, statements in databases.items():
        for digest, one in statements.items():
            found.append(
                (
                    database,
                    digest,
                    one["calls"],
                    one["looked_at"],
                    round(one["seconds"], 6),
                    round(1000 * one["seconds"] / max(1, one["calls"]), 3),
                    round(1000 * one["longest"], 3),
                    round(one["queued"], 6),
                    one["rows"],
                    one["errors"],
                )
            )
    return sorted(found, key=lambda row: -float(row[4] or 0))
