"""The servers of one (target, role, database, user), and who waits for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from attrs import define, field

from pgproxy.pool.budget import NO_LIMIT, Account
from pgproxy.pool.lane import Lane
from pgproxy.pool.permits import Part
from pgproxy.pool.states import Parameters
from pgproxy.session.server import ServerSession
from pgproxy.twin import quicken

if TYPE_CHECKING:
    from pgproxy.pool.pools import Pools

Client = TypeVar("Client")


@quicken
@define(eq=False)
class Pool(Generic[Client]):
    """One of the pools of a target."""

    pools: Pools[Client]
    database: Account
    user: Account
    new_session: Callable[[], ServerSession]
    account: Account
    admin: bool = False
    """Whether it may have what is reserved for administrators."""
    permits: tuple[Account, Account] | None = None
    """Where each server needs a permit: those of ordinary servers, and of walsenders'."""
    part: Part | None = None
    """What the former are for."""
    paused: bool = False
    """Whether nobody is given a server until an administrator says so."""
    most_waiting: int = NO_LIMIT
    lanes: dict[Parameters, Lane[Client]] = field(factory=dict)
    recent: Lane[Client] | None = None
    """The lane that a server was opened for last, unless it was a walsender."""
    last: Lane[Client] | None = None
    """The lane that was asked for last."""
    waiting: int = 0
    """Clients."""

    @property
    def idle(self) -> int:
        """How many servers are idle."""
        return sum(len(lane.idle) for lane in self.lanes.values())

    @property
    def working(self) -> int:
        """How many servers are logged in."""
        return self.account.working

    @property
    def empty(self) -> bool:
        """Whether there is no server and no waiter."""
        return not self.account.count and not self.waiting

    @property
    def to_be_warm(self) -> bool:
        """Whether servers are to be opened for those who may come, and there is hope that they can be."""
        return (
            self.account.least > 0
            and not self.paused
            and self.recent is not None
            and all(retry.trouble.passing for retry in self.recent.retries)
        )

    def waited(self, now: float) -> float:
        """Say for how many seconds the client has waited that has done so longest."""
        return max((lane.waited(now) for lane in self.lanes.values() if lane.waiters), default=0.0)

    def lane(self, parameters: Parameters) -> Lane[Client]:
        """Give the lane of those that start with these parameters."""
        last = self.last
        if last is not None and last.parameters is parameters:
            return last
        lane = self.lanes.get(parameters)
        if lane is None:
            lane = Lane(self, parameters, self._accounts(parameters, Account(f"lane of {self.account.name}")))
            self.lanes[parameters] = lane
        self.last = lane if lane.parameters is parameters else None
        return lane

    def forget(self, lane: Lane[Client]) -> None:
        """Forget a lane that nobody uses."""
        del self.lanes[lane.parameters]
        self.last = None
        if self.recent is lane:
            self.recent = None

    def set_admin(self, admin: bool) -> None:
        """Let the pool have what is reserved for administrators, or no longer."""
        self.admin = admin
        ordinary = self.pools.ordinary
        for lane in self.lanes.values():
            before, lane.accounts = lane.accounts, self._accounts(lane.parameters, lane.own)
            if ordinary in before:
                ordinary.take_off(lane.own)
            if ordinary in lane.accounts:
                ordinary.add(lane.own)

    def _accounts(self, parameters: Parameters, own: Account) -> tuple[Account, ...]:
        shared = [self.user, self.database]
        # What a walsender takes is counted by max_wal_senders, not by max_connections.
        walsender = any(name == "replication" for name, _value in parameters)
        if not walsender:
            shared += [self.pools.target] if self.admin else [self.pools.ordinary, self.pools.target]
        if self.permits is not None:
            return (own, self.permits[walsender], self.account, *shared)
        return (own, self.account, *shared)
