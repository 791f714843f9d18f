"""What the suites of drivers have in common: a virtual environment of their own, and pytest."""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.compat.shell import CompatError, call, must
from tests.compat.suite import Outcomes, Way

_PLUGIN = Path(__file__).with_name("plugin")
_LIMIT = 1500
_TEST_LIMIT = 120


def python(directory: Path) -> Path:
    """Return the Python of a suite's virtual environment."""
    return directory / "venv/bin/python"


def stale(directory: Path, wanted: Sequence[str]) -> bool:
    """Say whether what is in the directory is something else than is wanted."""
    stamp = directory / "fetched"
    return not stamp.exists() or stamp.read_text().splitlines() != list(wanted)


def mark_fetched(directory: Path, wanted: Sequence[str]) -> None:
    """Note what is in the directory, once all of it is."""
    (directory / "fetched").write_text("".join(f"{word}\n" for word in wanted))


def make_environment(directory: Path, requirements: Sequence[str], log: Path) -> None:
    """Make a virtual environment, in a new directory, and install what the tests need from PyPI."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    must([sys.executable, "-m", "venv", directory / "venv"], log=log, cwd=directory)
    install = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    must([python(directory), *install, *requirements], log=log, cwd=directory)


def run_pytest(
    suite: str, directory: Path, arguments: Sequence[str], env: Mapping[str, str], way: Way
) -> Outcomes:
    """Run pytest in a suite's directory. Raises CompatError where it didn't come to its end."""
    log, outcomes = way.file(suite, "log"), way.file(suite, "outcomes")
    for old in (log, outcomes):
        old.unlink(missing_ok=True)
    shutil.rmtree(directory / ".pytest_cache", ignore_errors=True)
    status = call(
        [
            *(python(directory), "-m", "pytest", "-p", "compat_outcomes", "--quiet", "--tb=short"),
            *(f"--timeout={_TEST_LIMIT}", *arguments),
            *(("-k", way.only) if way.only else ()),
            "tests",
        ],
        log=log,
        cwd=directory,
        limit=_LIMIT,
        env={
            **env,
            "COMPAT_OUTCOMES": str(outcomes),
            "PYTHONPATH": str(_PLUGIN),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
    )
    # 1: tests failed; 5: none were chosen
    if status not in (0, 1, 5) or not outcomes.exists():
        raise CompatError(f"pytest ended with status {status}: see {log}")
    lines = [json.loads(line) for line in outcomes.read_text().splitlines()]
    return Outcomes({line["test"]: line["outcome"] for line in lines})
