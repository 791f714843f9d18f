"""
What clients see of a change of writer: `python -m bench.failover`.

A cluster of three hosts on loopback, one of the standbys synchronous; 200 clients at work (`tests.toil`); the
writer is killed, switched over or frozen, and another promoted. Routes: clients that log in again by
themselves, with all three addresses, and clients of a pooler. `ROUTES` and `FAULTS` are where more go.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from statistics import median

import attrs

from bench import machine
from bench.processes import pgbouncer_program
from bench.table import table
from pgproxy.demo.binaries import find_binaries
from pgproxy.demo.ports import free_port, is_listening
from pgproxy.demo.process import DemoError, end, server_account, spawn, tail, wait_until
from tests.cluster import Change, Cluster, Host, template
from tests.ledger import Verdict
from tests.toil import Plan, Toil, lay_table

Addresses = Sequence[tuple[str, int]]
Route = Callable[[Cluster, Path], AbstractContextManager[Addresses]]
"""Puts something in front of a cluster, with a directory for its files; gives where clients log in."""
_POOL_SIZE = 40
_WARM_UP = 1.0
"""Seconds of work before anything happens."""
_COUNTS: dict[str, Callable[[Verdict], int]] = {
    "clients disconnected": lambda verdict: verdict.disconnected,
    "errors in transactions": lambda verdict: verdict.in_transaction.total(),
    "to statements under way": lambda verdict: verdict.under_way.total(),
    "to others": lambda verdict: verdict.errors.total(),
    "commits lost": lambda verdict: len(verdict.lost),
    "done twice": lambda verdict: len(verdict.doubled),
    "torn": lambda verdict: len(verdict.torn),
    "another's answers": lambda verdict: len(verdict.wrong),
    "settings lost": lambda verdict: len(verdict.settings_lost),
}
_HEAD = ("through", "promotion ms", "pause beyond it ms: median", "longest", *_COUNTS)


def main(arguments: Sequence[str]) -> int:
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.failover", description="What clients see of a change of writer."
    )
    parser.add_argument("--routes", nargs="+", choices=ROUTES, default=list(ROUTES), help="default: all")
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS), help="default: all")
    parser.add_argument("--rounds", type=int, default=3, help="of each (default: %(default)s)")
    parser.add_argument(
        "--hold",
        type=float,
        default=0.5,
        metavar="SECONDS",
        help="between the fault and the order to promote (default: %(default)s)",
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="after which a client gives up a connection that does not answer (default: %(default)s)",
    )
    parser.add_argument("--details", action="store_true", help="print each round as well")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _leave)
    try:
        _run(options, shlex.join(["python", "-m", "bench.failover", *arguments]))
    except (DemoError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    return 0


def _run(options: argparse.Namespace, command: str) -> None:
    account = server_account()
    binaries = find_binaries(account)
    head = machine.surroundings() | {"PostgreSQL": binaries.version, "command": command}
    print("\n".join(f"- {name}: {value}" for name, value in head.items()), flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="pgproxy-bench-") as name,
        template(binaries, account) as start,
        Cluster(start, account) as cluster,
    ):
        directory = Path(name)
        directory.chmod(0o711)  # others must get through to directories of their own in there
        for fault in options.faults:
            rows: list[Sequence[str]] = [_HEAD]
            for route in options.routes:
                verdicts = []
                for number in range(options.rounds):
                    print(f"{fault}, {route}, round {number + 1}", file=sys.stderr, flush=True)
                    place = directory / f"{fault}-{route}-{number}"
                    place.mkdir()
                    place.chmod(0o711)
                    verdicts.append(_round(cluster, ROUTES[route], FAULTS[fault], options, place))
                    if options.details:
                        print(f"\n{verdicts[-1]}\n", flush=True)
                rows.append(_row(route, verdicts))
            print(f"\n### {fault}\n\n{table(rows, 1, markdown=True)}", flush=True)


def _round(
    cluster: Cluster, route: Route, fault: Fault, options: argparse.Namespace, directory: Path
) -> Verdict:
    """Have clients work through a fault. The cluster is whole afterwards."""
    lay_table(cluster.writer)
    try:
        with route(cluster, directory) as addresses:
            # PgBouncer 1.18 knows no prepared statements in transaction mode.
            plan = Plan(addresses, selecting=60, preparing=0, patience=options.patience)
            with Toil(plan, directory / "toil") as toil:
                toil.await_work()
                time.sleep(_WARM_UP)
                change = fault.make(cluster, options.hold)
                outcomes = toil.finish(change.writable)
        if outcomes.unfinished:
            print(f"{outcomes.unfinished} clients were never served again", file=sys.stderr)
        until = change.writable if fault.is_silent else None
        return outcomes.judge(cluster.writer, change, until=until)
    finally:
        cluster.settle()


def _row(route: str, verdicts: Sequence[Verdict]) -> Sequence[str]:
    """Lay several rounds out: medians, the longest pause of all, and each round's counts."""
    pauses = [list(verdict.pauses.values()) for verdict in verdicts]
    promotions = [verdict.change.promotion for verdict in verdicts if verdict.change]
    times = [median(promotions), median(median(one) for one in pauses), max(max(one) for one in pauses)]
    return [
        route,
        *(f"{seconds * 1000:.0f}" for seconds in times),
        *(", ".join(str(count(verdict)) for verdict in verdicts) for count in _COUNTS.values()),
    ]


