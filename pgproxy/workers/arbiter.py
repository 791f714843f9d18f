"""
Who may have how many servers: the one budget of a target, over all workers.

It decides with the very `Pools` that decide in one process. A server here is a permit that a worker has; a
lane is what a pool has in one worker; who waits are the workers' clients, as last reported. The law:

1. No limit is passed: a permit counts from its grant until the worker has reported that it is without a
   server, or until nothing is left of a worker that died.
2. Workers are lanes of a pool like sets of startup parameters: the same claims decide (pool/fairness.py).
3. What is idle in a worker, as far as reported, is recalled for whoever waits. What is in use there and
   becomes free goes to another worker by the claims; as that costs a connection, and claims of a moment are
   worth little, only where somebody has waited for `GRACE`, or once in `BETWEEN`.
4. A recall that is not followed within `PATIENCE` (the servers there were in use after all) doesn't keep
   whom it was for from getting another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field, frozen

from pgproxy.pool.budget import NO_LIMIT
from pgproxy.pool.explain import are_full
from pgproxy.pool.lane import Lane
from pgproxy.pool.permits import UNKNOWN, Part, Report, Situation
from pgproxy.pool.pool import Pool
from pgproxy.pool.pools import Pools
from pgproxy.pool.rules import Rules
from pgproxy.pool.states import CLOSED, CLOSING, IDLE, LINKED, OPENING, CloseReason, Server
from pgproxy.pool.todo import Close, Open, Todo
from pgproxy.session.server import Habits, ServerSession
from pgproxy.session.statements import ServerStatements

PATIENCE = 0.5
GRACE = 0.1
BETWEEN = 0.5
"""Seconds."""


@frozen
class Terms:
    """What holds for a pool, its database and its user, in servers."""

    most: int
    least: int = 0
    admin: bool = False
    of_database: tuple[int, int] = (0, 0)
    """At most (0: no limit), at least."""
    of_user: tuple[int, int] = (0, 0)


@frozen
class Grant:
    """Tell this worker that it may open one more server."""

    worker: int
    part: Part
    number: int
    """Grants are counted, for the worker to say which it has heard of."""
    warm: bool
    """Whether it is for a client that is still to come."""


@frozen
class Recall:
    """Tell this worker to give up a server, the next that is free."""

    worker: int
    part: Part
    reason: CloseReason


Order = Grant | Recall


class _Asking:
    """A client of a worker that waits."""


_Lane = Lane[_Asking]


@define(eq=False)
class _Holding:
    """What a worker has of a pool."""

    worker: int
    part: Part
    lane: _Lane
    servers: list[Server] = field(factory=list)
    unheard: list[int] = field(factory=list)
    """Grants on their way."""
    waited: float = 0.0
    """Seconds, as last reported."""
    looked: float = 0.0
    """When claims decided last about what becomes free there."""
    situation: Situation = UNKNOWN
    """What it was told about the others."""


class Arbiter:
    """The budget of one target. Workers are numbered by life: one that is started again is another."""

    def __init__(
        self, name: str, rules: Rules, terms: Callable[[str, str], Terms], chance: Callable[[], float]
    ) -> None:
        self.pools: Pools[_Asking] = Pools(name, _for_us(rules), chance)
        self._terms = terms
        self._pools: dict[tuple[str, str], Pool[_Asking]] = {}
        self._holdings: dict[tuple[int, Part], _Holding] = {}
        self._of_lane: dict[_Lane, _Holding] = {}
        self.forgotten: list[tuple[str, str]] = []
        """Databases and users whose pools no worker has any more, for whom that concerns."""
        self._dead: set[int] = set()
        self._recalled: dict[Server, float] = {}
        self._grants = 0

    @property
    def pressed(self) -> bool:
        """Whether somebody waits, or has too many: then reports are wanted at short intervals."""
        return self.pools.pressed

    @property
    def empty(self) -> bool:
        """Whether there is nothing to keep."""
        return not self._holdings

    # What workers tell.

    def report(self, worker: int, report: Report, now: float) -> list[Order]:
        """Take a worker's word about what it has of a pool, and what it needs."""
        if worker in self._dead:
            return []
        holding, orders = self._holding(worker, report.part, now)
        holding.unheard = [number for number in holding.unheard if number > report.heard]
        orders += self._count(holding, report, now)
        waiting = min(report.waiting, holding.lane.pool.account.most)
        if waiting:
            for server in holding.lane.idle:
                server.move(LINKED)
            holding.lane.idle.clear()
        orders += self._queue(holding.lane, waiting, now - report.waited, now)
        holding.waited = report.waited if waiting else 0.0
        if not waiting:
            orders += self._set_idle(holding, report.idle, now)
        turned = report.turned + (report.idle if waiting else 0)
        if turned and self._worth_a_connection(holding, now):
            orders += self._free_some(holding, turned, now)
            orders += self._queue(holding.lane, waiting, now - report.waited, now)
        if not report.kept:
            self._forget(holding)
        return orders + self._do(self.pools.tick(now), now)

    def situation(self, worker: int, part: Part) -> Situation | None:
        """Give what one has not heard yet about its pool."""
        holding = self._holdings.get((worker, part))
        if holding is None:
            return None
        lane = holding.lane
        if not lane.waiters:
            holding.situation = UNKNOWN
            return None
        pool = lane.pool
        situation = Situation(
            pool.account.count - lane.own.count,
            are_full(self.pools.beyond(pool)),
            more=lane.missing <= 0 or self.pools.has_room(lane),
        )
        if situation == holding.situation:
            return None
        holding.situation = situation
        return situation

    def learned(self, capacity: int, now: float) -> list[Order]:
        """Take the word how many servers the target allows."""
        return self._do(self.pools.learn(capacity, now), now)

    def died(self, worker: int, now: float) -> list[Order]:
        """Enter that a worker has ended; what it had counts until it is `buried`."""
        self._dead.add(worker)
        orders: list[Order] = []
        for holding in self._of_worker(worker):
            for asking in list(holding.lane.waiters):
                self.pools.leave(holding.lane, asking)
            for server in holding.servers:
                orders += self._do(self.pools.close(server, CloseReason.LOST, now), now)
        return orders

    def buried(self, worker: int, now: float) -> list[Order]:
        """Enter that nothing is left of a worker that has ended."""
        orders: list[Order] = []
        for holding in self._of_worker(worker):
            for server in list(holding.servers):
                orders += self._gone(holding, server, now)
            self._forget(holding)
        self._dead.discard(worker)
        return orders

    # The owner, and the clock.

    def configure(self, rules: Rules, terms: Callable[[str, str], Terms], now: float) -> list[Order]:
        """Take other limits."""
        self._terms = terms
        orders = self._do(self.pools.configure(_for_us(rules), now), now)
        for (database, user), pool in self._pools.items():
            orders += self._set_limits(pool, database, user, now)
        return orders

    def tick(self, now: float) -> list[Order]:
        """Do what has become due; to be called some times a second."""
        orders: list[Order] = []
        for server, since in list(self._recalled.items()):
            if now - since >= PATIENCE:
                del self._recalled[server]
                orders += self._do(self.pools.doubt(server, now), now)
        return orders + self._do(self.pools.tick(now), now)

    def look(self, now: float) -> list[Order]:
        """See to what is idle, and to minimums; to be called every second or so."""
        orders = self._do(self.pools.look(now), now)
        for key, pool in list(self._pools.items()):
            if not pool.lanes and not pool.account.count:
                self.pools.drop_pool(pool)
                del self._pools[key]
                self.forgotten.append(key)
        return orders

    # How a report becomes what the pools know.

    def _holding(self, worker: int, part: Part, now: float) -> tuple[_Holding, list[Order]]:
        holding = self._holdings.get((worker, part))
        if holding is not None:
            return holding, []
        orders: list[Order] = []
        key = (part.database, part.user)
        pool = self._pools.get(key)
        if pool is None:
            terms = self._terms(*key)
            self.pools.set_database(part.database, *terms.of_database)
            self.pools.set_user(part.user, *terms.of_user)
            pool = self._pools[key] = self.pools.add_pool(part.database, part.user, _no_session)
            orders = self._set_limits(pool, *key, now)
        parameters = [("worker", str(worker))]
        if part.walsender:
            parameters.append(("replication", "true"))
        lane = pool.lane(tuple(parameters))
        holding = self._holdings[worker, part] = self._of_lane[lane] = _Holding(worker, part, lane)
        return holding, orders

    def _set_limits(self, pool: Pool[_Asking], database: str, user: str, now: float) -> list[Order]:
        terms = self._terms(database, user)
        self.pools.set_database(database, *terms.of_database)
        self.pools.set_user(user, *terms.of_user)
        todo = self.pools.set_pool(pool, terms.most, terms.least, NO_LIMIT, terms.admin, now)
        return self._do(todo, now)

    def _count(self, holding: _Holding, report: Report, now: float) -> list[Order]:
        """Take back permits that have no server, and enter which servers have been opened."""
        orders: list[Order] = []
        account = holding.lane.own
        # What is taken back may be granted to the same worker at once: that one has no server yet.
        while account.count > report.servers + len(holding.unheard):
            failed = account.opening > report.opening + len(holding.unheard)
            server = min(holding.servers, key=lambda s: _first_to_go(s, failed))
            orders += self._gone(holding, server, now)
        for server in [server for server in holding.servers if server.state is OPENING]:
            if account.opening <= report.opening + len(holding.unheard):
                break
            orders += self._do(self.pools.opened(server, now), now)
        return orders

    def _gone(self, holding: _Holding, server: Server, now: float) -> list[Order]:
        holding.servers.remove(server)
        self._recalled.pop(server, None)
        return self._do(self.pools.lost(server, now), now)

    def _queue(self, lane: _Lane, waiting: int, since: float, now: float) -> list[Order]:
        """Have so many wait, the first since then."""
        orders: list[Order] = []
        for asking in list(lane.waiters)[waiting:]:
            self.pools.leave(lane, asking)
        for waiter in lane.waiters.values():
            waiter.since = since
        while len(lane.waiters) < waiting:
            orders += self._do(self.pools.borrow(lane, _Asking(), now), now)
            for waiter in lane.waiters.values():
                waiter.since = since
        return orders

    def _worth_a_connection(self, holding: _Holding, now: float) -> bool:
        """Say whether claims are to decide about what has become free in a worker."""
        if now - holding.looked >= BETWEEN or any(
            other.waited >= GRACE and other.lane.missing > 0 and other is not holding
            for other in self._holdings.values()
        ):
            holding.looked = now
            return True
        return False

    def _free_some(self, holding: _Holding, free: int, now: float) -> list[Order]:
        """Have servers that have become free go to whom they are due."""
        orders: list[Order] = []
        for server in [server for server in holding.servers if server.state is LINKED][:free]:
            self.pools.given_back(server)
            orders += self._do(self.pools.cleaned(server, now), now)
            if server.state is IDLE:
                holding.lane.idle.remove(server)
                server.move(LINKED)
        return orders

    def _set_idle(self, holding: _Holding, free: int, now: float) -> list[Order]:
        """Have so many idle: nobody waits for them in their worker."""
        orders: list[Order] = []
        idle = holding.lane.idle
        while len(idle) > free:
            idle.pop().move(LINKED)
        linked = [server for server in holding.servers if server.state is LINKED]
        for server in linked[: free - len(idle)]:
            self.pools.given_back(server)
            orders += self._do(self.pools.cleaned(server, now), now)
        return orders

    def _forget(self, holding: _Holding) -> None:
        lane = holding.lane
        if holding.servers or lane.waiters:
            return
        pool = lane.pool
        del self._holdings[holding.worker, holding.part]
        del self._of_lane[lane]
        pool.lanes.pop(lane.parameters, None)
        if pool.recent is lane:
            pool.recent = next(iter(pool.lanes.values()), None)

    def _of_worker(self, worker: int) -> list[_Holding]:
        return [holding for holding in self._holdings.values() if holding.worker == worker]

    # What the pools decide.

    def _do(self, todo: list[Todo[Any]], now: float) -> list[Order]:
        orders: list[Order] = []
        for item in todo:
            match item:
                case Open(server):
                    holding = self._of_lane[server.lane]
                    self._grants += 1
                    holding.servers.append(server)
                    holding.unheard.append(self._grants)
                    warm = not server.lane.waiters
                    orders.append(Grant(holding.worker, holding.part, self._grants, warm))
                case Close(server, reason):
                    holding = self._of_lane[server.lane]
                    if holding.worker not in self._dead:
                        self._recalled[server] = now
                        orders.append(Recall(holding.worker, holding.part, reason))
        return orders


def _first_to_go(server: Server, failed: bool) -> int:
    """
    Say in which order servers are taken to have ended: those recalled, those that could not be opened.

    It is the numbers that count: where a grant and a recall meet in a worker, nothing happens there.
    """
    if failed and server.state is OPENING:
        return 1
    return {CLOSING: 0, IDLE: 2, LINKED: 3, OPENING: 4, CLOSED: 5}.get(server.state, 3)


def _for_us(rules: Rules) -> Rules:
    """Leave out what workers see to themselves: how long clients wait, and the life of a server."""
    return Rules(rules.budget, NO_LIMIT, rules.opening_at_once, idle_timeout=rules.idle_timeout)


_NOTHING = ServerStatements(b"", 1)


def _no_session() -> ServerSession:
    return ServerSession(b"", _NOTHING, Habits())
