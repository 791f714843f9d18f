"""
What of the console's tables the page shows.

The law: only the columns that are named here, and of each table at most so many rows, those first that matter
most. The texts of errors, which other hosts have made, are none of them: who wants those asks the console.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen

from pgproxy.console.tables import Table, Value

Named = dict[str, Value]


@frozen
class _Part:
    columns: tuple[str, ...]
    most: int
    order: Callable[[Named], Any] | None = None
    """What rows are sorted by; without it they stay as they are."""
    newest_first: bool = False


def _number(value: Value) -> float:
    return value if isinstance(value, (int, float)) else 0.0


PARTS = {
    "pools": _Part(
        (
            *("database", "user", "target", "pool_mode", "pool_size", "cl_active", "cl_waiting", "sv_active"),
            *("sv_idle", "sv_pinned", "sv_in_transaction", "sv_login", "sv_tested", "sv_being_canceled"),
            *("sv_closing", "maxwait", "maxwait_us", "paused"),
        ),
        50,
        lambda row: (
            -_number(row["cl_waiting"]),
            -_number(row["sv_active"]),
            str(row["database"]),
            str(row["user"]),
        ),
    ),
    "pins": _Part(
        ("client", "database", "user", "reason", "digest", "seconds"),
        50,
        lambda row: -_number(row["seconds"]),
    ),
    "targets": _Part(
        ("target", "host", "port", "role", "state", "lag", "since", "servers", "max_servers", "waiting"), 100
    ),
    "history": _Part(
        ("target", "time", "event", "host"), 30, lambda row: str(row["time"]), newest_first=True
    ),
    "statements": _Part(
        ("database", "digest", "calls", "seconds", "mean_ms", "max_ms", "queue_seconds", "rows", "errors"),
        15,
        lambda row: -_number(row["seconds"]),
    ),
}
"""By what is said behind SHOW."""


def shown(what: str, table: Table) -> dict[str, Any]:
    """Give what is shown of a table: its rows, by the names of their columns, and how many are left off."""
    part = PARTS[what]
    names = [column.name for column in table.columns]
    rows = [
        {name: value for name, value in zip(names, row, strict=True) if name in part.columns}
        for row in table.rows
    ]
    if part.newest_first:
        rows.reverse()
    if part.order is not None:
        rows.sort(key=part.order, reverse=part.newest_first)
    return {"rows": rows[: part.most], "left_off": max(0, len(rows) - part.most)}
