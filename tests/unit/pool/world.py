"""
A world without sockets: clients, the pools, and a PostgreSQL that counts, all on a clock of our own.

Times are numbers; what happens next is what is first in the queue of events. Whatever the pools want done
takes time and may fail, as it does outside.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from attrs import define, field

from pgproxy.pool.budget import Account
from pgproxy.pool.lane import Lane
from pgproxy.pool.pools import Pools
from pgproxy.pool.rules import Rules
from pgproxy.pool.states import CHECKING, CLOSED, CLOSING, IDLE, LINKED, OPENING, CloseReason, Server
from pgproxy.pool.todo import Check, Close, Expire, Link, Open, Refuse
from pgproxy.pool.trouble import Scope, Stage, Trouble
from pgproxy.pool.victims import victims
from pgproxy.session.settings import NOTHING_SET
from pgproxy.wire.errors import CANNOT_CONNECT, complaint
from tests.unit.sessions import new_session

WHY = complaint(CANNOT_CONNECT, database="db")
DOWN = Trouble(WHY, Stage.LOGIN, Scope.TARGET, passing=True)
WRONG_PASSWORD = Trouble(WHY, Stage.LOGIN, Scope.POOL, passing=False)
FULL = Trouble(WHY, Stage.LOGIN, Scope.TARGET, passing=True)


@define(eq=False)
class Client:
    """Somebody who wants a server."""

    number: int
    lane: Lane[Any]
    asked: float
    work: float
    """For how long it keeps a server."""
    linked: float | None = None
    ended: str = ""
    on_end: Callable[[], None] = field(default=lambda: None)


class World:
    """All of it. `capacity` is what PostgreSQL has room for."""

    def __init__(self, seed: int, rules: Rules, capacity: int, open_time: float = 0.005) -> None:
        self.random = Random(seed)
        self.pools: Pools[Client] = Pools("main", rules, self.random.random)
        self.capacity = capacity
        self.open_time = open_time
        self.now = 0.0
        self.down = False
        self.connections: set[Server] = set()
        """Those that PostgreSQL has."""
        self.clients: list[Client] = []
        self.links: dict[Server, Client] = {}
        self.too_many = 0
        """How often PostgreSQL had to refuse."""
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    # The clock.

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (self.now + seconds, self._number, what))

    def run(self, until: float, check_every: int = 50) -> None:
        """Have happen what happens until then."""
        steps = 0
        while True:
            due = self.pools.deadline(self.now)
            if due is not None and due <= until and (not self._events or due < self._events[0][0]):
                self.now = max(self.now, due)
                self.do(self.pools.tick(self.now))
            elif self._events and self._events[0][0] <= until:
                self.now, _number, what = heapq.heappop(self._events)
                what()
            else:
                break
            steps += 1
            if steps % check_every == 0:
                check(self)
        self.now = until
        check(self)

    def look_after(self, every: float, until: float) -> None:
        """Have the pools look after idle servers."""

        def look() -> None:
            self.do(self.pools.look(self.now))
            self.pools.tidy()
            if self.now + every <= until:
                self.later(every, look)

        self.later(every, look)

    # Clients.

    def lane(self, database: str, user: str, parameters: Any = ()) -> Lane[Client]:
        name = f"pool {database}/{user}"
        known = [pool for pool in self.pools.pools if pool.account.name == name]
        return (known[0] if known else self.pool(database, user)).lane(parameters)

    def pool(self, database: str, user: str, most: int = 20, least: int = 0, **limits: Any) -> Any:
        pool = self.pools.add_pool(database, user, new_session)
        self.do(
            self.pools.set_pool(
                pool, most, least, limits.get("waiting", 10**6), limits.get("admin", False), self.now
            )
        )
        return pool

    def ask(self, lane: Lane[Client], work: float, on_end: Callable[[], None] = lambda: None) -> Client:
        client = Client(len(self.clients), lane, self.now, work, on_end=on_end)
        self.clients.append(client)
        if not self.pools.stand_in_line(lane, client, self.now, NOTHING_SET, None):
            self.do(self.pools.borrow(lane, client, self.now))
        return client

    def leave(self, client: Client) -> None:
        """Have a client go that waits."""
        if client.linked is None and not client.ended:
            self.pools.leave(client.lane, client)
            self._end(client, "left")

    def _end(self, client: Client, how: str) -> None:
        assert not client.ended
        client.ended = how
        client.on_end()

    # Servers.

    def do(self, todo: list[Any]) -> None:
        for item in todo:
            match item:
                case Open(server):
                    self._open(server)
                case Link(client, server):
                    self._link(client, server)
                case Close(server, _reason):
                    assert server not in self.links
                    assert server.state is CLOSING
                    self.later(self.random.uniform(0, 0.004), partial(self._gone, server))
                case Check(server):
                    assert server.state is CHECKING
                    self.later(0.001, partial(self._checked, server))
                case Refuse(_lane, client, _why):
                    self._end(client, "refused")
                case Expire(_lane, client):
                    self._end(client, "expired")

    def _open(self, server: Server) -> None:
        assert server.state is OPENING
        self.later(self.open_time * self.random.uniform(0.5, 2), lambda: self._opened(server))
        if not self.down:
            if len(self.connections) >= self.capacity:
                self.too_many += 1
            else:
                self.connections.add(server)

    def _opened(self, server: Server) -> None:
        if server.state is not OPENING:
            return
        if self.down or server not in self.connections:
            self.connections.discard(server)
            self.do(self.pools.failed(server, DOWN if self.down else FULL, self.now))
            self.do(self.pools.gone(server, self.now))
            return
        self.do(self.pools.learn(self.capacity, self.now))
        self.do(self.pools.opened(server, self.now))

    def _link(self, client: Client, server: Server) -> None:
        assert server.state is LINKED and server.lane is client.lane
        assert server not in self.links and server in self.connections
        assert client.linked is None and not client.ended
        client.linked = self.now
        self.links[server] = client
        self.later(client.work, lambda: self._done(client, server))

    def _done(self, client: Client, server: Server) -> None:
        if self.links.get(server) is not client:
            return
        del self.links[server]
        if not server.lane.put(server):
            following = self.pools.pass_on(server)
            if following is not None:
                self._link(following, server)
            else:
                self.pools.given_back(server)
                self.do(self.pools.cleaned(server, self.now))
        self._end(client, "served")

    def _gone(self, server: Server) -> None:
        if server in self.connections:
            self.connections.remove(server)
            self.do(self.pools.gone(server, self.now))

    def _checked(self, server: Server) -> None:
        if server.state is CHECKING:
            if self.random.random() < 0.9:
                self.do(self.pools.checked(server, self.now))
            else:
                self.do(self.pools.close(server, CloseReason.CHECK_FAILED, self.now))

    def lose(self, server: Server) -> None:
        """Have a server's connection end."""
        if server in self.connections and server.state is not OPENING:
            self.connections.remove(server)
            client = self.links.pop(server, None)
            self.do(self.pools.lost(server, self.now))
            if client is not None:
                self._end(client, "lost")

    # Figures.

    def waits(self) -> list[float]:
        """Give the times that those waited who were served, in order."""
        return sorted(client.linked - client.asked for client in self.clients if client.linked is not None)


