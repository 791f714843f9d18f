"""What a client that waits in vain is told: who holds what, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any

from pgproxy.pool.budget import Account
from pgproxy.pool.permits import UNKNOWN, Situation
from pgproxy.pool.pool import Pool
from pgproxy.pool.states import CHECKING, OPENING, RELEASING, Server
from pgproxy.wire.errors import Complaint


class Hold(Enum):
    """Why a client has a server."""

    WORKING = "working"
    IN_TRANSACTION = "idle in a transaction"
    PINNED = "pinned"
    SESSION = "kept for a session"
    """It is in session mode."""


def who_holds_what(pool: Pool[Any], holds: Iterable[Hold], waited: float) -> tuple[str, str]:
    """
    Give the detail and the hint for a client of a pool that has waited for so many seconds.

    `holds` says of each linked server why its client has it.
    """
    holding = list(holds)
    servers = [server for server in pool.pools.servers if server.lane.pool is pool]
    own = pool.account
    troubles = [retry.trouble for lane in pool.lanes.values() for retry in lane.retries]
    trouble = troubles[0] if troubles else None
    states = [f"{len(holding)} in use{_of_which(holding)}", *_counted(servers)]
    situation = _situation(pool)
    elsewhere, common = situation.elsewhere, situation.full
    if elsewhere:
        states.append(f"{elsewhere} in other workers")
    detail = (
        f"Waited {waited:.1f} s. {_sentence(own)} has {own.count + elsewhere} of at most {own.most} servers: "
        f"{', '.join(states)}; waiting clients: {pool.waiting}.{common}"
    )
    if pool.paused:
        return f"{detail} An administrator has paused it.", "It goes on when an administrator says RESUME."
    full = pool.pools.beyond(pool)
    detail += are_full(full)
    if trouble is not None:
        detail += f" The last attempt to open a server failed: {_said(trouble.complaint)}"
    if trouble is not None and not pool.working:
        return detail, "The target is down, or refuses us: pgproxy's log says more (server_open_failed)."
    if common and own.count + elsewhere < own.most:
        return detail, "A limit above the pool's is reached: raise it, or use fewer servers elsewhere."
    return detail, _advice(holding, own, full)


def are_full(accounts: Iterable[Account]) -> str:
    """Say of limits that they are reached, each in a sentence behind a space."""
    # Others' minimums can fill a target up before its servers do.
    return "".join(
        f" {_sentence(one)} has {one.count} of at most {one.most}"
        + ("." if one.count >= one.most else "; the rest is kept free for minimums.")
        for one in accounts
    )


def _situation(pool: Pool[Any]) -> Situation:
    permits = pool.pools.permits
    return permits.situation(pool.part) if permits is not None and pool.part is not None else UNKNOWN


def _advice(holding: list[Hold], own: Account, full: list[Account]) -> str:
    idle = holding.count(Hold.IN_TRANSACTION)
    pinned = holding.count(Hold.PINNED)
    if holding and 2 * idle >= len(holding):
        return "Clients sit in transactions and do nothing: find them, or set idle_transaction_timeout."
    if holding and 2 * pinned >= len(holding):
        return "Clients are pinned to their servers: pgproxy's log says why (client_pinned)."
    if full and own.count < own.most:
        return f"The limit of {full[0].name} is reached: raise it, or use fewer servers elsewhere."
    return "The pool is too small for what its clients do at a time (pool_size), or they work too long."


def _of_which(holding: list[Hold]) -> str:
    counted = [
        f"{holding.count(hold)} {hold.value}"
        for hold in (Hold.IN_TRANSACTION, Hold.PINNED, Hold.SESSION)
        if hold in holding
    ]
    return f" ({', '.join(counted)})" if counted else ""


def _counted(servers: list[Server]) -> list[str]:
    words = {OPENING: "connecting", RELEASING: "being cleaned", CHECKING: "being checked"}
    found = []
    for state, word in words.items():
        number = sum(server.state is state for server in servers)
        if number:
            found.append(f"{number} {word}")
    return found


def _sentence(account: Account) -> str:
    return account.name[0].upper() + account.name[1:]


def _said(why: Complaint) -> str:
    return " ".join(part for part in (f"{why.text}.", why.detail) if part)
