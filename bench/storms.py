"""
How pgproxy serves crowds: `python -m bench.storms`.

`fairness`: pools with crowds of different sizes that together want more servers than there are, each client
asking for 10 ms of a server's time again and again. `serverless`: 5,000 connections of one query each, 500 at
a time, while another client sits in a transaction. docs/performance.md says how to read the figures.
"""

import argparse
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import machine
from bench.crowd import Crowd, Peer, Script, allow_open_files
from bench.pgbench import quantile
from bench.scenarios import figure
from bench.table import table
from pgproxy.demo.binaries import find_binaries
from pgproxy.demo.conf import FAST_AND_LOOSE
from pgproxy.demo.ports import free_port, is_listening
from pgproxy.demo.postgres import Postgres
from pgproxy.demo.process import DemoError, end, server_account, spawn, wait_until

_HBA = ("local all postgres trust", "host all all 127.0.0.1/32 trust")
_USER = "bench"
_CROWDS = {"large": 200, "middle": 50, "small": 10}
"""Databases, each with a pool of its own, and their clients."""
_WARM_UP = 3.0
_CONNECTIONS, _AT_A_TIME = 5000, 500
_PATIENCE = 120.0
"""Seconds."""


def main(arguments: Sequence[str]) -> int:
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.storms", description="How pgproxy serves crowds.")
    parser.add_argument("which", nargs="*", choices=[*_STORMS, []], help="default: both")
    parser.add_argument("--seconds", type=float, default=15.0, help="of fairness (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        allow_open_files(4 * _AT_A_TIME)
        account = server_account()
        binaries = find_binaries(account)
        head = machine.surroundings() | {"PostgreSQL": binaries.version}
        head["command"] = shlex.join(["python", "-m", "bench.storms", *arguments])
        print("\n".join(f"- {name}: {value}" for name, value in head.items()), flush=True)
        settings = {**FAST_AND_LOOSE, "max_connections": 30}
        with Postgres(binaries, account, settings=settings, hba=_HBA) as postgres:
            postgres.execute(f"create role {_USER} login", *(f"create database {name}" for name in _CROWDS))
            for which in options.which or _STORMS:
                print(f"\n### {which}\n", flush=True)
                _STORMS[which](postgres, options.seconds)
    except (DemoError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


@contextmanager
def _pgproxy(postgres: Postgres, pool_size: int) -> Iterator[int]:
    """Run pgproxy in front of it; gives the port."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="pgproxy-bench-") as name:
        directory = Path(name)
        config = directory / "pgproxy.toml"
        config.write_text(f"""\
[proxy]
listen = "127.0.0.1:{port}"
auth = "trust"
pool_size = {pool_size}
max_client_connections = 5000
max_logins = 5000
[targets.main]
server = "127.0.0.1:{postgres.port}"
""")
        twistd = Path(sys.executable).with_name("twistd")
        process = spawn(
            [twistd, "--nodaemon", "--pidfile=", "pgproxy", "--config", config],
            log=directory / "log",
            cwd=directory,
        )
        try:
            if not wait_until(lambda: is_listening(port), 20):
                raise DemoError(f"pgproxy does not listen: {(directory / 'log').read_text()[-2000:]}")
            yield port
        finally:
            end(process, signal.SIGTERM, 15)


def _fairness(postgres: Postgres, seconds: float) -> None:
    took: dict[str, list[int]] = {name: [] for name in _CROWDS}
    with ExitStack() as stack:
        crowd = stack.enter_context(Crowd(stack.enter_context(_pgproxy(postgres, 20)), _PATIENCE))
        begin = time.monotonic() + _WARM_UP

        def client(database: str) -> Script[None]:
            peer = Peer(crowd)
            yield from peer.log_in(_USER, database)
            while (now := time.monotonic()) < begin + seconds:
                yield from peer.query("select pg_sleep(0.01)")
                if now >= begin:
                    took[database].append(round((time.monotonic() - now) * 1e6))
            peer.leave()

        for database, size in _CROWDS.items():
            for _ in range(size):
                crowd.add(client(database))
        crowd.run(seconds + _PATIENCE)
    head = ["pool", "clients", "queries/s", "median ms", "p99 ms", "longest ms", "p99 ÷ median"]
    rows = [head]
    for database, values in took.items():
        values.sort()
        median, p99 = quantile(values, 0.5), quantile(values, 0.99)
        times = [figure(value / 1000) for value in (median, p99, values[-1])]
        rows.append(
            [database, str(_CROWDS[database]), figure(len(values) / seconds), *times, figure(p99 / median)]
        )
    print(table(rows, 1, markdown=True))


def _serverless(postgres: Postgres, _seconds: float) -> None:
    took: list[int] = []
    failed: list[str] = []
    counts: list[int] = []
    with ExitStack() as stack:
        crowd = stack.enter_context(Crowd(stack.enter_context(_pgproxy(postgres, 20)), _PATIENCE))
        database = next(iter(_CROWDS))

        def hold() -> Script[None]:
            peer = Peer(crowd)
            yield from peer.log_in(_USER, database)
            yield from peer.query("begin; create temp table t as select 'held' as a")
            while len(took) + len(failed) < _CONNECTIONS:
                query = f"select count(*) from pg_stat_activity where usename = '{_USER}'"
                [[count]] = postgres.execute(query)
                counts.append(count)
                yield 0.25
            if (yield from peer.query("select a from t")) != "held":
                failed.append("the transaction")
            peer.leave()

        def work() -> Script[None]:
            for turn in range(_CONNECTIONS // _AT_A_TIME):
                now = time.monotonic()
                peer = Peer(crowd)
                yield from peer.log_in(_USER, database)
                answer = yield from peer.query(f"select {turn}")
                peer.leave()
                if answer == str(turn):
                    took.append(round((time.monotonic() - now) * 1e6))
                else:
                    failed.append(str(answer))

        crowd.add(hold())
        for _ in range(_AT_A_TIME):
            crowd.add(work(), 0.5)
        begin = time.monotonic() + 0.5
        crowd.run(_PATIENCE)
        seconds = time.monotonic() - begin
    took.sort()
    head = ["connections", "failed", "seconds", "connections/s", "median ms", "p99 ms", "most servers"]
    times = [figure(quantile(took, share) / 1000) for share in (0.5, 0.99)]
    counted = [str(len(took)), str(len(failed)), figure(seconds), figure(len(took) / seconds)]
    print(table([head, [*counted, *times, str(max(counts))]], 0, markdown=True))


_STORMS: dict[str, Callable[[Postgres, float], None]] = {"fairness": _fairness, "serverless": _serverless}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
