"""
A worker's part of a budget that several share: what it may open, what it needs, what it gives back.

The supervisor decides for all workers (workers/arbiter.py). The law:

1. A server needs a permit from the decision to open it until its connection has ended. A permit is for a
   pool, and for ordinary servers or for walsenders: these count for other limits.
2. A permit without a server is given back with the next report, and asked for again when it is needed.
3. What is recalled is given up as soon as a server is free, whoever waits for it here.
4. A report says all there is to say about its part as it is now, so nothing goes wrong with one that is lost
   or late; `heard` tells which grants it knows of.
5. Nobody here loses an idle server to another lane while a permit may come for that: until the supervisor has
   said that none will, or for `GRACE`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from attrs import define, frozen

from pgproxy.pool.budget import Account
from pgproxy.pool.states import CHECKING, CLOSING, IDLE, OPENING, CloseReason

if TYPE_CHECKING:
    from pgproxy.pool.lane import Lane
    from pgproxy.pool.pools import Pools

GRACE = 0.05
"""Seconds in which a permit comes, or the word that there is none; both take some milliseconds."""


@frozen
class Part:
    """What permits are for."""

    database: str
    user: str
    walsender: bool


@frozen
class Report:
    """How a part is doing in a worker."""

    part: Part
    heard: int
    """The last grant that is in it."""
    servers: int
    opening: int
    idle: int
    """Servers that nobody has used since the last report."""
    turned: int
    """Other servers that were free at some time since then."""
    waiting: int
    """Clients that wait for a server, those for which one is being opened included."""
    waited: float
    """Seconds, of the one that has waited longest."""
    kept: bool = True
    """Whether the worker has such a pool."""


@frozen
class Situation:
    """What a worker with clients that wait is told of its part."""

    elsewhere: int = 0
    """Servers of the pool in other workers, when we last heard."""
    full: str = ""
    """Which of the limits that are common to all workers are reached."""
    more: bool = True
    """Whether a permit may come without anybody's giving one up here."""


UNKNOWN = Situation()


@define(eq=False)
class _Held:
    account: Account
    why_over: CloseReason = CloseReason.NEEDED_ELSEWHERE
    situation: Situation = UNKNOWN
    said: tuple[int, ...] | None = (0, 0, 0, 0, 0)
    """What the last report was about; None where one is due in any case."""


class Permits:
    """The permits of one target's pools in one worker."""

    def __init__(self) -> None:
        self.heard = 0
        self._held: dict[Part, _Held] = {}
        self._of_account: dict[Account, _Held] = {}
        self._turn = 0
        """The last time a server was free, at the last report."""

    def of_pool(self, database: str, user: str) -> tuple[Account, Account]:
        """Give the accounts of a pool, their `most` the number of permits."""
        return (self.account(Part(database, user, False)), self.account(Part(database, user, True)))

    def account(self, part: Part) -> Account:
        """Give the account of a part."""
        held = self._held.get(part)
        if held is None:
            kind = "walsenders" if part.walsender else "servers"
            account = Account(f"this worker's {kind} of pool {part.database}/{part.user}", most=0)
            held = self._held[part] = self._of_account[account] = _Held(account)
        return held.account

    def change(self, account: Account, more: int, why: CloseReason | None) -> None:
        """Enter that there are more permits, or less."""
        account.most = max(0, account.most + more)
        held = self._of_account.get(account)
        if held is not None:
            held.said = None
            held.why_over = why or held.why_over

    def situation(self, part: Part) -> Situation:
        """Give what was last told of a part."""
        held = self._held.get(part)
        return held.situation if held is not None else UNKNOWN

    def tell_situation(self, part: Part, situation: Situation) -> None:
        """Enter what is told."""
        held = self._held.get(part)
        if held is not None:
            held.situation = situation

    def may_come(self, account: Account) -> bool:
        """Say whether there is hope for a permit, as far as the supervisor has told; not after `GRACE`."""
        held = self._of_account.get(account)
        return held is not None and held.situation.more

    def nothing(self, part: Part) -> Report:
        """Report that there is no such pool."""
        return Report(part, self.heard, 0, 0, 0, 0, 0, 0.0, kept=False)

    def why_over(self, account: Account) -> CloseReason:
        """Say why servers are given up."""
        held = self._of_account.get(account)
        return held.why_over if held is not None else CloseReason.NEEDED_ELSEWHERE

    def reports(self, pools: Pools[Any], now: float, every: bool = False) -> list[Report]:
        """Give what has changed, or all, and give back the permits that are not used."""
        known = {account for pool in pools.pools for account in pool.permits or ()}
        lanes: dict[Account, list[Lane[Any]]] = {}
        for pool in pools.pools:
            for lane in pool.lanes.values():
                lanes.setdefault(lane.accounts[1], []).append(lane)
        idle: Counter[Account] = Counter()
        turned: Counter[Account] = Counter()
        for server in pools.servers:
            if server.turn > self._turn:
                turned[server.lane.accounts[1]] += server.state not in (OPENING, CLOSING)
            elif server.state in (IDLE, CHECKING):
                idle[server.lane.accounts[1]] += 1
        self._turn = pools.turns
        found = []
        for part, held in list(self._held.items()):
            account = held.account
            of_part = lanes.get(account, [])
            waiting = sum(_waiting(lane, now) for lane in of_part)
            waited = max((lane.waited(now) for lane in of_part), default=0.0) if waiting else 0.0
            account.most = min(account.most, account.count)
            state = (account.count, account.opening, idle[account], turned[account], waiting)
            kept = bool(account.count) or account in known
            if not waiting:
                # What was told was for those who waited; the supervisor tells the next ones anew.
                held.situation = UNKNOWN
            if every or waiting or state != held.said or not kept:
                held.said = state
                found.append(Report(part, self.heard, *state, waited, kept))
            if not kept:
                del self._held[part], self._of_account[account]
        return found


def _waiting(lane: Lane[Any], now: float) -> int:
    """Say for how many a server is wanted; after a failure it is tried with one."""
    missing = max(0, lane.missing)
    if lane.barred(now):
        missing = 0
    elif lane.retries:
        missing = min(1, missing)
    return lane.own.opening + missing