# What happens.


@attrs.frozen
class Fault:
    """A way for the writer to go."""

    make: Callable[[Cluster, float], Change]
    """Has it go, and after so many seconds another be promoted."""
    is_silent: bool = False
    """Whether nobody can know at once that it is gone."""


def _kill(cluster: Cluster, hold: float) -> Change:
    return _promote(cluster, cluster.kill(), hold)


def _freeze(cluster: Cluster, hold: float) -> Change:
    return _promote(cluster, cluster.freeze(), hold)


def _promote(cluster: Cluster, fault: tuple[float, float], hold: float) -> Change:
    time.sleep(hold)
    return cluster.promote(cluster.standbys[0], fault)


def _switch_over(cluster: Cluster, _hold: float) -> Change:
    return cluster.switch_over(cluster.standbys[0])


FAULTS = {"kill": Fault(_kill), "switchover": Fault(_switch_over), "freeze": Fault(_freeze, is_silent=True)}


# What is in front of the cluster.


@contextmanager
def _direct(cluster: Cluster, _directory: Path) -> Iterator[Addresses]:
    """Nothing: clients take the first of all hosts that takes writes, every 100 ms, as libpq does."""
    yield [host.at for host in cluster.hosts]


@contextmanager
def _pgbouncer(cluster: Cluster, directory: Path) -> Iterator[Addresses]:
    """
    PgBouncer in transaction mode, that tries to log in every 100 ms.

    It knows one address: who promotes writes the new one into its configuration, and has that read, at once.
    """
    program = pgbouncer_program()
    if program is None:
        raise DemoError("PgBouncer is not installed (Debian, Ubuntu: apt install pgbouncer)")
    port, account = free_port(), server_account()
    place = directory / "pgbouncer"
    place.mkdir()
    config, users = place / "pgbouncer.ini", place / "users.txt"
    users.write_text('"toil" ""\n')

    def configure(host: Host) -> None:
        config.write_text(f"""\
[databases]
toil = host={host.at[0]} port={host.at[1]}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
pool_mode = transaction
default_pool_size = {_POOL_SIZE}
max_client_conn = 1000
auth_type = trust
auth_file = {users}
server_login_retry = 0.1
log_connections = 0
log_disconnections = 0
""")

    configure(cluster.writer)
    if account is not None:
        for path in (place, config, users):
            os.chown(path, account.uid, account.gid)
    log = place / "log"
    process = spawn([program, config], log=log, account=account, cwd=place)

    def follow(changed: Cluster) -> None:
        configure(changed.writer)
        process.send_signal(signal.SIGHUP)

    cluster.observers.append(follow)
    try:
        if not wait_until(lambda: is_listening(port), 20):
            raise DemoError(f"PgBouncer does not listen:\n{tail(log)}")
        yield [("127.0.0.1", port)]
    finally:
        cluster.observers.remove(follow)
        end(process, signal.SIGINT, 15)


@contextmanager
def _pgproxy(cluster: Cluster, directory: Path) -> Iterator[Addresses]:
    """pgproxy in transaction mode with the three hosts, as it is: nobody tells it of what happens."""
    port = free_port()
    place = directory / "pgproxy"
    place.mkdir()
    config, users, log = place / "pgproxy.toml", place / "users.txt", place / "log"
    users.write_text('"toil" "toil"\n')
    users.chmod(0o600)
    hosts = ", ".join(f'"{host.at[0]}:{host.at[1]}"' for host in cluster.hosts)
    config.write_text(f"""\
[proxy]
listen = "127.0.0.1:{port}"
auth = "trust"
users_file = "users.txt"
pool_size = {_POOL_SIZE}
max_client_connections = 1000
[targets.main]
server = [{hosts}]
watch_user = "toil"
watch_database = "toil"
""")
    twistd = Path(sys.executable).with_name("twistd")
    process = spawn([twistd, "--nodaemon", "--pidfile=", "pgproxy", "--config", config], log=log, cwd=place)
    try:
        if not wait_until(lambda: is_listening(port), 20):
            raise DemoError(f"pgproxy does not listen:\n{tail(log)}")
        yield [("127.0.0.1", port)]
    finally:
        end(process, signal.SIGTERM, 15)


ROUTES: dict[str, Route] = {"pgproxy": _pgproxy, "direct": _direct, "pgbouncer": _pgbouncer}


def _leave(number: int, frame: object) -> None:
    """End as an exception does, so that everything started is ended."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
