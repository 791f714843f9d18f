"""The command line: `python -m tests.compat`, or `make compat`."""

import argparse
import fcntl
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import psycopg

from bench import machine
from pgproxy.demo.binaries import find_binaries
from pgproxy.demo.process import DemoError, server_account
from tests.compat import debian
from tests.compat.asyncpg import Asyncpg
from tests.compat.known import Difference, read_known
from tests.compat.psycopg import Psycopg
from tests.compat.regress import Regress
from tests.compat.report import Result, lay_out, unexplained
from tests.compat.shell import CompatError
from tests.compat.stage import Stage, opened
from tests.compat.suite import Route, Suite, Way

_DIRECTORY = Path(__file__).parents[2] / ".compat"
_NAMES = ("regress", "asyncpg", "psycopg")


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.compat",
        description="Run other projects' tests directly and through pgproxy, and compare.",
    )
    parser.add_argument(
        "suites", nargs="*", metavar="SUITE", help=f"which: {', '.join(_NAMES)} (default: all)"
    )
    parser.add_argument(
        "--session-audit", type=_share, default=0.0, metavar="SHARE", help="pgproxy's session_audit (0)"
    )
    parser.add_argument(
        "--only", metavar="TESTS", help="only these: names for regress, what pytest's -k takes for the others"
    )
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    options = parser.parse_args(arguments)
    options.suites = options.suites or list(_NAMES)
    for name in options.suites:
        if name not in _NAMES:
            parser.error(f"there is no suite {name}: choose from {', '.join(_NAMES)}")
    return options


def _share(word: str) -> float:
    try:
        share = float(word)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{word!r} is not a number from 0 to 1")
    return share


def main(arguments: Sequence[str]) -> int:
    """
    Run the suites; returns the exit status.

    1: a test fails through pgproxy only and is not in the list of known ones, or something could not be run
    or pgproxy's log has errors; 130: interrupted.
    """
    options = _options(arguments)
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGHUP, _end)
    _DIRECTORY.mkdir(exist_ok=True)
    try:
        with (_DIRECTORY / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise CompatError(f"another run uses {_DIRECTORY}") from error
            return _compare(options, shlex.join(["python", "-m", "tests.compat", *arguments]))
    except (CompatError, DemoError, psycopg.Error) as error:
        print(f"compat: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("compat: interrupted", file=sys.stderr)
        return 130


def _compare(options: argparse.Namespace, command: str) -> int:
    known = read_known()
    account = server_account()
    binaries = find_binaries(account)
    server = debian.installed(binaries)
    suites: dict[str, Suite] = {
        "regress": Regress(server, account, _DIRECTORY / "regress"),
        "asyncpg": Asyncpg(_DIRECTORY / "asyncpg"),
        "psycopg": Psycopg(_DIRECTORY / "psycopg"),
    }
    out = _DIRECTORY / "out"
    out.mkdir(exist_ok=True)
    head = {
        **machine.surroundings(),
        "PostgreSQL": f"{binaries.version} ({server.version})",
        "command": command,
    }
    mark = "- " if options.markdown else ""
    print("\n".join(f"{mark}{name}: {value}" for name, value in head.items()), flush=True)
    results = []
    for name in options.suites:
        result = Result(name, left_out=suites[name].reason)
        if result.left_out is None:
            _tell(f"{name}: fetching, where it isn't there yet")
            result.version = suites[name].fetch()
        results.append(result)
    with opened(binaries, account, _DIRECTORY / "pgproxy", options.session_audit) as stage:
        for result in results:
            if result.left_out is None:
                _run(suites[result.suite], result, stage, out, options.only)
            else:
                _tell(f"{result.suite}: LEFT OUT: {result.left_out}")
        complaints = stage.check()
    return _conclude(results, known, complaints, options.markdown)


def _run(suite: Suite, result: Result, stage: Stage, out: Path, only: str | None) -> None:
    """Take a suite both ways."""
    for route, port in ((Route.DIRECT, stage.server.port), (Route.PGPROXY, stage.port)):
        begun = time.monotonic()
        outcomes = suite.run(Way(route, port, stage.password, stage.server, out, only))
        result.outcomes[route] = outcomes
        _tell(
            f"{suite.name}, {route}: {outcomes.passed} passed, {outcomes.failed} failed, "
            f"{outcomes.skipped} skipped, {time.monotonic() - begun:.0f} s"
        )


def _conclude(
    results: Sequence[Result], known: Sequence[Difference], complaints: Sequence[str], markdown: bool
) -> int:
    print("\n" + lay_out(results, known, markdown))
    for complaint in complaints:
        print("\n" + complaint)
    return 1 if complaints or unexplained(results, known) else 0


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _end(number: int, frame: FrameType | None) -> None:
    """Leave the way an exception does, so that everything started is ended."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
