"""docs/logging.md has every event that the code says, at its level and with its fields, and no other."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEVELS = ("info", "warning", "error", "critical")
WRITES = "write"
"""What watch/watcher.py calls a logger's method that it has chosen."""
NOT_SHOWN = {"elsewhere"}


@cache
def events() -> dict[str, tuple[set[str], set[str]]]:
    """By event: the levels it is logged at, and the fields that are named where it is."""
    found: dict[str, tuple[set[str], set[str]]] = {}
    for path in (ROOT / "pgproxy").rglob("*.py"):
        if "demo" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            method = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if method not in LEVELS and method != WRITES:
                continue
            levels = {method} if method in LEVELS else {"info", "warning"}
            for name in _texts(node.args[0]):
                if re.fullmatch(r"[a-z]+(_[a-z]+)*", name):
                    known = found.setdefault(name, (set(), set()))
                    known[0].update(levels)
                    known[1].update(keyword.arg for keyword in node.keywords if keyword.arg)
    return found


def _texts(node: ast.expr) -> list[str]:
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, ast.IfExp):
        return _texts(node.body) + _texts(node.orelse)
    return []


def documented() -> dict[str, tuple[set[str], str]]:
    rows = re.findall(
        r"^\| `(\w+)` \| ([\w, ]+) \| [^|]+ \| ([^|]*)\|$",
        (ROOT / "docs/logging.md").read_text(),
        re.MULTILINE,
    )
    assert [row[0] for row in rows] == sorted({row[0] for row in rows})
    return {name: (set(levels.split(", ")), fields) for name, levels, fields in rows}


def test_every_event_is_described_and_every_described_one_is_there() -> None:
    said, told = events(), documented()
    assert sorted(set(said) - set(told)) == []
    assert sorted(set(told) - set(said)) == []


def test_levels_are_right() -> None:
    said, told = events(), documented()
    wrong = {name: (said[name][0], told[name][0]) for name in said if said[name][0] != told[name][0]}
    assert wrong == {}


def test_no_field_is_left_out() -> None:
    said, told = events(), documented()
    missing = {
        name: left
        for name, (_levels, fields) in said.items()
        if (left := fields - set(re.findall(r"\w+", told[name][1])) - NOT_SHOWN)
    }
    assert missing == {}