def check(world: World) -> None:
    """Raise AssertionError where the law is broken."""
    pools = world.pools
    # Whose turn it is changes with the time, and with each server.
    for _ in range(10):
        todo = pools.tick(world.now)
        world.do(todo)
        if not todo:
            break
    servers = pools.servers
    assert CLOSED not in {server.state for server in servers}
    assert {server for server in servers if server.state is LINKED} == set(world.links)
    assert len(set(map(id, world.links.values()))) == len(world.links)
    lanes = [lane for pool in pools.pools for lane in pool.lanes.values()]
    for lane in lanes:
        own = [server for server in servers if server.lane is lane]
        assert sorted(s.number for s in lane.idle) == sorted(s.number for s in own if s.state is IDLE)
        assert lane.own.count == len(own)
        assert lane.own.opening == sum(server.state is OPENING for server in own)
        assert lane.own.closing == sum(server.state is CLOSING for server in own)
        assert not (lane.idle and lane.waiters)
    for account in accounts(world):
        drawing = [server for server in servers if account in server.lane.accounts]
        assert account.count == len(drawing), account.name
        assert account.kept == 0
    hungry = [lane for lane in pools._hungry if lane.missing > 0 and not lane.barred(world.now)]
    # Who has been promised a place by a limit keeps others from it for a moment.
    for first in pools._claims(world.now).in_order(hungry)[: not pools._promises]:
        opening = pools.target.opening >= pools.rules.opening_at_once
        full = pools._reserve.full(first)
        assert opening or full, "nobody waits where there is room"
        in_vain = not victims(lanes, first, full, pools._reserve.may_lose)
        assert opening or in_vain or pools._awaits_permit(first, full, world.now)
    assert bool(pools._hungry) == any(lane.waiters for lane in lanes)
    assert sum(pool.waiting for pool in pools.pools) == sum(len(lane.waiters) for lane in lanes)
    if not pools.pressed:
        assert not hungry
    if not pools.contested:
        assert not any(account.over for account in accounts(world))
        assert not any(map(pools._wants_others, pools._hungry)), (
            "a server that becomes free is kept from somebody"
        )


def accounts(world: World) -> set[Account]:
    """Give all limits."""
    pools = world.pools
    return {pools.target, pools.ordinary} | {
        account for pool in pools.pools for account in (pool.account, pool.user, pool.database)
    }
