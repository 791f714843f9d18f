"""The tool `pgproxy top`: its command line, and what it takes to be run."""

from __future__ import annotations

import argparse
import os
import sys
from importlib.util import find_spec

from pgproxy.top.layout import shown

ABOUT = (
    "Show what a pgproxy is doing now, by its console, again and again until q or Ctrl-C: clients, servers "
    "and who waits, pools, targets, pins, the slowest statements, and rates. The user has to be one of "
    "admin_users or stats_users. What is not said is taken from PGHOST, PGPORT, PGUSER, PGPASSWORD, a "
    "password file and so on, as psql does."
)
_SOONEST, _LATEST = 0.1, 3600.0
_CONSOLE = "pgproxy"


def define(parser: argparse.ArgumentParser) -> None:
    """Say what the tool's command line has."""
    parser.add_argument("-h", "--host", help="where pgproxy listens (default: PGHOST, or 127.0.0.1)")
    parser.add_argument("-p", "--port", help="its port (default: PGPORT, or 6432)")
    parser.add_argument("-U", "--username", metavar="USER", help="who asks (default: PGUSER, or who you are)")
    parser.add_argument(
        "-d",
        "--dbname",
        default=_CONSOLE,
        metavar="NAME",
        help="the console's name, or a connection string (default: %(default)s, whatever PGDATABASE says)",
    )
    parser.add_argument(
        "--interval",
        type=_seconds,
        default=2.0,
        metavar="SECONDS",
        help="from one look to the next (default: %(default)g)",
    )
    parser.add_argument(
        "--once", action="store_true", help="print one picture, of two looks an interval apart, and end"
    )
    parser.add_argument(
        "--json", action="store_true", help="write a JSON object a line for each look, for programs"
    )
    parser.add_argument("--help", action="help", help="show this")
    parser.set_defaults(run=run)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not _SOONEST <= value <= _LATEST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {_SOONEST:g} to {_LATEST:g}")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Do what the command line asks for; give the exit status."""
    if not arguments.json and find_spec("rich") is None:
        return _failed("rich is not installed: pip install 'pgproxy[top]' (--json does without it)")
    live = not (arguments.json or arguments.once)
    if live and not (sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb")):
        return _failed("standard output is no terminal that can be drawn on: say --once or --json")
    from pgproxy.top.rounds import Failed, go

    try:
        go(arguments)
    except Failed as failed:
        return _failed(str(failed))
    return 0


def _failed(why: str) -> int:
    print(f"pgproxy top: {shown(why)}", file=sys.stderr)
    return 1
