"""
The users file, in the format of PgBouncer's userlist.txt: one `"user" "secret"` a line.

A quote inside is written twice. Lines that begin with `;` or `#` are comments, and so is what follows either
of them behind an entry. Unlike PgBouncer, which overlooks it, anything else behind an entry is an error, most
likely the end of a password with a quote in it.
"""

from __future__ import annotations

import re

from attrs import field, frozen

from pgproxy.auth.secrets import MAX_SECRET, Secret, format_secret, parse_secret

MAX_USER = 128
"""Bytes of a user's name: PgBouncer's; PostgreSQL cuts names at 63."""

_quoted = r'"([^"]*(?:""[^"]*)*)"'
_entry_form = re.compile(rf"[ \t]*(?P<entry>{_quoted}[ \t]+{_quoted})[ \t]*(?:[;#].*)?", re.DOTALL)
_blank_form = re.compile(r"[ \t]*(?:[;#].*)?", re.DOTALL)
_MOST_ON_A_LINE = 4 * MAX_SECRET


class UsersFileError(Exception):
    """A line of a users file is wrong; the text says which, what about it, and what would be right."""

    def __init__(self, source: str, line: int, what: str, remedy: str) -> None:
        super().__init__(f"{source}:{line}: {what}; {remedy}")
        self.source = source
        self.line = line
        self.what = what
        self.remedy = remedy


@frozen
class Entry:
    """One user's line."""

    line: int
    """From 1."""
    user: str
    secret: Secret
    start: int
    """Where, in its line, the entry begins; the rest of the line is white space and comment."""
    stop: int = field(repr=False)


def parse_users(text: str, source: str) -> dict[str, Secret]:
    """Read a users file; `source` is what errors call it. Raises `UsersFileError`."""
    return {entry.user: entry.secret for entry in parse_entries(text, source)}


def parse_entries(text: str, source: str) -> list[Entry]:
    """Read a users file, and where in it everything stands. Raises `UsersFileError`."""
    entries: dict[str, Entry] = {}
    for number, line in enumerate(split_lines(text), start=1):
        if _blank_form.fullmatch(line.removeprefix("\ufeff")):
            continue
        entry = _parse_entry(line, number, source)
        if entry.user in entries:
            raise UsersFileError(
                source,
                number,
                f"user {entry.user!r} is on line {entries[entry.user].line} already",
                "leave one of the two",
            )
        entries[entry.user] = entry
    return list(entries.values())


def split_lines(text: str) -> list[str]:
    """Cut at line feeds alone: a password may hold any of the other letters that str.splitlines() cuts at."""
    return [line.removesuffix("\r") for line in text.split("\n")]


def _parse_entry(line: str, number: int, source: str) -> Entry:
    skipped = 1 if line.startswith("\ufeff") else 0
    form = _entry_form.fullmatch(line, skipped) if len(line) <= _MOST_ON_A_LINE else None
    if form is None:
        raise UsersFileError(
            source,
            number,
            "this is not a user and a secret",
            'write "user" "secret", both in double quotes, a double quote inside as ""',
        )
    user, text = (form[index].replace('""', '"') for index in (2, 3))
    remedy = name_remedy(user)
    if remedy is not None:
        raise UsersFileError(source, number, "the user's name is not one", remedy)
    try:
        secret = parse_secret(text)
    except ValueError as error:
        raise UsersFileError(
            source,
            number,
            f"user {user!r}: {error}",
            "copy the secret again, or set it with pgproxy passwd",
        ) from None
    return Entry(number, user, secret, form.start("entry"), form.end("entry"))


def name_remedy(user: str) -> str | None:
    """Say what is wrong with a user's name, in words of what would be right; None for a good one."""
    if not 0 < len(user.encode("utf-8", "surrogateescape")) <= MAX_USER:
        return f"a user's name has 1 to {MAX_USER} bytes"
    if "\0" in user or "\n" in user or "\r" in user:
        return "a user's name has no NUL and no line break in it"
    return None


def format_entry(user: str, secret: Secret) -> str:
    """Write one user's entry, without a line end."""
    return f"{_quote(user)} {_quote(format_secret(secret))}"


def _quote(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
