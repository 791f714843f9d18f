"""All targets, each with its pools; and which lender has servers for whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from attrs import evolve
from structlog.typing import FilteringBoundLogger

from pgproxy.config import Config, Database, User
from pgproxy.link.accounts import Accounts
from pgproxy.link.connections import Place
from pgproxy.link.elsewhere import Elsewhere
from pgproxy.link.failover import Failover
from pgproxy.link.hosts import NOWHERE, Hosts
from pgproxy.link.lender import ServerLender
from pgproxy.link.limits import keep_minimums, limits_of, rules_of
from pgproxy.link.pauses import Pauses
from pgproxy.link.readers import ReadersOfDatabase
from pgproxy.link.reading import ReadingLender
from pgproxy.link.server import Account, Host
from pgproxy.link.target import TargetPools
from pgproxy.link.threads import Threads
from pgproxy.link.vault import Vault
from pgproxy.pool.retry import Retry
from pgproxy.pool.rules import Rules
from pgproxy.pool.states import CloseReason, Parameters
from pgproxy.pool.trouble import Scope, Stage, Trouble
from pgproxy.session.reported import Reported
from pgproxy.targets.facts import Address
from pgproxy.targets.judge import Roles
from pgproxy.wire import errors
from pgproxy.wire.errors import complaint

_Key = tuple[str, str, Address | None]
"""The database that clients ask for, the user, and of a reader where it is."""
_NONE = complaint(errors.NO_HOST, "None is known to be the writer, or a reader where that is asked for.")
_NO_HOST = Retry(Trouble(_NONE, Stage.CONNECT, Scope.TARGET, passing=True), 0, 0.0)
"""What those are told who have waited nowhere for too long."""
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
        vault: Vault | None = None,
        accounts: Accounts | None = None,
    ) -> None:
        self._accounts = accounts or Accounts(config)
        self._reactor = reactor
        self._threads = threads
        self.config = config
        self._chance = chance
        self._log = log
        self._elsewhere = elsewhere
        self.alarm: Callable[[str], None] = lambda _target: None
        """Takes the word that something may be wrong with a host of this target."""
        self._vault = vault
        self._targets: dict[_Where, TargetPools] = {}
        self._lenders: dict[_Key, ServerLender] = {}
        self._pauses = Pauses()
        self._hosts = Hosts(config, hosts)
        self._failover = Failover(self, self._hosts, log)

    @property
    def lenders(self) -> list[ServerLender]:
        """All pools."""
        return list(self._lenders.values())

    @property
    def targets(self) -> list[TargetPools]:
        """All targets that are in use."""
        return list(self._targets.values())

    def known(self, user: str, database: str) -> ServerLender | None:
        """Give the lender of the pool for a user and a database if there is such a pool already."""
        return self._lenders.get((database, user, None))

    def reading_lender(self, user: str, database: str) -> ReadingLender | None:
        """Give what lends a client servers of the readers; None where the database is unknown."""
        readers = ReadersOfDatabase(self, self._hosts, database)
        first = readers.reader(user, database, None)
        return ReadingLender(readers, user, database, first) if first is not None else None

    def lender(self, user: str, database: str, where: Address | None = None) -> ServerLender | None:
        """
        Give the lender of the pool for a user and a database, of the writer or of the reader that is there.

        None where the database is unknown.
        """
        key = (database, user, where)
        known = self._lenders.get(key)
        if known is not None and not known.dismissed:
            return known
        entry = self.config.database(database)
        if entry is None:
            return None
        if known is None:
            self.alarm(entry.target)
            target = self.pools_of(entry.target, where)
            self.set_limits(target, database, user)
            self._lenders[key] = ServerLender(
                self._reactor,
                self._threads,
                (database, user),
                self.place(database, entry, where),
                limits_of(self.config, database, user),
                target,
                self._log.bind(user=user[:128]),
                self._vault,
                self._accounts,
            )
            paused = self._why_paused(key, entry.target)
            if paused is not None:
                self._lenders[key].pause(paused)
            if self._elsewhere is not None and where is None:
                self._lenders[key].welcomes.update(self._elsewhere.welcomes(database, user))
        return self._lenders[key]

    # What an administrator says.

    def of_database(self, database: str) -> list[ServerLender]:
        """Give the lenders of a database; of all for ""."""
        return [lender for (name, _user, _where), lender in self._lenders.items() if database in ("", name)]

    @property
    def paused(self) -> Mapping[str, CloseReason]:
        """The databases that an administrator has paused; "" for all of them."""
        return self._pauses.databases

    def pause(self, database: str, reason: CloseReason) -> None:
        """Lend no servers of a database, "" for all, until `resume`."""
        self._pauses.databases[database] = reason
        for lender in self.of_database(database):
            lender.pause(reason)

    def resume(self, database: str) -> None:
        """Lend them again; with "" those of all."""
        self._pauses.resume(database)
        for key, lender in list(self._lenders.items()):
            if database in ("", key[0]) and self._why_paused(key, lender.place.target) is None:
                lender.resume()

    def _why_paused(self, key: _Key, target: str) -> CloseReason | None:
        """Say why a pool is to lend no servers, if so."""
        database, _user, where = key
        return self._pauses.why(database, target, is_writers=where is None)

    # A planned switchover.

    def drain(self, name: str, seconds: float) -> None:
        """Lend no servers of a target's writer, until another host is the writer, or for so many seconds."""
        self._pauses.drain(name, self._reactor.seconds() + seconds)
        for lender in self.of_target(name, None):
            lender.pause(CloseReason.SWITCHOVER)

    def undrain(self, name: str) -> None:
        """Lend them again."""
        if not self._pauses.undrain(name):
            return
        for lender in self.of_target(name, None):
            if self._why_paused((*lender.names, None), name) is None:
                lender.resume()

    def undrained(self, name: str) -> int:
        """Say how many servers of a target's writer are still there."""
        return sum(lender.pool.account.count for lender in self.of_target(name, None))

    def _give_up_switchovers(self) -> None:
        for name in self._pauses.overdue(self._reactor.seconds()):
            self._log.warning("switchover_given_up", target=name, why="no other host has become the writer")
            self.undrain(name)

    # Who does what.

    def account(self, name: str) -> Account | None:
        """Give as whom a target can be logged in to, by what clients have shown; None: nobody has come."""
        lenders = [lender for lender in self._lenders.values() if lender.place.target == name]
        for lender in sorted(lenders, key=lambda lender: -lender.pool.working):
            if not lender.dismissed:
                return lender.account_of_clients
        return None

    @property
    def vault(self) -> Vault | None:
        """Who knows what to log in with, if there is anybody."""
        return self._vault

    def writer(self, name: str) -> Host:
        """Give the host of a target that is its writer, or was last; nobody's where none is known."""
        return self._hosts.writer(name)

    def host_at(self, name: str, address: Address) -> Host:
        """Give a host of a target; all of them are reached in the same way."""
        return self._hosts.at(name, address)

    def name_hosts(self, name: str, tls_names: Mapping[Address, str]) -> None:
        """Take the names that the certificates of a target's hosts have to have."""
        self._hosts.name(name, tls_names)

    def take_roles(self, name: str, roles: Roles) -> None:
        """Have the pools of a target follow its roles."""
        self._failover.take_roles(name, roles)

    # Pools.

    def welcome(self, database: str, user: str, parameters: Parameters, greeting: Reported) -> None:
        """Enter how a server of a pool greets, if there is such a pool."""
        lender = self._lenders.get((database, user, None))
        if lender is not None:
            lender.welcome(parameters, greeting)

    def configure(self, config: Config, hosts: Mapping[str, Host]) -> None:
        """
        Take another configuration: pools take their new limits, and links that begin from now on their place.

        Servers are closed where the configuration has their database elsewhere, or nowhere any more: the idle
        ones at once, the others when they are given back. What only files say anew holds for new servers.
        """
        before, self.config = self.config, config
        self._hosts.configure(config, hosts)
        self._failover.forget(before)
        for (name, *_address), target in self._targets.items():
            if name in config.targets:
                target.configure(_rules(config, name, target.where is not None and not target.where[1]))
                self._set_minimums(target)
        for key, lender in list(self._lenders.items()):
            database, user, where = key
            entry = config.database(database)
            if where is not None and entry is not None and entry.target != lender.place.target:
                # What is a reader there is none of the other target's.
                lender.send_away()
            if entry is None:
                lender.dismiss(complaint(errors.UNKNOWN_DATABASE, database=database))
                continue
            was = before.database(database)
            moved = (
                was is None
                or (was.target, was.name) != (entry.target, entry.name)
                or before.targets[was.target].reached != config.targets[entry.target].reached
            )
            target = self.pools_of(entry.target, where)
            self.set_limits(target, database, user)
            lender.configure(
                self.place(database, entry, where), limits_of(config, database, user), target, moved
            )
            paused = self._why_paused(key, entry.target)
            if paused is None:
                lender.resume()
            elif not lender.paused:
                lender.pause(paused)
            if before.init_query(database) != config.init_query(database):
                lender.retire(CloseReason.INIT_QUERY_CHANGED)
            if before.pool_mode(database, user) != config.pool_mode(database, user):
                lender.retire(CloseReason.MODE_CHANGED)

    def sweep(self) -> None:
        """Do what is due: end what doesn't end, look after idle servers, forget what nobody uses."""
        self._give_up_switchovers()
        self._failover.look()
        for key, lender in list(self._lenders.items()):
            lender.check_overdue()
            if lender.empty:
                lender.end()
                del self._lenders[key]
        for where, target in list(self._targets.items()):
            target.look()
            if target.empty:
                target.end()
                del self._targets[where]

    def close_all(self) -> None:
        """Close every server."""
        for lender in self._lenders.values():
            lender.close_all()
        for target in self._targets.values():
            target.stop()

    # For those who have the pools follow the hosts.

    def of_target(self, name: str, where: Address | None) -> list[ServerLender]:
        """Give the lenders of a target's reader that is there; of its writer for None."""
        return [
            lender
            for (_database, _user, at), lender in self._lenders.items()
            if lender.place.target == name and at == where
        ]

    def pools_of(self, name: str, address: Address | None) -> TargetPools:
        """Give the pools of a target's host that is there; of its writer for None."""
        host = self._hosts.of(name, address)
        where = (name, host.name, host.port)
        target = self._targets.get(where)
        if target is None:
            nowhere = host.address == NOWHERE
            rules = _rules(self.config, name, nowhere)
            target = self._targets[where] = TargetPools(
                name,
                rules,
                self._reactor,
                self._chance,
                self._log,
                where,
                self._elsewhere if not nowhere else None,
                partial(self._alarm, name),
            )
            if nowhere:
                target.pools.target.retry = _NO_HOST
            self._set_minimums(target)
        return target

    def set_limits(self, target: TargetPools, database: str, user: str) -> None:
        """Set what holds for a pool's database and user as such."""
        entry = self.config.database(database)
        assert entry is not None
        target.pools.set_database(database, entry.max_server_connections, entry.min_server_connections)
        of_user = self.config.users.get(user, User())
        target.pools.set_user(user, of_user.max_server_connections, of_user.min_server_connections)

    def place(self, database: str, entry: Database, where: Address | None) -> Place:
        """Say where the servers of a pool are opened."""
        return Place(
            entry.target,
            self._hosts.of(entry.target, where),
            entry.name,
            self.config.init_query(database),
            writer_only=where is None and self.config.targets[entry.target].has_several_hosts,
        )

    def _set_minimums(self, target: TargetPools) -> None:
        target.pools.forget_minimums()
        keep_minimums(target.pools, self.config, target.name)

    def _alarm(self, name: str) -> None:
        self.alarm(name)


def _rules(config: Config, name: str, nowhere: bool) -> Rules:
    """Give what holds for the pools of a target's host, or of none, where nothing can be opened."""
    rules = rules_of(config, name)
    return evolve(rules, opening_at_once=0) if nowhere else rules
