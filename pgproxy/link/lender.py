"""Performs what a pool decides: lends, cleans, cancels and closes servers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from secrets import token_hex
from typing import Any

from attrs import frozen
from structlog.typing import FilteringBoundLogger
from twisted.internet.defer import Deferred, succeed

from pgproxy.auth.secrets import Credentials
from pgproxy.config import Config
from pgproxy.figures.histogram import Histogram
from pgproxy.figures.sample import Sample
from pgproxy.figures.sampling import Turns
from pgproxy.link.accounts import Accounts
from pgproxy.link.cancel import Outcome, cancel_at
from pgproxy.link.checking import Checks
from pgproxy.link.connections import Connections, Place
from pgproxy.link.release import Releasing
from pgproxy.link.server import Account, ServerConnection
from pgproxy.link.splice import Borrower
from pgproxy.link.target import TargetPools
from pgproxy.link.threads import Threads
from pgproxy.link.vault import Vault
from pgproxy.pool.explain import who_holds_what
from pgproxy.pool.pool import Pool
from pgproxy.pool.release import Leftover
from pgproxy.pool.states import CloseReason, Parameters, Server
from pgproxy.pool.todo import Check, Close, Expire, Link, Open, Refuse, Todo
from pgproxy.pool.trouble import Trouble
from pgproxy.session.hidden import HIDING_REMEDY
from pgproxy.session.ledger import Ledger
from pgproxy.session.reported import Reported, with_status
from pgproxy.session.server import Habits, ServerSession
from pgproxy.session.settings import Settings
from pgproxy.session.statements import ServerStatements
from pgproxy.twin import quicken
from pgproxy.wire.errors import BORROW_TIMEOUT, Complaint, complaint

_OUR_NAMES = b"pgproxy_" + token_hex(4).encode() + b"_"
"""How the names begin that we give to prepared statements; not to be guessed, so nobody else's do."""
HIDING_AGE = 60.0
"""Seconds for which a pool that is used goes by what it was told that statements do in hiding."""
_STANDBY = b"in_hot_standby"
_WELCOMES_KEPT = 100
"""Sets of startup parameters for which a pool remembers how a server greets."""


@quicken
@frozen
class Limits:
    """Limits of a pool; servers where not said otherwise."""

    most: int
    least: int
    """Kept open for those who may come."""
    most_waiting: int
    """Clients."""
    admin: bool
    """Whether it may have what is reserved for administrators."""
    connect_timeout: float
    """Seconds."""
    cancel_timeout: float
    """Seconds."""
    prepared_statements: int
    """Statements that a server keeps prepared."""
    session_mode: bool
    """Whether a server is cleaned for whoever comes next, since they may be of session mode."""


