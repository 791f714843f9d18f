"""The tool `pgproxy passwd`: sets or deletes one user's secret in a users file, and leaves the rest."""

from __future__ import annotations

import argparse
import getpass
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from secrets import token_bytes

from pgproxy.auth.secrets import (
    MAX_SECRET,
    SCRAM_ITERATIONS,
    SCRAM_SALT_SIZE,
    PlainPassword,
    Secret,
    md5_hash,
    parse_secret,
    scram_verifier,
)
from pgproxy.auth.users import UsersFileError, format_entry, name_remedy, parse_entries

ABOUT = (
    "Add a user to a users file, replace the user's secret, or delete the user. The password is asked for "
    "twice on a terminal, and otherwise read as one line from standard input. A SCRAM verifier or md5 hash "
    "given as the password (as pg_authid has it) is stored as it is: with the server's own verifier, pgproxy "
    "logs in to the server without knowing the password."
)
MOST_ITERATIONS = 1_000_000
"""PBKDF2 rounds of a verifier; more would make each login of a client slow."""

Run = Callable[[argparse.Namespace], int]


class PasswdError(Exception):
    """The secret was not set; the text says why, and what to do."""


def define(parser: argparse.ArgumentParser) -> None:
    """Say what the tool's command line has."""
    parser.add_argument("file", type=Path, metavar="FILE", help="the users file; made if it is not there")
    parser.add_argument("user", metavar="USER", help="the user's name, as clients give it")
    parser.add_argument(
        "--method",
        choices=("scram-sha-256", "md5", "plain"),
        default="scram-sha-256",
        help="what to store of a password (default: %(default)s)",
    )
    parser.add_argument(
        "--iterations",
        type=_iterations,
        default=SCRAM_ITERATIONS,
        metavar="N",
        help=f"PBKDF2 rounds of a verifier, {SCRAM_ITERATIONS} to {MOST_ITERATIONS} (default: %(default)s)",
    )
    parser.add_argument("--delete", action="store_true", help="delete the user")
    parser.set_defaults(run=run)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool alone; give the exit status."""
    parser = argparse.ArgumentParser(prog="pgproxy passwd", description=ABOUT)
    define(parser)
    return run(parser.parse_args(argv))


def run(arguments: argparse.Namespace) -> int:
    """Do what the command line asks for; give the exit status."""
    path: Path = arguments.file
    user: str = arguments.user
    try:
        remedy = name_remedy(user)
        if remedy is not None:
            raise PasswdError(f"{user[:128]!r} is not a user's name; {remedy}")
        # Read twice: nobody is to type a password in vain, nor to undo what was changed meanwhile.
        _read(path, user, arguments.delete)
        secret = None if arguments.delete else _secret(user, arguments.method, arguments.iterations)
        text, found = _read(path, user, arguments.delete)
        _replace_file(path, _edited(text, user, secret, str(path)))
    except (PasswdError, UsersFileError) as error:
        return _complain(str(error))
    except OSError as error:
        return _complain(
            f"{error.filename or path}: {error.strerror}; see that you may write it and its folder"
        )
    except (KeyboardInterrupt, EOFError):
        return _complain(f"no password was given; {path} is as it was")
    done = "deleted from" if secret is None else "replaced in" if found else "added to"
    print(f"user {user!r} {done} {path}; pgproxy reads it again on SIGHUP", file=sys.stderr)
    return 0


def _complain(text: str) -> int:
    print(f"pgproxy passwd: {text}", file=sys.stderr)
    return 1


def _iterations(text: str) -> int:
    if not (text.isdecimal() and SCRAM_ITERATIONS <= int(text) <= MOST_ITERATIONS):
        wanted = f"a whole number from {SCRAM_ITERATIONS} to {MOST_ITERATIONS}"
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
    return int(text)


# The secret.


def _secret(user: str, method: str, iterations: int) -> Secret:
    text = _typed(user) if sys.stdin.isatty() else _piped()
    if not text:
        raise PasswdError("the password is empty; give one, or --delete the user")
    try:
        secret = parse_secret(text)
    except ValueError as error:
        raise PasswdError(f"{error}; give a password, or a verifier as pg_authid has it") from None
    if not isinstance(secret, PlainPassword) or method == "plain":
        return secret
    if method == "md5":
        return md5_hash(user, text)
    return scram_verifier(text, token_bytes(SCRAM_SALT_SIZE), iterations)


def _typed(user: str) -> str:
    text = getpass.getpass(f"Password for {user}: ")
    if getpass.getpass("Again: ") != text:
        raise PasswdError("the two passwords are not the same; try again")
    return text


def _piped() -> str:
    line = sys.stdin.buffer.readline(MAX_SECRET + 3)
    try:
        return line.removesuffix(b"\n").removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        # The error holds the password.
        raise PasswdError("the password is not UTF-8; give it in UTF-8") from None


# The file.


def _read(path: Path, user: str, must_be_there: bool) -> tuple[str, bool]:
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        if must_be_there:
            raise PasswdError(f"{path} is not there; name the users file that pgproxy reads") from None
        return "", False
    except UnicodeDecodeError:
        raise PasswdError(f"{path} is not UTF-8; write it in UTF-8") from None
    found = any(entry.user == user for entry in parse_entries(text, str(path)))
    if must_be_there and not found:
        raise PasswdError(f"{path} has no user {user!r}; names are case-sensitive")
    return text, found


def _edited(text: str, user: str, secret: Secret | None, source: str) -> str:
    """Give the file's text with the user's entry replaced, added, or, without a secret, deleted."""
    lines = text.split("\n")
    entry = next((entry for entry in parse_entries(text, source) if entry.user == user), None)
    if entry is not None and secret is None:
        del lines[entry.line - 1]
    elif entry is not None and secret is not None:
        line = lines[entry.line - 1]
        lines[entry.line - 1] = line[: entry.start] + format_entry(user, secret) + line[entry.stop :]
    elif secret is not None:
        # What follows the last line feed is empty in a file that ends with one.
        lines[-1:] = [*filter(None, lines[-1:]), format_entry(user, secret), ""]
    return "\n".join(lines)


def _replace_file(path: Path, text: str) -> None:
    """Put a file in place of another at once, with its owner and mode; a new one is its owner's alone."""
    # A link stays a link; what it leads to is replaced.
    path = path.resolve()
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
            if path.exists():
                _take_over(path.stat(), descriptor)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _take_over(old: os.stat_result, descriptor: int) -> None:
    new = os.fstat(descriptor)
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
    if old.st_mode & stat.S_IROTH:
        print("pgproxy passwd: everybody on this machine may read the file; chmod o= it", file=sys.stderr)
