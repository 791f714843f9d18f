"""The watchers of all targets that are watched, as the configuration has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from attrs import evolve, frozen
from structlog.typing import FilteringBoundLogger

from pgproxy.config import Target
from pgproxy.link.materials import Materials
from pgproxy.link.server import Account, Host
from pgproxy.link.threads import Threads
from pgproxy.link.vault import Vault
from pgproxy.targets.facts import Address
from pgproxy.targets.judge import Judge, Roles
from pgproxy.watch.discovery import Found, source_for
from pgproxy.watch.searching import Searching
from pgproxy.watch.watcher import Watcher, Watching


class Pools(Protocol):
    """Whose pools follow the roles."""

    alarm: Callable[[str], None]

    def account(self, name: str) -> Account | None:
        """Give as whom a target can be logged in to."""

    @property
    def vault(self) -> Vault | None:
        """Who knows what to log in with, if there is anybody."""

    def host_at(self, name: str, address: Address) -> Host:
        """Give a host of a target."""

    def name_hosts(self, name: str, tls_names: Mapping[Address, str]) -> None:
        """Take the names that the certificates of a target's hosts have to have."""

    def take_roles(self, name: str, roles: Roles) -> None:
        """Have the pools of a target follow its roles."""


@frozen
class _Way:
    """All that a watcher is made from: where this changes, another takes its place."""

    reached: tuple[object, ...]
    watching: Watching
    account: Account | None
    """None: as the clients that have logged in."""


class _Watched:
    """One target: its watcher, and what finds its hosts."""

    def __init__(
        self,
        name: str,
        way: _Way,
        target: Target,
        pools: Pools,
        reactor: Any,
        threads: Threads,
        log: FilteringBoundLogger,
        before: _Watched | None,
    ) -> None:
        self.way = way
        self._name = name
        self._pools = pools
        self._listed = [Address(host.host, host.port) for host in target.server]
        account = None if way.account is None else evolve(way.account, vault=pools.vault)
        log = log.bind(target=name)
        self.watcher = Watcher(
            way.watching,
            self._host_at,
            (lambda: account) if account is not None else partial(pools.account, name),
            partial(pools.take_roles, name),
            self._hurry,
            reactor,
            threads,
            log,
        )
        if before is not None:
            self.watcher.judge.go_on_from(before.watcher.judge)
        source = source_for(target.server, target.discovery, reactor, threads, self.watcher.ask)
        self._searching = Searching(source, self._found, self._not_found, reactor, log)
        # Aurora is asked on the hosts themselves: on those that `server` names at first.
        asks_hosts = target.discovery is not None and target.discovery.kind == "aurora"
        self.watcher.start(self._listed if asks_hosts else ())
        self._searching.start()

    def _host_at(self, address: Address) -> Host:
        """Give a host as it is watched: a question that does not reach it ends the connection in time."""
        host = self._pools.host_at(self._name, address)
        return evolve(host, keepalive=evolve(host.keepalive, user_timeout=self.way.watching.host_timeout))

    def stop(self) -> None:
        """Watch no more."""
        self._searching.stop()
        self.watcher.stop()

    def _hurry(self) -> None:
        self._searching.hurry()

    def _found(self, found: Found) -> None:
        hosts = {Address(host.address, host.port): host for host in found.hosts}
        self._pools.name_hosts(self._name, {at: host.tls_name for at, host in hosts.items()})
        self.watcher.judge.not_for_reading = frozenset(at for at, host in hosts.items() if not host.may_read)
        self.watcher.set_hosts(hosts)

    def _not_found(self) -> None:
        """Go on with what is known, and where nothing is, with what the configuration says."""
        if not self.watcher.judge.hosts:
            self.watcher.set_hosts(self._listed)


class Watchers:
    """One for each target that is watched."""

    def __init__(self, reactor: Any, threads: Threads, pools: Pools, log: FilteringBoundLogger) -> None:
        self._reactor = reactor
        self._threads = threads
        self._pools = pools
        self._log = log
        self._watchers: dict[str, _Watched] = {}
        pools.alarm = self.alarm

    def configure(self, materials: Materials) -> None:
        """Watch what this configuration has watched, from now on."""
        config = materials.config
        ways = {
            name: _way(target, materials.watchers.get(name))
            for name, target in config.targets.items()
            if target.watched
        }
        before = {name: known for name, known in self._watchers.items() if ways.get(name) != known.way}
        for name, known in before.items():
            known.stop()
            del self._watchers[name]
        for name, way in ways.items():
            if name not in self._watchers:
                self._watchers[name] = _Watched(
                    name,
                    way,
                    config.targets[name],
                    self._pools,
                    self._reactor,
                    self._threads,
                    self._log,
                    before.get(name),
                )

    def judges(self) -> dict[str, Judge]:
        """Give what is known of the hosts of each target that is watched."""
        return {name: known.watcher.judge for name, known in self._watchers.items()}

    def alarm(self, name: str) -> None:
        """Take the word that something may be wrong with a host of a target."""
        known = self._watchers.get(name)
        if known is not None:
            known.watcher.alarm()

    def stop(self) -> None:
        """Watch no more."""
        for known in self._watchers.values():
            known.stop()
        self._watchers.clear()


def _way(target: Target, account: Account | None) -> _Way:
    watching = Watching(target.watch_interval, target.host_timeout, target.max_reader_lag)
    return _Way(target.reached, watching, account)
