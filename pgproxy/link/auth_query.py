"""
Looks a user's secret up in the target's own catalogue, with psycopg in a thread.

The connection is made for the question and has only settings of its own: nothing that a client sends in its
startup message reaches it. The user's name is the one parameter. Documentation: psycopg; PostgreSQL manual,
pg_authid.
"""

from __future__ import annotations

import math
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psycopg
from attrs import field, frozen

from pgproxy.auth.secrets import PlainPassword, Secret, parse_secret
from pgproxy.config import Config, ConfigError, Problem

_FALLBACK = "postgres"
"""Where is asked about a database that can't be connected to: by default every cluster has it."""
_CONNECTABLE = """\
SELECT 1 FROM pg_catalog.pg_database WHERE datname OPERATOR(pg_catalog.=) $1::pg_catalog.text \
AND datallowconn AND pg_catalog.has_database_privilege(oid, 'CONNECT')"""
_OPTIONS = "-c search_path=pg_catalog -c statement_timeout=5000 -c default_transaction_read_only=on"


class UsersUnavailable(Exception):
    """A user's secret cannot be looked up now; the text says why, for the log."""


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


@frozen
class AuthQuery:
    """Where and how to ask."""

    query: str
    user: str
    password: str = field(repr=False)
    host: str
    port: int
    sslmode: str
    sslrootcert: str
    sslcert: str
    sslkey: str
    connect_timeout: int
    """Seconds for the connection, and as many for the query."""

    @classmethod
    def for_targets(cls, config: Config, users: Mapping[str, Secret]) -> dict[str, AuthQuery]:
        """Give the one for each target. Raises `ConfigError` where its user has no password."""
        settings = config.proxy.auth_query
        if settings is None:
            return {}
        secret = users.get(settings.user)
        if not isinstance(secret, PlainPassword):
            file = config.proxy.users_file
            problem = Problem(
                str(file) if file is not None else "",
                "proxy.auth_query.user",
                f"{settings.user} has no plain password in the users file",
                "pgproxy logs in with it to ask for the others' secrets: add one",
            )
            raise ConfigError([problem])
        return {
            name: cls(
                settings.query,
                settings.user,
                secret.password,
                target.host,
                target.port,
                target.tls,
                str(target.ca or ""),
                str(target.certificate or ""),
                str(target.key or ""),
                math.ceil(config.proxy.connect_timeout),
            )
            for name, target in config.targets.items()
        }

    def ask(self, database: str, user: str) -> Secret | None:
        """
        Give the user's secret, None if there is no such user or it may not log in. Blocks.

        Whoever asks for a database that we can't be in is treated as an unknown user: nobody shall learn by
        asking which databases there are. Raises `UsersUnavailable`.
        """
        try:
            row = self._ask(database, self.query, user)
        except psycopg.Error as error:
            if database != _FALLBACK and not self._can_enter(database):
                return None
            raise UsersUnavailable(f"auth_query as {self.user}: {str(error).strip()}") from error
        if row is None or len(row) < 2 or row[1] is None:
            return None
        if str(row[0]) != user:
            raise UsersUnavailable("auth_query gave another user than it was asked for")
        try:
            return parse_secret(str(row[1]))
        except ValueError as error:
            raise UsersUnavailable(f"auth_query gave a secret that is none: {error}") from error

    def _can_enter(self, database: str) -> bool:
        """Say whether a database is there for us; True where that can't be found out."""
        # libpq doesn't tell the SQLSTATE of a login that was refused, and the text may be in any language.
        try:
            return self._ask(_FALLBACK, _CONNECTABLE, database) is not None
        except psycopg.Error:
            return True

    def _ask(self, database: str, query: str, parameter: str) -> tuple[object, ...] | None:
        with psycopg.connect(
            host=self.host,
            port=self.port,
            dbname=database,
            user=self.user,
            password=self.password,
            sslmode=self.sslmode,
            sslrootcert=self.sslrootcert or None,
            sslcert=self.sslcert or None,
            sslkey=self.sslkey or None,
            connect_timeout=self.connect_timeout,
            application_name="pgproxy auth_query",
            passfile="/dev/null",
            options=_OPTIONS,
            autocommit=True,
            cursor_factory=psycopg.RawCursor,
        ) as connection:
            with _at_most(self.connect_timeout, connection.fileno()):
                return connection.execute(query, (parameter,)).fetchone()
