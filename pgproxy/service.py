"""
The tree of services: built and wired in one visible place; the order of start, drain and stop; reload.

Start: threads, then the listeners. Stop: the listeners, the clients as they come to rest within
`drain_timeout` seconds (or until a second signal), the servers when what they do has been cancelled, the
threads. SIGHUP: the log file is opened anew, the configuration and the files it names are read anew; where
anything is wrong with them, what is in force stays in force.
"""

from __future__ import annotations

import gc
import os
import resource
import secrets
import signal
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from attrs import evolve
from structlog.typing import FilteringBoundLogger
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import ILogObserver
from twisted.python.failure import Failure

from pgproxy import __version__
from pgproxy.config import Config
from pgproxy.console.alone import Alone
from pgproxy.console.columns import PERIOD
from pgproxy.console.company import Company
from pgproxy.console.desk import Desk
from pgproxy.console.door import Door
from pgproxy.console.here import Here
from pgproxy.console.values import moment
from pgproxy.drain import STEP, Drain
from pgproxy.endpoints import Endpoints
from pgproxy.gather import WRONG, gather
from pgproxy.head import (
    COUNT,
    cannot_listen,
    log_filters,
    outlive_sigusr1,
    refuse_reload,
    reopen,
    stop,
    warn_of_restart,
)
from pgproxy.link.client import ClientConnection
from pgproxy.link.elsewhere import Elsewhere
from pgproxy.link.front import Front
from pgproxy.link.look_ups import AT_ONCE
from pgproxy.link.materials import Materials
from pgproxy.link.threads import Threads
from pgproxy.observe.client import ClientLog
from pgproxy.observe.figures import figures_of
from pgproxy.observe.logs import TwistedObserver, make_logger
from pgproxy.observe.serving import Serving
from pgproxy.observe.sink import Sink
from pgproxy.succession.inherited import Inherited
from pgproxy.succession.retiring import retiring
from pgproxy.succession.succession import Succession
from pgproxy.watch.watchers import Watchers

if TYPE_CHECKING:
    from pgproxy.aws.service import Aws

_YOUNG = 10_000
"""
How many objects more there are before Python looks, among the young, for those that only know each other. A
client is some hundred, and is taken apart when it goes: with Python's 700 every few logins there would be a
look that finds nothing.
"""
_LEFT_STEP = 0.2
"""Seconds between two looks whether all clients have left."""


def _take_all_file_descriptors() -> None:
    """Raise our limit of open files to what we may: each client and each server takes one."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _forget_libpq_environment() -> None:
    """Let nothing in our environment (PGHOSTADDR, PGSERVICE …) say where auth_query's connections go."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]


