"""PostgreSQL's own regression tests: pg_regress with the parallel schedule."""

import os
import re
import shutil
from pathlib import Path

from pgproxy.demo.process import Account, temporary_directory
from tests.compat import debian
from tests.compat.shell import CompatError, call
from tests.compat.suite import USER, Outcomes, Way, write_outcomes

_DATABASE = "regression"
_LIMIT = 1500
_TEST = re.compile(r"^(?:test)? +([a-z0-9_.]+) +\.\.\. (ok|FAILED|failed \(ignored\))", re.MULTILINE)
"""A test's line in the output of pg_regress: "test NAME ... ok 12 ms", without "test" within a group."""
_OUTCOMES = {"ok": "passed", "FAILED": "failed", "failed (ignored)": "xfailed"}


class Regress:
    """The tests of the server's own version."""

    name = "regress"
    reason = None

    def __init__(self, server: debian.Server, account: Account | None, directory: Path) -> None:
        self._server = server
        self._account = account
        self._directory = directory

    def fetch(self) -> str:
        """Get them from Debian."""
        version = self._server.version
        stamp = self._directory / "version"
        if not stamp.exists() or stamp.read_text() != version:
            stamp.unlink(missing_ok=True)
            debian.fetch(self._server, self._directory, self._directory.with_suffix(".log"))
            stamp.write_text(version)
        return self._server.binaries.version

    def run(self, way: Way) -> Outcomes:
        """Run them in a new database."""
        _make_database(way)
        # The server reads and writes files there, and may be another user.
        directory = temporary_directory("pgproxy-compat-", self._account)
        try:
            return self._run(way, directory)
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _run(self, way: Way, directory: Path) -> Outcomes:
        tests, library, work = directory / "tests", directory / "lib", directory / "work"
        shutil.copytree(self._directory / "tests", tests)
        shutil.copytree(self._directory / "lib", library)
        for path in (work, work / "results"):
            path.mkdir()
            path.chmod(0o755)
        if self._account is not None:
            os.chown(work / "results", self._account.uid, self._account.gid)
        log = way.file(self.name, "log")
        log.unlink(missing_ok=True)
        status = call(
            [
                self._server.pg_regress,
                *("--use-existing", "--host=127.0.0.1", f"--port={way.port}", f"--user={USER}"),
                *(f"--dbname={_DATABASE}", f"--bindir={self._server.binaries.bindir}"),
                *(f"--dlpath={library}", f"--inputdir={tests}", f"--outputdir={work}"),
                "--max-concurrent-tests=20",
                *(way.only.split() if way.only else [f"--schedule={tests}/parallel_schedule"]),
            ],
            log=log,
            cwd=work,
            limit=_LIMIT,
            env={"PGPASSWORD": way.password, "PGSSLMODE": "disable", "PGGSSENCMODE": "disable"},
        )
        outcomes = {name: _OUTCOMES[word] for name, word in _TEST.findall(log.read_text(errors="replace"))}
        differences = work / "regression.diffs"
        kept = way.file(self.name, "diffs")
        kept.unlink(missing_ok=True)
        if differences.exists():
            shutil.copy(differences, kept)
        if not outcomes or status not in (0, 1):
            raise CompatError(f"pg_regress ended with status {status}: see {log}")
        write_outcomes(way.file(self.name, "outcomes"), outcomes.items())
        return Outcomes(outcomes)


def _make_database(way: Way) -> None:
    """Do what pg_regress does without --use-existing, and remove what an earlier run has left."""
    execute = way.server.execute
    for gid, database in execute("SELECT gid, database FROM pg_prepared_xacts"):
        execute(f"ROLLBACK PREPARED '{gid}'", dbname=database)
    execute(f"DROP DATABASE IF EXISTS {_DATABASE} WITH (FORCE)")
    for kind, catalog, column in (
        ("TABLESPACE", "pg_tablespace", "spcname"),
        ("ROLE", "pg_roles", "rolname"),
    ):
        for (name,) in execute(
            f"SELECT quote_ident({column}) FROM {catalog} WHERE starts_with({column}, 'regress')"
        ):
            execute(f"DROP {kind} {name}")
    settings = {
        **dict.fromkeys(("lc_messages", "lc_monetary", "lc_numeric", "lc_time"), "C"),
        "bytea_output": "hex",
        "timezone_abbreviations": "Default",
    }
    execute(
        f"CREATE DATABASE {_DATABASE} TEMPLATE template0 ENCODING 'UTF8'",
        *(f"ALTER DATABASE {_DATABASE} SET {name} TO '{value}'" for name, value in settings.items()),
    )
