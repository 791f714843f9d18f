"""
Looks a user's secret up in the target's own catalogue, with psycopg, in a thread.

The connection is made for the question and has only settings of its own: nothing that a client sends in its
startup message reaches it. The user's name is the one parameter. Documentation: psycopg; PostgreSQL manual,
pg_authid.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from pgproxy.auth.secrets import Secret, parse_secret
from pgproxy.link.auth_query import AuthQuery, UsersUnavailable

_FALLBACK = "postgres"
"""Where is asked about a database that can't be connected to: by default every cluster has it."""
_CONNECTABLE = """\
SELECT 1 FROM pg_catalog.pg_database WHERE datname OPERATOR(pg_catalog.=) $1::pg_catalog.text \
AND datallowconn AND pg_catalog.has_database_privilege(oid, 'CONNECT')"""
_OPTIONS = "-c search_path=pg_catalog -c statement_timeout=5000 -c default_transaction_read_only=on"


@contextmanager
def _at_most(seconds: float, descriptor: int) -> Iterator[None]:
    """Shut the connection down when the time is over: a server that hangs ends no statement by itself."""
    sock = socket.socket(fileno=os.dup(descriptor))
    timer = threading.Timer(seconds, sock.shutdown, (socket.SHUT_RDWR,))
    # At the end of the process nobody waits for it.
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        sock.close()


def ask(where: AuthQuery, database: str, user: str) -> Secret | None:
    """
    Give the user's secret, None if there is no such user or it may not log in. Blocks.

    Whoever asks for a database that we can't be in is treated as an unknown user: nobody shall learn by
    asking which databases there are. Raises `UsersUnavailable`.
    """
    try:
        row = _ask(where, database, where.query, user)
    except psycopg.Error as error:
        if database != _FALLBACK and not _can_enter(where, database):
            return None
        raise UsersUnavailable(f"auth_query as {where.user}: {str(error).strip()}") from error
    if row is None or len(row) < 2 or row[1] is None:
        return None
    if str(row[0]) != user:
        raise UsersUnavailable("auth_query gave another user than it was asked for")
    try:
        return parse_secret(str(row[1]))
    except ValueError as error:
        raise UsersUnavailable(f"auth_query gave a secret that is none: {error}") from error


def _can_enter(where: AuthQuery, database: str) -> bool:
    """Say whether a database is there for us; True where that can't be found out."""
    # libpq doesn't tell the SQLSTATE of a login that was refused, and the text may be in any language.
    try:
        return _ask(where, _FALLBACK, _CONNECTABLE, database) is not None
    except psycopg.Error:
        return True


def _ask(where: AuthQuery, database: str, query: str, parameter: str) -> tuple[object, ...] | None:
    with psycopg.connect(
        host=where.host,
        port=where.port,
        dbname=database,
        user=where.user,
        password=where.password,
        sslmode=where.sslmode,
        sslrootcert=where.sslrootcert or None,
        sslcert=where.sslcert or None,
        sslkey=where.sslkey or None,
        connect_timeout=where.connect_timeout,
        application_name="pgproxy auth_query",
        passfile="/dev/null",
        options=_OPTIONS,
        autocommit=True,
        cursor_factory=psycopg.RawCursor,
    ) as connection:
        with _at_most(where.connect_timeout, connection.fileno()):
            return connection.execute(query, (parameter,)).fetchone()
