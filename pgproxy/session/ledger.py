"""
What a server still owes a client: counted from the client's messages, paid by the server's.

The law:

1. Each Query, FunctionCall and Sync is owed one ReadyForQuery, in the order sent.
2. Extended-query messages behind the last Sync leave a batch open: the server keeps state for it.
3. While a server is in COPY IN it throws Sync and Flush away, until CopyDone or CopyFail. So the Syncs
   sent between the statement and the end of its data are owed nothing; libpq sends one there.
4. After an error in a batch the server throws everything away up to the next Sync. A Query behind an
   open batch would then be owed nothing, or something, depending on where the error was: such a stream
   is `irregular`, and its server is kept by the client and closed after it.
5. Where an error ends a COPY IN of an extended-query batch, the Syncs of rule 3 may have been thrown away
   or not; `doubtful` says so. The cleaning of the server, which knows exactly what answer it waits for,
   finds out.
6. CopyDone and CopyFail outside of COPY IN have no answer, not even an error. So only `_MOST_ENDS` of them in
   a row are kept in mind: nothing that comes from a client makes this account grow without an answer.
7. What the proxy itself says to the server (`sent_ours`) is owed one ReadyForQuery, too. All replies up to it
   are ours.

Documentation: PostgreSQL manual, "Message Flow" ("Extended Query", "COPY Operations", "Pipelining").
"""

from __future__ import annotations

from itertools import islice

from pgproxy.twin import quicken
from pgproxy.wire import tags

IDLE = ord("I")
IN_TRANSACTION = ord("T")
FAILED = ord("E")

_REPLIES = frozenset({tags.QUERY, tags.FUNCTION_CALL})
_COPY_ENDS = frozenset({tags.COPY_DONE, tags.COPY_FAIL})

MOST_OWED = 10_000
"""Entries of `owed` with which the account is full; a client's whole pipelines are below."""
_MOST_ENDS = 100
"""Marks of ended COPY data in a row: so many COPYs of one Query can be sent ahead with their data."""
_COPY_END = 0
"""Stands in `owed` where the client ended a COPY's data: it is owed nothing, rule 3 looks for it."""
_COPY_END_OF_BATCH = 2
"""The same in a batch that was open then: it belongs to what comes behind it, not to what is before."""
_END_MARKS = (_COPY_END, _COPY_END_OF_BATCH)
_OURS = 1
"""Stands in `owed` for what the proxy itself said."""


