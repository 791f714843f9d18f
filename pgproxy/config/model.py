"""A whole configuration: its tables, and what follows from several of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from attrs import evolve, field, frozen

from pgproxy.config.aws import Aws
from pgproxy.config.http import Http
from pgproxy.config.narrower import Database, User
from pgproxy.config.proxy import Proxy
from pgproxy.config.ranges import PoolMode, Timeout
from pgproxy.config.target import Target

EVERY_OTHER = "*"
"""The entry of [databases] for the databases that have none of their own."""


@frozen(kw_only=True)
class Config:
    """A whole configuration."""

    proxy: Proxy = field(factory=Proxy)
    targets: Mapping[str, Target] = field(factory=dict)
    databases: Mapping[str, Database] = field(factory=dict)
    users: Mapping[str, User] = field(factory=dict)
    http: Http = field(factory=Http)
    aws: Aws | None = None

    def database(self, name: str) -> Database | None:
        """Give what a client gets that asks for a database, target and name filled in; None if unknown."""
        found = self._entry(name)
        if found is None:
            return None
        return evolve(found, target=found.target or next(iter(self.targets)), name=found.name or name)

    def init_query(self, database: str) -> str:
        """Give what is run in new servers: the database's, else its target's."""
        entry = self.database(database)
        if entry is None:
            return ""
        return self.targets[entry.target].init_query if entry.init_query is None else entry.init_query

    def pool_mode(self, database: str, user: str) -> PoolMode:
        """Give the mode: the user's, else the database's, else the proxy's."""
        for entry in (self.users.get(user), self._entry(database)):
            if entry is not None and entry.pool_mode is not None:
                return entry.pool_mode
        return self.proxy.pool_mode

    def pool_size(self, database: str, user: str) -> int:
        """Give the most servers of a pool: the user's, else the database's, else the proxy's."""
        for entry in (self.users.get(user), self._entry(database)):
            if entry is not None and entry.pool_size is not None:
                return entry.pool_size
        return self.proxy.pool_size

    def min_pool_size(self, database: str, user: str) -> int:
        """Give how many servers of a pool are kept: the user's, else the database's, else the proxy's."""
        for entry in (self.users.get(user), self._entry(database)):
            if entry is not None and entry.min_pool_size is not None:
                return entry.min_pool_size
        return self.proxy.min_pool_size

    def counts_statements(self, database: str, user: str) -> bool:
        """Say whether statements are counted: the user's word, else the database's, else the proxy's."""
        for entry in (self.users.get(user), self._entry(database)):
            if entry is not None and entry.statement_statistics is not None:
                return entry.statement_statistics
        return self.proxy.statement_statistics

    def timeout(self, which: Timeout, database: str, user: str) -> float:
        """Give a limit of a client's life in seconds: the user's, else the database's, else the proxy's."""
        for entry in (self.users.get(user), self._entry(database)):
            own: float | None = getattr(entry, which, None)
            if own is not None:
                return own
        common: float = getattr(self.proxy, which)
        return common

    @property
    def timeouts(self) -> list[float]:
        """All limits of clients' lives, whosesoever, in seconds; 0 for none."""
        tables = (self.proxy, *self.databases.values(), *self.users.values())
        return [getattr(table, which) or 0.0 for table in tables for which in get_args(Timeout)]

    def _entry(self, database: str) -> Database | None:
        if not self.databases:
            return Database()
        return self.databases.get(database) or self.databases.get(EVERY_OTHER)
