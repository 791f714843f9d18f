"""All targets, each with its pools; and which lender has servers for whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from attrs import evolve
from structlog.typing import FilteringBoundLogger
from twisted.python.failure import Failure

from pgproxy.config import Config, Database, User
from pgproxy.config.model import EVERY_OTHER
from pgproxy.link.accounts import Accounts
from pgproxy.link.connections import Place
from pgproxy.link.elsewhere import Elsewhere
from pgproxy.link.lender import ServerLender
from pgproxy.link.limits import limits_of, rules_of
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
_NOWHERE = Address("", 0)
"""Where clients wait while there is nobody whom they could be sent to: no reader, or no writer."""
_SPARE_HOSTS = 2
"""At how many hosts servers are kept open for the case that one becomes the writer: the first of the list."""
_CLIENTS_FOR_A_SERVER = 1000.0
"""So many clients that are only there weigh as much as one that works: they matter where nobody does."""
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
        self._config = config
        self._hosts = hosts
        self._chance = chance
        self._log = log
        self._elsewhere = elsewhere
        self.alarm: Callable[[str], None] = lambda _target: None
        """Takes the word that something may be wrong with a host of this target."""
        self._roles: dict[str, Roles] = {}
        """By target, who does what, where that is watched."""
        self._writers: dict[str, Address] = {}
        """By target, the host that was the writer last."""
        self._vault = vault
        self._targets: dict[_Where, TargetPools] = {}
        self._lenders: dict[_Key, ServerLender] = {}
        self._held: dict[str, float] = {}
        """The targets that are drained for a switchover, and until when that is waited for."""
        self.paused: dict[str, CloseReason] = {}
        """The databases that an administrator has paused; "" for all of them."""
        self._tls_names: dict[str, Mapping[Address, str]] = {}
        self._generations: dict[str, int] = {}
        """By target, another number whenever its readers have changed."""

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

    def lender(self, user: str, database: str) -> ServerLender | None:
        """Give the lender of the pool for a user and a database; None where the database is unknown."""
        return self._lender((database, user, None))

    def reading_lender(self, user: str, database: str) -> ReadingLender | None:
        """Give what lends a client servers of the readers; None where the database is unknown."""
        entry = self._config.database(database)
        if entry is None:
            return None
        readers = _Readers(self, database)
        first = self.reader(user, database, None)
        return ReadingLender(readers, user, database, first) if first is not None else None

    def reader(self, user: str, database: str, besides: ServerLender | None) -> ServerLender | None:
        """Give the lender of the reader with the least to do, in doubt `besides`; see reading.py."""
        entry = self._config.database(database)
        if entry is None:
            return None
        roles = self._roles.get(entry.target)
        if roles is None or not roles.readers:
            if self._config.proxy.read_only_fallback:
                return self.lender(user, database)
            return self._lender((database, user, _NOWHERE))
        return min(
            (self._lender((database, user, address)) for address in roles.readers),
            key=lambda lender: (
                (self._load(lender), lender is not besides) if lender is not None else (0.0, False)
            ),
        )

    def _load(self, lender: ServerLender) -> float:
        """Say how much there is to do at a reader, for all users and databases, to what it can take."""
        address = lender.place.host.address
        at_work = clients = 0
        for (_database, _user, where), other in self._lenders.items():
            if where == address and other.place.target == lender.place.target:
                at_work += other.outstanding
                clients += other.clients
        weights = self._roles[lender.place.target].weights
        return (at_work + clients / _CLIENTS_FOR_A_SERVER) / weights.get(address, 1)

    def generation(self, database: str) -> int:
        """Give another number whenever the readers of a database have changed."""
        entry = self._config.database(database)
        return self._generations.get(entry.target, 0) if entry is not None else 0

    def _lender(self, key: _Key) -> ServerLender | None:
        database, user, where = key
        known = self._lenders.get(key)
        if known is not None and not known.dismissed:
            return known
        entry = self._config.database(database)
        if entry is None:
            return None
        if known is None:
            self.alarm(entry.target)
            target = self._target_of(entry.target, where)
            self._set_limits(target, key)
            self._lenders[key] = ServerLender(
                self._reactor,
                self._threads,
                (database, user),
                self._place(database, entry, where),
                limits_of(self._config, database, user),
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

    def _why_paused(self, key: _Key, target: str) -> CloseReason | None:
        """Say why a pool is to lend no servers, if so."""
        database, _user, where = key
        held = CloseReason.SWITCHOVER if where is None and target in self._held else None
        return self.paused.get(database) or self.paused.get("") or held

    # A planned switchover.

    def drain(self, name: str, seconds: float) -> None:
        """Lend no servers of a target's writer, until another host is the writer, or for so many seconds."""
        self._held[name] = self._reactor.seconds() + seconds
        for lender in self._of_target(name, None):
            lender.pause(CloseReason.SWITCHOVER)

    def undrain(self, name: str) -> None:
        """Lend them again."""
        if self._held.pop(name, None) is None:
            return
        for lender in self._of_target(name, None):
            if self._why_paused((*lender.names, None), name) is None:
                lender.resume()

    def undrained(self, name: str) -> int:
        """Say how many servers of a target's writer are still there."""
        return sum(lender.pool.account.count for lender in self._of_target(name, None))

    def _give_up_switchovers(self) -> None:
        now = self._reactor.seconds()
        for name in [name for name, until in self._held.items() if now >= until]:
            self._log.warning("switchover_given_up", target=name, why="no other host has become the writer")
            self.undrain(name)

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
        for key, lender in list(self._lenders.items()):
            if database in ("", key[0]) and self._why_paused(key, lender.place.target) is None:
                lender.resume()

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
        return self._host(name)

    def host_at(self, name: str, address: Address) -> Host:
        """Give a host of a target; all of them are reached in the same way."""
        tls_name = self._tls_names.get(name, {}).get(address, "")
        return evolve(self._hosts[name], name=address.name, port=address.port, tls_name=tls_name)

    def name_hosts(self, name: str, tls_names: Mapping[Address, str]) -> None:
        """Take the names that the certificates of a target's hosts have to have."""
        self._tls_names[name] = tls_names

    def take_roles(self, name: str, roles: Roles) -> None:
        """Have the pools of a target follow its roles."""
        was, before = self._host(name), self._roles.get(name)
        self._roles[name] = roles
        if roles.writer is not None:
            self._writers[name] = roles.writer
        elif self._config.targets[name].has_several_hosts:
            self._writers.pop(name, None)
        host = self._host(name)
        lenders = [lender for lender in self._of_target(name, None) if not lender.dismissed]
        if host.address != was.address:
            # What is taken for the writer at first may be the same host by another name.
            new = was.address == _NOWHERE or (before is not None and (before.writer or before.lost))
            self._change_writer(name, lenders, is_another=bool(new))
        elif roles.writer is None and roles.lost is not None and before is not None and before.writer:
            for lender in lenders:
                lender.cut(CloseReason.WRITER_CHANGED)
        elif roles.given_up and not (before is not None and before.given_up):
            for lender in lenders:
                lender.cut(CloseReason.HOST_SILENT)
        if roles.up and not (before is not None and before.up):
            self._target(name).forgive()
        if roles.writer is not None and host.address != was.address:
            self.undrain(name)
        if roles.readers != (before.readers if before is not None else ()):
            self._change_readers(name, before, roles)
        self._keep_spare(name)

    def _change_writer(self, name: str, lenders: list[ServerLender], is_another: bool) -> None:
        """Have the pools of a target be where its writer is now, or where one is waited for."""
        target = self._target(name)
        if self._host(name).address != _NOWHERE:
            # What went wrong while it was a reader is no reason to send those away who come.
            target.forgive()
        for lender in lenders:
            database, user = lender.names
            entry = self._config.database(database)
            assert entry is not None
            self._set_limits(target, (database, user, None))
            place = self._place(database, entry)
            try:
                if is_another:
                    lender.fail_over(place, target, CloseReason.WRITER_CHANGED)
                else:
                    lender.configure(place, limits_of(self._config, database, user), target, moved=True)
            except Exception:
                # The other pools go on.
                self._log.error("defect", failure=Failure().getTraceback())

    def _of_target(self, name: str, where: Address | None) -> list[ServerLender]:
        return [
            lender
            for (_database, _user, at), lender in self._lenders.items()
            if lender.place.target == name and at == where
        ]

    def _change_readers(self, name: str, before: Roles | None, after: Roles) -> None:
        """Have the clients of a target's readers find others, or new ones."""
        # A database that moves to another target has another number there.
        self._generations[name] = max(self._generations.values(), default=0) + 1
        for address in before.readers if before is not None else ():
            if address not in after.readers:
                for lender in self._of_target(name, address):
                    if address in after.dead:
                        lender.cut(CloseReason.HOST_SILENT)
                    else:
                        # Who works there goes on to the end of the transaction.
                        lender.retire(CloseReason.READER_OUT)
                    lender.send_away()
        for address in after.readers:
            if before is None or address not in before.readers:
                self._target_at(name, self.host_at(name, address)).forgive()
        for lender in self._of_target(name, _NOWHERE):
            lender.send_away()

    def _keep_spare(self, name: str) -> None:
        """Have a few servers open at the hosts that may be the writer next."""
        roles = self._roles.get(name)
        if roles is None or roles.writer is None or not roles.up:
            # Which of them it will be is about to be seen.
            return
        most = self._config.targets[name].standby_connections
        for lender in self._of_target(name, None):
            if not lender.dismissed:
                database, _user = lender.names
                entry = self._config.database(database)
                spares = {}
                for address in roles.readers[:_SPARE_HOSTS] if most and entry is not None else ():
                    host = self.host_at(name, address)
                    place = evolve(lender.place, host=host, writer_only=False)
                    spares[self._target_at(name, host)] = place
                    self._set_limits(self._target_at(name, host), (*lender.names, None))
                lender.keep_spare(spares, most)

    def _host(self, name: str) -> Host:
        """
        Give the host of a target that is the writer, or was last and is silent.

        Where there are several, and none of them is known to be the writer, it is none. Only where not one of
        them says anything it is the first that the configuration names: what is wrong with it is told then.
        """
        address = self._writers.get(name)
        if address is not None:
            return self.host_at(name, address)
        roles = self._roles.get(name)
        is_told = roles is not None and roles.blind and roles.lost is None
        if self._config.targets[name].has_several_hosts and not is_told:
            return self.host_at(name, _NOWHERE)
        return self._hosts[name]

    def _forget_roles(self, before: Config) -> None:
        """Forget who was the writer of a target that has other hosts now."""
        for name in {*self._writers, *self._roles}:
            was, target = before.targets.get(name), self._config.targets.get(name)
            listed = [] if target is None else [Address(host.host, host.port) for host in target.server]
            same = was is not None and target is not None and was.reached == target.reached
            gone = target is None or not target.watched or self._writers.get(name) not in listed
            if not same and gone:
                self._writers.pop(name, None)
                roles = self._roles.pop(name, None)
                if roles is not None:
                    # Nobody goes on to read there, or to wait.
                    self._change_readers(name, roles, Roles(None, ()))

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
        before, self._config, self._hosts = self._config, config, hosts
        self._forget_roles(before)
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
            target = self._target_of(entry.target, where)
            self._set_limits(target, key)
            lender.configure(
                self._place(database, entry, where), limits_of(config, database, user), target, moved
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
        for name in self._roles:
            self._keep_spare(name)
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
        return self._target_at(name, self._host(name))

    def _target_of(self, name: str, where: Address | None) -> TargetPools:
        return self._target(name) if where is None else self._target_at(name, self.host_at(name, where))

    def _target_at(self, name: str, host: Host) -> TargetPools:
        where = (name, host.name, host.port)
        target = self._targets.get(where)
        if target is None:
            nowhere = host.address == _NOWHERE
            rules = _rules(self._config, name, nowhere)
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
        database, user, _where = key
        entry = self._config.database(database)
        assert entry is not None
        target.pools.set_database(database, entry.max_server_connections, entry.min_server_connections)
        of_user = self._config.users.get(user, User())
        target.pools.set_user(user, of_user.max_server_connections, of_user.min_server_connections)

    def _place(self, database: str, entry: Database, where: Address | None = None) -> Place:
        return Place(
            entry.target,
            self._host(entry.target) if where is None else self.host_at(entry.target, where),
            entry.name,
            self._config.init_query(database),
            writer_only=where is None and self._config.targets[entry.target].has_several_hosts,
        )

    def _alarm(self, name: str) -> None:
        self.alarm(name)


def _rules(config: Config, name: str, nowhere: bool) -> Rules:
    """Give what holds for the pools of a target's host, or of none, where nothing can be opened."""
    rules = rules_of(config, name)
    return evolve(rules, opening_at_once=0) if nowhere else rules


class _Readers:
    """The readers of one database, for the lenders of its clients."""

    def __init__(self, targets: Targets, database: str) -> None:
        self._targets = targets
        self._database = database

    @property
    def generation(self) -> int:
        """Another number whenever they have changed."""
        return self._targets.generation(self._database)

    def reader(self, user: str, database: str, besides: ServerLender | None) -> ServerLender | None:
        """Give the lender of the one with the least to do."""
        return self._targets.reader(user, database, besides)
