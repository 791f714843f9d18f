"""Runs pgbench, and reads its report and its log of transactions."""

import math
import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from attrs import field, frozen

from pgproxy.demo.process import environment

_PATIENCE = 30
"""Seconds that a run may take beyond the time it was asked to: connecting, and the last transactions."""


class PgbenchError(Exception):
    """A run that gave no figures; the text is the reason."""


@frozen
class Access:
    """A way to the database: where to connect, and as whom."""

    port: int
    user: str
    password: str = field(repr=False)
    database: str
    authority: Path
    """The certificate of the authority that signed the listener's."""

    def conninfo(self, tls: bool) -> str:
        """Build libpq's connection string, in clear or in TLS; no password: a command is not secret."""
        parameters = {
            "host": "127.0.0.1",
            "port": self.port,
            "user": self.user,
            "dbname": self.database,
            "sslmode": "require" if tls else "disable",
            "sslrootcert": self.authority,
            "gssencmode": "disable",
            "connect_timeout": 10,
        }
        return " ".join(f"{name}='{value}'" for name, value in parameters.items())


@frozen
class Report:
    """What pgbench printed."""

    transactions: int
    per_second: float
    """Transactions a second: with -C connecting is part of them, without it's left out."""
    connection_ms: float | None
    """Milliseconds that a connection took on average; with -C only."""


@frozen
class Run:
    """One run of pgbench: its report, and its log's quantiles."""

    report: Report
    p50_ms: float
    p99_ms: float


def parse_report(text: str) -> Report:
    """Read the report that pgbench 14 and later end with. Raises `PgbenchError`."""
    transactions = re.search(r"^number of transactions actually processed: (\d+)", text, re.MULTILINE)
    rate = re.search(
        r"^tps = ([\d.]+) \((?:without initial connection time|including reconnection times)\)",
        text,
        re.MULTILINE,
    )
    if transactions is None or rate is None:
        raise PgbenchError("pgbench's report is not in a form known here: " + _last_line(text))
    failed = re.search(r"^number of failed transactions: (\d+)", text, re.MULTILINE)
    if failed is not None and int(failed[1]):
        raise PgbenchError(f"{failed[1]} transactions failed")
    if not int(transactions[1]):
        raise PgbenchError("no transaction was completed")
    connection = re.search(r"^average connection time = ([\d.]+) ms", text, re.MULTILINE)
    return Report(int(transactions[1]), float(rate[1]), float(connection[1]) if connection else None)


def parse_log(lines: Iterable[str]) -> list[int]:
    """Read the microseconds that each transaction took from the lines of a log. Raises `PgbenchError`."""
    latencies = []
    for line in lines:
        # client, transaction, microseconds, script, seconds of the clock, microseconds of the clock
        words = line.split()
        if len(words) < 6 or not words[2].isdigit():
            raise PgbenchError(f"a line of pgbench's log is not in a form known here: {line.strip()}")
        latencies.append(int(words[2]))
    return latencies


def quantile(ordered: Sequence[int], share: float) -> int:
    """Return the least of the ordered values that at least this share of them doesn't exceed."""
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def parse_reason(text: str) -> str:
    """Find what to tell the user in the words of a pgbench that failed: the first error it met."""
    for line in text.splitlines():
        _, found, words = line.partition("error: ")
        if found:
            return words.strip()
    return _last_line(text)


def _last_line(text: str) -> str:
    lines = reversed(text.splitlines())
    return next((line.strip() for line in lines if line.strip()), "it printed nothing")


def run(
    program: Path, access: Access, arguments: Sequence[str], *, tls: bool, seconds: float, directory: Path
) -> Run:
    """
    Run pgbench with `arguments`, which are to last so many seconds; its logs are left in `directory`.

    Raises `PgbenchError`.
    """
    for old in directory.glob("transactions.*"):
        old.unlink()
    prefix = directory / "transactions"
    text = call(
        program,
        access,
        ["-n", "-l", f"--log-prefix={prefix}", *arguments],
        tls=tls,
        limit=seconds + _PATIENCE,
    )
    latencies: list[int] = []
    for log in directory.glob("transactions.*"):
        with log.open() as lines:
            latencies += parse_log(lines)
    report = parse_report(text)
    if not latencies:
        raise PgbenchError("pgbench logged no transactions")
    latencies.sort()
    return Run(report, quantile(latencies, 0.5) / 1000, quantile(latencies, 0.99) / 1000)


def call(program: Path, access: Access, arguments: Sequence[str], *, tls: bool, limit: float) -> str:
    """Run pgbench to its end, for `limit` seconds at most; returns what it printed. Raises `PgbenchError`."""
    try:
        answer = subprocess.run(
            [str(program), *arguments, access.conninfo(tls)],
            env=environment({"PGPASSWORD": access.password, "LC_ALL": "C"}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=limit,
        )
    except subprocess.TimeoutExpired as timeout:
        raise PgbenchError(f"pgbench did not end within {limit:.0f} s") from timeout
    if answer.returncode != 0:
        raise PgbenchError(parse_reason(answer.stderr))
    return answer.stdout
