"""The tests of asyncpg, from its source distribution."""

import tarfile
from pathlib import Path

from tests.compat import drivers
from tests.compat.shell import must
from tests.compat.suite import USER, Outcomes, Way

_VERSION = "0.32.0"
_REQUIREMENTS = (f"asyncpg=={_VERSION}", "pytest==9.2.0", "pytest-timeout==2.4.0", "distro==1.9.0")
_DATABASE = "postgres"
"""Several tests name this one outright."""
_ARGUMENTS = (
    # A style checker's run, and tests of an environment made for them.
    "--ignore=tests/test__sourcecode.py",
    "--ignore=tests/test__environment.py",
    # These start servers of their own.
    "--deselect=tests/test_connect.py::TestConnectionAttributes",
    "-W",
    "ignore::ResourceWarning",
)


class Asyncpg:
    """asyncpg's tests; those that start servers of their own skip themselves."""

    name = "asyncpg"
    reason = None

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def fetch(self) -> str:
        """Get them from PyPI: the wheel to run, the source distribution for its tests."""
        directory = self._directory
        if drivers.stale(directory, _REQUIREMENTS):
            log = directory.with_suffix(".log")
            drivers.make_environment(directory, _REQUIREMENTS, log)
            source = f"asyncpg-{_VERSION}"
            must(
                [
                    *(drivers.python(directory), "-m", "pip", "download", "--quiet"),
                    *("--disable-pip-version-check", "--no-deps", "--no-binary", "asyncpg"),
                    _REQUIREMENTS[0],
                ],
                log=log,
                cwd=directory,
            )
            with tarfile.open(directory / f"{source}.tar.gz") as archive:
                for member in archive.getmembers():
                    name = member.name.removeprefix(f"{source}/")
                    if name == "pyproject.toml" or name.startswith("tests/"):
                        member.name = name
                        archive.extract(member, directory, filter="data")
            drivers.mark_fetched(directory, _REQUIREMENTS)
        return _VERSION

    def run(self, way: Way) -> Outcomes:
        """Run them, with nothing left of an earlier run."""
        for database in ("testdb", "asyncpg_intro_test", _DATABASE):
            way.server.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)", dbname="template1")
        way.server.execute(f"CREATE DATABASE {_DATABASE} TEMPLATE template0", dbname="template1")
        env = {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(way.port),
            "PGUSER": USER,
            "PGPASSWORD": way.password,
            "PGDATABASE": _DATABASE,
            # pgproxy's own listener speaks no TLS here: asking for it is part of what is tried.
            "PGSSLMODE": "prefer",
        }
        return drivers.run_pytest(self.name, self._directory, _ARGUMENTS, env, way)
