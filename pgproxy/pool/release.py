"""
All that must be true before a server may serve somebody else, in one linear function.

It is asked again after each step, until it says `READY` or `CLOSE`. Whatever is in doubt is closed.
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
    SYNC = "sync"
    """Send a Sync, so that an open batch ends and the server says where it is."""
    WAIT = "wait"
    """Wait: for the ReadyForQuery that are owed, or for cancel requests on their way."""
    ROLLBACK = "rollback"
    CLEAN = "clean"
    READY = "ready"


@define
class Leftover:
    """What is known of a server when its client is done with it."""

    ledger: Ledger
    used: bool
    """Whether a byte of the client's was sent to it."""
    vanished: bool = False
    """Whether the client went away without saying so: what it asked for is not wanted any more."""
    mid_message: bool = False
    """Whether the client's bytes end inside a message."""
    replication: bool = False
    lasting: bool = False
    """Whether the client has left something that no cleaning undoes."""
    cancels: int = 0
    """Cancel requests for this server that have not reached it, as far as we know."""
    cancelled: bool = False
    """Whether we have cancelled what it is doing already."""
    clean: bool = False


def next_step(left: Leftover) -> tuple[Step, CloseReason | None]:
    """Say what is to be done next; with `Step.CLOSE`, why."""
    ledger = left.ledger
    if not left.used and not left.cancels:
        return Step.READY, None
    if left.replication or ledger.streaming:
        return Step.CLOSE, CloseReason.REPLICATION
    if left.mid_message:
        return Step.CLOSE, CloseReason.MID_MESSAGE
    if ledger.copying:
        return Step.CLOSE, CloseReason.MID_COPY
    if ledger.irregular:
        return Step.CLOSE, CloseReason.IRREGULAR
    if left.lasting:
        return Step.CLOSE, CloseReason.LASTING_STATE
    if ledger.batch_open:
        return Step.SYNC, None
    if ledger.owed:
        return (Step.CANCEL if left.vanished and not left.cancelled else Step.WAIT), None
    if left.cancels:
        return Step.WAIT, None
    if ledger.status != IDLE:
        return Step.ROLLBACK, None
    return (Step.READY if left.clean else Step.CLEAN), None
