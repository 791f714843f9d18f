"""One process, as the makers of its tables look at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pgproxy.config import Config
from pgproxy.console.tables import Value
from pgproxy.link.client import ClientConnection
from pgproxy.link.front import Front
from pgproxy.link.lender import ServerLender
from pgproxy.link.splice import Splice
from pgproxy.link.target import TargetPools
from pgproxy.pool.pool import Pool
from pgproxy.pool.states import Server

Rows = list[list[Value]]

_PLACES = 1_000_000_000
"""An id is the number in a worker's log, and so many times the worker's number."""


class Process:
    """
    One process's clients, servers and pools, for its tables.

    `worker` is 0 where there is one process; `config` gives the configuration as the operator has written it.
    """

    def __init__(self, front: Front, worker: int, config: Callable[[], Config]) -> None:
        self.front = front
        self.config = config
        self._worker = worker

    @property
    def number(self) -> int:
        """The worker's number; 1 where there is one process."""
        return self._worker or 1

    def id_of(self, number: int) -> int:
        """Give the id of what has this number in our log."""
        return self._worker * _PLACES + number

    def number_of(self, identity: int) -> int | None:
        """Give the number of what has this id; None if it isn't ours."""
        worker, number = divmod(identity, _PLACES)
        return number if worker == self._worker else None

    def now(self) -> float:
        """Give the time by the reactor's clock."""
        return float(self.front.reactor.seconds())

    @property
    def targets(self) -> list[TargetPools]:
        """All targets that are in use, by host."""
        return self.front.targets.targets

    def lenders(self) -> Iterator[tuple[TargetPools, Pool[Any], ServerLender]]:
        """Give each pool, with its target and its lender."""
        for target in self.targets:
            for pool, lender in target.pools_and_lenders:
                yield target, pool, lender

    def servers(self) -> dict[Pool[Any], list[Server]]:
        """Give the servers of each pool, the oldest first."""
        found: dict[Pool[Any], list[Server]] = {}
        for target in self.targets:
            for server in sorted(target.pools.servers, key=lambda server: server.number):
                found.setdefault(server.lane.pool, []).append(server)
        return found

    def by_splice(self) -> dict[Splice, ClientConnection]:
        """Give the clients by what links them to servers."""
        return {client.splice: client for client in self.front.clients if client.splice is not None}
