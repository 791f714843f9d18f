"""The command line of the benchmark: `python -m bench`."""

import argparse
import json
import resource
import secrets
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from bench import machine, pgbench
from bench.pgbench import Access, PgbenchError
from bench.processes import make_certificate, pgbouncer_program
from bench.profile import profile
from bench.scenarios import POOL_SIZE, SCENARIOS, Plan, Result, Route, measure
from bench.table import lay_out
from pgproxy.demo.binaries import Binaries, find_binaries
from pgproxy.demo.conf import FAST_AND_LOOSE, ServerTls
from pgproxy.demo.postgres import Postgres
from pgproxy.demo.process import Account, DemoError, server_account

_USER = "bench"
_SCALE = 10
_FILL_SECONDS = 120
_IDLE_CLIENTS = 10_000
_FEW_IDLE_CLIENTS = 1_000
"""With --quick."""
_SPARE_FILES = 500
"""Open files that a pooler has, or we, besides the idle clients' sockets."""


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Compare pgproxy with PgBouncer and with no pooler, side by side on this machine.",
    )
    parser.add_argument(
        "--quick", action="store_true", help="one round of one second: a look, no measurement"
    )
    parser.add_argument("--rounds", type=_positive, help="turns of each route in a scenario (default: 5)")
    parser.add_argument("--seconds", type=_positive, help="length of one turn (default: 4)")
    parser.add_argument(
        "--clients", type=_positive, default=8, help="pgbench's clients (default: %(default)s)"
    )
    parser.add_argument(
        "--idle-clients",
        type=_positive,
        help=f"idle clients (default: {_IDLE_CLIENTS:,}, with --quick {_FEW_IDLE_CLIENTS:,})",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="SCENARIO",
        choices=[scenario.name for scenario in SCENARIOS],
        help="only these: %(choices)s",
    )
    parser.add_argument(
        "--profile", action="store_true", help="say where pgproxy's time goes in the first scenario, instead"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to this file as well")
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.seconds = options.seconds or (1 if options.quick else 4)
    options.idle_clients = options.idle_clients or (_FEW_IDLE_CLIENTS if options.quick else _IDLE_CLIENTS)
    return options


def _positive(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is not a whole number from 1")
    return int(word)


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; returns the exit status: 1 where nothing could be measured, 130 when interrupted."""
    options = _options(arguments)
    signal.signal(signal.SIGTERM, _end)
    idle_clients = _allow_open_files(options.idle_clients)
    try:
        account = server_account()
        binaries = find_binaries(account)
        program = _find_pgbench(binaries)
        head = machine.head(
            shlex.join(["python", "-m", "bench", *arguments]), binaries.version, program, pgbouncer_program()
        )
        head["idle clients"] = f"{idle_clients:,}"
        if idle_clients < options.idle_clients:
            head["idle clients"] += " (ulimit -Hn allows no more)"
        mark = "- " if options.markdown else ""
        print("\n".join(f"{mark}{name}: {value}" for name, value in head.items()), flush=True)
        with _stage(options, idle_clients, account, binaries, program) as plan:
            if options.profile:
                print("\n" + profile(plan))
                return 0
            results = list(measure(plan, _tell))
    except (DemoError, PgbenchError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    print("\n" + lay_out(results, options.markdown))
    if options.json is not None:
        options.json.write_text(
            json.dumps(head | {"results": [_plain(result) for result in results]}, indent=1)
        )
    return 0


@contextmanager
def _stage(
    options: argparse.Namespace,
    idle_clients: int,
    account: Account | None,
    binaries: Binaries,
    program: Path,
) -> Iterator[Plan]:
    """Start PostgreSQL, fill it, and give the plan. Raises DemoError or PgbenchError."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pgproxy-bench-")))
        # Others must get through to directories of their own in there.
        directory.chmod(0o711)
        certificate = make_certificate(directory)
        _tell("starting PostgreSQL")
        postgres = Postgres(
            binaries,
            account,
            # Each of the five has at most a pool's worth of connections.
            settings={**FAST_AND_LOOSE, "max_connections": len(Route) * max(POOL_SIZE, options.clients) + 20},
            tls=ServerTls(certificate.chain, certificate.key) if binaries.has_openssl else None,
        )
        stack.enter_context(postgres)
        password = secrets.token_urlsafe()
        postgres.execute(
            f"CREATE ROLE {_USER} LOGIN PASSWORD '{password}'", f"CREATE DATABASE {_USER} OWNER {_USER}"
        )
        [[verifier]] = postgres.execute(f"SELECT rolpassword FROM pg_authid WHERE rolname = '{_USER}'")
        database = Access(postgres.port, _USER, password, _USER, certificate.authority)
        _tell(f"filling the database, scale {_SCALE}")
        pgbench.call(program, database, ["-i", "-q", "-s", str(_SCALE)], tls=False, limit=_FILL_SECONDS)
        yield Plan(
            scenarios=[s for s in SCENARIOS if options.only is None or s.name in options.only],
            rounds=options.rounds,
            seconds=options.seconds,
            clients=options.clients,
            idle_clients=idle_clients,
            cores=machine.cores(),
            pgbench=program,
            database=database,
            verifier=verifier,
            certificate=certificate,
            directory=directory,
        )


def _find_pgbench(binaries: Binaries) -> Path:
    """Find pgbench: the system's, as it can do TLS, else the one beside PostgreSQL. Raises DemoError."""
    found = shutil.which("pgbench") or shutil.which("pgbench", path=str(binaries.bindir))
    if found is None:
        raise DemoError("pgbench was not found (Debian, Ubuntu: apt install postgresql-contrib)")
    return Path(found)


def _allow_open_files(idle_clients: int) -> int:
    """
    Raise the limit of open files as far as wanted and possible; children inherit it.

    Gives for how many idle clients that is enough.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = idle_clients + _SPARE_FILES
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(most - _SPARE_FILES, 1)


def _plain(result: Result) -> dict[str, object]:
    """Give a result as what JSON knows."""
    return {
        "scenario": result.scenario.name,
        "pool_mode": result.scenario.pool_mode,
        "tls": result.scenario.tls,
        "through": result.route,
        "reason": result.reason,
        "samples": result.samples,
    }


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _end(number: int, frame: FrameType | None) -> None:
    """Leave the way an exception does, so that everything started is ended."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
