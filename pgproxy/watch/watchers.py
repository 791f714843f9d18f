"""The watchers of all targets that are watched, as the configuration has them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from attrs import frozen
from structlog.typing import FilteringBoundLogger

from pgproxy.config.model import Config, Target
from pgproxy.link.front import Materials
from pgproxy.link.server import Account, Host
from pgproxy.link.threads import Threads
from pgproxy.targets.facts import Address
from pgproxy.targets.judge import Roles
from pgproxy.watch.watcher import Watcher, Watching


class Pools(Protocol):
    """Whose pools follow the roles."""

    alarm: Callable[[str], None]

    def account(self, name: str) -> Account | None:
        """Give as whom a target can be logged in to."""

    def host_at(self, name: str, address: Address) -> Host:
        """Give a host of a target."""

    def take_roles(self, name: str, roles: Roles) -> None:
        """Have the pools of a target follow its roles."""


@frozen
class _Way:
    """All that a watcher is made from: where this changes, another takes its place."""

    reached: tuple[object, ...]
    watching: Watching
    account: Account | None
    """None: as the clients that have logged in."""


class Watchers:
    """One for each target that is watched."""

    def __init__(self, reactor: Any, threads: Threads, pools: Pools, log: FilteringBoundLogger) -> None:
        self._reactor = reactor
        self._threads = threads
        self._pools = pools
        self._log = log
        self._watchers: dict[str, tuple[_Way, Watcher]] = {}
        pools.alarm = self.alarm

    def configure(self, materials: Materials) -> None:
        """Watch what this configuration has watched, from now on."""
        config = materials.config
        ways = {
            name: _way(target, materials.watchers.get(name))
            for name, target in config.targets.items()
            if target.watched
        }
        for name in [name for name, (way, _watcher) in self._watchers.items() if ways.get(name) != way]:
            self._watchers.pop(name)[1].stop()
        for name, way in ways.items():
            if name not in self._watchers:
                self._watchers[name] = way, self._start(name, way, config)

    def _start(self, name: str, way: _Way, config: Config) -> Watcher:
        account = way.account
        watcher = Watcher(
            way.watching,
            partial(self._pools.host_at, name),
            (lambda: account) if account is not None else partial(self._pools.account, name),
            partial(self._pools.take_roles, name),
            self._reactor,
            self._threads,
            self._log.bind(target=name),
        )
        watcher.start(Address(host.host, host.port) for host in config.targets[name].server)
        return watcher

    def alarm(self, name: str) -> None:
        """Take the word that something may be wrong with a host of a target."""
        known = self._watchers.get(name)
        if known is not None:
            known[1].alarm()

    def stop(self) -> None:
        """Watch no more."""
        for _way, watcher in self._watchers.values():
            watcher.stop()
        self._watchers.clear()


def _way(target: Target, account: Account | None) -> _Way:
    watching = Watching(target.watch_interval, target.host_timeout, target.max_reader_lag)
    return _Way(target.reached, watching, account)
