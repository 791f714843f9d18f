"""All targets, each with its pools; and which lender has servers for whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from structlog.typing import FilteringBoundLogger

from pgproxy.config import Config
from pgproxy.config.model import EVERY_OTHER, Database, User
from pgproxy.link.accounts import Accounts
from pgproxy.link.connections import Place
from pgproxy.link.elsewhere import Elsewhere
from pgproxy.link.lender import ServerLender
from pgproxy.link.limits import limits_of, rules_of
from pgproxy.link.server import Host
from pgproxy.link.target import TargetPools
from pgproxy.link.threads import Threads
from pgproxy.pool.states import CloseReason, Parameters
from pgproxy.session.reported import Reported
from pgproxy.wire import errors
from pgproxy.wire.errors import complaint

_Key = tuple[str, str]
"""The database that clients ask for, and the user."""
_Where = tuple[str, str, int]
"""A target's name, and the host and port it has: who moves begins anew."""


class Targets:
    """The servers' side of the proxy. `chance` gives random numbers from 0 to 1."""

    def __init__(
        self,
        reactor: Any,
        threads: Threads,
        config: Config,
        hosts: Mapping[str, Host],
        chance: Callable[[], float],
        log: FilteringBoundLogger,
        elsewhere: Elsewhere | None = None,
        accounts: Accounts | None = None,
    ) -> None:
        self._accounts = accounts or Accounts(config)
        self._reactor = reactor
        self._threads = threads
        self._config = config
        self._hosts = hosts
        self._chance = chance
        self._log = log
        self._elsewhere = elsewhere
        self._targets: dict[_Where, TargetPools] = {}
        self._lenders: dict[_Key, ServerLender] = {}
        self.paused: dict[str, CloseReason] = {}
        """The databases that an administrator has paused; "" for all of them."""

    @property
    def lenders(self) -> list[ServerLender]:
        """All pools."""
        return list(self._lenders.values())

    @property
    def targets(self) -> list[TargetPools]:
        """All targets that are in use."""
        return list(self._targets.values())

    def lender(self, user: str, database: str) -> ServerLender | None:
        """Give the lender of the pool for a user and a database; None where the database is unknown."""
        key = (database, user)
        known = self._lenders.get(key)
        if known is not None and not known.dismissed:
            return known
        entry = self._config.database(database)
        if entry is None:
            return None
        if known is None:
            target = self._target(entry.target)
            self._set_limits(target, key)
            self._lenders[key] = ServerLender(
                self._reactor,
                self._threads,
                key,
                self._place(database, entry),
                limits_of(self._config, database, user),
                target,
                self._log.bind(user=user[:128]),
                self._accounts,
            )
            paused = self.paused.get(database) or self.paused.get("")
            if paused is not None:
                self._lenders[key].pause(paused)
            if self._elsewhere is not None:
                self._lenders[key].welcomes.update(self._elsewhere.welcomes(*key))
        return self._lenders[key]

    def of_database(self, database: str) -> list[ServerLender]:
        """Give the lenders of a database; of all for ""."""
        return [lender for (name, _user), lender in self._lenders.items() if database in ("", name)]

    def pause(self, database: str, reason: CloseReason) -> None:
        """Lend no servers of a database, "" for all, until `resume`."""
        self.paused[database] = reason
        for lender in self.of_database(database):
            lender.pause(reason)

    def resume(self, database: str) -> None:
        """Lend them again; with "" those of all."""
        if database:
            self.paused.pop(database, None)
        else:
            self.paused.clear()
        for lender in self.of_database(database):
            if "" not in self.paused:
                lender.resume()

    def welcome(self, database: str, user: str, parameters: Parameters, greeting: Reported) -> None:
        """Enter how a server of a pool greets, if there is such a pool."""
        lender = self._lenders.get((database, user))
        if lender is not None:
            lender.welcome(parameters, greeting)

    def configure(self, config: Config, hosts: Mapping[str, Host]) -> None:
        """
        Take another configuration: pools take their new limits, and links that begin from now on their place.

        Servers are closed where the configuration has their database elsewhere, or nowhere any more: the idle
        ones at once, the others when they are given back. What only files say anew holds for new servers.
        """
        before, self._config, self._hosts = self._config, config, hosts
        for (name, *_address), target in self._targets.items():
            if name in config.targets:
                target.configure(rules_of(config, name))
                self._set_minimums(target)
        for key, lender in self._lenders.items():
            database, user = key
            entry = config.database(database)
            if entry is None:
                lender.dismiss(complaint(errors.UNKNOWN_DATABASE, database=database))
                continue
            was = before.database(database)
            moved = (
                was is None
                or (was.target, was.name) != (entry.target, entry.name)
                or before.targets[was.target].reached != config.targets[entry.target].reached
            )
            target = self._target(entry.target)
            self._set_limits(target, key)
            lender.configure(self._place(database, entry), limits_of(config, database, user), target, moved)
            if before.init_query(database) != config.init_query(database):
                lender.retire(CloseReason.INIT_QUERY_CHANGED)
            if before.pool_mode(database, user) != config.pool_mode(database, user):
                lender.retire(CloseReason.MODE_CHANGED)

    def sweep(self) -> None:
        """Do what is due: end what doesn't end, look after idle servers, forget what nobody uses."""
        for key, lender in list(self._lenders.items()):
            lender.check_overdue()
            if lender.empty:
                lender.end()
                del self._lenders[key]
        for where, target in list(self._targets.items()):
            target.look()
            if target.empty:
                target.stop()
                del self._targets[where]

    def close_all(self) -> None:
        """Close every server."""
        for lender in self._lenders.values():
            lender.close_all()
        for target in self._targets.values():
            target.stop()

    def _target(self, name: str) -> TargetPools:
        host = self._hosts[name]
        where = (name, host.name, host.port)
        target = self._targets.get(where)
        if target is None:
            rules = rules_of(self._config, name)
            target = self._targets[where] = TargetPools(
                name, rules, self._reactor, self._chance, self._log, where, self._elsewhere
            )
            self._set_minimums(target)
        return target

    def _set_minimums(self, target: TargetPools) -> None:
        """Have kept free what databases and users are to have at least, also before their first client."""
        config = self._config
        target.pools.forget_minimums()
        for name in config.databases:
            entry = config.database(name)
            if name != EVERY_OTHER and entry is not None and entry.target == target.name:
                target.pools.set_database(name, entry.max_server_connections, entry.min_server_connections)
        for name, user in config.users.items():
            target.pools.set_user(name, user.max_server_connections, user.min_server_connections)

    def _set_limits(self, target: TargetPools, key: _Key) -> None:
        """Set what holds for a pool's database and user as such."""
        database, user = key
        entry = self._config.database(database)
        assert entry is not None
        target.pools.set_database(database, entry.max_server_connections, entry.min_server_connections)
        of_user = self._config.users.get(user, User())
        target.pools.set_user(user, of_user.max_server_connections, of_user.min_server_connections)

    def _place(self, database: str, entry: Database) -> Place:
        host = self._hosts[entry.target]
        return Place(entry.target, host, entry.name, self._config.init_query(database))
