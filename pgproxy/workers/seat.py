"""A worker's end of the line to its supervisor: what it is told becomes calls, and the reverse."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.protocols.amp import AMP, Command
from twisted.python.failure import Failure

from pgproxy.link.look_ups import AT_ONCE
from pgproxy.link.target import TargetPools
from pgproxy.pool.permits import Part, Permits, Situation
from pgproxy.pool.states import CloseReason, Parameters
from pgproxy.session.reported import Reported, as_pairs, from_pairs
from pgproxy.workers import messages
from pgproxy.workers.figures import Figures
from pgproxy.workers.messages import report_arguments, where_in_words, words_of
from pgproxy.workers.rhythm import BETWEEN, Rhythm

_BETWEEN_COUNTS = 0.1
"""Seconds."""
_MATTERS = 100
"""A hundredth of `max_client_connections` more clients, or less, are told sooner."""
_LONGEST = 60_000
"""Bytes: AMP's values end at 64 KiB."""
_KEPT = 100
"""Pools, and sets of startup parameters of each, of which others' word is kept how their servers greet."""


class Work(Protocol):
    """What a supervisor has a worker do."""

    @property
    def clients(self) -> int:
        """How many clients are here."""

    def targets(self) -> list[TargetPools]:
        """Give all targets in use."""

    def welcome(self, database: str, user: str, parameters: Parameters, greeting: Reported) -> None:
        """Take the word how a server of a pool greets."""

    def cancel(self, pid: int, secret: bytes) -> Deferred[bool] | None:
        """Cancel what one of our own clients has under way; None if it is not ours."""

    def tend(self, worker: int, on: bool) -> None:
        """Accept connections for another worker, or no longer."""

    def prepare(self) -> str:
        """Read the configuration; give what is wrong with it."""

    def adopt(self) -> None:
        """Take it."""

    def reopen(self) -> None:
        """Open the log file anew."""

    def deafen(self) -> Deferred[None]:
        """Listen no more."""

    def stop(self) -> None:
        """Stop in order."""

    def hurry(self) -> None:
        """Don't wait for clients."""

    async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer what a console asks."""

    def bereft(self) -> None:
        """Take the word that the supervisor is gone."""


class Seat(AMP):
    """One worker among others; a `link.elsewhere.Elsewhere`."""

    def __init__(self, reactor: Any, workers: int) -> None:
        super().__init__()
        self.clients = 0
        self.look_ups = max(1, AT_ONCE // workers)
        self._budgets: dict[tuple[str, str, int], float] = {}
        self.work: Work
        self._workers = workers
        self._reactor = reactor
        self._pressed: set[str] = set()
        """Where somebody waits, here or elsewhere, as the supervisor has said."""
        self._rhythms: dict[TargetPools, Rhythm] = {}
        self._said_clients = 0
        self._counting: Any = None
        self._clients_due = 0.0
        """When that may be said again."""
        self._welcomes: OrderedDict[tuple[str, str], dict[Parameters, Reported]] = OrderedDict()

    def _tell(self, command: type[Command], **arguments: Any) -> None:
        if self.transport is not None:
            self.callRemote(command, **arguments)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """The supervisor is gone."""
        super().connectionLost(reason)
        self.work.bereft()

    @property
    def budgets(self) -> Mapping[tuple[str, str, int], float]:
        """Give our even part of what all may have, see `Elsewhere`."""
        return self._budgets

    # What we tell.

    def ready(self, charge: int) -> Deferred[Any]:
        """Say that we are ready, by the charge of this number; fires when we know what the others have."""
        ready: Deferred[Any] = self.callRemote(messages.Ready, charge=charge)
        return ready

    def clients_changed(self, most: int) -> None:
        """
        Say how many clients there are here.

        A difference that may matter is told at once, or when the last report is a while ago; others take
        longer: one client that comes and goes again and again is worth no report each time.
        """
        matters = abs(self.work.clients - self._said_clients) * _MATTERS >= most
        if self._counting is None:
            pause = self._clients_due - self._reactor.seconds() if matters else _BETWEEN_COUNTS
            self._counting = self._reactor.callLater(max(0, pause), self._count_clients)
        elif matters and self._counting.getTime() > self._clients_due:
            self._counting.reset(max(0, self._clients_due - self._reactor.seconds()))

    def _count_clients(self) -> None:
        self._counting = None
        number = self.work.clients
        if number != self._said_clients:
            self._said_clients = number
            self._clients_due = self._reactor.seconds() + BETWEEN
            self._tell(messages.Clients, number=number)

    def figures(self, figures: Figures) -> None:
        """Say what there is to count."""
        self._tell(messages.Figures, figures=json.dumps(figures))

    def ask_everybody(self, request: str) -> Deferred[str]:
        """Have all workers answer a console's request, ourselves included."""
        asked: Deferred[Any] = self.callRemote(messages.AskEverybody, request=request)
        return asked.addCallback(lambda answer: answer["replies"])

    def ask_head(self, request: str) -> Deferred[str]:
        """Have the supervisor answer one."""
        asked: Deferred[Any] = self.callRemote(messages.AskHead, request=request)
        return asked.addCallback(lambda answer: answer["reply"])

    def cancel(self, pid: int, secret: bytes) -> Deferred[bool]:
        """Have another worker cancel, see `Elsewhere`."""
        if len(secret) > 256:
            return succeed(False)
        asked: Deferred[Any] = self.callRemote(messages.Cancel, pid=pid, secret=secret)
        return asked.addCallbacks(lambda answer: bool(answer["found"]), lambda _failure: False)

    def welcomes(self, database: str, user: str) -> dict[Parameters, Reported]:
        """Give how servers of a pool greet, as all have been told."""
        return self._welcomes.get((database, user), {})

    def welcome(self, database: str, user: str, parameters: Parameters, greeting: Reported) -> None:
        """Tell how a server of ours has greeted."""
        ours, theirs = (json.dumps(pairs).encode() for pairs in (parameters, as_pairs(greeting)))
        if len(ours) + len(theirs) < _LONGEST:
            # Also for ourselves: a pool that nobody uses for a while is forgotten here, and comes back.
            self._enter(database, user, parameters, greeting)
            self._tell(messages.Welcome, database=database, user=user, parameters=ours, greeting=theirs)

    def forget_welcomes(self) -> None:
        """Take the word that servers may greet otherwise now."""
        self._welcomes.clear()

    def make_way(self, target: str, databases: tuple[bytes, ...]) -> None:
        """Tell the others."""
        self._welcomes.clear()
        self._tell(messages.MakeWay, target=target, databases=list(databases))

    def defaults_changed(self, target: str) -> None:
        """Tell the others."""
        self._welcomes.clear()
        self._tell(messages.DefaultsChanged, target=target)

    def learned(self, target: TargetPools, capacity: int) -> None:
        """Tell how many servers a target allows."""
        self._tell(messages.Learned, where=_where(target), capacity=capacity)

    def server_opened(self, target: TargetPools, pid: int, secret: bytes) -> None:
        """Tell the key of a server."""
        self._tell(messages.ServerOpened, where=_where(target), pid=pid, secret=secret)

    def server_ended(self, target: TargetPools, pid: int) -> None:
        """Tell that it has ended."""
        self._tell(messages.ServerEnded, where=_where(target), pid=pid)

    def changed(self, target: TargetPools) -> None:
        """Report it, when its time has come."""
        rhythm = self._rhythms.get(target)
        if rhythm is None:
            rhythm = self._rhythms[target] = self._rhythm(target)
        rhythm.changed()

    def left(self, target: TargetPools) -> None:
        """Say that there is nothing left of it, before another at the same place says what that has."""
        (self._rhythms.pop(target, None) or self._rhythm(target)).end()

    def _rhythm(self, target: TargetPools) -> Rhythm:
        where, pools = _where(target), target.pools
        return Rhythm(
            self._reactor,
            partial(self._report, target, where),
            lambda: where in self._pressed,
            lambda: pools.pressed,
        )

    def _report(self, target: TargetPools, where: str) -> None:
        for report in _permits(target).reports(target.pools, target.now()):
            self._tell(messages.Reported, **report_arguments(where, report))

    # What we are told.

    @messages.Granted.responder
    def _granted(
        self, where: str, database: str, user: str, walsender: bool, number: int, warm: bool
    ) -> dict[str, Any]:
        part = Part(database, user, walsender)
        target = self._target(where)
        if target is None:
            # Its last pool has gone meanwhile.
            permits = Permits()
            permits.heard = number
            self._tell(messages.Reported, **report_arguments(where, permits.nothing(part)))
            return {}
        permits = _permits(target)
        permits.heard = number
        target.do(target.pools.permit(permits.account(part), 1, target.now(), warm))
        return {}

    @messages.Recalled.responder
    def _recalled(self, where: str, database: str, user: str, walsender: bool, reason: str) -> dict[str, Any]:
        target = self._target(where)
        if target is not None:
            account = _permits(target).account(Part(database, user, walsender))
            target.do(target.pools.permit(account, -1, target.now(), why=CloseReason(reason)))
        return {}

    @messages.Situation.responder
    def _situation(
        self, where: str, database: str, user: str, walsender: bool, elsewhere: int, full: str, more: bool
    ) -> dict[str, Any]:
        target = self._target(where)
        if target is not None:
            situation = Situation(elsewhere, full, more)
            _permits(target).tell_situation(Part(database, user, walsender), situation)
            target.do(target.pools.tick(target.now()))
        return {}

    @messages.Pressed.responder
    def _press(self, where: str, on: bool) -> dict[str, Any]:
        target = self._target(where)
        if not on:
            self._pressed.discard(where)
            return {}
        self._pressed.add(where)
        if target is not None:
            self.changed(target)
        return {}

    @messages.Budgeted.responder
    def _budgeted(self, where: str, servers: int) -> dict[str, Any]:
        if servers:
            self._budgets[words_of(where)] = servers / self._workers
        else:
            self._budgets.pop(words_of(where), None)
        return {}

    @messages.Clients.responder
    def _clients(self, number: int) -> dict[str, Any]:
        self.clients = number
        return {}

    @messages.Cancel.responder
    def _cancel(self, pid: int, secret: bytes) -> Any:
        sent = self.work.cancel(pid, secret)
        if sent is None:
            return {"found": False}
        return sent.addBoth(lambda _: {"found": True})

    @messages.MakeWay.responder
    def _make_way(self, target: str, databases: list[bytes]) -> dict[str, Any]:
        self._welcomes.clear()
        for one in self._named(target):
            one.make_way(databases)
        return {}

    @messages.Welcome.responder
    def _welcome(self, database: str, user: str, parameters: bytes, greeting: bytes) -> dict[str, Any]:
        opened_with = tuple((name, value) for name, value in json.loads(parameters))
        greets = from_pairs([(name, value) for name, value in json.loads(greeting)])
        self._enter(database, user, opened_with, greets)
        self.work.welcome(database, user, opened_with, greets)
        return {}

    def _enter(self, database: str, user: str, parameters: Parameters, greeting: Reported) -> None:
        known = self._welcomes.setdefault((database, user), {})
        known[parameters] = greeting
        if len(known) > _KEPT:
            del known[next(iter(known))]
        if len(self._welcomes) > _KEPT:
            self._welcomes.popitem(last=False)

    @messages.Forget.responder
    def _forget(self, database: str, user: str) -> dict[str, Any]:
        self._welcomes.pop((database, user), None)
        return {}

    @messages.DefaultsChanged.responder
    def _defaults_changed(self, target: str) -> dict[str, Any]:
        self._welcomes.clear()
        for one in self._named(target):
            one.defaults_changed()
        return {}

    @messages.Tend.responder
    def _tend(self, number: int, on: bool) -> dict[str, Any]:
        self.work.tend(number, on)
        return {}

    @messages.Alive.responder
    def _alive(self) -> dict[str, Any]:
        return {}

    @messages.Prepare.responder
    def _prepare(self) -> dict[str, Any]:
        return {"wrong": self.work.prepare()[:10_000]}

    @messages.Adopt.responder
    def _adopt(self) -> dict[str, Any]:
        self.work.adopt()
        return {}

    @messages.Reopen.responder
    def _reopen(self) -> dict[str, Any]:
        self.work.reopen()
        return {}

    @messages.Deafen.responder
    def _deafen(self) -> Any:
        return self.work.deafen().addCallback(lambda _: {})

    @messages.Stop.responder
    def _stop(self) -> dict[str, Any]:
        self.work.stop()
        return {}

    @messages.Answer.responder
    def _answer(self, request: str) -> Any:
        return Deferred.fromCoroutine(self._reply(request))

    async def _reply(self, request: str) -> dict[str, Any]:
        return {"reply": json.dumps(await self.work.answer(json.loads(request)))}

    @messages.Hurry.responder
    def _hurry(self) -> dict[str, Any]:
        self.work.hurry()
        return {}

    def _target(self, where: str) -> TargetPools | None:
        return next((target for target in self.work.targets() if _where(target) == where), None)

    def _named(self, name: str) -> list[TargetPools]:
        return [target for target in self.work.targets() if target.name == name]


def _where(target: TargetPools) -> str:
    assert target.where is not None
    return where_in_words(target.where)


def _permits(target: TargetPools) -> Permits:
    permits = target.pools.permits
    assert permits is not None
    return permits
