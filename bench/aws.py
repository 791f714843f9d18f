"""
Whether a slow AWS slows a query: `python -m bench.aws`.

pgbench asks through pgproxy, whose password comes from a secret, while AWS's stand-in (moto) by turns answers
and hangs: it is stopped, so that connections to it open and nothing ever comes back. Secrets are read and
metrics sent every second, far more often than by default. docs/aws.md says what for.
"""

import argparse
import shlex
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import machine, pgbench
from bench.pgbench import Access, PgbenchError, Run
from bench.scenarios import figure
from bench.table import table
from pgproxy.demo.binaries import find_binaries
from pgproxy.demo.cloud import Cloud
from pgproxy.demo.conf import FAST_AND_LOOSE
from pgproxy.demo.ports import free_port, is_listening
from pgproxy.demo.postgres import Postgres
from pgproxy.demo.process import DemoError, end, server_account, spawn, wait_until

_SELECT = "select 1;\n"
_USER = "app"
_SETTLE = 3.0
"""Seconds of warming up, in which a stand-in that was stopped comes to hold every thread that asks it."""


def main(arguments: Sequence[str]) -> int:
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.aws", description="Whether a slow AWS slows a query."
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=4, help="length of a turn (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=8, help="pgbench's clients (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        account = server_account()
        binaries = find_binaries(account)
        program = shutil.which("pgbench") or str(binaries.bindir / "pgbench")
        head = machine.surroundings() | {"PostgreSQL": binaries.version}
        head["command"] = shlex.join(["python", "-m", "bench.aws", *arguments])
        print("\n".join(f"- {name}: {value}" for name, value in head.items()) + "\n", flush=True)
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pgproxy-bench-")))
            postgres = stack.enter_context(Postgres(binaries, account, settings=FAST_AND_LOOSE))
            cloud = stack.enter_context(Cloud(directory, postgres, "postgres"))
            port = stack.enter_context(_pgproxy(directory, postgres, cloud))
            access = Access(port, _USER, cloud.password, "postgres", directory)
            _measure(options, Path(program), access, directory, cloud)
    except (DemoError, PgbenchError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


def _measure(
    options: argparse.Namespace, program: Path, access: Access, directory: Path, cloud: Cloud
) -> None:
    script = directory / "select.sql"
    script.write_text(_SELECT)
    found: dict[str, list[Run]] = {"answers": [], "hangs": []}
    for _ in range(options.rounds):
        for mood, runs in found.items():
            cloud.hang(mood == "hangs")
            for seconds in (_SETTLE, options.seconds):
                command = ["-f", str(script), "-c", str(options.clients), "-T", f"{seconds:.0f}"]
                run = pgbench.run(program, access, command, tls=False, seconds=seconds, directory=directory)
            runs.append(run)
    cloud.hang(False)
    if "metrics_dropped" not in (directory / "log").read_text():
        raise DemoError("pgproxy has not noticed that AWS hung: nothing was measured")
    print(lay_out(found))


def lay_out(found: Mapping[str, Sequence[Run]]) -> str:
    """Make a table of the middle of each figure, by what AWS did."""
    rows = [["AWS", "queries/s", "p50 ms", "p99 ms", "p99 ms, least to most"]]
    for mood, runs in found.items():
        tails = sorted(run.p99_ms for run in runs)
        rates, medians = [run.report.per_second for run in runs], [run.p50_ms for run in runs]
        middle = [figure(statistics.median(values)) for values in (rates, medians, tails)]
        rows.append([mood, *middle, f"{figure(tails[0])} to {figure(tails[-1])}"])
    return table(rows, 1, markdown=True)


@contextmanager
def _pgproxy(directory: Path, postgres: Postgres, cloud: Cloud) -> Iterator[int]:
    """Run pgproxy in front of it; gives the port."""
    port = free_port()
    config, log = directory / "pgproxy.toml", directory / "log"
    config.write_text(f"""\
[proxy]
listen = "127.0.0.1:{port}"
[targets.main]
server = "127.0.0.1:{postgres.port}"
[aws]
secrets = ["name:demo/app"]
refresh_interval = 1
[aws.cloudwatch]
send = "api"
interval = 1
""")
    twistd = Path(sys.executable).with_name("twistd")
    process = spawn(
        [twistd, "--nodaemon", "--pidfile=", "pgproxy", "--config", config],
        log=log,
        cwd=directory,
        env=cloud.environment,
    )
    try:
        if not wait_until(lambda: is_listening(port) and "secret_read" in log.read_text(), 30):
            raise DemoError(f"pgproxy does not listen, or reads no secret: {log.read_text()[-2000:]}")
        yield port
    finally:
        end(process, signal.SIGTERM, 15)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
