"""The budgets of all targets: performs what their arbiters decide."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from attrs import asdict, evolve
from structlog.typing import FilteringBoundLogger
from twisted.internet.task import LoopingCall
from twisted.protocols.amp import Command

from pgproxy.config import Config, User
from pgproxy.config.model import EVERY_OTHER
from pgproxy.link.limits import limits_of, rules_of
from pgproxy.pool.permits import Report
from pgproxy.pool.rules import Rules
from pgproxy.workers import messages
from pgproxy.workers.arbiter import Arbiter, Grant, Order, Recall, Terms
from pgproxy.workers.messages import name_of, part_arguments

_TICK = 0.05
_LOOK = 1.0
"""Seconds."""


class Lines(Protocol):
    """How workers are reached, by life."""

    def tell(self, worker: int, command: type[Command], **arguments: Any) -> None:
        """Tell one something."""

    def tell_all(self, command: type[Command], but: int = 0, **arguments: Any) -> None:
        """Tell all but one something."""

    def forget(self, database: str, user: str) -> None:
        """Take the word that no worker has this pool any more."""


class Budgets:
    """One arbiter for each target, and for each place where it is or was."""

    def __init__(
        self,
        config: Config,
        workers: int,
        lines: Lines,
        chance: Callable[[], float],
        reactor: Any,
        log: FilteringBoundLogger,
    ) -> None:
        self._config = config
        self._workers = workers
        self._lines = lines
        self._chance = chance
        self._reactor = reactor
        self._log = log
        self._arbiters: dict[str, Arbiter] = {}
        self._pressed: set[str] = set()
        self._told: dict[str, int] = {}
        """What all workers have been told that they may have together."""
        self._ticking = LoopingCall(self._tick)
        self._looking = LoopingCall(self._look)
        self._ticking.clock = self._looking.clock = reactor

    def start(self) -> None:
        """Begin to keep time."""
        self._ticking.start(_TICK, now=False)
        self._looking.start(_LOOK, now=False)

    def stop(self) -> None:
        """Let no clock run any more."""
        for call in (self._ticking, self._looking):
            if call.running:
                call.stop()

    def configure(self, config: Config) -> None:
        """Take other limits."""
        self._config = config
        for where, arbiter in self._arbiters.items():
            if name_of(where) in config.targets:
                self._set_minimums(where, arbiter)
                self._do(where, arbiter.configure(self._rules(where), self._terms, self._now()))
                self._tell_budget(where, arbiter)

    # What workers tell.

    def greet(self, worker: int) -> None:
        """Tell a new worker for what others wait, and what all may have."""
        for where, servers in self._told.items():
            self._lines.tell(worker, messages.Budgeted, where=where, servers=servers)
        for where in self._pressed:
            self._lines.tell(worker, messages.Pressed, where=where, on=True)

    def report(self, worker: int, where: str, report: Report) -> None:
        """Take a worker's report."""
        arbiter = self._arbiters.get(where)
        if arbiter is None:
            if name_of(where) not in self._config.targets:
                return
            arbiter = Arbiter(name_of(where), self._rules(where), self._terms, self._chance)
            self._arbiters[where] = arbiter
            self._set_minimums(where, arbiter)
        self._do(where, arbiter.report(worker, report, self._now()))
        situation = arbiter.situation(worker, report.part)
        if situation is not None:
            part = part_arguments(where, report.part)
            self._lines.tell(worker, messages.Situation, **part, **asdict(situation))

    def learned(self, where: str, capacity: int) -> None:
        """Take the word how many servers a target allows."""
        arbiter = self._arbiters.get(where)
        if arbiter is not None and arbiter.pools.capacity != capacity:
            self._do(where, arbiter.learned(capacity, self._now()))
            self._tell_budget(where, arbiter)
            servers = arbiter.pools.target.most
            self._log.info("budget", target=name_of(where), servers=servers, allowed_by_server=capacity)

    def _tell_budget(self, where: str, arbiter: Arbiter) -> None:
        servers = arbiter.pools.target.most
        if arbiter.pools.capacity is not None and self._told.get(where) != servers:
            self._told[where] = servers
            self._lines.tell_all(messages.Budgeted, where=where, servers=servers)

    def died(self, worker: int) -> None:
        """Enter that a worker has ended."""
        for where, arbiter in self._arbiters.items():
            self._do(where, arbiter.died(worker, self._now()))

    def buried(self, worker: int) -> None:
        """Enter that nothing is left of it."""
        for where, arbiter in self._arbiters.items():
            self._do(where, arbiter.buried(worker, self._now()))

    @property
    def servers(self) -> dict[str, int]:
        """How many servers each target may have, as far as it has said."""
        return {name_of(where): arbiter.pools.target.most for where, arbiter in self._arbiters.items()}

    # What is decided.

    def _do(self, where: str, orders: Iterable[Order]) -> None:
        for order in orders:
            part = part_arguments(where, order.part)
            match order:
                case Grant(worker, _part, number, warm):
                    self._lines.tell(worker, messages.Granted, **part, number=number, warm=warm)
                case Recall(worker, _part, reason):
                    self._lines.tell(worker, messages.Recalled, **part, reason=reason.value)
        pressed = self._arbiters[where].pressed
        if pressed is not (where in self._pressed):
            (self._pressed.add if pressed else self._pressed.discard)(where)
            self._lines.tell_all(messages.Pressed, where=where, on=pressed)

    def _tick(self) -> None:
        for where in list(self._pressed):
            self._do(where, self._arbiters[where].tick(self._now()))

    def _look(self) -> None:
        for where, arbiter in list(self._arbiters.items()):
            self._do(where, arbiter.look(self._now()))
            while arbiter.forgotten:
                self._lines.forget(*arbiter.forgotten.pop())
            if arbiter.empty and where not in self._pressed:
                del self._arbiters[where]
                if self._told.pop(where, None) is not None:
                    self._lines.tell_all(messages.Budgeted, where=where, servers=0)

    def _now(self) -> float:
        return float(self._reactor.seconds())

    def _rules(self, where: str) -> Rules:
        rules = rules_of(self._config, name_of(where))
        budget = rules.budget
        # Each worker may have one look-up under way, however many workers there are.
        look_ups = max(budget.for_look_ups, self._workers) if budget.for_look_ups else 0
        return evolve(rules, budget=evolve(budget, for_look_ups=look_ups))

    def _set_minimums(self, where: str, arbiter: Arbiter) -> None:
        """Have kept free what databases and users are to have at least, also before their first client."""
        config = self._config
        for name in config.databases:
            entry = config.database(name)
            if name != EVERY_OTHER and entry is not None and entry.target == name_of(where):
                most, least = entry.max_server_connections, entry.min_server_connections
                arbiter.pools.set_database(name, most, least)
        for name, user in config.users.items():
            arbiter.pools.set_user(name, user.max_server_connections, user.min_server_connections)

    def _terms(self, database: str, user: str) -> Terms:
        limits = limits_of(self._config, database, user)
        entry = self._config.database(database)
        of_user = self._config.users.get(user, User())
        return Terms(
            limits.most,
            limits.least,
            limits.admin,
            (entry.max_server_connections, entry.min_server_connections) if entry is not None else (0, 0),
            (of_user.max_server_connections, of_user.min_server_connections),
        )
