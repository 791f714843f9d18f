"""The `pgproxy` command: small tools around the proxy, which itself is run by twistd."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from pgproxy import __version__, check, passwd
from pgproxy.aws import command as token
from pgproxy.convert import command as convert
from pgproxy.top import command as top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a sub-command, by default the one on the command line; give the exit status."""
    parser = argparse.ArgumentParser(
        prog="pgproxy",
        description="Tools around pgproxy. The proxy itself is started with: twistd -n pgproxy --config FILE",
    )
    parser.add_argument("--version", action="version", version=f"pgproxy {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    check.define(
        commands.add_parser("check", help="say what is wrong with a configuration", description=check.ABOUT)
    )
    convert.define(
        commands.add_parser(
            "convert", help="write a PgBouncer configuration as pgproxy's", description=convert.ABOUT
        )
    )
    passwd.define(
        commands.add_parser("passwd", help="set or delete a user's secret", description=passwd.ABOUT)
    )
    token.define(
        commands.add_parser("token", help="make a token of AWS's to log in with", description=token.ABOUT)
    )
    top.define(
        commands.add_parser(
            "top", help="show what a pgproxy is doing, on a terminal", description=top.ABOUT, add_help=False
        )
    )
    arguments = parser.parse_args(argv)
    run: passwd.Run = arguments.run
    return run(arguments)