@quicken
class ServerLender:
    """The servers of one pool. Where that is moved to another target, a new pool takes its place."""

    __slots__ = (
        "_accounts",
        "_checks",
        "_connections",
        "_credentials",
        "_dismissed",
        "_habits",
        "_kept",
        "_left",
        "_limits",
        "_log",
        "_names",
        "_paused",
        "_pool",
        "_reactor",
        "_releasing",
        "_spare",
        "_target",
        "_thorough_after",
        "_thorough_at",
        "_threads",
        "_vault",
        "_waits",
        "clients",
        "place",
        "turns",
        "welcomes",
    )

    def __init__(
        self,
        reactor: Any,
        threads: Threads,
        names: tuple[str, str],
        place: Place,
        limits: Limits,
        target: TargetPools,
        log: FilteringBoundLogger,
        vault: Vault | None = None,
        accounts: Accounts | None = None,
    ) -> None:
        self._accounts = accounts or Accounts(Config())
        self.turns = Turns(self._accounts.pace)
        """How often a client was given a server."""
        self._kept = Turns(self._accounts.pace)
        """How many transactions have begun in servers that were kept."""
        self._reactor = reactor
        self._threads = threads
        self._names = names
        """The database that clients ask for, and the user."""
        self.place = place
        """Where servers are opened from now on."""
        self._limits = limits
        self._target = target
        self._log = log
        self._vault = vault
        self._habits = Habits()
        self._checks = Checks(
            self._lend_idle,
            self.hand_on,
            partial(self.retire, CloseReason.DEFAULTS_CHANGED),
            self._asked,
            reactor,
            self._log,
        )
        self._thorough_at = reactor.seconds()
        """When it was asked last what is done in hiding, ..."""
        self._thorough_after = 0
        """... and how often a client had been given a server by then."""
        self._pool = self._join(target)
        self._left: dict[Pool[Borrower], TargetPools] = {}
        """Pools of before, until their servers are gone."""
        self._spare: dict[TargetPools, tuple[Pool[Borrower], Place]] = {}
        """Pools at hosts that may be the writer next, with a few servers each."""
        self._connections = Connections(reactor, threads, names[1], self, log, vault)
        self._releasing: dict[Server, Releasing] = {}
        self._waits: Histogram | None = None
        """How long its clients have waited, together with those of other users of the database."""
        self._paused: CloseReason | None = None
        self._dismissed: Complaint | None = None
        """Why nobody gets a server here any more, if so."""
        self.clients = 0
        """How many clients may borrow here."""
        self._credentials = Credentials()
        self.welcomes: dict[Parameters, Reported] = {}
        """By startup parameters, what the server that was opened last reported when we had logged in."""

    def _join(self, target: TargetPools) -> Pool[Borrower]:
        pool = target.join(self, *self._names, self._new_session)
        self._set_limits(target, pool)
        return pool

    def _set_limits(self, target: TargetPools, pool: Pool[Borrower]) -> None:
        limits = self._limits
        target.do(
            target.pools.set_pool(
                pool, limits.most, limits.least, limits.most_waiting, limits.admin, target.now()
            )
        )

    @property
    def pool(self) -> Pool[Borrower]:
        """What decides, for those who want to look."""
        return self._pool

    @property
    def names(self) -> tuple[str, str]:
        """The database that clients ask for, and the user."""
        return self._names

    @property
    def account_of_clients(self) -> Account:
        """As whom its servers are logged in to."""
        return Account(self._names[1], self.place.database, self._credentials, self._vault)

    @property
    def dismissed(self) -> bool:
        """Whether nobody gets a server here any more."""
        return self._dismissed is not None

    @property
    def credentials(self) -> Credentials:
        """What the client that logged in last has given us to log in with."""
        return self._credentials

    @credentials.setter
    def credentials(self, credentials: Credentials) -> None:
        if credentials != self._credentials:
            self._credentials = credentials
            self._target.pools.forgive(self._pool)

    @property
    def releasing(self) -> int:
        """How many servers are being made fit for the next client, or ended."""
        return len(self._releasing)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to keep, and nobody to keep something for."""
        warm = self._dismissed is None and self._pool.to_be_warm
        idle = self._pool.empty and not self._left and not self._spare
        return idle and not self.clients and not warm

    @property
    def outstanding(self) -> int:
        """How many servers are in use, and how many clients wait for one."""
        return sum(server.borrower is not None for server in self._connections) + self._pool.waiting

    def came(self) -> None:
        """Enter that one client more may borrow here."""
        self.clients += 1

    def went(self) -> None:
        """Enter that one no longer will."""
        self.clients -= 1

    @property
    def servers_with_tls(self) -> int:
        """How many of its servers have TLS."""
        return self._connections.with_tls

    # What borrowers ask.

    def borrow(
        self,
        client: Borrower,
        parameters: Parameters,
        settings: Settings,
        home: ServerSession | None,
        since: float | None = None,
    ) -> None:
        """Ask for a server; `since` says when the client has begun to wait, if that was elsewhere."""
        if self._dismissed is not None:
            client.refused(self._dismissed)
            return
        target = self._target
        lane = self._pool.lane(parameters)
        if since is None and target.stand_in_line(lane, client, settings, home):
            return
        target.do(target.pools.borrow(lane, client, target.now(), settings, home, since))

    def take(
        self, client: Borrower, parameters: Parameters, settings: Settings, home: ServerSession | None
    ) -> ServerConnection | None:
        """Lend a server that is idle and fits, where nobody waits for one; else do nothing."""
        if self._dismissed is not None:
            return None
        lane = self._pool.last
        if lane is None or lane.parameters is not parameters:
            lane = self._pool.lane(parameters)
        record = lane.take(settings, home)
        if record is None:
            return None
        server: ServerConnection = record.connection
        server.borrower = client
        turns = self.turns
        turns.count += 1
        if turns.count >= turns.due:
            client.look_closely(turns.look(self._target.now()))
        return server

    def waited(self, seconds: float, text_of: Callable[[bytes], bytes] | None) -> Sample | None:
        """Enter that somebody has waited for a server, and has it if `text_of` is there; see `Sample`."""
        if self._waits is None:
            self._waits = self._accounts.waits(self._names[0])
        self._waits.add(seconds)
        if text_of is None:
            self._accounts.tally(self._names[0]).in_vain += 1
            return None
        turns = self.turns
        turns.count += 1
        if turns.count < turns.due:
            return None
        return Sample(turns.look(self._target.now()), seconds, text_of)

    def kept(self, client: Borrower) -> None:
        """Enter that a transaction begins in a server that is kept."""
        turns = self._kept
        turns.count += 1
        if turns.count >= turns.due:
            client.look_closely(turns.look(self._target.now()))

    def looked(self, sample: Sample) -> None:
        """Enter what was seen of a transaction."""
        self._accounts.looked(*self._names, sample)

    def leave(self, client: Borrower, aborts: bool) -> None:
        """Take a client out of the queue; `aborts`: although it has asked for something."""
        if aborts:
            self._accounts.tally(self._names[0]).aborted += 1
        for lane in self._pool.lanes.values():
            if client in lane.waiters:
                self._target.pools.leave(lane, client)
                return

    def alarm(self) -> None:
        """Take the word that a server may not be what it was."""
        self._target.alarm()

    def account(self, client: Borrower) -> tuple[str, str]:
        """Say, to one who waits, who has the servers, and what can be done about it."""
        now = self._target.now()
        since = [lane.waiters[client].since for lane in self._pool.lanes.values() if client in lane.waiters]
        return self._account(now - since[0] if since else 0.0)

    def _account(self, waited: float) -> tuple[str, str]:
        holds = [server.borrower.hold for server in self._connections if server.borrower is not None]
        return who_holds_what(self._pool, holds, waited)

    def check(self, patient: bool) -> Deferred[None] | None:
        """
        See whether new servers would begin with other settings; fires when that is known.

        None where there is no server to ask; without patience that is an idle one.
        """
        if not self._pool.working or not (patient or self._pool.idle):
            return None
        return self._checks.check()

    def _lend_idle(self, check: Borrower) -> bool:
        todo = self._target.pools.lend_idle(self._pool, check)
        self._target.do(todo)
        return bool(todo)

    def hand_on(self, server: ServerConnection) -> None:
        """Take back a server in which nothing is left."""
        if self._limits.session_mode:
            self.give_back(server, Leftover(Ledger(), used=True))
            return
        record = server.record
        server.borrower = None
        server.rest()
        if not record.lane.put(record):
            pools = record.lane.pool.pools
            client = pools.pass_on(record)
            if client is not None:
                server.borrower = client
                self._of(record).link(client, server)
                return
            pools.given_back(record)
            self._settled(record)
        elif self._checks.wanted:
            self._checks.idle()

    def _settled(self, record: Server) -> None:
        """Have a server that was made fit go where it is wanted."""
        target = self._of(record)
        target.do(target.pools.cleaned(record, target.now()))
        if self._checks.wanted:
            self._checks.idle()

    def give_up(self, server: ServerConnection, reason: CloseReason) -> None:
        """Close a server."""
        server.borrower = None
        self._close(server, reason)

    def make_way(self, databases: tuple[bytes, ...]) -> None:
        """Have the idle servers of all pools leave these databases."""
        target = self._target
        if target.elsewhere is not None:
            target.elsewhere.make_way(target.name, databases)
        target.make_way(databases)

    def _asked(self, hidden: bool | None) -> None:
        """Enter what an idle server says that statements do in hiding; None where there was none to ask."""
        if hidden is None:
            self._habits.overdue = True
        elif self._habits.told(hidden):
            self.hides()

    def hides(self) -> None:
        """Have all pools of the database know that statements do something in hiding, and say so."""
        self._log.warning("hiding_found", remedy=HIDING_REMEDY)
        for lender in self._target.lenders:
            if lender.place.database == self.place.database:
                lender.learn_hiding()

    def learn_hiding(self) -> None:
        """Enter that statements do something in hiding."""
        self._habits.hidden = True

    def defaults_changed(self) -> None:
        """Have all pools open new servers from now on."""
        target = self._target
        if target.elsewhere is not None:
            target.elsewhere.defaults_changed(target.name)
        target.defaults_changed()

    def retire(self, reason: CloseReason) -> None:
        """Have none of today's servers serve anybody else."""
        self.welcomes.clear()
        target = self._target
        target.do(target.pools.retire(self._pool, reason, target.now()))

    @property
    def target(self) -> TargetPools:
        """Where the pool is now."""
        return self._target

    @property
    def paused(self) -> bool:
        """Whether an administrator has paused the pool."""
        return self._paused is not None

    def pause(self, reason: CloseReason) -> None:
        """Lend no server until `resume`; those there are are closed as soon as nobody has them."""
        self._paused = reason
        target = self._target
        target.do(target.pools.pause(self._pool, reason, target.now()))

    def resume(self) -> None:
        """Lend servers again."""
        if self._paused is not None:
            self._paused = None
            target = self._target
            target.do(target.pools.resume(self._pool, target.now()))

    def connection(self, record: Server) -> ServerConnection | None:
        """Give the connection of one of our servers, once it is open."""
        connection: ServerConnection | None = record.connection
        return connection

    def borrower(self, record: Server) -> Borrower | None:
        """Say who has one of our servers."""
        server = self.connection(record)
        return server.borrower if server is not None else None

    def give_back(self, server: ServerConnection, left: Leftover) -> None:
        """Make a server fit for the next client."""
        record = server.record
        server.borrower = None
        record.lane.pool.pools.given_back(record)
        releasing = Releasing(server, left, self._reactor.seconds, self.cancel, self._ready, self._close)
        self._releasing[record] = releasing
        releasing.start()

    def cancel(self, server: ServerConnection) -> Deferred[None]:
        """Send a cancel request to a server; until its fate is known, the server is not handed on."""
        if not server.pid:
            return succeed(None)
        server.cancels += 1
        waited = Deferred.fromCoroutine(
            cancel_at(self._reactor, self._threads, server.host, server.pid, server.secret)
        )
        waited.addTimeout(
            self._limits.cancel_timeout,
            self._reactor,
            onTimeoutCancel=lambda _value, _seconds: Outcome.IN_DOUBT,
        )
        waited.addErrback(lambda _failure: Outcome.IN_DOUBT)
        return waited.addCallback(self._cancelled, server)

    def _cancelled(self, outcome: Outcome, server: ServerConnection) -> None:
        server.cancels -= 1
        if outcome is Outcome.IN_DOUBT:
            server.cancel_in_doubt = True
        self._log.info("cancel_sent", server=server.record.number, outcome=outcome.value)
        releasing = self._releasing.get(server.record)
        if releasing is not None:
            releasing.proceed()
        elif server.borrower is not None:
            server.borrower.cancel_sent()

    # What the owner asks.

    def configure(self, place: Place, limits: Limits, target: TargetPools, moved: bool) -> None:
        """Take other limits, and where servers are opened from now on; `moved` if today's are elsewhere."""
        self.place = place
        self._limits = limits
        self._dismissed = None
        if moved:
            self._habits = Habits()
            self.retire(CloseReason.MOVED)
            self.keep_spare({}, 0)
        if target is not self._target:
            self._move_to(target)
        self._set_limits(target, self._pool)

    def keep_spare(self, spares: dict[TargetPools, Place], most: int) -> None:
        """Have so many servers open at hosts that may be the writer next, and at no others."""
        if self._dismissed is not None or not self.clients:
            spares = {}
        elif self._pool.recent is None:
            # It has only just come here, or nobody has: there are to be no more than there are.
            spares = {target: place for target, place in spares.items() if target in self._spare}
        for target in [target for target in self._spare if target not in spares]:
            pool, _place = self._spare.pop(target)
            self._left[pool] = target
            self._want_no_more(target, pool)
            target.do(target.pools.retire(pool, CloseReason.SURPLUS, target.now()))
        limits = self._limits
        least = min(most, limits.most)
        recent = self._pool.recent
        for target, place in spares.items():
            pool, before = self._spare.get(target) or (self._join(target), None)
            self._spare[target] = pool, place
            if recent is not None:
                pool.recent = pool.lane(recent.parameters)
            if place == before and (pool.account.most, pool.account.least) == (limits.most, least):
                # It is asked for every second; the sweep of the target does the rest.
                continue
            target.do(target.pools.set_pool(pool, limits.most, least, 0, limits.admin, target.now()))

    def fail_over(self, place: Place, target: TargetPools, reason: CloseReason) -> None:
        """Have another host serve from now on; what is under way at the one before is lost."""
        before, pool = self._target, self._pool
        self.place = place
        self.welcomes.clear()
        if target is not before:
            self._move_to(target)
        # A link may also have outlived a reload there.
        for one in [pool, *(left for left, at in self._left.items() if at is before and left is not pool)]:
            self._cut(before, one, reason)

    def send_away(self) -> None:
        """Have those who wait here ask again, where there is something to be had."""
        waiting = [waiter for lane in self._pool.lanes.values() for waiter in lane.waiters.values()]
        for waiter in waiting:
            self.leave(waiter.client, aborts=False)
            waiter.client.again(waiter.since)

    def cut(self, reason: CloseReason) -> None:
        """Close every server; what is under way is lost, who waits goes on waiting."""
        self._cut(self._target, self._pool, reason)

    def _cut(self, target: TargetPools, pool: Pool[Borrower], reason: CloseReason) -> None:
        records = [record for record in target.pools.servers if record.lane.pool is pool]
        for record in sorted(records, key=lambda record: record.number):
            connection, borrower = self.connection(record), self._part(record)
            # Closed first: whoever is told may ask for another at once.
            target.do(target.pools.close(record, reason, target.now()))
            if borrower is not None and connection is not None:
                borrower.server_lost(connection, reason)

    def _move_to(self, target: TargetPools) -> None:
        """Have those who wait do so at another target."""
        before, pool = self._target, self._pool
        waiting = [(lane, waiter) for lane in pool.lanes.values() for waiter in lane.waiters.values()]
        for lane, waiter in waiting:
            before.pools.leave(lane, waiter.client)
        self._left[pool] = before
        spare = self._spare.pop(target, None)
        self._target, self._pool = target, spare[0] if spare is not None else self._join(target)
        self._pool.paused = self._paused is not None
        self._set_limits(target, self._pool)
        if spare is not None and self._paused is not None:
            target.do(target.pools.pause(self._pool, self._paused, target.now()))
        elif spare is not None:
            # They say that they are in recovery, until they are asked.
            target.do(target.pools.check_idle(self._pool))
        for lane, waiter in waiting:
            there, client = self._pool.lane(lane.parameters), waiter.client
            target.do(target.pools.borrow(there, client, target.now(), waiter.settings, None, waiter.since))
        self._want_no_more(before, pool)

    def _want_no_more(self, target: TargetPools, pool: Pool[Borrower]) -> None:
        """Have no servers opened in a pool for those who may come."""
        most, waiting, admin = pool.account.most, pool.most_waiting, pool.admin
        target.do(target.pools.set_pool(pool, most, 0, waiting, admin, target.now()))

    def dismiss(self, why: Complaint) -> None:
        """Give nobody a server any more; who has one keeps it for as long as the link lasts."""
        self._dismissed = why
        self._want_no_more(self._target, self._pool)
        self._target.do(self._target.pools.refuse(self._pool, why))
        self.retire(CloseReason.REMOVED)
        self.keep_spare({}, 0)

    def check_overdue(self) -> None:
        """Close the servers whose cleaning does not end, or that don't answer what we ask."""
        limit = self._limits.cancel_timeout
        for releasing in list(self._releasing.values()):
            if releasing.overdue(limit):
                releasing.give_up()
            else:
                releasing.insist()
        for server in list(self._connections):
            borrower = server.borrower
            if borrower is not None and borrower.overdue(limit):
                server.borrower = None
                borrower.server_lost(server, CloseReason.QUESTION_TIMEOUT)
                self._close(server, CloseReason.QUESTION_TIMEOUT)
        self._connections.check_overdue(limit)
        self._look_after_hiding()
        for pool, target in list(self._left.items()):
            if pool.empty:
                target.leave(pool)
                del self._left[pool]

    def _look_after_hiding(self) -> None:
        """Have it asked what statements do in hiding, where that may be otherwise by now."""
        now, links = self._reactor.seconds(), self.turns.count
        old = links != self._thorough_after and now - self._thorough_at >= HIDING_AGE
        if (old or self._habits.due) and self._pool.working and not self._limits.session_mode:
            self._habits.due = False
            self._thorough_at, self._thorough_after = now, links
            self._checks.be_thorough()

    def end(self) -> None:
        """Leave the target, empty as it is."""
        self._accounts.tally(self._names[0]).links += self.turns.count
        self._target.leave(self._pool)

    def close_all(self) -> None:
        """Close every server; the linked ones' clients are told."""
        for pool, target in self._targets().items():
            for record in [record for record in target.pools.servers if record.lane.pool is pool]:
                connection, borrower = self.connection(record), self.borrower(record)
                if borrower is not None and connection is not None:
                    borrower.server_lost(connection, CloseReason.SHUTDOWN)
                target.do(target.pools.close(record, CloseReason.SHUTDOWN, target.now()))

    def _targets(self) -> dict[Pool[Borrower], TargetPools]:
        """Give all pools, and where they are."""
        spare = {pool: target for target, (pool, _place) in self._spare.items()}
        return {self._pool: self._target, **self._left, **spare}

    def _of(self, record: Server) -> TargetPools:
        """Give the target that a server is of."""
        pool = record.lane.pool
        return self._target if pool is self._pool else self._targets()[pool]

    def _place_of(self, record: Server) -> Place:
        """Say where a server is to be opened."""
        pool = record.lane.pool
        return next((place for spare, place in self._spare.values() if spare is pool), self.place)

    # What the pool decides.

    def _new_session(self) -> ServerSession:
        statements = ServerStatements(_OUR_NAMES, self._limits.prepared_statements)
        return ServerSession(self._names[1].encode("utf-8", "surrogateescape"), statements, self._habits)

    def perform(self, item: Todo[Borrower]) -> None:
        """Do what has been decided about this pool."""
        match item:
            case Link(client, record):
                server: ServerConnection = record.connection
                server.borrower = client
                client.linked(server)
            case Open(record):
                place = self._place_of(record)
                self._connections.open(record, place, self.credentials, self._limits.connect_timeout)
            case Close(record, reason):
                releasing = self._releasing.pop(record, None)
                if releasing is not None:
                    releasing.over()
                self._part(record)
                self._accounts.closed[self._of(record).name, reason.value] += 1
                self._connections.close(record, reason)
            case Check(record):
                self._connections.check(record)
            case Refuse(_lane, client, why):
                client.refused(why)
            case Expire(_lane, client):
                timeout = self._target.pools.rules.borrow_timeout
                detail, hint = self._account(timeout)
                client.refused(complaint(BORROW_TIMEOUT, detail, hint, seconds=f"{timeout:g}"))

    def _ready(self, server: ServerConnection) -> None:
        del self._releasing[server.record]
        self._settled(server.record)

    def _close(self, server: ServerConnection, reason: CloseReason) -> None:
        target = self._of(server.record)
        target.do(target.pools.close(server.record, reason, target.now()))

    def _part(self, record: Server) -> Borrower | None:
        """Have nobody have a server any more; say who had it."""
        server: ServerConnection | None = record.connection
        if server is None:
            return None
        borrower, server.borrower = server.borrower, None
        return borrower

    # What becomes of servers.

    def server_opened(self, connection: ServerConnection) -> None:
        """Take the word that a server has logged in."""
        self._accounts.opened[self._target.name] += 1
        self._accounts.opened_in_tls[self._target.name] += not connection.transport.plain
        record = connection.record
        elsewhere, greeting = self._target.elsewhere, record.session.greeting
        if record.retiring is None and record.lane.pool is self._pool:
            # What all have been told, not what we know: that outlives what is forgotten there.
            if (
                elsewhere is not None
                and elsewhere.welcomes(*self._names).get(record.parameters) is not greeting
            ):
                elsewhere.welcome(*self._names, record.parameters, greeting)
            self._enter_welcome(record.parameters, greeting)
        self._of(record).opened(connection)

    def welcome(self, parameters: Parameters, greeting: Reported) -> None:
        """Take the word how a server of another worker greets; let those in who wait only for that."""
        self._enter_welcome(parameters, greeting)
        lane = self._pool.lanes.get(parameters)
        for client in list(lane.waiters) if lane is not None else ():
            # Each may have something to say at once, and change who waits.
            if lane is not None and client in lane.waiters:
                client.greeted(greeting)

    def _enter_welcome(self, parameters: Parameters, greeting: Reported) -> None:
        if len(self.welcomes) >= _WELCOMES_KEPT:
            self.welcomes.pop(next(iter(self.welcomes)))
        self.welcomes[parameters] = greeting

    def open_failed(self, record: Server, trouble: Trouble) -> None:
        """Take the word that a server could not be opened."""
        self._accounts.open_failed[self._target.name, trouble.stage.value] += 1
        target = self._of(record)
        target.do(target.pools.failed(record, trouble, target.now()))
        if trouble.passing:
            target.alarm()

    def server_ended(self, connection: ServerConnection, reason: CloseReason) -> None:
        """Take the word that a connection has ended that nobody has closed."""
        record = connection.record
        if reason is CloseReason.LOST and record in self._releasing:
            reason = self._releasing[record].why_it_ends
        self._accounts.closed[self._of(record).name, reason.value] += 1
        connection.log.info("server_closed", reason=reason.value, state=record.state.name.lower())
        self._releasing.pop(record, None)
        borrower, connection.borrower = connection.borrower, None
        target = self._of(record)
        target.alarm()
        todo = target.pools.lost(record, target.now(), reason)
        if borrower is not None:
            borrower.server_lost(connection, reason)
        target.do(todo)

    def server_gone(self, record: Server) -> None:
        """Take the word that the connection of a server has ended that was closed."""
        target = self._of(record)
        target.do(target.pools.gone(record, target.now()))

    def server_checked(self, record: Server) -> None:
        """Take the word that a server is there."""
        _enter_promotion(record.session)
        target = self._of(record)
        target.do(target.pools.checked(record, target.now()))

    def check_failed(self, record: Server) -> None:
        """Take the word that a server does not answer."""
        target = self._of(record)
        target.do(target.pools.close(record, CloseReason.CHECK_FAILED, target.now()))


def _enter_promotion(session: ServerSession) -> None:
    """Where a server has been promoted since it was opened, enter that it would greet otherwise now."""
    said = session.reported.get(_STANDBY)
    if said is not None and said != session.greeting.get(_STANDBY):
        session.greeting = with_status(session.greeting, _STANDBY + b"\0" + said + b"\0")
