"""
Asks a console: one connection, all tables in one Query.

psycopg brings libpq, so that what is not said is taken from PGHOST, PGUSER, PGPASSWORD, a password file and
so on, as by psql.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import isfinite
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import DiagnosticField, ExecStatus
from psycopg.pq.abc import PGresult

from pgproxy.console.columns import SHOWN
from pgproxy.top.picture import TABLES, Look

PATIENCE = 15.0
"""Seconds for the console to answer."""
_QUERY = "; ".join(f"SHOW {table}" for table in TABLES).encode()
_BOOL, _FLOAT8, _NUMBERS = 16, 701, (20, 23, 1700)
_INSTEAD = {
    "host": {"host", "hostaddr", "service"},
    "port": {"port", "service"},
    "connect_timeout": {"connect_timeout", "service"},
}
"""What a connection string may have in their place."""
_STRANGE = "this is not the console of a pgproxy, or of another version than this one"
_OURS_TO_MEND = ("28", "42", "0A", "3D")
"""SQLSTATEs' classes: who asks may not, or what is asked is no console of pgproxy's; it stays so."""

_ALWAYS = {"dbname": "pgproxy", "client_encoding": "UTF8", "application_name": "pgproxy top"}
_DEFAULTS = {"host": "127.0.0.1", "port": "6432", "connect_timeout": "5"}
"""Where neither the command line nor the environment says anything; the variables are libpq's."""
_VARIABLES = {
    "host": ("PGHOST", "PGHOSTADDR", "PGSERVICE"),
    "port": ("PGPORT", "PGSERVICE"),
    "connect_timeout": ("PGCONNECT_TIMEOUT",),
}

Wait = Callable[[int, float], bool]
"""Waits until a descriptor can be read, or a time has come (time.monotonic()); says whether it can be."""


class Lost(Exception):
    """The console can't be asked just now; the text says why."""


class Refused(Exception):
    """The console won't be asked, now or later; the text says why."""


class NeedsPassword(Refused):
    """It wants a password, and none was given."""


def conninfo(
    dbname: str, host: str | None, port: str | None, user: str | None, password: str | None = None
) -> str:
    """
    Make libpq's connection string; `dbname` may be one, too. Raises `Refused`.

    What nobody has said, by this or the environment, is pgproxy's default instead of libpq's.
    """
    said = {"host": host, "port": port, "user": user, "password": password}
    try:
        if "=" in dbname or dbname.startswith(("postgresql://", "postgres://")):
            base = conninfo_to_dict(dbname)
        else:
            base = {"dbname": dbname}
        whole: dict[str, Any] = {**_ALWAYS, **base, **{name: value for name, value in said.items() if value}}
        for name, value in _DEFAULTS.items():
            said_elsewhere = any(os.environ.get(variable) for variable in _VARIABLES[name])
            if not said_elsewhere and not whole.keys() & _INSTEAD[name]:
                whole[name] = value
        return make_conninfo(**whole)
    except psycopg.Error as error:
        raise Refused(_line(error)) from None


class Asking:
    """A console, and the connection to it while there is one."""

    def __init__(self, conninfo: str, wait: Wait) -> None:
        self._conninfo = conninfo
        self._wait = wait
        self._connection: psycopg.Connection[Any] | None = None
        self.where = ""
        """The address that was connected to last."""

    def connect(self) -> None:
        """Connect. Raises `NeedsPassword`, `Lost`."""
        self.close()
        self._connection = self._open()

    def look(self) -> Look:
        """Ask for all; connects where there is no connection. Raises `Lost`, `Refused`."""
        if self._connection is None:
            self._connection = self._open()
        try:
            return self._ask(self._connection.pgconn)
        except psycopg.Error as error:
            self.close()
            raise Lost(_line(error)) from None
        except BaseException:
            # Nobody knows how far it has come.
            self.close()
            raise

    def renew(self) -> bool:
        """Connect anew and let go of the connection before; keeps that where nobody else answers."""
        with suppress(Lost, Refused):
            fresh = self._open()
            self.close()
            self._connection = fresh
            return True
        return False

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> psycopg.Connection[Any]:
        try:
            connection = psycopg.connect(self._conninfo, autocommit=True)
        except psycopg.Error as error:
            pgconn = getattr(error, "pgconn", None)
            if pgconn is not None and pgconn.needs_password:
                raise NeedsPassword(_line(error)) from None
            raise Lost(_line(error)) from None
        host = connection.info.host
        self.where = f"[{host}]:{connection.info.port}" if ":" in host else f"{host}:{connection.info.port}"
        return connection

    def _ask(self, pgconn: psycopg.pq.abc.PGconn) -> Look:
        end = time.monotonic() + PATIENCE
        pgconn.send_query(_QUERY)
        tables: list[list[dict[str, Any]]] = []
        while True:
            while pgconn.is_busy():
                if not self._wait(pgconn.socket, end):
                    raise Lost(f"the console has not answered within {PATIENCE:g} s")
                pgconn.consume_input()
            result = pgconn.get_result()
            if result is None:
                break
            if result.status != ExecStatus.TUPLES_OK:
                raise _trouble(result)
            try:
                tables.append(_rows(result))
            except ValueError:
                raise Refused(_STRANGE) from None
        return _checked(tables)


def _checked(tables: Sequence[Sequence[dict[str, Any]]]) -> Look:
    """See that all is there: it may be another version's console, or none."""
    if len(tables) != len(TABLES):
        raise Refused(_STRANGE)
    for table, rows in zip(TABLES, tables, strict=True):
        missing = {column.name for column in SHOWN[table]} - set(rows[0] if rows else {})
        if rows and missing:
            raise Refused(f"{_STRANGE}: SHOW {table.upper()} has no {min(missing)}")
    return Look(time.monotonic(), dict(zip(TABLES, tables, strict=True)))


def _trouble(result: PGresult) -> Exception:
    sqlstate = result.error_field(DiagnosticField.SQLSTATE)
    message = result.error_field(DiagnosticField.MESSAGE_PRIMARY) or result.error_message
    text = " ".join(message.decode("utf-8", "replace").split())
    if sqlstate is not None and sqlstate[:2].decode("ascii", "replace") in _OURS_TO_MEND:
        return Refused(f"the console says: {text}")
    return Lost(text or "the connection has ended")


def _line(error: psycopg.Error) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _rows(result: PGresult) -> list[dict[str, Any]]:
    names = [(result.fname(place) or b"").decode("utf-8", "replace") for place in range(result.nfields)]
    kinds = [result.ftype(place) for place in range(result.nfields)]
    return [
        {name: _value(result.get_value(row, place), kinds[place]) for place, name in enumerate(names)}
        for row in range(result.ntuples)
    ]


def _value(data: bytes | None, kind: int) -> Any:
    if data is None:
        return None
    text = data.decode("utf-8", "replace")
    if kind in _NUMBERS:
        return int(text)
    if kind == _FLOAT8:
        return float(text) if isfinite(float(text)) else None
    return text == "t" if kind == _BOOL else text
