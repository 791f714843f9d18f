"""
The servers that a dead worker has left: what they do is cancelled.

The kernel has closed their connections; PostgreSQL notices that when it next reads from one, so an idle one
has ended already, and one at work ends when its work does. That is cancelled with the key that the worker
has told us; more than once, as a server goes on with what else it was sent before it hears of the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from attrs import evolve, frozen
from structlog.typing import FilteringBoundLogger
from twisted.internet.defer import Deferred as Wait
from twisted.internet.defer import DeferredList, DeferredSemaphore, gatherResults
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from pgproxy.link.cancel import cancel_at
from pgproxy.link.server import Host
from pgproxy.link.threads import Threads
from pgproxy.workers.budgets import Budgets
from pgproxy.workers.messages import name_of

_AT_ONCE = 8
_TIMES = (0.0, 0.2, 0.5)
"""Seconds before each time that they are cancelled."""
_AFTER = 0.3
"""Seconds until the last of them has ended."""
_LONGEST = 5.0
"""Seconds for one to be cancelled."""


@frozen
class Left:
    """A server that has nobody."""

    host: Host
    pid: int
    secret: bytes


async def end_all(reactor: Any, threads: Threads, servers: Iterable[Left]) -> None:
    """Cancel what they do, and give them the time to end."""
    servers = list(servers)
    tokens = DeferredSemaphore(_AT_ONCE)
    for before in _TIMES:
        await deferLater(reactor, before)
        await gatherResults([tokens.run(_cancel, reactor, threads, server) for server in servers])
    await deferLater(reactor, _AFTER)


def _cancel(reactor: Any, threads: Threads, server: Left) -> Wait[Any]:
    sent: Wait[Any] = Wait.fromCoroutine(cancel_at(reactor, threads, server.host, server.pid, server.secret))
    sent.addTimeout(_LONGEST, reactor)
    return sent.addErrback(lambda _failure: None)


class Burials:
    """
    The keys of all workers' servers, by the worker's life; and what is done about those that have ended.

    `hosts` gives the targets' hosts in force.
    """

    def __init__(
        self,
        reactor: Any,
        threads: Threads,
        hosts: Callable[[], Mapping[str, Host]],
        budgets: Budgets,
        log: FilteringBoundLogger,
    ) -> None:
        self._reactor = reactor
        self._threads = threads
        self._hosts = hosts
        self._budgets = budgets
        self._log = log
        self._keys: dict[int, dict[tuple[str, int], bytes]] = {}
        self._under_way: set[Wait[None]] = set()

    def opened(self, life: int, where: str, pid: int, secret: bytes) -> None:
        """Enter a worker's server, before anybody is linked to it."""
        self._keys.setdefault(life, {})[where, pid] = secret

    def closed(self, life: int, where: str, pid: int) -> None:
        """Enter that it has ended."""
        self._keys.get(life, {}).pop((where, pid), None)

    def has_cancelled(self, life: int) -> None:
        """Enter that a worker has ended in order, at a stop: what was to be cancelled is."""
        self._keys.pop(life, None)

    def leaves_any(self, life: int) -> bool:
        """Say whether a worker leaves servers."""
        return bool(self._keys.get(life))

    def bury(self, life: int) -> None:
        """Cancel what the servers of a worker do; then what it had in the budget is there for others."""
        keys = self._keys.pop(life, {})
        left = [Left(self._host(where), pid, secret) for (where, pid), secret in keys.items()]
        ending = Wait.fromCoroutine(end_all(self._reactor, self._threads, left))
        ending.addErrback(self._defect)
        ending.addCallback(lambda _: self._budgets.buried(life))
        self._under_way.add(ending)
        ending.addCallback(lambda _: self._under_way.discard(ending))

    async def wait(self, seconds: float) -> None:
        """Wait for what is under way, but for so long at most."""
        burials: Wait[Any] = DeferredList(list(self._under_way))
        burials.addTimeout(seconds, self._reactor, onTimeoutCancel=lambda _value, _seconds: None)
        await burials

    def _host(self, where: str) -> Host:
        """Give where a server is that may have been opened before a reload."""
        _name, host, port = where.rsplit(" ", 2)
        hosts = self._hosts()
        known = hosts.get(name_of(where)) or next(iter(hosts.values()))
        return evolve(known, name=host, port=int(port))

    def _defect(self, failure: Failure) -> None:
        self._log.error("defect", failure=failure.getTraceback())
