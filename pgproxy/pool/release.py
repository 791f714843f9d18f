"""
All that must be true before a server may serve somebody else, in one linear function.

It is asked again after each step, until it says `READY` or `CLOSE`, or the server ends. The law:

1. Whatever is in doubt is closed.
2. A server that works on is not closed: it counts until it has stopped, or until the lender's patience ends.
3. What a client asked for before it said goodbye runs to its end, as long as it has nothing to give: a result
   for a client that has gone is wanted by nobody.
"""

from __future__ import annotations

from enum import Enum

from attrs import define

from pgproxy.pool.states import CloseReason
from pgproxy.session.ledger import IDLE, Ledger


class Step(Enum):
    """What is to be done next with a server that was given back."""

    CLOSE = "close"
    CANCEL = "cancel"
    """Cancel what it is doing, then ask again."""
    END_BATCH = "end_batch"
    """Have an open batch fail and end, so that the server says where it is."""
    TERMINATE = "terminate"
    """Say that nothing more comes: the server ends when it is done with what it has."""
    WAIT = "wait"
    """Wait: for the ReadyForQuery that are owed, for cancel requests on their way, for the server to end."""
    ROLLBACK = "rollback"
    CLEAN = "clean"
    INITIALISE = "initialise"
    """Run `init_query`, as when the server was opened."""
    READY = "ready"


@define
class Leftover:
    """What is known of a server when its client is done with it."""

    ledger: Ledger
    used: bool
    """Whether a byte of the client's was sent to it."""
    vanished: bool = False
    """Whether what the client asked for is not wanted any more: it went without a word, or cannot be told."""
    mid_message: bool = False
    """Whether the client's bytes end inside a message."""
    replication: bool = False
    lasting: bool = False
    """Whether the client has left something that no cleaning undoes."""
    cancels: int = 0
    """Cancel requests for this server that have not reached it, as far as we know."""
    cancelled: int | None = None
    """Which batch (by `Ledger.answered`) we have cancelled last."""
    terminated: CloseReason | None = None
    """Why the server was told that nothing more comes, if it was: it ends by itself."""
    clean: bool = False
    patience: float = 0.0
    """For how many seconds what the client asked for may go on; 0: as long as it takes."""
    unasked: bool = False
    """Whether something was said that may have been done, and the server has not been asked about it."""
    uninitialised: bool = False
    """Whether the cleaning has undone what `init_query` had set."""


def next_step(left: Leftover) -> tuple[Step, CloseReason | None]:
    """Say what is to be done next; with `Step.CLOSE` and `Step.TERMINATE`, why."""
    ledger = left.ledger
    if not left.used and not left.cancels:
        return Step.READY, None
    doubt = _doubt(left)
    if doubt is None and ledger.batch_open:
        return Step.END_BATCH, None
    if ledger.owed or ledger.batch_open:
        if left.cancels:
            return Step.WAIT, None
        if left.vanished and left.cancelled != ledger.answered:
            return Step.CANCEL, None
        if doubt is not None and left.terminated is None:
            return Step.TERMINATE, doubt
        return Step.WAIT, None
    if doubt is not None:
        return Step.CLOSE, doubt
    if left.cancels:
        return Step.WAIT, None
    if left.replication:
        return Step.CLOSE, CloseReason.REPLICATION
    if left.lasting:
        return Step.CLOSE, CloseReason.LASTING_STATE
    if ledger.status != IDLE:
        return Step.ROLLBACK, None
    if not left.clean:
        return Step.CLEAN, None
    return (Step.INITIALISE if left.uninitialised else Step.READY), None


def _doubt(left: Leftover) -> CloseReason | None:
    """Say why nobody can tell what the server is going to say, or take, next, if so."""
    if left.terminated is not None:
        return left.terminated
    if left.ledger.streaming:
        return CloseReason.REPLICATION
    if left.mid_message:
        return CloseReason.MID_MESSAGE
    if left.ledger.copying:
        return CloseReason.MID_COPY
    if left.ledger.irregular:
        return CloseReason.IRREGULAR
    return None
