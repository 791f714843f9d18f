"""
What becomes of a client, in transaction mode, whose server is lost.

The law:

1. A client to whom nothing was lost is told nothing: what it has said that was not sent yet goes to another
   server.
2. Nothing that may have arrived at a server is said again. What was under way, or was held by the server, is
   told as lost in one error, and the client stays (bereft.py).
3. A client ends where its session can't be carried on truthfully: nobody knows what it has set, it waits for
   notifications that would never come, or nobody knows what it is owed.
4. Why a server ends is told by its SQLSTATE. Its FATAL isn't passed on: the client doesn't end.

Documentation: PostgreSQL manual, "Message Flow" (ErrorResponse, ReadyForQuery), "Error Codes".
"""

from __future__ import annotations

from attrs import evolve, frozen

from pgproxy.session.exits import Exit
from pgproxy.session.ledger import IDLE, Ledger
from pgproxy.session.pins import Reasons, words
from pgproxy.wire import errors, tags
from pgproxy.wire.errors import Complaint, Refusal, complaint
from pgproxy.wire.messages import read_error_fields

_LAST_WORDS = ("57P01", "57P02", "57P03")
_NO_CONNECTION = "08"
_ANSWERED = frozenset({tags.QUERY, tags.FUNCTION_CALL, tags.SYNC})


@frozen
class Cause:
    """Why a server has ended, in its own words; nothing where it went without a word."""

    sqlstate: str = ""
    text: str = ""


UNKNOWN_CAUSE = Cause()


@frozen
class Loss:
    """What a client that stays has lost."""

    owed: int
    """How many ReadyForQuery it is owed."""
    half_said: bool
    """Whether it is in the middle of a message that was sent."""
    told: bool
    """Whether an error was the last thing that it heard of the first of these, or else of the open batch."""
    batch_open: bool
    """Whether it has yet to say Sync behind something that it has sent."""
    in_transaction: bool
    reasons: Reasons
    """Why the server was kept for it."""
    cause: Cause
    exits: Exit = Exit.OTHER
    """What the one statement under way was, if that is known."""
    by_query: bool = False
    """Whether it was a Query."""

    @property
    def nothing(self) -> bool:
        """Whether it need not know."""
        return not (self.owed or self.batch_open or self.in_transaction or self.reasons)

    @property
    def may_be_sent(self) -> bool:
        """Whether the one thing under way may go to another server, if it has not arrived at this one."""
        alone = self.owed == 1 and not (self.batch_open or self.half_said or self.told)
        return alone and not (self.in_transaction or self.reasons)

    @property
    def ends(self) -> Exit | None:
        """How the transaction was being ended when the server was lost, if it was: it is over in any case."""
        alone = self.in_transaction and self.owed == 1 and not self.batch_open
        return self.exits if alone and self.exits in (Exit.COMMIT, Exit.ROLLBACK) else None

    @property
    def error(self) -> Complaint:
        """Build the error that tells of it."""
        under_way = self.owed or self.batch_open
        if self.ends is Exit.COMMIT:
            return self._error(
                errors.COMMIT_LOST,
                "COMMIT was under way: it is not known whether the transaction was committed.",
            )
        if self.ends is Exit.ROLLBACK:
            return self._error(errors.STATEMENT_LOST, "The transaction was rolled back.")
        if self.in_transaction and under_way:
            return self._error(
                errors.TRANSACTION_LOST,
                "What the transaction had done is undone. If its COMMIT was under way, it is not known "
                "whether it was committed.",
            )
        if self.in_transaction:
            return self._error(errors.TRANSACTION_LOST, "What the transaction had done is undone.")
        if under_way:
            return self._error(
                errors.STATEMENT_LOST, "It is not known whether what was under way was carried out."
            )
        return self._error(errors.STATE_LOST, "")

    @property
    def failed_commit(self) -> Complaint:
        """Build what is said to a COMMIT that comes behind the loss."""
        return self._error(errors.STATEMENT_LOST, "The transaction was not committed: all of it is undone.")

    @property
    def state_lost(self) -> Complaint | None:
        """Build the error that tells only of what the server was kept for; None if for nothing."""
        return self._error(errors.STATE_LOST, "") if self.reasons else None

    def _error(self, refusal: Refusal, detail: str) -> Complaint:
        gone = ", ".join(words(self.reasons))
        parts = (detail, f"Gone with the server: {gone}." if gone else "", _said(self.cause))
        return caused(complaint(refusal, detail=" ".join(filter(None, parts))), self.cause)


def owed_to_client(ledger: Ledger) -> int:
    """Say how many ReadyForQuery a client is owed."""
    return sum(tag in _ANSWERED for tag in ledger.owed)


def in_transaction(ledger: Ledger) -> bool:
    """Say whether a client is in a transaction, by what the server has said last."""
    return ledger.status != IDLE


def cause_of(payload: bytes) -> Cause | None:
    """Read a server's ErrorResponse: why it ends, if it does so for everybody and not for this client."""
    fields = read_error_fields(payload)
    if fields.get("V", fields.get("S")) not in ("FATAL", "PANIC"):
        return None
    sqlstate = fields.get("C", "")
    if sqlstate in _LAST_WORDS or sqlstate.startswith(_NO_CONNECTION):
        return Cause(sqlstate, fields.get("M", ""))
    return None


def fatal(refusal: Refusal, cause: Cause) -> Complaint:
    """Build the error that ends a client whose server is lost."""
    return caused(complaint(refusal, detail=_said(cause)), cause)


def caused(why: Complaint, cause: Cause) -> Complaint:
    """Give an error the SQLSTATE that the server has said, if it has."""
    return evolve(why, sqlstate=cause.sqlstate) if cause.sqlstate else why


def _said(cause: Cause) -> str:
    return f"The server's last word was: {cause.text}" if cause.text else ""
