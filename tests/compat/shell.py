"""Runs the programs of others to their end, and nothing of them stays behind."""

import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from pgproxy.demo.process import spawn, tail, wait_until


class CompatError(Exception):
    """Why a suite could not be fetched or run; the text says what is missing or went wrong."""


def call(
    argv: Sequence[str | Path],
    *,
    log: Path,
    cwd: Path,
    limit: float,
    env: Mapping[str, str] | None = None,
) -> int:
    """
    Run a program, its output appended to `log`; returns its exit status.

    What it has started ends with it, also where we are interrupted. Raises CompatError after `limit` seconds.
    """
    process = spawn(argv, log=log, cwd=cwd, env=env)
    try:
        # As long as nobody has taken note of its end, its number stays that of its process group.
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        if not wait_until(lambda: os.waitid(os.P_PID, process.pid, options) is not None, limit):
            raise CompatError(f"{_name(argv)} did not end in {limit:.0f} s; the end of {log}:\n{tail(log)}")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
    return status


def must(argv: Sequence[str | Path], *, log: Path, cwd: Path, env: Mapping[str, str] | None = None) -> None:
    """Run a program that has to succeed. Raises CompatError with the end of its output."""
    status = call(argv, log=log, cwd=cwd, limit=600, env=env)
    if status != 0:
        raise CompatError(f"{_name(argv)} ended with status {status}; the end of {log}:\n{tail(log)}")


def find(program: str, package: str) -> Path:
    """Find a program. Raises CompatError with Debian's package that has it."""
    found = shutil.which(program)
    if found is None:
        raise CompatError(f"{program} was not found (Debian: apt install {package})")
    return Path(found)


def _name(argv: Sequence[str | Path]) -> str:
    return " ".join([Path(argv[0]).name, *map(str, argv[1:4])])
