"""
A world with several workers: each a `World` with real pools, one arbiter, and lines that take time.

What is told arrives in order, and late. Workers die with all that they have; PostgreSQL notices later.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from pgproxy.pool.lane import Lane
from pgproxy.pool.permits import Part, Permits, Report, Situation
from pgproxy.pool.pools import Pools
from pgproxy.pool.rules import Rules
from pgproxy.pool.states import CloseReason, Server
from pgproxy.pool.todo import Close
from pgproxy.workers.arbiter import Arbiter, Grant, Order, Recall, Terms
from pgproxy.workers.rhythm import Rhythm
from tests.unit.pool.world import Client, World, check

NEVER = 10.0**9


class Call:
    """One that is to be made later, as a reactor has it."""

    def __init__(self, hand: Hand, seconds: float, what: Callable[[], None]) -> None:
        self._due = hand.now + seconds
        self._what = what
        self._canceled = False
        hand.later(seconds, self._make)

    def cancel(self) -> None:
        self._canceled = True

    def getTime(self) -> float:
        return self._due

    def _make(self) -> None:
        if not self._canceled:
            self._what()


class Hand(World):
    """One worker."""

    def __init__(self, house: House, life: int) -> None:
        self.house = house
        self.life = life
        super().__init__(life, house.worker_rules, house.capacity)
        self.pools: Pools[Client] = Pools("main", house.worker_rules, self.random.random, Permits())
        self.connections = house.connections
        self.dead = False
        self.clients = house.clients
        self.pressed = False
        """Whether somebody waits, as far as it has been told."""
        self._rhythm = Rhythm(self, self.report, lambda: self.pressed, lambda: self.pools.pressed)

    @property
    def now(self) -> float:
        return self.house.now

    @now.setter
    def now(self, _now: float) -> None:
        pass

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        def unless_dead() -> None:
            if not self.dead:
                what()

        self.house.later(seconds, unless_dead)

    def lane(self, database: str, user: str, parameters: Any = ()) -> Lane[Client]:
        known = [pool for pool in self.pools.pools if pool.account.name == f"pool {database}/{user}"]
        pool = known[0] if known else self.pool(database, user, most=self.house.terms(database, user).most)
        return pool.lane(parameters)

    def do(self, todo: list[Any]) -> None:
        self.house.closed += [item.reason for item in todo if isinstance(item, Close)]
        super().do(todo)
        self.changed()

    def changed(self) -> None:
        self._rhythm.changed()

    def press(self, on: bool) -> None:
        self.pressed = on
        if on:
            self.changed()

    def seconds(self) -> float:
        return self.now

    def callLater(self, seconds: float, what: Callable[[], None]) -> Call:
        return Call(self, seconds, what)

    def report(self) -> None:
        assert self.pools.permits is not None
        for report in self.pools.permits.reports(self.pools, self.now):
            self.house.to_arbiter(partial(self._reported, report))

    def _reported(self, report: Report) -> list[Order]:
        arbiter = self.house.arbiter
        orders = arbiter.report(self.life, report, self.house.now)
        situation = arbiter.situation(self.life, report.part)
        if situation is not None:
            self.house.tell(self, lambda: self.hear(report.part, situation))
        return orders

    def hear(self, part: Part, situation: Situation) -> None:
        assert self.pools.permits is not None
        self.pools.permits.tell_situation(part, situation)
        self.do(self.pools.tick(self.now))

    def told(self, order: Order) -> None:
        permits = self.pools.permits
        assert permits is not None
        account = permits.account(order.part)
        match order:
            case Grant(number=number, warm=warm):
                permits.heard = number
                self.do(self.pools.permit(account, 1, self.now, warm))
            case Recall(reason=reason):
                self.do(self.pools.permit(account, -1, self.now, why=reason))

    def _opened(self, server: Server) -> None:
        capacity = self.house.capacity
        self.house.to_arbiter(lambda: self.house.arbiter.learned(capacity, self.house.now))
        super()._opened(server)

    def _open(self, server: Server) -> None:
        super()._open(server)
        self.house.count()

    def die(self) -> None:
        self.dead = True
        for client in list(self.links.values()):
            client.ended = "died"
        for lane in [lane for pool in self.pools.pools for lane in pool.lanes.values()]:
            for client in lane.waiters:
                client.ended = "died"


class House:
    """All of it. `limits` are the most servers of databases and users, `leasts` the least of pools."""

    def __init__(
        self,
        seed: int,
        workers: int,
        rules: Rules,
        capacity: int,
        terms: Callable[[str, str], Terms] = lambda _database, _user: Terms(20),
    ) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.capacity = capacity
        self.connections: set[Server] = set()
        self.clients: list[Client] = []
        self.terms = terms
        self.worker_rules = Rules(borrow_timeout=rules.borrow_timeout, opening_at_once=10**6)
        self.arbiter = Arbiter("main", rules, terms, self.random.random)
        self.most = 0
        """The most connections there were at a time."""
        self.closed: list[CloseReason] = []
        """Why workers closed servers."""
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._last_word = 0.0
        self._lives = 0
        self._pressed = False
        self.hands: list[Hand] = []
        for _ in range(workers):
            self.hire()

    def hire(self) -> Hand:
        self._lives += 1
        hand = Hand(self, self._lives)
        self.hands.append(hand)
        if self._pressed:
            self.tell(hand, partial(hand.press, True))
        return hand

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (self.now + seconds, self._number, what))

    def _told(self, what: Callable[[], None]) -> None:
        """Have it arrive, behind all that was told before."""
        self._last_word = max(self._last_word, self.now + self.random.uniform(0.0001, 0.003))
        self.later(self._last_word - self.now, what)

    def tell(self, hand: Hand, what: Callable[[], None]) -> None:
        """Have a worker hear something, if it is still there."""

        def unless_dead() -> None:
            if not hand.dead:
                what()

        self._told(unless_dead)

    def to_arbiter(self, what: Callable[[], list[Order]]) -> None:
        self._told(lambda: self.follow(what()))

    def follow(self, orders: list[Order]) -> None:
        for order in orders:
            for hand in self.hands:
                if hand.life == order.worker:
                    self.tell(hand, partial(hand.told, order))
        if self.arbiter.pressed is not self._pressed:
            self._pressed = self.arbiter.pressed
            for hand in self.hands:
                self.tell(hand, partial(hand.press, self._pressed))

    def count(self) -> None:
        """See that no limit is passed in PostgreSQL."""
        self.most = max(self.most, len(self.connections))
        assert len(self.connections) <= self.capacity
        of_pool: dict[str, int] = {}
        for server in self.connections:
            name = server.lane.pool.account.name
            of_pool[name] = of_pool.get(name, 0) + 1
        for name, number in of_pool.items():
            database, user = name.removeprefix("pool ").split("/")
            terms = self.terms(database, user)
            assert number <= terms.most, (name, number)
            same = [n for other, n in of_pool.items() if other.startswith(f"pool {database}/")]
            assert sum(same) <= (terms.of_database[0] or NEVER)
            same = [n for other, n in of_pool.items() if other.endswith(f"/{user}")]
            assert sum(same) <= (terms.of_user[0] or NEVER)

    def kill(self, hand: Hand) -> None:
        hand.die()
        self.hands.remove(hand)
        self.follow(self.arbiter.died(hand.life, self.now))
        for server in [server for server in self.connections if server in hand.pools.servers]:
            self.later(self.random.uniform(0, 0.2), partial(self.connections.discard, server))
        self.later(0.25, lambda: self.follow(self.arbiter.buried(hand.life, self.now)))

    def tick(self, every: float, until: float) -> None:
        def ticking() -> None:
            self.follow(self.arbiter.tick(self.now))
            if self.now < until:
                self.later(every, ticking)

        def looking() -> None:
            self.follow(self.arbiter.look(self.now))
            for hand in self.hands:
                hand.do(hand.pools.look(self.now))
                hand.pools.tidy()
            if self.now < until:
                self.later(0.5, looking)

        self.later(every, ticking)
        self.later(0.5, looking)

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _number, what = heapq.heappop(self._events)
            what()
            for hand in self.hands:
                due = hand.pools.deadline(self.now)
                if due is not None and due <= self.now:
                    hand.do(hand.pools.tick(self.now))
        self.now = until

    def check(self) -> None:
        """See that, at rest, all know the same."""
        for hand in self.hands:
            check(hand)
            assert hand.pools.permits is not None
            for pool in hand.pools.pools:
                database, user = pool.account.name.removeprefix("pool ").split("/")
                account = hand.pools.permits.account(Part(database, user, False))
                holding = self.arbiter._holdings.get((hand.life, Part(database, user, False)))
                assert account.count == (holding.lane.own.count if holding is not None else 0)
        known = sum(len(hand.pools.servers) for hand in self.hands)
        assert self.arbiter.pools.target.count == len(self.connections) == known
        assert not self.arbiter._recalled
        assert not any(holding.unheard for holding in self.arbiter._holdings.values())
