"""
Lends one client of a read-only endpoint servers of the readers.

The law:

1. A client stays with its reader while that is one: what it has seen once it sees again.
2. It gets another where its own has gone, where the readers have changed, or where it would have to wait and
   another has less to do.
3. The one with the least to do is taken: servers in use and clients that wait, by max_connections.
4. Where there is no reader, it waits for one in a queue of its own (`nowhere`), or has the writer's servers
   if the configuration says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from twisted.internet.defer import Deferred

from pgproxy.auth.secrets import Credentials
from pgproxy.figures.sample import Sample
from pgproxy.link.lender import ServerLender
from pgproxy.link.server import ServerConnection
from pgproxy.link.splice import Borrower
from pgproxy.pool.release import Leftover
from pgproxy.pool.states import CloseReason, Parameters
from pgproxy.session.reported import Reported
from pgproxy.session.server import ServerSession
from pgproxy.session.settings import Settings


class Readers(Protocol):
    """All lenders of one database and user at the readers of its target."""

    @property
    def generation(self) -> int:
        """Another number whenever the readers have changed."""

    def reader(self, user: str, database: str, besides: ServerLender | None) -> ServerLender | None:
        """Give the lender with the least to do, in doubt `besides`; None where the database is unknown."""


class ReadingLender:
    """One client's."""

    def __init__(self, readers: Readers, user: str, database: str, first: ServerLender) -> None:
        self._readers = readers
        self._user = user
        self._database = database
        self._lender = first
        self._generation = readers.generation
        self._credentials = first.credentials
        self._there = False
        """Whether the client counts."""

    def came(self) -> None:
        """Enter that there is one client more."""
        self._there = True
        self._lender.came()

    def went(self) -> None:
        """Enter that the client has gone."""
        self._there = False
        self._lender.went()

    @property
    def credentials(self) -> Credentials:
        """What the client has given us to log in with."""
        return self._credentials

    @credentials.setter
    def credentials(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._lender.credentials = credentials

    @property
    def welcomes(self) -> Mapping[Parameters, Reported]:
        """How servers greet."""
        return self._lender.welcomes

    def check(self, patient: bool) -> Deferred[None] | None:
        """See whether new servers would begin with other settings."""
        return self._lender.check(patient)

    # Before a link.

    def _choose(self, anew: bool) -> None:
        """See whether the client is to go to another reader."""
        generation = self._readers.generation
        if not anew and generation == self._generation and not self._lender.dismissed:
            return
        self._generation = generation
        chosen = self._readers.reader(self._user, self._database, self._lender)
        if chosen is None or chosen is self._lender:
            return
        before, self._lender = self._lender, chosen
        chosen.credentials = self._credentials
        if self._there:
            before.went()
            chosen.came()

    def take(
        self, client: Borrower, parameters: Parameters, settings: Settings, home: ServerSession | None
    ) -> ServerConnection | None:
        """Lend a server that is idle and fits."""
        self._choose(anew=False)
        return self._lender.take(client, parameters, settings, home)

    def borrow(
        self,
        client: Borrower,
        parameters: Parameters,
        settings: Settings,
        home: ServerSession | None,
        since: float | None = None,
    ) -> None:
        """Ask for a server."""
        self._choose(anew=not self._lender.pool.idle)
        self._lender.borrow(client, parameters, settings, home, since)

    def leave(self, client: Borrower, aborts: bool) -> None:
        """No longer want one."""
        self._lender.leave(client, aborts)

    def account(self, client: Borrower) -> tuple[str, str]:
        """Say, to one who waits, who has the servers."""
        return self._lender.account(client)

    def alarm(self) -> None:
        """Take the word that a server may not be what it was."""
        self._lender.alarm()

    def waited(self, seconds: float, text_of: Callable[[bytes], bytes] | None) -> Sample | None:
        """Enter that the client has waited for a server."""
        return self._lender.waited(seconds, text_of)

    # In a link: the lender is the one that the server is of.

    def kept(self, client: Borrower) -> None:
        """Enter that a transaction begins in a server that is kept."""
        self._lender.kept(client)

    def looked(self, sample: Sample) -> None:
        """Enter what was seen of a transaction."""
        self._lender.looked(sample)

    def hand_on(self, server: ServerConnection) -> None:
        """Be done with a server in which nothing is left."""
        self._lender.hand_on(server)

    def give_back(self, server: ServerConnection, left: Leftover) -> None:
        """Be done with a server that may have to be cleaned."""
        self._lender.give_back(server, left)

    def give_up(self, server: ServerConnection, reason: CloseReason) -> None:
        """Have a server closed."""
        self._lender.give_up(server, reason)

    def cancel(self, server: ServerConnection) -> Deferred[None]:
        """Cancel what a server is doing."""
        return self._lender.cancel(server)

    def make_way(self, databases: tuple[bytes, ...]) -> None:
        """Have idle servers leave these databases."""
        self._lender.make_way(databases)

    def hides(self) -> None:
        """Have it known."""
        self._lender.hides()

    def defaults_changed(self) -> None:
        """Have no server serve on that was opened with other defaults."""
        self._lender.defaults_changed()