class Pgproxy(Service):
    """
    The whole proxy. `load` reads the configuration anew; its log goes to `sink`, or standard output.

    With `elsewhere` it is one worker of several (workers/worker.py).
    """

    def __init__(
        self,
        config: Config,
        load: Callable[[], Config],
        reactor: Any,
        sink: Sink | None = None,
        elsewhere: Elsewhere | None = None,
        log: FilteringBoundLogger | None = None,
        succession: Succession | None = None,
    ) -> None:
        self.setName("pgproxy")
        self._succession = succession
        self._sink = sink or Sink.standard_output()
        self.log: FilteringBoundLogger = log or make_logger(self._sink)
        self._reactor = reactor
        self._load = load
        self._threads = Threads(reactor)
        materials = gather(config)
        self._aws = self._aws_of(materials, elsewhere)
        self.front = Front(
            reactor, self._threads, materials, secrets.token_bytes, self.log, elsewhere, self._aws
        )
        self._watchers = Watchers(reactor, self._threads, self.front.targets, self.log)
        self.front.judges = self._watchers.judges
        self._endpoints = Endpoints(reactor, self._client, self._reading_client)
        self._drain = Drain(self.front)
        self._serving = Serving(reactor, lambda: self.front.materials, self._figures, Alone(self), self.log)
        self._connections = 0
        self._retired = False
        """Whether another process has taken over."""
        self._sweeping = LoopingCall(self._sweep)
        self._sweeping.clock = reactor
        self._counting = LoopingCall(self._log_pins)
        self._counting.clock = reactor
        self._pins_logged: dict[str, dict[str, float]] = {}
        if succession is not None:
            succession.bind(self, reactor, self.log)
            self.front.predecessor = succession.cancel
        self._averaging = LoopingCall(self._close_period)
        self._averaging.clock = reactor
        self._started_at = reactor.seconds()
        if elsewhere is None:
            self._open_console(0, Alone(self))

    def _open_console(self, number: int, company: Company) -> None:
        """Let clients in at the console; `number` is the worker's, 0 where there is one process."""

        def config() -> Config:
            return company.config

        self.here = Here(self.front, number, config, lambda statements: figures_of(self.front, statements))
        self.front.console = Door(config, Desk(company, self._reactor, self.log))

    def _aws_of(self, materials: Materials, elsewhere: Elsewhere | None) -> Aws | None:
        """Give what a configuration uses of AWS; nothing of it is imported where that is nothing."""
        if materials.config.aws is None:
            return None
        from pgproxy.aws.census import census
        from pgproxy.aws.iam import Bench
        from pgproxy.aws.service import Aws

        at_once = elsewhere.look_ups if elsewhere is not None else AT_ONCE
        bench = Bench(self._reactor, self._threads, lambda name: self.front.targets.writer(name), at_once)

        def figures() -> dict[str, Any]:
            return {**figures_of(self.front), **census(self.front, self._connections)}

        aws = Aws(self._reactor, Random().random, self.log, bench, figures)
        aws.configure(materials.config, materials.users)
        return aws

    def setServiceParent(self, parent: Any) -> None:
        """Join the application, and have its log written in our form."""
        super().setServiceParent(parent)
        parent.setComponent(ILogObserver, TwistedObserver(self.log))

    def privilegedStartService(self) -> None:
        """Listen, while we still may."""
        inherited = self._succession.inherited if self._succession is not None else Inherited()
        try:
            self._endpoints.open(self.front.config.proxy, inherited, self.front.materials.keepalive)
        except CannotListenError as error:
            cannot_listen(self.log, f"{error.interface}:{error.port}", str(error.socketError))
            raise SystemExit(1) from error
        self._serving.start(shared=inherited.line is not None)

    async def _figures(self) -> dict[str, Any]:
        return figures_of(self.front)

    def startService(self) -> None:
        """Begin to serve."""
        super().startService()
        self._threads.start()
        if self._aws is not None:
            self._aws.start()
        _take_all_file_descriptors()
        gc.set_threshold(_YOUNG)
        _forget_libpq_environment()
        self._watchers.configure(self.front.materials)
        self._sweeping.start(self.front.time_between_sweeps, now=False)
        self._counting.start(COUNT, now=False)
        self._averaging.start(PERIOD)
        self._heed_signals()
        self._say_started()

    def _heed_signals(self) -> None:
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self.reload))
        outlive_sigusr1(self._reactor, self.log)

    def _say_started(self) -> None:
        proxy = self.front.config.proxy
        self.log.info(
            "started",
            version=__version__,
            listen=self._endpoints.addresses,
            auth=proxy.auth,
            tls=proxy.tls.mode,
            pool_mode=proxy.pool_mode,
            pool_size=proxy.pool_size,
            sockets=self._succession.inherited.whose if self._succession is not None else "nobody",
        )
        log_filters(self.log, self.front.config)
        if self._succession is not None:
            self._succession.serving()

    # As an `Incumbent`.

    @property
    def status(self) -> str:
        """Say what it is doing, for the service manager."""
        return f"Serving {len(self.front.clients)} clients"

    @property
    def listening(self) -> dict[int, str]:
        """Give the descriptors of what it listens on, and which of them are read-only endpoints."""
        return self._endpoints.descriptors

    def retire(self) -> None:
        """Accept nobody any more; end when the clients have gone."""
        self.log.info("successor_serves", clients=len(self.front.clients))
        self._retired = True
        retiring_ = Deferred.fromCoroutine(self._retire())
        retiring_.addErrback(self._defect)

    async def _retire(self) -> None:
        await self._endpoints.close()
        await self._serving.stop()
        materials = self.front.materials
        self.take(evolve(materials, config=retiring(materials.config)))
        end = self._reactor.seconds() + self.front.config.proxy.restart_drain_timeout
        while (self._drain.has_clients or self._follows) and self._reactor.seconds() < end:
            await deferLater(self._reactor, STEP)
        if not self.front.stopping:
            stop(self._reactor)

    def cancel_for_successor(self, pid: int, secret: bytes) -> Deferred[bool]:
        """Cancel what one of our clients has under way; fires with whether there is such a client."""
        sent = self.cancel(pid, secret)
        if sent is not None:
            return sent.addBoth(lambda _: True)
        return self._succession.cancel(pid, secret) if self._succession is not None else succeed(False)

    def cancel(self, pid: int, secret: bytes) -> Deferred[Any] | None:
        """Cancel for another process what one of our clients has under way; None if it is not ours."""
        client = self.front.keys.find(pid, secret)
        if client is None:
            return None
        sent = client.cancel()
        self.log.info("cancel_request", found=True, sent=sent is not None, elsewhere=True)
        return sent if sent is not None else succeed(None)

    def _defect(self, failure: Failure) -> None:
        self.log.error("defect", failure=failure.getTraceback())

    def _sweep(self) -> None:
        # An exception would end the looping, and with it every limit of time.
        try:
            self.front.sweep()
        except Exception:
            self.log.error("defect", failure=Failure().getTraceback())

    def _log_pins(self) -> None:
        """Log the figures of pins, if there are new ones."""
        figures = self.front.pins.figures()
        if figures != self._pins_logged:
            self._pins_logged = figures
            pins = self.front.pins
            self.log.info(
                "pins", reasons=figures, audit_found=pins.audit_found, questions_failed=pins.questions_failed
            )

    def _close_period(self) -> None:
        front = self.front
        front.accounts.close_period(
            front.reactor.seconds(), lambda: front.accounts.figures(front.clients, front.targets.lenders)
        )

    def stopService(self) -> Deferred[None]:
        """Stop in order; fires when everything is closed."""
        super().stopService()
        self._heed_impatience()
        return Deferred.fromCoroutine(self._stop())

    def _heed_impatience(self) -> None:
        """Hear of who asks again to stop: he doesn't want to wait, and Twisted can't be stopped twice."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.hurry)

    def hurry(self, *_signal: object) -> None:
        """Don't wait for clients any more, once stopping."""
        self._drain.hurry()

    async def _stop(self) -> None:
        front = self.front
        front.stopping = True
        if self._succession is not None:
            self._succession.stopping()
        self.log.info("stopping", clients=len(front.clients))
        await self._endpoints.close()
        await self._drain.clients(self._drain_timeout())
        await self._drain.servers(front.config.proxy.cancel_timeout)
        self._watchers.stop()
        front.targets.close_all()
        # One turn for what was just written, the rest is the kernel's.
        await deferLater(self._reactor, STEP)
        front.departures.end_all()
        for client in list(front.clients):
            client.transport.abortConnection()
        self._sweeping.stop()
        self._counting.stop()
        self._averaging.stop()
        self._log_pins()
        if self._aws is not None:
            self._aws.stop()
        self._threads.stop()
        await self._serving.stop()
        self.log.info("stopped")

    def _drain_timeout(self) -> float:
        return self.front.config.proxy.drain_timeout

    def reload(self) -> str:
        """
        Read the configuration anew, and take it if nothing is wrong with it. Open the log file anew.

        Gives what is wrong, if anything is.
        """
        reopen(self._sink, self.log)
        if self._retired:
            # The one that follows is reloaded.
            return "another process has taken over"
        if self._succession is not None:
            self._succession.reloading()
        wrong = self._reload()
        if self._succession is not None:
            self._succession.reloaded()
        return wrong

    def _reload(self) -> str:
        try:
            config = self._load()
            materials = gather(config)
        except WRONG as error:
            refuse_reload(self.log, str(error))
            return str(error) or type(error).__name__
        warn_of_restart(self.log, self.front.config, config)
        self.take(materials)
        self.log.info("reloaded")
        log_filters(self.log, self.front.config)
        return ""

    # What the console asks of the one that is head of all.

    def adjust(self, config: Config) -> str:
        """Take another configuration, its files read anew; gives what is wrong, if anything is."""
        try:
            self.take(gather(config))
        except WRONG as error:
            return str(error)
        return ""

    def posts(self) -> dict[str, Any]:
        """Say which processes carry clients, and whether they are about to stop."""
        post = {"worker": 1, "pid": os.getpid(), "since": moment(self._started_at, self._reactor.seconds())}
        return {"posts": [post], "stopping": self.front.stopping or self._retired}

    def shut_down(self, how: str) -> None:
        """Stop: at once, `wait_for_servers` or `wait_for_clients`."""
        self.log.warning("shutdown", how=how or "at_once")
        if how == "wait_for_clients":
            self.front.stopping = True
            leaving = Deferred.fromCoroutine(self._await_clients())
            leaving.addErrback(lambda failure: self.log.error("defect", failure=failure.getTraceback()))
            return
        if not how:
            self.hurry()
        self._reactor.callLater(0, stop, self._reactor)

    @property
    def _follows(self) -> bool:
        """Whether the process is still there that this one has followed: who asks for it asks here."""
        return self._succession is not None and self._succession.follows

    async def _await_clients(self) -> None:
        """Stop when the last client has gone."""
        await self._endpoints.close()
        while self._drain.has_clients:
            await deferLater(self._reactor, _LEFT_STEP)
            if not self.running:
                return
        stop(self._reactor)

    def take(self, materials: Materials) -> None:
        """Take another configuration and what it names."""
        self.front.configure(materials)
        self._watchers.configure(materials)
        self._endpoints.configure(materials.keepalive)
        if self._aws is not None:
            self._aws.configure(materials.config, materials.users)
        if self._sweeping.running:
            self._sweeping.stop()
            self._sweeping.start(self.front.time_between_sweeps, now=False)

    def _reading_client(self, peer: str) -> ClientConnection:
        self._connections += 1
        log = ClientLog(self.log, client=self._connections, peer=peer)
        return ClientConnection(self.front, log, self._connections, read_only=True)

    def _client(self, peer: str) -> ClientConnection:
        self._connections += 1
        log = ClientLog(self.log, client=self._connections, peer=peer)
        return ClientConnection(self.front, log, self._connections)
