"""What of the console's tables the page shows: named columns, few rows, those that matter first."""

from __future__ import annotations

from typing import Any

import pytest

from pgproxy.console.columns import SHOWN
from pgproxy.console.tables import Table, Value
from pgproxy.page.shown import PARTS, shown


def table(what: str, *rows: dict[str, Value]) -> Table:
    columns = SHOWN[what]
    return Table(columns, tuple([row.get(column.name, 0) for column in columns] for row in rows))


@pytest.mark.parametrize("what", PARTS)
def test_only_what_is_named_is_shown(what: str) -> None:
    names = {column.name for column in SHOWN[what]}
    assert set(PARTS[what].columns) <= names
    secret: Any = dict.fromkeys(names - set(PARTS[what].columns), "secret")
    (row,) = shown(what, table(what, secret))["rows"]
    assert tuple(sorted(row)) == tuple(sorted(PARTS[what].columns)) and "secret" not in row.values()


def test_the_texts_of_errors_are_none_of_it() -> None:
    # What another host has said may have anything in it.
    assert "trouble" not in PARTS["targets"].columns and "detail" not in PARTS["history"].columns


@pytest.mark.parametrize("what", PARTS)
def test_there_are_few_rows(what: str) -> None:
    rows: list[dict[str, Value]] = [
        {"seconds": float(number), "time": f"{number:04}"} for number in range(300)
    ]
    found = shown(what, table(what, *rows))
    assert len(found["rows"]) == PARTS[what].most and found["left_off"] == 300 - PARTS[what].most


def test_what_matters_comes_first() -> None:
    pools = shown(
        "pools",
        table(
            "pools",
            {"user": "b"},
            {"user": "a"},
            {"user": "busy", "sv_active": 3},
            {"user": "q", "cl_waiting": 1},
        ),
    )
    assert [row["user"] for row in pools["rows"]] == ["q", "busy", "a", "b"]
    pins = shown("pins", table("pins", {"client": 1, "seconds": 1.0}, {"client": 2, "seconds": 9.0}))
    assert [row["client"] for row in pins["rows"]] == [2, 1]
    same = "2026-01-01 00:00:00 UTC"
    history = shown(
        "history",
        table(
            "history",
            {"event": "no_longer_writer", "time": same},
            {"event": "became_writer", "time": same},
            {"event": "found", "time": "2025-01-01 00:00:00 UTC"},
        ),
    )
    # The newest first, also of those in one second.
    assert [row["event"] for row in history["rows"]] == ["became_writer", "no_longer_writer", "found"]
