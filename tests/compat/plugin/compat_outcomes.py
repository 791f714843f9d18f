"""
A pytest plugin for other projects' tests: writes what became of each to $COMPAT_OUTCOMES, as lines of JSON.

It runs in their virtual environments: it needs pytest and nothing else.
"""

import json
import os
from pathlib import Path

import pytest

_ORDER = ("passed", "xfailed", "skipped", "xpassed", "failed", "error")
"""A test has several reports, and a subtest has some of its own: the last of these counts."""
_outcomes: dict[str, str] = {}
_reasons: dict[str, str] = {}


def _note(report: pytest.TestReport | pytest.CollectReport, outcome: str) -> None:
    test = report.nodeid or "collection"
    before = _outcomes.get(test)
    if before is None or _ORDER.index(outcome) > _ORDER.index(before):
        _outcomes[test] = outcome
        if outcome in ("failed", "error", "skipped"):
            crash = getattr(report.longrepr, "reprcrash", None)
            text = crash.message if crash else str(report.longrepr)
            _reasons[test] = " ".join(text.split())[:500]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    expected = hasattr(report, "wasxfail")
    if report.failed:
        _note(report, "failed" if report.when == "call" else "error")
    elif report.skipped:
        _note(report, "xfailed" if expected else "skipped")
    elif report.when == "call":
        _note(report, "xpassed" if expected else "passed")


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        _note(report, "error")
    elif report.skipped:
        _note(report, "skipped")


def pytest_sessionfinish() -> None:
    with Path(os.environ["COMPAT_OUTCOMES"]).open("w") as file:
        for test, outcome in sorted(_outcomes.items()):
            line = {"test": test, "outcome": outcome, "reason": _reasons.get(test, "")}
            file.write(json.dumps(line) + "\n")
