"""Lays out what came of the suites: a table, and the tests that fail through pgproxy only."""

from collections.abc import Sequence

from attrs import define, field

from bench.table import table
from tests.compat.known import Difference, explanation
from tests.compat.suite import Outcomes, Route

_HEAD = (
    *("suite", "version"),
    *("directly: passed", "failed", "skipped"),
    *("pgproxy: passed", "failed", "skipped", "failed only there"),
)
_BLANK = "-"


@define
class Result:
    """What came of one suite."""

    suite: str
    version: str = _BLANK
    outcomes: dict[Route, Outcomes] = field(factory=dict)
    left_out: str | None = None
    """Why it was not run."""

    @property
    def lost(self) -> list[str]:
        """The tests that go well directly and not through pgproxy."""
        if len(self.outcomes) < len(Route):
            return []
        return self.outcomes[Route.DIRECT].lost_in(self.outcomes[Route.PGPROXY])


def unexplained(results: Sequence[Result], known: Sequence[Difference]) -> list[str]:
    """Name the tests that fail through pgproxy only, and nobody has said why."""
    return [
        f"{result.suite}: {test}"
        for result in results
        for test in result.lost
        if explanation(known, result.suite, test) is None
    ]


def lay_out(results: Sequence[Result], known: Sequence[Difference], markdown: bool) -> str:
    """Build the report."""
    parts = [table([list(_HEAD), *map(_row, results)], 2, markdown)]
    for result in results:
        if result.left_out is not None:
            parts.append(f"{result.suite} was LEFT OUT: {result.left_out}")
        parts += _differences(result, known)
    return "\n\n".join(parts)


def _row(result: Result) -> list[str]:
    if result.left_out is not None:
        return [result.suite, "left out", *[_BLANK] * (len(_HEAD) - 2)]
    cells = [result.suite, result.version]
    for route in Route:
        outcomes = result.outcomes.get(route)
        counts = (outcomes.passed, outcomes.failed, outcomes.skipped) if outcomes else (_BLANK,) * 3
        cells += map(str, counts)
    cells.append(str(len(result.lost)) if len(result.outcomes) == len(Route) else _BLANK)
    return cells


def _differences(result: Result, known: Sequence[Difference]) -> list[str]:
    """List a suite's differences, those first that nobody has explained."""
    parts = []
    direct = result.outcomes.get(Route.DIRECT)
    if direct is not None and direct.failed:
        parts.append(_group(f"{result.suite}, without pgproxy, too", direct.names("failed", "error")))
    by_reason: dict[str | None, list[str]] = {None: []}
    for test in result.lost:
        by_reason.setdefault(explanation(known, result.suite, test), []).append(test)
    for reason, tests in by_reason.items():
        if tests:
            why = "NOT EXPLAINED" if reason is None else f"known: {reason}"
            parts.append(_group(f"{result.suite}, through pgproxy only, {why}", tests))
    return parts


def _group(head: str, tests: Sequence[str]) -> str:
    return "\n".join([head, *(f"- {test}" for test in tests)])
