"""The tool `pgproxy convert`: a PgBouncer configuration in, ours out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pgproxy.convert.draft import Draft
from pgproxy.convert.ini import Ini, IniError
from pgproxy.convert.keys import convert_keys
from pgproxy.convert.logins import convert_logins
from pgproxy.convert.places import convert_databases, convert_listen, convert_mode, convert_users
from pgproxy.convert.writing import as_toml, plainly

ABOUT = (
    "Write a PgBouncer configuration as pgproxy's, to standard output. What has no counterpart, or means "
    "something else, is noted: in comments at its beginning, and on standard error. Files that it names stay "
    "where they are; relative names are taken from the current directory, as PgBouncer does."
)
_SECTIONS = ("pgbouncer", "databases", "users", "peers")


def define(parser: argparse.ArgumentParser) -> None:
    """Say what the tool's command line has."""
    parser.add_argument("file", type=Path, metavar="PGBOUNCER.INI", help="PgBouncer's configuration file")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Do what the command line asks for; give the exit status: 1 where nothing came of it."""
    path: Path = arguments.file
    try:
        draft = convert(path)
    except IniError as error:
        print(f"pgproxy convert: {plainly(str(error))}", file=sys.stderr)
        return 1
    if not draft.databases:
        for note in draft.notes:
            print(plainly(note), file=sys.stderr)
        print(f"pgproxy convert: {path}: there is no database that could be converted", file=sys.stderr)
        return 1
    print(as_toml(draft, str(path)), end="")
    for note in draft.notes:
        print(plainly(note), file=sys.stderr)
    return 0


def convert(path: Path) -> Draft:
    """Convert a file. Raises `IniError` where PgBouncer could not read it, either."""
    ini = Ini(path)
    draft = Draft()
    keys = ini.of("pgbouncer")
    convert_listen(keys, draft)
    convert_mode(keys, draft)
    convert_keys(keys, draft)
    convert_logins(keys, draft)
    convert_databases(ini.of("databases").values(), keys, draft)
    convert_users(ini.of("users").values(), keys, draft)
    for section in dict.fromkeys(ini.sections):
        if section == "peers":
            draft.note(None, "[peers]: workers pass cancel requests on by themselves, see proxy.workers")
        elif section not in _SECTIONS:
            draft.note(None, f"[{section}]: PgBouncer has no such section")
    return draft
