"""What a suite is, the way it is taken to the server, and what came of its tests."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from attrs import frozen

from pgproxy.demo.postgres import Postgres

USER = "postgres"
"""Whom the suites log in as: the superuser whom initdb makes, as their expected output has it."""


class Route(StrEnum):
    """The way from a suite to PostgreSQL."""

    DIRECT = "directly"
    PGPROXY = "pgproxy"


@frozen
class Way:
    """How to get to the server, and where to leave what came of it."""

    route: Route
    port: int
    password: str
    server: Postgres
    """The server itself, for what is to be done past the proxy."""
    out: Path
    only: str | None = None
    """Which tests: words for pg_regress, an expression (-k) for pytest; None: all."""

    def file(self, suite: str, ending: str) -> Path:
        """Return the path of a file about this run of a suite."""
        return self.out / f"{suite}-{self.route}.{ending}"


@frozen
class Outcomes:
    """What became of each test: passed, failed, error, skipped, xfailed or xpassed."""

    by_test: Mapping[str, str]

    @property
    def passed(self) -> int:
        """How many passed."""
        return len(self.names("passed"))

    @property
    def failed(self) -> int:
        """How many failed, in the test or before or after it."""
        return len(self.names("failed", "error"))

    @property
    def skipped(self) -> int:
        """How many neither passed nor failed: the suite leaves them out here, or expects them to fail."""
        return len(self.names("skipped", "xfailed", "xpassed"))

    def lost_in(self, other: "Outcomes") -> list[str]:
        """Name the tests that went well here and did not so there, or are not to be found there."""
        return sorted(
            test
            for test, outcome in self.by_test.items()
            if outcome in _FINE and other.by_test.get(test) not in _FINE
        )

    def names(self, *outcomes: str) -> list[str]:
        """Name the tests that ended in one of these ways."""
        return sorted(test for test, outcome in self.by_test.items() if outcome in outcomes)


_FINE = {"passed", "xfailed", "xpassed"}


class Suite(Protocol):
    """A project's tests."""

    name: str

    @property
    def reason(self) -> str | None:
        """Why it can't be had here; None where it can."""

    def fetch(self) -> str:
        """Get it, where it isn't there yet; returns its version. Raises CompatError."""

    def run(self, way: Way) -> Outcomes:
        """Run it. Raises CompatError where it gave no outcomes."""


def write_outcomes(path: Path, outcomes: Iterable[tuple[str, str]]) -> None:
    """Keep outcomes for whoever wants to compare runs: a line for each, with a tab between."""
    path.write_text("".join(f"{outcome}\t{test}\n" for test, outcome in sorted(outcomes)))
