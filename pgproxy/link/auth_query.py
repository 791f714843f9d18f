"""
Where users' secrets are looked up that the users file does not have: a query on the target's own catalogue.

Documentation: PostgreSQL manual, pg_authid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from attrs import field, frozen

from pgproxy.auth.secrets import PlainPassword, Secret
from pgproxy.config import Config, ConfigError, Problem


class UsersUnavailable(Exception):
    """A user's secret cannot be looked up now; the text says why, for the log."""


@frozen
class AuthQuery:
    """Where and how to ask."""

    query: str
    user: str
    password: str = field(repr=False)
    host: str
    """Of several, with commas between them, the first that answers is asked: a reader knows as much."""
    port: str
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
                ",".join(address.host for address in target.server),
                ",".join(str(address.port) for address in target.server),
                target.tls,
                str(target.ca or ""),
                str(target.certificate or ""),
                str(target.key or ""),
                math.ceil(config.proxy.connect_timeout),
            )
            for name, target in config.targets.items()
        }

    def ask(self, database: str, user: str) -> Secret | None:
        """Give the user's secret, None if there is none for us. Blocks. Raises `UsersUnavailable`."""
        # psycopg takes a good part of the time that a start takes; most have no auth_query.
        from pgproxy.link.catalogue import ask

        return ask(self, database, user)
