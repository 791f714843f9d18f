"""The tool `pgproxy check`: says all that is wrong with a configuration and the files it names, and where."""

from __future__ import annotations

import argparse
import json
import ssl
import sys
from pathlib import Path

from attrs import asdict

from pgproxy.auth.users import UsersFileError
from pgproxy.config import ConfigError, Problem, load

ABOUT = (
    "Read a configuration and the files that it names, as pgproxy would at its start, and say all that is "
    "wrong: file, path, what, and what would be right. The exit status is 0 if nothing is, 1 if something is."
)


def define(parser: argparse.ArgumentParser) -> None:
    """Say what the tool's command line has."""
    parser.add_argument("file", type=Path, metavar="FILE", help="the configuration file")
    parser.add_argument(
        "--json",
        action="store_true",
        help="write a JSON object to standard output: ok, and problems (source, path, wrong, right)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Do what the command line asks for; give the exit status."""
    path: Path = arguments.file
    problems = find_problems(path)
    if arguments.json:
        print(json.dumps({"ok": not problems, "problems": [asdict(problem) for problem in problems]}))
    elif problems:
        for problem in problems:
            print(problem, file=sys.stderr)
    else:
        print("ok")
    return 1 if problems else 0


def find_problems(path: Path) -> list[Problem]:
    """Give all that is wrong with a configuration file and the files it names."""
    from pgproxy.gather import gather

    try:
        gather(load(path))
    except ConfigError as error:
        return list(error.problems)
    except UsersFileError as error:
        return [Problem(error.source, f"line {error.line}", error.what, error.remedy)]
    except ssl.SSLError as error:
        return [Problem(str(path), "", f"a certificate or key cannot be used: {error}")]
    except OSError as error:
        return [Problem(str(error.filename or path), "", f"cannot be read: {error.strerror or error}")]
    return []
