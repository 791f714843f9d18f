"""All that must be true before a server may serve somebody else."""

from __future__ import annotations

from typing import Any

import pytest

from pgproxy.pool.release import Leftover, Step, next_step
from pgproxy.pool.states import CloseReason
from pgproxy.session.ledger import IN_TRANSACTION, Ledger
from pgproxy.wire import tags


def left(**facts: Any) -> Leftover:
    ledger = Ledger()
    for name in ("batch_open", "copying", "irregular", "streaming", "status", "answered"):
        if name in facts:
            setattr(ledger, name, facts.pop(name))
    if facts.pop("owed", False):
        ledger.sent(tags.QUERY)
    return Leftover(ledger, **{"used": True, **facts})


@pytest.mark.parametrize(
    ("facts", "step"),
    [
        ({"used": False}, Step.READY),
        ({"used": False, "cancels": 1}, Step.WAIT),
        ({}, Step.CLEAN),
        ({"clean": True}, Step.READY),
        ({"clean": True, "uninitialised": True}, Step.INITIALISE),
        ({"uninitialised": True}, Step.CLEAN),
        ({"status": IN_TRANSACTION}, Step.ROLLBACK),
        ({"owed": True}, Step.WAIT),
        ({"owed": True, "vanished": True}, Step.CANCEL),
        ({"owed": True, "vanished": True, "cancelled": 0}, Step.WAIT),
        ({"owed": True, "vanished": True, "cancelled": 0, "answered": 1}, Step.CANCEL),
        ({"owed": True, "vanished": True, "cancelled": 0, "answered": 1, "cancels": 1}, Step.WAIT),
        ({"batch_open": True}, Step.END_BATCH),
        ({"owed": True, "lasting": True}, Step.WAIT),
        ({"owed": True, "replication": True, "vanished": True}, Step.CANCEL),
        ({"cancels": 1}, Step.WAIT),
        ({"cancels": 1, "clean": True}, Step.WAIT),
    ],
)
def test_steps(facts: dict[str, Any], step: Step) -> None:
    assert next_step(left(**facts)) == (step, None)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"mid_message": True}, CloseReason.MID_MESSAGE),
        ({"copying": True}, CloseReason.MID_COPY),
        ({"irregular": True}, CloseReason.IRREGULAR),
        ({"streaming": True}, CloseReason.REPLICATION),
        ({"replication": True}, CloseReason.REPLICATION),
        ({"lasting": True}, CloseReason.LASTING_STATE),
    ],
)
def test_doubts_close(facts: dict[str, Any], reason: CloseReason) -> None:
    assert next_step(left(**facts)) == (Step.CLOSE, reason)


@pytest.mark.parametrize(
    ("fact", "reason"),
    [
        ("mid_message", CloseReason.MID_MESSAGE),
        ("copying", CloseReason.MID_COPY),
        ("irregular", CloseReason.IRREGULAR),
        ("streaming", CloseReason.REPLICATION),
    ],
)
def test_what_is_in_doubt_counts_until_it_has_stopped(fact: str, reason: CloseReason) -> None:
    facts: dict[str, Any] = {"owed": True, fact: True}
    assert next_step(left(**facts)) == (Step.TERMINATE, reason)
    assert next_step(left(terminated=reason, **facts)) == (Step.WAIT, None)
    facts["vanished"] = True
    assert next_step(left(**facts)) == (Step.CANCEL, None)
    assert next_step(left(cancelled=0, cancels=1, **facts)) == (Step.WAIT, None)
    assert next_step(left(cancelled=0, **facts)) == (Step.TERMINATE, reason)
    assert next_step(left(cancelled=0, terminated=reason, **facts)) == (Step.WAIT, None)
    # The server has said its last word, and not that it is closing.
    assert next_step(left(terminated=reason)) == (Step.CLOSE, reason)


def test_keys_are_found_and_revoked() -> None:
    from pgproxy.pool.cancel import CancelKeys

    given = iter([b"\0\0\0\2aaaa", b"\0\0\0\2aaaa", b"\0\0\0\6bbbb", b"\0\0\0\2cccc"])
    keys: CancelKeys[str] = CancelKeys(lambda _size: next(given))
    first, second, own = keys.issue("x", None), keys.issue("y", None), keys.issue("z", 4711)
    assert (first.pid, second.pid, own.pid) == (1, 3, 4711)
    assert keys.find(1, b"aaaa") == "x" and keys.find(3, b"bbbb") == "y" and keys.find(4711, b"cccc") == "z"
    assert keys.find(1, b"bbbb") is None
    keys.revoke(first)
    assert keys.find(1, b"aaaa") is None
    assert "aaaa" not in repr(first)