@quicken
class Ledger:
    """The account of one link."""

    __slots__ = (
        "answered",
        "asked",
        "batch_open",
        "copying",
        "doubtful",
        "ends",
        "irregular",
        "none_new",
        "ours",
        "owed",
        "status",
        "streaming",
        "transaction",
    )

    def __init__(self) -> None:
        self.owed: list[int] = []
        """The tags that are owed a ReadyForQuery, and marks of ended COPY data, oldest first."""
        self.asked = 0
        """How many ReadyForQuery have been asked for: the number of the batch that is being sent."""
        self.answered = 0
        """How many have come: the number of the batch that is being answered."""
        self.ours = 0
        """How many of those that have come were for the proxy itself."""
        self.none_new = 0
        """How often `transaction` was counted up without another transaction."""
        self.ends = 0
        """How many marks have been entered since anything else has."""
        self.batch_open = False
        self.copying = False
        """The server waits for COPY data, and its end has not been sent."""
        self.doubtful = False
        self.irregular = False
        self.streaming = False
        """The server is in COPY BOTH: a walsender that streams."""
        self.status = IDLE
        """The transaction status that the server reported last."""
        self.transaction = 0
        """Another number for each transaction."""

    @property
    def settled(self) -> bool:
        """Whether the server owes nothing, waits for nothing and is in no transaction."""
        return (
            not self.owed
            and self.status == IDLE
            and not self.batch_open
            and not self.copying
            and not self.irregular
            and not self.streaming
        )

    @property
    def queries(self) -> int:
        """How many Queries and Syncs of the client's have been answered."""
        return max(0, self.answered - self.ours)

    @property
    def transactions(self) -> int:
        """How many transactions of the client's have ended; a chain of them (COMMIT AND CHAIN) is one."""
        return max(0, self.transaction - self.none_new)

    @property
    def ours_ahead(self) -> int:
        """How many ReadyForQuery for the proxy itself are still to come."""
        return self.owed.count(_OURS)

    def queried_behind(self, batch: int) -> bool:
        """Say whether the client has sent a Query behind a batch: the one answered now, or the last."""
        return batch == self.answered and tags.QUERY in islice(self.owed, 1, None)

    @property
    def full(self) -> bool:
        """Whether so much is owed that the client should wait with more."""
        return len(self.owed) >= MOST_OWED

    @property
    def awaited(self) -> int:
        """How many ReadyForQuery are owed."""
        return sum(tag not in _END_MARKS for tag in self.owed)

    @property
    def ours_next(self) -> bool:
        """Whether what comes next from the server answers what the proxy itself said."""
        return bool(self.owed) and self.owed[0] == _OURS

    @property
    def quiet(self) -> bool:
        """Whether the client has nothing under way, and is in no transaction."""
        return self.status == IDLE and not self.batch_open and all(tag == _OURS for tag in self.owed)

    @property
    def under_way(self) -> bool:
        """Whether the server has something of the client's to do, or waits for more of it."""
        return self.batch_open or (bool(self.owed) and any(tag != _OURS for tag in self.owed))

    @property
    def one_owed(self) -> bool:
        """Whether nothing is under way but one Query or FunctionCall, which has not come to a COPY."""
        return len(self.owed) == 1 and not self.batch_open and not self.copying

    def sent_ours(self) -> None:
        """Enter something of our own that ends in one ReadyForQuery. It goes between two batches only."""
        self.owed.append(_OURS)
        self.ends = 0
        self.asked += 1

    def sent(self, tag: int) -> None:
        """Enter a message of the client's that is on its way to the server (any but CopyData)."""
        if tag in _REPLIES:
            if self.batch_open:
                self.irregular = True
            self.owed.append(tag)
            self.ends = 0
            self.asked += 1
        elif tag == tags.SYNC:
            if not self.copying:
                self.owed.append(tag)
                self.ends = 0
                self.asked += 1
                self.batch_open = False
        elif tag in _COPY_ENDS:
            if self.copying:
                self.copying = False
            elif self.ends < _MOST_ENDS and (self.owed or self.batch_open):
                self.owed.append(_COPY_END_OF_BATCH if self.batch_open else _COPY_END)
                self.ends += 1
        elif tag != tags.FLUSH and not self.copying:
            self.batch_open = True

    def copy_in(self) -> None:
        """Enter the server's CopyInResponse."""
        self.ends = 0
        kept = self.owed
        self.owed = []
        if kept and kept[0] not in (tags.SYNC, *_END_MARKS):
            self.owed.append(kept.pop(0))
        else:
            # An Execute of a batch: whatever its Syncs were, the batch lives on until one behind the data.
            self.batch_open = True
        while kept and kept[0] == tags.SYNC:
            del kept[0]
            self.asked -= 1
        if kept and kept[0] in _END_MARKS:
            del kept[0]
            if tags.SYNC in kept:
                self.batch_open = False
        else:
            self.copying = True
        self.owed += kept

    def copy_both(self) -> None:
        """Enter the server's CopyBothResponse: from here on only the end of the connection is certain."""
        self.streaming = True

    def error(self) -> None:
        """Enter an ErrorResponse of the server's."""
        if self.copying:
            self.copying = False
            self.doubtful = self.doubtful or self.batch_open

    def committed(self) -> None:
        """Enter that a transaction has ended, and another may have begun (COMMIT AND CHAIN)."""
        self.transaction += 1
        self.none_new += 1

    def answered_here(self, count: int, status: int, batch_open: bool) -> None:
        """Enter what was answered in place of a server: so many ReadyForQuery since one was lost."""
        if status == IDLE != self.status:
            self.transaction += 1
        self.asked = self.answered = count
        self.status = status
        self.batch_open = batch_open

    def ready(self, status: int) -> None:
        """Enter a ReadyForQuery with its transaction status."""
        self.status = status
        if status == IDLE:
            self.transaction += 1
        self.ends = 0
        owed = self.owed
        while owed and owed[0] in _END_MARKS:
            del owed[0]
        if owed:
            if owed.pop(0) == _OURS:
                # Not before: what is counted of the client's never becomes less.
                self.ours += 1
                self.none_new += status == IDLE
            self.answered += 1
            while owed and owed[0] == _COPY_END:
                del owed[0]
        else:
            # Unasked for: rule 5's Sync that was not thrown away after all.
            self.doubtful = True
