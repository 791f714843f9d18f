"""What was done, by database: the tallies, the sample of transactions, what it was seen to say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from heapq import nsmallest
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from pgproxy.config import Config
from pgproxy.figures.histogram import Histogram
from pgproxy.figures.sample import Sample
from pgproxy.figures.sampling import Pace
from pgproxy.figures.statements import Statements
from pgproxy.figures.tally import Tally

if TYPE_CHECKING:
    from pgproxy.link.client import ClientConnection
    from pgproxy.link.lender import ServerLender

_MOST_ASKED = 500
"""Clients whose bytes are asked for each time that figures are given; of more, some by turns."""
_MOST_DATABASES = 1000
OTHERS = "(others)"
"""What is counted for databases beyond that, as their names come from clients."""


class Accounts:
    """One process's, since it began."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.pace = Pace()
        self.statements = Statements()
        self.refused: Counter[str] = Counter()
        """Clients that were refused, by SQLSTATE."""
        self.opened: Counter[str] = Counter()
        """Servers opened, by target."""
        self.opened_in_tls: Counter[str] = Counter()
        """Those of them in TLS."""
        self.open_failed: Counter[tuple[str, str]] = Counter()
        """The same in vain, by target and stage."""
        self.closed: Counter[tuple[str, str]] = Counter()
        """Servers closed, by target and reason."""
        self._turn = 0
        """How often figures were given."""
        self._tallies: dict[str, Tally] = {}
        self._before: dict[str, Any] = {}
        """What `figures` gave when the period began that is over."""
        self._last: dict[str, Any] = {}
        self._ended: float | None = None
        """When that was."""
        self._seconds = 0.0
        """How long it was."""

    def tally(self, database: str) -> Tally:
        """Give what is counted for a database."""
        known = self._tallies.get(database)
        if known is None:
            if len(self._tallies) >= _MOST_DATABASES:
                database = OTHERS
            known = self._tallies.setdefault(database, Tally())
        return known

    def waits(self, database: str) -> Histogram:
        """Give that of a database in which is entered how long clients have waited for servers."""
        return self.tally(database).wait

    def looked(self, database: str, user: str, sample: Sample) -> None:
        """Enter what was seen of a transaction."""
        tally = self.tally(database)
        assert sample.began is not None and sample.ended is not None
        tally.transaction.add(sample.ended - sample.began, sample.weight)
        for seconds in sample.batches:
            tally.query.add(seconds, sample.weight)
        if self.config.counts_statements(database, user):
            self.statements.add(database, sample)

    def departed(self, client: ClientConnection) -> None:
        """Enter what a client has done that is leaving."""
        if client.splice is not None and client.startup is not None:
            client.traffic = client.transport.traffic
            _add(self.tally(client.startup.database), client)

    def figures(
        self, clients: Iterable[ClientConnection], lenders: Iterable[ServerLender]
    ) -> dict[str, dict[str, Any]]:
        """Give the tallies of all databases, what is under way included, to be added up."""
        now = {database: _copy(tally) for database, tally in self._tallies.items()}
        for lender in lenders:
            now.setdefault(self._named(lender.names[0]), Tally()).links += lender.turns.count
        here = list(clients)
        self._see_traffic(here)
        for client in here:
            if client.splice is not None and client.startup is not None:
                # There may be thousands: no tally is made where there is one.
                known = now.get(client.startup.database)
                if known is None:
                    known = now.setdefault(self._named(client.startup.database), Tally())
                _add(known, client)
        return {database: tally.figures() for database, tally in now.items()}

    def _see_traffic(self, clients: list[ClientConnection]) -> None:
        """Ask the kernel about those that it was asked about longest ago: it takes its time for each."""
        self._turn += 1
        if len(clients) > _MOST_ASKED:
            clients = nsmallest(_MOST_ASKED, clients, key=attrgetter("traffic_seen"))
        for client in clients:
            client.traffic, client.traffic_seen = client.transport.traffic, self._turn

    def _named(self, database: str) -> str:
        return database if database in self._tallies or len(self._tallies) < _MOST_DATABASES else OTHERS

    def close_period(self, now: float, figures: Callable[[], dict[str, Any]]) -> None:
        """End a period of averages, and begin the next."""
        self._before, self._last = self._last, figures()
        self._seconds = now - self._ended if self._ended is not None else 0.0
        self._ended = now

    @property
    def period(self) -> dict[str, Any]:
        """Give the figures at both ends of the last whole period, and its length in seconds."""
        if self._seconds <= 0:
            return {"first": {}, "last": {}, "seconds": 0.0}
        return {"first": self._before, "last": self._last, "seconds": self._seconds}


def _copy(tally: Tally) -> Tally:
    return Tally(
        tally.links,
        tally.transactions,
        tally.queries,
        tally.queries_in_tls,
        tally.aborted,
        tally.received,
        tally.sent,
        tally.logins,
        tally.wait,
        tally.in_vain,
        tally.query,
        tally.transaction,
    )


def _add(tally: Tally, client: ClientConnection) -> None:
    assert client.splice is not None
    talk = client.splice.talk
    tally.queries += talk.queries
    if not client.transport.plain:
        tally.queries_in_tls += talk.queries
    tally.transactions += talk.transactions
    received, sent = client.traffic
    tally.received += received
    tally.sent += sent
