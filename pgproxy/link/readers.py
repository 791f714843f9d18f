"""Which reader a client gets its servers of: the one with the least to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgproxy.link.hosts import NOWHERE, Hosts
from pgproxy.link.lender import ServerLender

if TYPE_CHECKING:
    from pgproxy.link.targets import Targets

_CLIENTS_FOR_A_SERVER = 1000.0
"""So many clients that are only there weigh as much as one that works: they matter where nobody does."""


class ReadersOfDatabase:
    """The readers of one database, for the lenders of its clients; see reading.py."""

    def __init__(self, targets: Targets, hosts: Hosts, database: str) -> None:
        self._targets = targets
        self._hosts = hosts
        self._database = database

    @property
    def generation(self) -> int:
        """Another number whenever they have changed."""
        entry = self._targets.config.database(self._database)
        return self._hosts.generation(entry.target) if entry is not None else 0

    def reader(self, user: str, database: str, besides: ServerLender | None) -> ServerLender | None:
        """Give the lender of the one with the least to do, in doubt `besides`."""
        config = self._targets.config
        entry = config.database(database)
        if entry is None:
            return None
        roles = self._hosts.roles(entry.target)
        if roles is None or not roles.readers:
            where = None if config.proxy.read_only_fallback else NOWHERE
            return self._targets.lender(user, database, where)
        return min(
            (self._targets.lender(user, database, address) for address in roles.readers),
            key=lambda lender: (
                (self._load(lender), lender is not besides) if lender is not None else (0.0, False)
            ),
        )

    def _load(self, lender: ServerLender) -> float:
        """Say how much there is to do at a reader, for all users and databases, to what it can take."""
        target, address = lender.place.target, lender.place.host.address
        at_work = clients = 0
        for other in self._targets.of_target(target, address):
            at_work += other.outstanding
            clients += other.clients
        roles = self._hosts.roles(target)
        assert roles is not None
        return (at_work + clients / _CLIENTS_FOR_A_SERVER) / roles.weights.get(address, 1)
