"""
What drivers and psql say to any PostgreSQL of their own accord, and what the console answers.

They set parameters, open transactions and close them, reset sessions, and ask for a version. Nothing of it
means anything here: it is taken so that they work.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from attrs import frozen

from pgproxy import __version__
from pgproxy.console.tables import Column, Kind, Table, Value

SERVER_VERSION = f"15.0 (pgproxy {__version__})"
"""Drivers go by the number: what the console understands is in every PostgreSQL that they know."""

REPORTED = {
    "server_version": SERVER_VERSION,
    "server_encoding": "UTF8",
    "client_encoding": "UTF8",
    "application_name": "",
    "is_superuser": "off",
    "session_authorization": "",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "integer_datetimes": "on",
    "standard_conforming_strings": "on",
    "in_hot_standby": "off",
    "default_transaction_read_only": "off",
}
"""The parameters that clients are told at login."""

_SHOWN = {
    **{name.lower(): value for name, value in REPORTED.items()},
    "transaction_isolation": "read committed",
    "transaction isolation level": "read committed",
    "default_transaction_isolation": "read committed",
    "transaction_read_only": "off",
    "search_path": "",
    "server_version_num": "150000",
    "max_identifier_length": "63",
}
_SETTINGS = frozenset(_SHOWN) | {
    "extra_float_digits",
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "client_min_messages",
    "bytea_output",
    "names",
    "time",
    "transaction",
    "datestyle",
    "jit",
    "synchronous_commit",
}


@frozen
class Chat:
    """Something that is answered at once."""

    tag: str
    table: Table | None = None
    moves: str = ""
    """The transaction status that it leads to: I or T; empty where it stays."""


def is_session_setting(name: str) -> bool:
    """Say whether it is a parameter of PostgreSQL's that drivers set."""
    return name.lower() in _SETTINGS


_MOVES = {
    "begin": Chat("BEGIN", moves="T"),
    "start": Chat("START TRANSACTION", moves="T"),
    "commit": Chat("COMMIT", moves="I"),
    "end": Chat("COMMIT", moves="I"),
    "rollback": Chat("ROLLBACK", moves="I"),
    "abort": Chat("ROLLBACK", moves="I"),
}
_NOTHING = {
    "set": Chat("SET"),
    "reset": Chat("RESET"),
    "discard": Chat("DISCARD ALL"),
    "deallocate": Chat("DEALLOCATE ALL"),
    "close": Chat("CLOSE CURSOR ALL"),
    "unlisten": Chat("UNLISTEN"),
    "savepoint": Chat("SAVEPOINT"),
    "release": Chat("RELEASE"),
}
_ITEM = re.compile(r"(?:pg_catalog\.)?(\w+)\s*(\(\s*\))?(?:\s+as\s+\"?(\w+)\"?)?", re.IGNORECASE)
_SELECTED: dict[str, Callable[[str, str], tuple[Kind, Value]]] = {
    "version()": lambda _user, _database: (Kind.TEXT, f"PostgreSQL {SERVER_VERSION}: the console of pgproxy"),
    "1": lambda _user, _database: (Kind.INT4, 1),
    "current_user": lambda user, _database: (Kind.TEXT, user),
    "session_user": lambda user, _database: (Kind.TEXT, user),
    "user": lambda user, _database: (Kind.TEXT, user),
    "current_database()": lambda _user, database: (Kind.TEXT, database),
    "current_catalog": lambda _user, database: (Kind.TEXT, database),
    "current_schema()": lambda _user, _database: (Kind.TEXT, "public"),
    "current_schema": lambda _user, _database: (Kind.TEXT, "public"),
    "pg_is_in_recovery()": lambda _user, _database: (Kind.BOOL, False),
    "pg_advisory_unlock_all()": lambda _user, _database: (Kind.VOID, ""),
}


def chat(verb: str, text: bytes, user: str, database: str) -> Chat | None:
    """Give the answer to a statement that begins with `verb`; None if it is nothing of the kind."""
    said = " ".join(text.decode("utf-8", "replace").split())
    if verb == "select":
        return _select(said, user, database)
    if verb == "show":
        name = said[len("show") :].strip().strip('"')
        value = _SHOWN.get(name.lower())
        if value is None:
            return None
        return Chat("SHOW", Table((Column(name.replace(" ", "_").lower(), Kind.TEXT),), ((value,),)))
    if verb == "rollback" and re.match(r"rollback\s.*\bto\b", said, re.IGNORECASE):
        return Chat("ROLLBACK", moves="T")
    return _MOVES.get(verb) or _NOTHING.get(verb)


def _select(said: str, user: str, database: str) -> Chat | None:
    columns: list[Column] = []
    row: list[Value] = []
    for item in said[len("select") :].split(","):
        parts = _ITEM.fullmatch(item.strip())
        if parts is None:
            return None
        name, call, label = parts[1].lower(), parts[2], parts[3]
        give = _SELECTED.get(name + ("()" if call else ""))
        if give is None:
            return None
        kind, value = give(user, database)
        columns.append(Column(label or ("?column?" if name == "1" else name), kind))
        row.append(value)
    return Chat("SELECT 1", Table(tuple(columns), (tuple(row),)))
