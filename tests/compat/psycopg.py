"""The tests of psycopg 3: they are in no registry, so somebody has to name a git repository with them."""

import os
from pathlib import Path

from tests.compat import drivers
from tests.compat.shell import find, must
from tests.compat.suite import USER, Outcomes, Way

_VERSION = "3.3.4"
"""The release, and the tag of its tests."""
_REQUIREMENTS = (
    f"psycopg[binary]=={_VERSION}",
    "psycopg_pool==3.3.1",
    "pytest==9.2.0",
    "pytest-timeout==2.4.0",
    "anyio==4.16.0",
)
_VARIABLE = "PSYCOPG_GIT"
_DATABASE = "psycopg_test"
_MARKS = ("slow", "timing", "flakey", "dns", "gevent", "postgis", "proxy", "refcount")
"""Left out: what is slow or known to fail now and then, and what needs more than a server."""
_ARGUMENTS = (
    "-m",
    " and ".join(f"not {mark}" for mark in _MARKS),
    # A type checker's run, and tests of other systems.
    "--ignore=tests/test_typing.py",
    "--ignore=tests/crdb",
    "--ignore=tests/test_windows.py",
    # A test that fails leaves connections open; that must not fail the one at which they are collected.
    "-W",
    "default::pytest.PytestUnraisableExceptionWarning",
)


class Psycopg:
    """psycopg's tests, with the pool's."""

    name = "psycopg"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._repository = os.environ.get(_VARIABLE)

    @property
    def reason(self) -> str | None:
        """Why the suite is left out."""
        if self._repository:
            return None
        return f"no registry has its tests: {_VARIABLE} has to name a git repository with the tag {_VERSION}"

    def fetch(self) -> str:
        """Get the driver from PyPI and its tests from the repository."""
        directory = self._directory
        if drivers.stale(directory, _REQUIREMENTS):
            log = directory.with_suffix(".log")
            drivers.make_environment(directory, _REQUIREMENTS, log)
            archive = directory / "tests.tar"
            git = ("-C", str(self._repository), "archive", f"--output={archive}", _VERSION)
            must([find("git", "git"), *git, "tests", "pyproject.toml"], log=log, cwd=directory)
            must([find("tar", "tar"), "-x", "-f", archive], log=log, cwd=directory)
            archive.unlink()
            drivers.mark_fetched(directory, _REQUIREMENTS)
        return _VERSION

    def run(self, way: Way) -> Outcomes:
        """Run them in a new database."""
        way.server.execute(
            f"DROP DATABASE IF EXISTS {_DATABASE} WITH (FORCE)",
            f"CREATE DATABASE {_DATABASE} TEMPLATE template0",
        )
        dsn = f"host=127.0.0.1 port={way.port} user={USER} password={way.password} dbname={_DATABASE}"
        return drivers.run_pytest(self.name, self._directory, _ARGUMENTS, {"PSYCOPG_TEST_DSN": dsn}, way)
