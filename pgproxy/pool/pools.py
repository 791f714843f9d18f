"""
Who has which server: all pools of one target.

Every method takes what happened, and when, and gives back what is to be done, in order; it does nothing
itself. The law:

1. No limit of an `Account` is passed: a server counts from the decision to open it until its connection has
   ended. Where a limit is lowered, surplus servers are closed as they become idle.
2. In a lane it is first come, first served.
3. Nobody waits while a server that fits is idle, while there is room to open one, or while somebody else's
   server is idle without need: that one is closed to make room (in one of several workers only where a permit
   for one more does not come: permits.py).
4. Where nothing is idle, a server that becomes free goes to its own lane's first waiter, unless another pool,
   or another lane of the pool, has waited for much longer in proportion to what it has (fairness.py). So
   nobody starves as long as links end.
5. What a minimum or the administrators' reserve asks for is kept free of others' servers; an idle server that
   a minimum needs is not closed for others.
6. Every wait ends: with a link, with a refusal, or because the client leaves.
7. A few servers are opened at a time. After a failure there is a pause; where waiting does not help, and
   there is no other server, those who wait are told the failure as it is.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from pgproxy.pool import upkeep
from pgproxy.pool.budget import NO_LIMIT, Account
from pgproxy.pool.fairness import Claims
from pgproxy.pool.lane import Lane, Waiter
from pgproxy.pool.permits import GRACE, Part, Permits
from pgproxy.pool.pool import Pool
from pgproxy.pool.reserve import Reserve
from pgproxy.pool.retry import after
from pgproxy.pool.rules import Rules
from pgproxy.pool.states import (
    CHECKING,
    CLOSED,
    CLOSING,
    IDLE,
    LINKED,
    OPENING,
    RELEASING,
    CloseReason,
    Server,
)
from pgproxy.pool.todo import Check, Close, Expire, Link, Open, Refuse, Todo
from pgproxy.pool.trouble import Scope, Trouble
from pgproxy.pool.victims import rank, victims
from pgproxy.session.server import ServerSession
from pgproxy.session.settings import NOTHING_SET, Settings
from pgproxy.twin import quicken
from pgproxy.wire.errors import IN_EACH_WORKER, TOO_MANY_WAITING, Complaint, complaint

Client = TypeVar("Client")
"""Whoever borrows; the pools only hand it back."""


@quicken
class Pools(Generic[Client]):
    """
    The pools of one target. `chance` gives random numbers from 0 to 1.

    With `permits` this is one worker's part of them: a server is opened only if the supervisor has let us.
    """

    __slots__ = (
        "_chance",
        "_held_back",
        "_hungry",
        "_lowered",
        "_numbers",
        "_promises",
        "_reserve",
        "capacity",
        "contested",
        "hurry",
        "ordinary",
        "permits",
        "pools",
        "pressed",
        "rules",
        "servers",
        "target",
        "turns",
    )

    def __init__(
        self, name: str, rules: Rules, chance: Callable[[], float], permits: Permits | None = None
    ) -> None:
        self.target = Account(f"target {name}")
        self.ordinary = Account(f"target {name} (less what is for administrators)")
        self.rules = rules
        self.permits = permits
        self.capacity: int | None = None
        """Servers that the target itself allows, if it has told."""
        self.servers: set[Server] = set()
        self.pools: dict[Pool[Client], None] = {}
        self.pressed = False
        """Whether anybody waits, or there is a server too many."""
        self.contested = False
        """Whether a server that becomes free may be wanted by another pool, or is one too many."""
        self._lowered = False
        """Whether there may be a server too many: that takes a limit that was lowered."""
        self.hurry = False
        """Whether something has become due earlier since `deadline` was asked."""
        self.turns = 0
        """How often a server has become idle."""
        self._reserve = Reserve(self.target)
        self._hungry: dict[Lane[Client], None] = {}
        """Where clients wait."""
        self._held_back: list[Lane[Client]] = []
        """Where they wait for a permit before somebody else loses an idle server."""
        self._promises: dict[Server, Lane[Client]] = {}
        """For whom servers are being closed."""
        self._numbers = 0
        self._chance = chance
        self._set_limits()

    # The limits.

    def configure(self, rules: Rules, now: float) -> list[Todo[Client]]:
        """Take other rules."""
        self.rules = rules
        self.hurry = True
        self._set_limits()
        return self._shed() + self._serve(now)

    def learn(self, capacity: int, now: float) -> list[Todo[Client]]:
        """Enter how many servers the target itself allows."""
        if capacity == self.capacity:
            return []
        self.capacity = capacity
        self._set_limits()
        return self._shed() + self._serve(now)

    def _set_limits(self) -> None:
        self._lowered = True
        budget = self.rules.budget
        if self.permits is not None:
            # The supervisor keeps to it.
            self.target.most = self.ordinary.most = NO_LIMIT
            return
        self.target.most = budget.allows(self.capacity)
        self.ordinary.most = max(1, self.target.most - budget.for_admins)

    def set_database(self, name: str, most: int, least: int) -> Account:
        """Set the limits of a database."""
        self._lowered = True
        return self._reserve.database(name, most, least)

    def set_user(self, name: str, most: int, least: int) -> Account:
        """Set the limits of a user."""
        self._lowered = True
        return self._reserve.user(name, most, least)

    def forget_minimums(self) -> None:
        """Keep nothing free for databases and users, until their limits are set anew."""
        self._reserve.forget_minimums()

    def add_pool(self, database: str, user: str, new_session: Callable[[], ServerSession]) -> Pool[Client]:
        """Make the pool of a database and a user; their limits are set already, if they have any."""
        account = Account(f"pool {database}/{user}")
        pool: Pool[Client] = Pool(
            self, self._reserve.database(database), self._reserve.user(user), new_session, account
        )
        if self.permits is not None:
            pool.permits = self.permits.of_pool(database, user)
            pool.part = Part(database, user, False)
        self.pools[pool] = None
        return pool

    def set_pool(
        self, pool: Pool[Client], most: int, least: int, most_waiting: int, admin: bool, now: float
    ) -> list[Todo[Client]]:
        """Set the limits of a pool."""
        self._lowered = True
        pool.account.most, pool.account.least = most, least
        pool.most_waiting = most_waiting
        if admin is not pool.admin:
            pool.set_admin(admin)
        self._reserve.pool(pool.database, pool.account)
        return self._shed() + self._serve(now)

    def drop_pool(self, pool: Pool[Client]) -> None:
        """Forget a pool that is empty."""
        del self.pools[pool]
        self._reserve.forget(pool.database, pool.account)

    def tidy(self) -> None:
        """Forget lanes that nobody uses, and the limits of databases and users that have no pool."""
        for pool in self.pools:
            for lane in [lane for lane in pool.lanes.values() if not lane.own.count and not lane.waiters]:
                if lane is not pool.recent or not (pool.account.least or self.permits is not None):
                    pool.forget(lane)
        self._reserve.tidy({account for pool in self.pools for account in (pool.database, pool.user)})

    # Clients.

    def borrow(
        self,
        lane: Lane[Client],
        client: Client,
        now: float,
        settings: Settings = NOTHING_SET,
        home: ServerSession | None = None,
        since: float | None = None,
    ) -> list[Todo[Client]]:
        """
        Ask for a server, rather one with `settings`, or best of all `home`.

        `since` says when a client that waits has begun to, if that was elsewhere.
        """
        if client in lane.waiters:
            raise ValueError("this client waits already")
        pool = lane.pool
        server = lane.take(settings, home)
        if server is not None:
            return [Link(client, server)]
        trouble = self._hopeless(lane, now)
        if trouble is not None:
            return [Refuse(lane, client, trouble.complaint)]
        if pool.waiting >= pool.most_waiting:
            each = IN_EACH_WORKER if self.permits is not None else ""
            return [Refuse(lane, client, complaint(TOO_MANY_WAITING, limit=pool.most_waiting, each=each))]
        # What could be done for those who wait here is done: for one more there is nothing, either.
        in_vain = lane.missing > 0
        self._queue(lane, Waiter(client, now if since is None else since, settings, home))
        pool.waiting += 1
        self._hungry[lane] = None
        if in_vain or not self._can_serve(lane, now):
            # For the others nothing has changed: a crowd that comes costs no look at all of it each time.
            self.pressed = True
            self.contested = self.contested or self._wants_others(lane)
            self.hurry = self.hurry or since is not None
            return []
        return self._serve(now)

    def stand_in_line(
        self, lane: Lane[Client], client: Client, now: float, settings: Settings, home: ServerSession | None
    ) -> bool:
        """
        Queue a client behind others, for whom all that can be done is done.

        Says what `borrow` would, without the ceremony; False where that has to be asked.
        """
        pool = lane.pool
        in_vain = lane.missing > 0 and lane.working > 0
        if not in_vain or pool.waiting >= pool.most_waiting or client in lane.waiters:
            return False
        self._queue(lane, Waiter(client, now, settings, home))
        pool.waiting += 1
        return True

    def leave(self, lane: Lane[Client], client: Client) -> None:
        """Take a client that no longer wants a server out of the queue, if it is there."""
        if client in lane.waiters:
            self._unqueue(lane, client)
            self._calm_down()

    def refuse(self, pool: Pool[Client], why: Complaint) -> list[Todo[Client]]:
        """Refuse everybody who waits for a server of a pool."""
        todo = [todo for lane in pool.lanes.values() for todo in self._refuse_all(lane, why)]
        self._press()
        return todo

    def beyond(self, pool: Pool[Client]) -> list[Account]:
        """Give the limits, beside its own, that keep a pool from one more server, the narrowest first."""
        if self.permits is not None:
            # What keeps a worker from it is known to the supervisor.
            return []
        lanes = sorted(pool.lanes.values(), key=lambda lane: not lane.waiters)
        full = [account for lane in lanes[:1] for account in self._reserve.full(lane)]
        covered = {pool.account, self.ordinary} if self.target in full else {pool.account}
        return [account for account in full if account not in covered]

    def has_room(self, lane: Lane[Client]) -> bool:
        """Say whether no limit keeps a lane from one more server."""
        return not self._reserve.full(lane)

    def lend_idle(self, pool: Pool[Client], client: Client) -> list[Todo[Client]]:
        """Lend an idle server, whatever its parameters; if there is none, do nothing."""
        for lane in pool.lanes.values():
            if lane.idle:
                server = lane.idle.pop()
                server.move(LINKED)
                return [Link(client, server)]
        return []

    # Servers.

    def opened(self, server: Server, now: float) -> list[Todo[Client]]:
        """Enter that a server has logged in."""
        if server.state is not OPENING:
            return []
        server.move(RELEASING)
        for account in server.lane.accounts:
            account.opening -= 1
            account.retry = None
        if self.target in server.lane.accounts:
            server.lane.pool.recent = server.lane
        server.heard = now
        return self._settle(server, now) + self._serve(now)

    def failed(self, server: Server, trouble: Trouble, now: float) -> list[Todo[Client]]:
        """Enter that a server could not be opened; say `gone` when its connection has ended."""
        if server.state is not OPENING:
            return []
        self._going(server)
        account, lanes = self._concerned(server.lane, trouble.scope)
        if account.retry is None or now >= account.retry.at:
            account.retry = after(account.retry, trouble, now, self._chance())
            self.hurry = True
        todo: list[Todo[Client]] = []
        if not trouble.passing:
            for lane in lanes:
                if not lane.working:
                    todo += self._refuse_all(lane, trouble.complaint)
        return todo + self._serve(now)

    def given_back(self, server: Server) -> None:
        """Enter that a client is done with its server, which is being made fit for the next."""
        server.move(RELEASING)

    def pass_on(self, server: Server) -> Client | None:
        """
        Give a server that is clean from one client to the next, where nobody else could want it.

        Says what `given_back` and `cleaned` would, without the ceremony; None where these have to be asked.
        """
        lane: Lane[Client] = server.lane
        if server.retiring is not None or server.state is not LINKED:
            return None
        if len(self._hungry) != 1 and (self.contested or lane.pool.waiting != len(lane.waiters)):
            return None
        for account in lane.accounts:
            if account.over:
                return None
        for client in lane.waiters:
            self._was_free(server)
            self._unqueue(lane, client)
            self._calm_down()
            return client
        return None

    def cleaned(self, server: Server, now: float) -> list[Todo[Client]]:
        """Enter that nothing of a client is left in a server that was given back."""
        return self._settle(server, now) if server.state is RELEASING else []

    def checked(self, server: Server, now: float) -> list[Todo[Client]]:
        """Enter that a server has answered."""
        if server.state is not CHECKING:
            return []
        server.heard = now
        return self._settle(server, now)

    def close(self, server: Server, reason: CloseReason, now: float) -> list[Todo[Client]]:
        """Give a server up, whatever its state."""
        if server.state in (CLOSING, CLOSED):
            return []
        self._going(server)
        return [Close(server, reason), *self._serve(now)]

    def gone(self, server: Server, now: float) -> list[Todo[Client]]:
        """Enter that the connection has ended of a server that was told to go."""
        return self.lost(server, now)

    def lost(self, server: Server, now: float, reason: CloseReason = CloseReason.LOST) -> list[Todo[Client]]:
        """Enter that a server's connection has ended."""
        if server.state is CLOSED:
            return []
        if server.state is not CLOSING:
            self._going(server)
        server.move(CLOSED)
        self.servers.remove(server)
        lane = server.lane
        for account in lane.accounts:
            account.closing -= 1
            account.count -= 1
        self._keep_promise(server)
        return self._serve(now)

    def doubt(self, server: Server, now: float) -> list[Todo[Client]]:
        """Enter that a server that was told to go takes its time: for whom that was done may have another."""
        self._keep_promise(server)
        return self._serve(now)

    def retire(self, pool: Pool[Client], reason: CloseReason, now: float) -> list[Todo[Client]]:
        """Have none of today's servers serve anybody else: the idle ones are closed now, the others later."""
        todo: list[Todo[Client]] = []
        for server in sorted(self.servers, key=lambda server: server.number):
            if server.lane.pool is pool:
                server.retiring = reason
                if server.state is IDLE:
                    todo.append(self._end_idle(server, reason))
        return todo + self._serve(now)

    def pause(self, pool: Pool[Client], reason: CloseReason, now: float) -> list[Todo[Client]]:
        """Give nobody a server of a pool, and close those there are: the idle ones now, the others later."""
        pool.paused = True
        return self.retire(pool, reason, now)

    def resume(self, pool: Pool[Client], now: float) -> list[Todo[Client]]:
        """Give servers again. Who waits has waited meanwhile."""
        pool.paused = False
        self.hurry = True
        return self._serve(now)

    def check_idle(self, pool: Pool[Client]) -> list[Todo[Client]]:
        """Have each idle server of a pool asked whether it is still there, before anybody gets it."""
        todo: list[Todo[Client]] = []
        for lane in pool.lanes.values():
            for server in lane.idle:
                server.move(CHECKING)
                todo.append(Check(server))
            lane.idle.clear()
        return todo

    def forgive(self, pool: Pool[Client]) -> None:
        """Enter that what has gone wrong with a pool's logins may go well now."""
        pool.account.retry = None

    def forgive_all(self, now: float) -> list[Todo[Client]]:
        """Enter that the host is as it should be: who waits for another try has it now."""
        for lane in self._lanes():
            for account in lane.accounts:
                account.retry = None
        return self._serve(now)

    # Permits.

    def permit(
        self, account: Account, more: int, now: float, warm: bool = False, why: CloseReason | None = None
    ) -> list[Todo[Client]]:
        """
        Take so many permits for servers, or with less than 0 give servers up, idle ones first.

        `warm` has servers opened although nobody waits.
        """
        assert self.permits is not None
        self._lowered = True
        self.permits.change(account, more, why)
        todo = self._shed() + self._serve(now)
        if warm:
            todo += self._open_with(account, now)
            self._press()
        return todo

    def _open_with(self, account: Account, now: float) -> list[Todo[Client]]:
        todo: list[Todo[Client]] = []
        for pool in self.pools:
            lane = pool.recent
            while lane is not None and account in lane.accounts and self._may_open(lane, now):
                todo.append(Open(self._new_server(lane, now)))
        return todo

    # The clock.

    def tick(self, now: float) -> list[Todo[Client]]:
        """Do what has become due: end waits, try again."""
        todo: list[Todo[Client]] = []
        for lane in list(self._hungry):
            for waiter in list(lane.waiters.values()):
                if now < waiter.since + self.rules.borrow_timeout:
                    break
                self._unqueue(lane, waiter.client)
                todo.append(Expire(lane, waiter.client))
        return todo + self._serve(now)

    def deadline(self, now: float) -> float | None:
        """Say when `tick` next has something to do. It can become earlier only where `hurry` is set."""
        self.hurry = False
        times = []
        for lane in self._hungry:
            for waiter in lane.waiters.values():
                times.append(waiter.since + self.rules.borrow_timeout)
                break
            times += [retry.at for retry in lane.retries if retry.at > now]
        times += [self._permit_due(lane) for lane in self._held_back if lane.waiters]
        return min(times, default=None)

    def look(self, now: float) -> list[Todo[Client]]:
        """Look after the servers that nobody uses; to be called every second or so."""
        todo: list[Todo[Client]] = []
        rules = self.rules
        for server in self.servers:
            if rules.lifetime and now >= server.expires and server.retiring is None:
                server.retiring = CloseReason.LIFETIME
        idle = [server for server in self.servers if server.state is IDLE]
        for server, reason in upkeep.due(idle, rules, rules.budget.allows_idle(self.capacity), now):
            if reason is not None:
                todo.append(self._end_idle(server, reason))
            else:
                server.lane.idle.remove(server)
                server.move(CHECKING)
                todo.append(Check(server))
        return todo + self._warm(now) + self.tick(now)

    def _warm(self, now: float) -> list[Todo[Client]]:
        """Open what the pools' minimums want, for those who may come."""
        todo: list[Todo[Client]] = []
        for pool in self.pools:
            lane = pool.recent
            while lane is not None and pool.account.share < pool.account.least and self._may_open(lane, now):
                todo.append(Open(self._new_server(lane, now)))
        return todo

    # Who is next.

    def _settle(self, server: Server, now: float) -> list[Todo[Client]]:
        """Give a server that has become free to whom it is due."""
        lane = server.lane
        if server.retiring is not None:
            return self.close(server, server.retiring, now)
        if any(account.over for account in lane.accounts):
            return self.close(server, self._why_over(lane), now)
        rival = self._rival(lane, now)
        if rival is not None:
            self._going(server)
            self._promise(server, rival)
            return [Close(server, CloseReason.NEEDED_ELSEWHERE), *self._serve(now)]
        for waiter in lane.waiters.values():
            server.move(LINKED)
            self._was_free(server)
            self._unqueue(lane, waiter.client)
            self._calm_down()
            return [Link(waiter.client, server)]
        self._now_idle(server)
        return self._serve(now)

    def _rival(self, lane: Lane[Client], now: float) -> Lane[Client] | None:
        """Give the lane for which a free server of this one is to be closed, if there is one."""
        if len(self._hungry) <= (lane in self._hungry):
            return None
        others = (other for other in self._hungry if other is not lane)
        for other in self._claims(now).before(lane, others):
            if other.missing <= 0 or other.barred(now):
                continue
            full = self._reserve.full(other)
            # Who is kept back by two limits gets a place within the narrower one first, and keeps it.
            fits = full and full[0] in lane.accounts and self._reserve.may_lose(lane, other)
            if fits and not self._awaits_permit(other, full, now):
                return other
        return None

    def _awaits_permit(self, lane: Lane[Client], full: list[Account], now: float) -> bool:
        """Say whether all that a lane lacks is a permit, and one may come."""
        permits = self.permits
        hopes = permits is not None and full == [lane.accounts[1]] and permits.may_come(full[0])
        return hopes and now < self._permit_due(lane)

    def _permit_due(self, lane: Lane[Client]) -> float:
        """Say until when the first in a queue, in which somebody waits, waits for a permit."""
        # The very sum that `deadline` gives: by a difference it may not have come by then.
        return next(iter(lane.waiters.values())).since + GRACE

    def _claims(self, now: float) -> Claims[Client]:
        return Claims(now, self._reserve.owed)

    def _counted(self, lane: Lane[Client]) -> bool:
        """Say whether a lane's servers count for the target's limit."""
        return self.target in lane.accounts

    def _serve(self, now: float) -> list[Todo[Client]]:
        """Do for those who wait what can be done: open a server, or close somebody's idle one for it."""
        todo: list[Todo[Client]] = []
        self._held_back.clear()
        exhausted = self.target.count >= self.target.most and all(map(self._counted, self._hungry))
        if not self._hungry or (exhausted and not any(lane.idle for lane in self._lanes())):
            self._press()
            return todo
        # Who is promised a server's place keeps what else it will need.
        kept = [
            account
            for server, lane in self._promises.items()
            for account in lane.accounts
            if account not in server.lane.accounts
        ]
        for account in kept:
            account.kept += 1
        for lane in self._claims(now).in_order(self._hungry):
            while lane.missing > 0 and not lane.barred(now):
                full = self._reserve.full(lane)
                if not full:
                    if self.target.opening >= self.rules.opening_at_once:
                        break
                    todo.append(Open(self._new_server(lane, now)))
                    continue
                spared = victims(self._concerns(lane, full), lane, full, self._reserve.may_lose)
                if not spared:
                    # What it will need beside is not to go to those behind it.
                    for account in lane.accounts[: lane.accounts.index(full[0])]:
                        account.kept += 1
                        kept.append(account)
                    break
                if self._awaits_permit(lane, full, now):
                    self._held_back.append(lane)
                    self.hurry = True
                    break
                for victim in spared:
                    todo.append(self._end_idle(victim, CloseReason.NEEDED_ELSEWHERE))
                    self._promise(victim, lane)
        for account in kept:
            account.kept -= 1
        self._press()
        return todo

    def _can_serve(self, lane: Lane[Client], now: float) -> bool:
        """Say whether there may be something to do for a lane: room, or somebody's idle server."""
        if lane.missing <= 0 or lane.barred(now):
            return False
        full = self._reserve.full(lane)
        if full:
            return any(other.idle for other in self._concerns(lane, full))
        return self.target.opening < self.rules.opening_at_once

    def _concerns(self, lane: Lane[Client], full: list[Account]) -> Iterable[Lane[Client]]:
        """Give the lanes whose servers may stand in the way of one that limits keep back."""
        return lane.pool.lanes.values() if self._is_of_pool(full[0], lane) else self._lanes()

    def _is_of_pool(self, account: Account, lane: Lane[Client]) -> bool:
        """Say whether nobody's servers but those of a lane's pool count for an account."""
        return account is lane.pool.account or account in (lane.pool.permits or ())

    def _wants_others(self, lane: Lane[Client]) -> bool:
        """Say whether the end of another pool's server could help those who wait in a lane."""
        full = self._reserve.full(lane)
        return bool(full) and not self._is_of_pool(full[0], lane)

    def _press(self) -> None:
        if self._lowered:
            # There may be hundreds of pools: they are looked at once for each change of a limit.
            self._lowered = any(account.over for account in self._accounts())
        self.pressed = bool(self._hungry) or self._lowered
        self.contested = self._lowered or any(map(self._wants_others, self._hungry))

    def _calm_down(self) -> None:
        """Enter that one waits less."""
        if not self._hungry:
            self._press()

    def _accounts(self) -> Iterator[Account]:
        yield from (self.target, self.ordinary)
        for pool in self.pools:
            yield from (pool.account, pool.user, pool.database, *(pool.permits or ()))

    def _may_open(self, lane: Lane[Client], now: float) -> bool:
        return (
            self.target.opening < self.rules.opening_at_once
            and not lane.barred(now)
            and not self._reserve.full(lane)
        )

    # After a failure.

    def _concerned(self, lane: Lane[Client], scope: Scope) -> tuple[Account, list[Lane[Client]]]:
        """Give where a failure is noted, and whom it concerns."""
        if scope is Scope.PARAMETERS or (scope is Scope.TARGET and self.target not in lane.accounts):
            return lane.own, [lane]
        if scope is Scope.POOL:
            return lane.pool.account, list(lane.pool.lanes.values())
        return self.target, list(self._lanes())

    def _hopeless(self, lane: Lane[Client], now: float) -> Trouble | None:
        """Say why there is no use in waiting, if so."""
        if not lane.working:
            for retry in lane.retries:
                if not retry.trouble.passing and now < retry.at:
                    return retry.trouble
        return None

    # The one door for each change.

    def _lanes(self) -> Iterator[Lane[Client]]:
        return (lane for pool in self.pools for lane in pool.lanes.values())

    def _new_server(self, lane: Lane[Client], now: float) -> Server:
        self._numbers += 1
        lifetime = self.rules.lifetime * (0.9 + 0.2 * self._chance()) if self.rules.lifetime else NO_LIMIT
        server = Server(self._numbers, lane, lane.pool.new_session(), now + lifetime)
        self.servers.add(server)
        for account in lane.accounts:
            account.count += 1
            account.opening += 1
        return server

    def _now_idle(self, server: Server) -> None:
        if server.state is CHECKING:
            # To be asked is no use: it has been idle for as long as before.
            server.move(IDLE)
            insort(server.lane.idle, server, key=lambda idle: idle.turn)
            return
        server.move(IDLE)
        self._was_free(server)
        server.lane.idle.append(server)

    def _was_free(self, server: Server) -> None:
        self.turns += 1
        server.turn = self.turns

    def _end_idle(self, server: Server, reason: CloseReason) -> Close:
        self._going(server)
        return Close(server, reason)

    def _going(self, server: Server) -> None:
        lane = server.lane
        if server.state is IDLE:
            lane.idle.remove(server)
        opening = server.state is OPENING
        server.move(CLOSING)
        for account in lane.accounts:
            account.closing += 1
            account.opening -= opening

    def _promise(self, server: Server, lane: Lane[Client]) -> None:
        self._promises[server] = lane
        for account in (lane.own, lane.pool.account):
            account.promised += 1

    def _keep_promise(self, server: Server) -> None:
        lane = self._promises.pop(server, None)
        if lane is not None:
            for account in (lane.own, lane.pool.account):
                account.promised -= 1

    def _queue(self, lane: Lane[Client], waiter: Waiter[Client]) -> None:
        """Queue a waiter behind all who have waited for longer: most times behind everybody."""
        waiters = lane.waiters
        later = bool(
            waiter.since < lane.latest and waiters and next(reversed(waiters.values())).since > waiter.since
        )
        waiters[waiter.client] = waiter
        if later:
            ordered = sorted(waiters.items(), key=lambda item: item[1].since)
            waiters.clear()
            waiters.update(ordered)
        else:
            lane.latest = waiter.since

    def _unqueue(self, lane: Lane[Client], client: Client) -> None:
        del lane.waiters[client]
        lane.pool.waiting -= 1
        if not lane.waiters:
            del self._hungry[lane]

    def _refuse_all(self, lane: Lane[Client], why: Complaint) -> list[Todo[Client]]:
        waiting = list(lane.waiters)
        for client in waiting:
            self._unqueue(lane, client)
        return [Refuse(lane, client, why) for client in waiting]

    def _why_over(self, lane: Lane[Client]) -> CloseReason:
        """Say why a lane's servers are too many."""
        if self.permits is not None and lane.accounts[1].over:
            return self.permits.why_over(lane.accounts[1])
        return CloseReason.SURPLUS

    def _shed(self) -> list[Todo[Client]]:
        """Close idle servers that are too many."""
        todo: list[Todo[Client]] = []
        for server in sorted((server for server in self.servers if server.state is IDLE), key=rank):
            if any(account.over for account in server.lane.accounts):
                todo.append(self._end_idle(server, self._why_over(server.lane)))
        return todo
