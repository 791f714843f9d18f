"""
How long a client may live: the limits, and what was seen of it at the last looks.

No client has a clock of its own. All are looked at now and then, and what a look finds as an earlier one has
left it has lasted since then. The law:

1. What is counted begins at a look, so nobody is ended early; nor is anybody late by more than the time
   between three looks. Who has long limits is looked at seldom (`Watch.due`).
2. A client is idle while the next word is its own: the server owes it nothing, and nothing that it has sent
   waits to be sent on. In the middle of a Query that it doesn't go on with it is idle, too. In a batch that
   has no Sync yet, or in COPY, it is not: who waits for whom can't be told, nor does PostgreSQL count that.
3. A client that waits for a server is not idle, and has no query and no transaction yet.
4. A query lasts until its ReadyForQuery; a pipeline is one up to each Sync.
5. A transaction lasts until a ReadyForQuery says idle, or a COMMIT. ROLLBACK AND CHAIN can't be told from
   ROLLBACK TO, nor be seen what a procedure commits: they are the same transaction still.
6. A client that listens waits for the server's word: it is not idle outside of transactions.

Documentation: PostgreSQL manual, "Client Connection Defaults" (idle_session_timeout and the like).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from attrs import field, frozen

from pgproxy.session.conversation import Conversation
from pgproxy.session.ledger import IDLE, Ledger
from pgproxy.twin import quicken

_LOOKS = 5
"""Looks that the shortest limit has in it."""
_OFTEN = 0.1
"""Seconds between two looks, at least."""
_SELDOM = 1.0
"""Seconds between two looks at all clients, at most."""
_SELDOM_AT_ONE = 10.0
"""Seconds between two looks at one client, at most."""
_MOST_MISSED = 2
"""Between two looks no more time passes, for those who are looked at, than this many times what should."""


class Overdue(Enum):
    """The limit that a client has come to: the field of its `Deadlines`."""

    IDLE_CLIENT = "idle_client_timeout"
    IDLE_TRANSACTION = "idle_transaction_timeout"
    TRANSACTION = "transaction_timeout"
    QUERY = "query_timeout"


@frozen
class Deadlines:
    """The limits of a client's life, in seconds; 0 for none. Those who have the same ones share them."""

    idle_client_timeout: float = 0.0
    idle_transaction_timeout: float = 0.0
    transaction_timeout: float = 0.0
    query_timeout: float = 0.0
    connection_borrow_notice: float = 0.0
    """This one ends nobody: the client is told that it waits."""
    pause: float = field(init=False, eq=False)
    """Seconds after a look in which none is needed, unless the client begins to wait for a server."""

    @property
    def patience(self) -> float:
        """Seconds that what a client that has gone asked for may go on; 0 for no limit."""
        return min((limit for limit in (self.query_timeout, self.transaction_timeout) if limit), default=0.0)

    @pause.default
    def _pause(self) -> float:
        between = _between(_SELDOM_AT_ONE, (getattr(self, overdue.value) for overdue in Overdue))
        # All clients are looked at once in so long: what would fall between two of these comes before.
        return max(0.0, between - _SELDOM)


def time_between_looks(limits: Iterable[float]) -> float:
    """Give the seconds between two looks at all clients that do for these limits in seconds (0: none)."""
    return _between(_SELDOM, limits)


def _between(most: float, limits: Iterable[float]) -> float:
    return max(_OFTEN, min([most, *(limit / _LOOKS for limit in limits if limit)]))


NO_DEADLINES = Deadlines()


class Attention:
    """
    The time of those who are looked at: it goes on while somebody looks.

    A process that was stopped has not read what clients have sent meanwhile, and a clock that was set has
    measured nothing: neither is held against them.
    """

    def __init__(self) -> None:
        self._time = 0.0
        self._last: float | None = None

    def look(self, now: float, between: float) -> float:
        """Give the time in seconds; `between` is how many there should be between two looks."""
        if self._last is not None:
            self._time += min(max(now - self._last, 0.0), _MOST_MISSED * between)
        self._last = now
        return self._time


@quicken
class Watch:
    """What was seen of one client. `now` is an `Attention`'s time."""

    __slots__ = ("_mark", "_noticed", "_since", "_transaction", "_transaction_since", "due")

    def __init__(self) -> None:
        self.due = 0.0
        """When the client is to be looked at next: at once when it begins to wait, or has other limits."""
        self._mark: tuple[object, ...] | None = None
        """Of what the client is doing: another one wherever it has done something else in between."""
        self._since = 0.0
        self._noticed = False
        """Whether the client was told that it waits."""
        self._transaction: tuple[Ledger, int] | None = None
        self._transaction_since = 0.0

    def wait(self, now: float, deadlines: Deadlines, talk: Conversation) -> bool:
        """Look at a client that waits for a server; say whether it is to be told so now."""
        mark = talk.ledger, talk.ledger.asked, True
        if mark != self._mark:
            self._mark = mark
            self._since = now
            self._noticed = False
        limit = deadlines.connection_borrow_notice
        if not limit or self._noticed or now - self._since < limit:
            return False
        self._noticed = True
        return True

    def look(
        self, now: float, deadlines: Deadlines, talk: Conversation, place: int, unsent: int, held: bool
    ) -> Overdue | None:
        """
        Look at a client that doesn't wait for a server; give the limit that it has come to, if any.

        `place` is its skimmer's, `unsent` counts the bytes that it has not taken yet, `held` says whether
        something that it has sent waits for the server to be ready for it.
        """
        self.due = now + deadlines.pause
        ledger = talk.ledger
        busy = ledger.under_way and not (place > 0 and ledger.one_owed)
        within = busy or ledger.status != IDLE
        mark: tuple[object, ...] | None
        if busy:
            overdue, limit = Overdue.QUERY, deadlines.query_timeout
            mark = ledger, ledger.answered
        else:
            if within:
                overdue, limit = Overdue.IDLE_TRANSACTION, deadlines.idle_transaction_timeout
            else:
                overdue, limit = Overdue.IDLE_CLIENT, deadlines.idle_client_timeout
            mark = (ledger, ledger.asked, place, unsent) if not held else None
        if mark is None or mark != self._mark:
            self._mark = mark
            self._since = now
        elif limit and now - self._since >= limit and (within or not talk.listens):
            return overdue
        if within and deadlines.transaction_timeout:
            transaction = ledger, ledger.transaction
            if transaction != self._transaction:
                self._transaction = transaction
                self._transaction_since = now
            elif now - self._transaction_since >= deadlines.transaction_timeout:
                return Overdue.TRANSACTION
        return None
