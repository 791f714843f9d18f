"""
Watches the hosts of one target: asks them at the pace that is due, and tells what the roles are.

`told` gets the roles when they have changed. Each change is one line in the log, and an entry in the history.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from attrs import frozen
from structlog.typing import FilteringBoundLogger
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from pgproxy.link.server import Account, Host
from pgproxy.link.threads import Threads
from pgproxy.targets.facts import Address, Answer, NotAnAnswer, Trouble
from pgproxy.targets.history import Change, Entry
from pgproxy.targets.judge import Judge, Roles
from pgproxy.targets.pace import Pace
from pgproxy.watch.probe import Probe

_AS_USUAL = frozenset({Change.FOUND, Change.READER_IN, Change.BECAME_WRITER, Change.WRITER_BACK, Change.GONE})
"""What is no reason to be woken; a writer that replaces another is logged behind that one's end."""


@frozen
class Watching:
    """How a target is watched."""

    interval: float
    """Seconds between two looks while all is well."""
    host_timeout: float
    """Seconds without an answer after which a host is given up."""
    max_lag: float
    """Seconds that a reader may be behind; 0: no limit."""


class Watcher:
    """One target's."""

    def __init__(
        self,
        watching: Watching,
        host_at: Callable[[Address], Host],
        account: Callable[[], Account | None],
        told: Callable[[Roles], None],
        hurry: Callable[[], None],
        reactor: Any,
        threads: Threads,
        log: FilteringBoundLogger,
    ) -> None:
        self.judge = Judge(watching.host_timeout, watching.max_lag)
        self._watching = watching
        self._host_at = host_at
        self._account = account
        self._told = told
        self._hurry = hurry
        """Has the hosts looked for anew."""
        self._reactor = reactor
        self._threads = threads
        self._log = log
        self._pace = Pace(watching.interval)
        self._probes: dict[Address, Probe] = {}
        self._timer: IDelayedCall | None = None
        self._running = False
        self._last = self.judge.roles
        self._has_told = False

    def start(self, hosts: Iterable[Address]) -> None:
        """Begin with these hosts, if there are any yet."""
        self._running = True
        self.set_hosts(hosts)
        self._tick()

    def ask(self, query: str) -> Deferred[list[list[str]]]:
        """Ask a host something else, the writer rather than a reader; gives rows of texts. May fail."""
        states = [host for host in self.judge.hosts.values() if host.answers()]
        states.sort(key=lambda host: host.address != self.judge.roles.writer)
        for host in states:
            return self._probes[host.address].ask(query)
        return fail(NotAnAnswer("no host answers"))

    def stop(self) -> None:
        """Ask no more."""
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for probe in self._probes.values():
            probe.stop()
        self._probes.clear()

    def set_hosts(self, hosts: Iterable[Address]) -> None:
        """Take the list of hosts."""
        entries = self.judge.set_hosts(hosts, self._now())
        for address in [address for address in self._probes if address not in self.judge.hosts]:
            self._probes.pop(address).stop()
        for address in self.judge.hosts:
            if address not in self._probes:
                self._probes[address] = self._probe(address)
        self._digest(entries)

    def alarm(self) -> None:
        """Take a sign of trouble: the next look is due at once, and others soon behind it."""
        if self._pace.alarm(self._now()) and self._running:
            self._hurry()
            self._look_in(0.0)

    def _now(self) -> float:
        return float(self._reactor.seconds())

    def _probe(self, address: Address) -> Probe:
        return Probe(
            self._host_at(address),
            self._account,
            self._watching.host_timeout,
            partial(self._answered, address),
            partial(self._failed, address),
            self._reactor,
            self._threads,
            self._log,
        )

    @property
    def _is_urgent(self) -> bool:
        """Whether a promotion is to be heard of at once."""
        return not self.judge.roles.up and self._pace.is_alert(self._now())

    def _look_in(self, seconds: float) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self._reactor.callLater(seconds, self._tick)

    def _tick(self) -> None:
        self._timer = None
        try:
            self._look()
        except Exception:
            # It must not end the watching.
            self._log.error("defect", failure=Failure().getTraceback())
        if self._running and self._timer is None:
            self._look_in(self._pace.interval(self._now()))

    def _look(self) -> None:
        urgent = self._is_urgent
        if urgent:
            self._hurry()
        for probe in list(self._probes.values()):
            probe.look(urgent)
        self._digest(self.judge.judge(self._now()))

    def _answered(self, address: Address, answer: Answer) -> None:
        self._digest(self.judge.answered(address, answer, self._now()))
        probe = self._probes.get(address)
        if self._is_urgent and answer.in_recovery and probe is not None and probe.waits_well:
            # It has waited with this answer, as it will with the next.
            probe.look(urgent=True)

    def _failed(self, address: Address, trouble: Trouble, why: str) -> None:
        host = self.judge.hosts.get(address)
        news = host is not None and host.trouble is not trouble
        entries = self.judge.failed(address, trouble, why, self._now())
        if news:
            self._log.info("host_does_not_answer", host=str(address), trouble=trouble.value, why=why)
        self._digest(entries)
        if news and trouble is not Trouble.REFUSED:
            self.alarm()

    def _digest(self, entries: list[Entry]) -> None:
        for entry in entries:
            write = self._log.info if entry.change in _AS_USUAL else self._log.warning
            write("role_changed", host=str(entry.host), change=entry.change.value, why=entry.why)
        roles = self.judge.roles
        if any(host.answer or host.trouble for host in self.judge.hosts.values()):
            # Before anybody has been asked there is nothing to be in a hurry for.
            self._pace.has_writer(roles.writer is not None and roles.up, self._now())
        # At first, one that says it is the writer is not believed before all others have been asked.
        may_tell = self.judge.all_asked or (self._has_told and roles.writer is not None)
        if self.judge.hosts and may_tell and (roles != self._last or not self._has_told):
            self._last = roles
            self._has_told = True
            if any(entry.change is not Change.FOUND for entry in entries):
                self.alarm()
            try:
                self._told(roles)
            except Exception:
                # The probe that has brought the news goes on.
                self._log.error("defect", failure=Failure().getTraceback())
