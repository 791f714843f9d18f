"""Looks at a console, row by row, as it would give them."""

from __future__ import annotations

from typing import Any

from pgproxy.console.columns import SHOWN
from pgproxy.console.tables import Kind
from pgproxy.top.picture import TABLES, Look


def row(table: str, **values: Any) -> dict[str, Any]:
    empty = {column.name: "" if column.kind is Kind.TEXT else 0 for column in SHOWN[table]}
    assert values.keys() <= empty.keys()
    return empty | values


def look(at: float, **tables: list[dict[str, Any]]) -> Look:
    usual = {
        "version": [row("version", version="pgproxy 0.1.0")],
        "state": [row("state", key="active", value="yes")],
        "workers": [row("workers", worker=1, pid=10, cpu_seconds=at / 10, memory=1000)],
    }
    return Look(at, {**{table: [] for table in TABLES}, **usual, **tables})


def counted(database: str, number: int) -> dict[str, Any]:
    names = ("xact_count", "query_count", "bytes_received", "bytes_sent", "client_login_count")
    return row("stats_totals", database=database, **dict.fromkeys(names, number))
