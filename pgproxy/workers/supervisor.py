"""
The service that twistd runs where there are several workers: it carries no client itself.

It opens the sockets, starts the workers and starts them again, keeps the budgets, passes on what one worker
has for the others, and reloads and stops all in order.
"""

from __future__ import annotations

import secrets
import signal
from collections.abc import Callable
from random import Random
from typing import Any

from structlog.typing import FilteringBoundLogger
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import ILogObserver
from twisted.python.failure import Failure

from pgproxy import __version__
from pgproxy.config import Config
from pgproxy.gather import gather
from pgproxy.head import (
    COUNT,
    cannot_listen,
    log_filters,
    outlive_sigusr1,
    stop,
)
from pgproxy.link.materials import Materials
from pgproxy.link.threads import Threads
from pgproxy.observe.logs import TwistedObserver, make_logger
from pgproxy.observe.serving import Serving
from pgproxy.observe.sink import Sink
from pgproxy.succession.retiring import retiring
from pgproxy.succession.succession import Succession
from pgproxy.workers import messages
from pgproxy.workers.asking import ask
from pgproxy.workers.bereft import Burials
from pgproxy.workers.budgets import Budgets
from pgproxy.workers.charges import Charges
from pgproxy.workers.exchange import Exchange
from pgproxy.workers.figures import AllFigures, Figures
from pgproxy.workers.headquarters import Headquarters
from pgproxy.workers.line import Line
from pgproxy.workers.post import LOOK, Post
from pgproxy.workers.reloads import Reloads
from pgproxy.workers.share import Charge, number_of_workers
from pgproxy.workers.sockets import NOTHING, Sockets
from pgproxy.workers.tending import Tending

_BEYOND_DRAIN = 5.0
"""Seconds that workers get to stop, beyond what they wait for clients and for cancels."""
_LEFT_STEP = 0.2
"""Seconds between two looks whether all clients have left."""
_DEAF = 10.0
"""Seconds for a worker to stop listening."""
_LAST_CANCELS = 5.0
"""Seconds to cancel, at a stop, what workers have left that did not end in order."""


class Supervisor(Service):
    """The supervisor; `load` reads the configuration anew, `reactor_name` is what workers run on."""

    def __init__(
        self,
        config: Config,
        load: Callable[[], Config],
        reactor: Any,
        sink: Sink | None = None,
        reactor_name: str | None = None,
        succession: Succession | None = None,
    ) -> None:
        self._succession = succession
        self.setName("pgproxy")
        self._sink = sink or Sink.standard_output()
        self.log: FilteringBoundLogger = make_logger(self._sink)
        self._reactor = self.reactor = reactor
        self._threads = Threads(reactor)
        self._materials = gather(config)
        workers = number_of_workers(config)
        first = Charge(1, config, workers, secrets.token_bytes(32), self._sink.path, reactor_name)
        self._charges = Charges(first)
        self._sockets = Sockets()
        self.posts: list[Post] = []
        self.figures = AllFigures()
        self.company = Headquarters(self)
        """What consoles ask."""
        self._serving = Serving(
            reactor, lambda: self._materials, self.company.figures, self.company, self.log
        )
        self.exchange = Exchange(self.posts, self.log)
        chance = Random(secrets.token_bytes(8)).random
        self.budgets = Budgets(config, workers, self.exchange, chance, reactor, self.log)
        self._tending = Tending(self.posts, self.exchange)
        self.burials = Burials(reactor, self._threads, lambda: self._materials.hosts, self.budgets, self.log)
        self._reloads = Reloads(
            self.posts, self._charges, self.exchange, load, self._take, self._sink, succession, self.log
        )
        self._started = False
        self._stopping = False
        self._leaving = False
        self._retired = False
        """Whether another process has taken over."""
        self._counting = LoopingCall(self._log_pins)
        self._looking = LoopingCall(self._look)
        self._counting.clock = self._looking.clock = reactor
        self._pins_logged: Figures = {}
        if succession is not None:
            succession.bind(self, reactor, self.log)
            self.exchange.predecessor = succession.cancel

    def setServiceParent(self, parent: Any) -> None:
        """Join the application, and have its log written in our form."""
        super().setServiceParent(parent)
        parent.setComponent(ILogObserver, TwistedObserver(self.log))

    # Start.

    def privilegedStartService(self) -> None:
        """Open what the workers listen on, while we still may."""
        inherited = self._succession.inherited if self._succession is not None else NOTHING
        workers, keepalive = self._charges.in_force.workers, self._materials.keepalive
        try:
            self._sockets.open(self.config.proxy, workers, keepalive, inherited)
        except OSError as error:
            cannot_listen(self.log, str(error.filename), str(error.strerror or error))
            raise SystemExit(1) from error
        self._serving.start(shared=inherited.line is not None)

    def startService(self) -> None:
        """Start the workers."""
        super().startService()
        self._threads.start()
        self.budgets.start()
        self._counting.start(COUNT, now=False)
        self._looking.start(LOOK, now=False)
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self.reload))
        outlive_sigusr1(self._reactor, self.log)
        for number in range(1, self._charges.in_force.workers + 1):
            post = Post(
                number,
                self,
                self._sockets.by_worker,
                self._sockets.writing,
                self._charges.files,
                self._reactor,
                self.log,
            )
            self.posts.append(post)
        # From then on signals are heeded: a SIGTERM before ends a process that has no workers yet.
        self._reactor.callWhenRunning(self._start_workers)

    def _start_workers(self) -> None:
        for post in self.posts:
            post.start()

    def _look(self) -> None:
        for post in self.posts:
            post.look()

    def line(self, post: Post) -> Line:
        """Make our end of the line to a new process."""
        return Line(self, post)

    def worker_ready(self, post: Post, charge: int) -> None:
        """Take the word that a worker serves, and by which charge."""
        if self._stopping:
            # It is being ended.
            return
        post.serves(charge)
        self._tending.serves(post)
        self.budgets.greet(post.life)
        self.exchange.greet(post.life)
        self.company.greet(post)
        if not self._started and all(post.ready for post in self.posts):
            self._started = True
            self._say_started()
        self._reloads.worker_ready(charge)

    def _say_started(self) -> None:
        if self.stopping:
            # Nobody is let in any more: it has been told to go meanwhile.
            return
        proxy = self._charges.in_force.config.proxy
        self.log.info(
            "started",
            version=__version__,
            listen=self._sockets.addresses,
            auth=proxy.auth,
            tls=proxy.tls.mode,
            pool_mode=proxy.pool_mode,
            pool_size=proxy.pool_size,
            workers=[post.pid for post in self.posts],
            sockets=self._succession.inherited.whose if self._succession is not None else "nobody",
        )
        log_filters(self.log, self.config)
        if self._succession is not None:
            self._succession.serving()

    # As an `Incumbent`.

    @property
    def status(self) -> str:
        """Say what it is doing, for the service manager."""
        return f"Serving {self.exchange.clients} clients with {len(self.posts)} workers"

    @property
    def listening(self) -> dict[int, str]:
        """Give the descriptors of what the workers listen on, and which of them are read-only endpoints."""
        return self._sockets.descriptors

    def retire(self) -> None:
        """Have the workers accept nobody any more; end when the clients have gone."""
        self.log.info("successor_serves", clients=self.exchange.clients)
        self._retired = True
        self._reloads.retire()
        retired = Deferred.fromCoroutine(self._retire())
        retired.addErrback(self._defect)

    async def _retire(self) -> None:
        self._let_nobody_in()
        await self._serving.stop()
        await self._deafen()
        config = retiring(self._charges.in_force.config)
        self.budgets.configure(config)
        end = self._reactor.seconds() + config.proxy.restart_drain_timeout
        while True:
            await deferLater(self._reactor, _LEFT_STEP)
            if self._stopping or self._reactor.seconds() >= end:
                break
            # Who asks for the process that this one has followed asks here.
            if not await self._count_clients() and not (self._succession and self._succession.follows):
                break
        if not self._stopping:
            stop(self._reactor)

    async def _deafen(self) -> None:
        """Have the workers accept nobody any more; one that does not answer, or is starting, is ended."""
        answers = await ask(self.posts, messages.Deafen, self._reactor, _DEAF)
        for post in self.posts:
            if post not in answers:
                post.kill()

    def _let_nobody_in(self) -> None:
        self._sockets.close()
        for post in self.posts:
            post.let_end()

    def cancel_for_successor(self, pid: int, secret: bytes) -> Deferred[bool]:
        """Cancel what a client of some worker has under way; fires with whether there is one."""
        return self.exchange.cancel(0, pid, secret)

    # A worker that has ended.

    def worker_ended(self, post: Post, life: int, in_order: bool) -> None:
        """Take care of what a worker leaves; its place is already to be filled again."""
        self.figures.ended(life)
        self.exchange.ended(life)
        if self._stopping and in_order:
            self.burials.has_cancelled(life)
        if not self.stopping:
            self._tending.ended(post, life)
        self.budgets.died(life)
        if not self._stopping or self.burials.leaves_any(life):
            self.burials.bury(life)

    def _defect(self, failure: Failure) -> None:
        self.log.error("defect", failure=failure.getTraceback())

    # Figures.

    def _log_pins(self) -> None:
        """Log the figures of pins, if there are new ones."""
        figures = self.figures.total()
        pins = figures.get("pins", {})
        if pins != self._pins_logged:
            self._pins_logged = pins
            self.log.info(
                "pins",
                reasons=pins,
                audit_found=figures.get("audit_found", 0),
                questions_failed=figures.get("questions_failed", 0),
            )

    def _take(self, materials: Materials) -> None:
        """Take a configuration that is in force from now on."""
        self._materials = materials
        self._sockets.configure(materials.keepalive)
        # What a console says to one that another has followed brings no minimums back.
        self.budgets.configure(retiring(materials.config) if self._retired else materials.config)

    # What consoles ask.

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._charges.in_force.config

    @property
    def stopping(self) -> bool:
        """Whether pgproxy stops, or is about to."""
        return self._stopping or self._leaving or self._retired

    def reload(self) -> Deferred[str]:
        """Have all workers take the configuration as it is now; fires with what is wrong with it, if so."""
        return self._reloads.reload()

    def adjust(self, config: Config) -> Deferred[str]:
        """Have all workers take another configuration; fires with what is wrong with it, if anything."""
        return self._reloads.adjust(config)

    def shut_down(self, how: str) -> None:
        """Stop: at once, `wait_for_servers` or `wait_for_clients`."""
        self.log.warning("shutdown", how=how or "at_once")
        if how == "wait_for_clients":
            self._leaving = True
            Deferred.fromCoroutine(self._await_clients()).addErrback(self._defect)
            return
        if not how:
            self.exchange.tell_all(messages.Hurry)
        self._reactor.callLater(0, stop, self._reactor)

    async def _await_clients(self) -> None:
        """Stop when the last client has gone; nobody is taken in, and no worker started, meanwhile."""
        self._let_nobody_in()
        await self._deafen()
        await self.company.everybody({"act": "leave"})
        while not self._stopping and await self._count_clients():
            await deferLater(self._reactor, _LEFT_STEP)
        # Somebody may have stopped it while workers were asked.
        if not self._stopping:
            stop(self._reactor)

    async def _count_clients(self) -> int:
        """Count the clients but for those at the console; a worker that does not answer may have one."""
        replies = await self.company.everybody({"act": "clients"})
        return sum(reply.get("clients", 1) for reply in replies)

    # Stop.

    def stopService(self) -> Deferred[None]:
        """Stop in order; fires when all workers have ended."""
        super().stopService()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._hurry)
        return Deferred.fromCoroutine(self._stop())

    def _hurry(self, *_signal: object) -> None:
        self._reactor.callFromThread(self.exchange.tell_all, messages.Hurry)

    async def _stop(self) -> None:
        self._stopping = True
        self._reloads.stop()
        if self._succession is not None:
            self._succession.stopping()
        self.log.info("stopping", clients=self.exchange.clients)
        self._let_nobody_in()
        # Nobody is sent away while another worker would still take him in, or is about to.
        starting = [post for post in self.posts if not post.ready]
        for post in starting:
            post.kill()
        await DeferredList([post.gone for post in starting])
        answers = await ask(self.posts, messages.Deafen, self._reactor, _DEAF)
        for post in self.posts:
            if post not in answers:
                post.kill()
        self.exchange.tell_all(messages.Stop)
        proxy = self._charges.in_force.config.proxy
        seconds = proxy.drain_timeout + proxy.cancel_timeout + _BEYOND_DRAIN
        killing = self._reactor.callLater(seconds, self._kill_all)
        await DeferredList([post.gone for post in self.posts])
        if killing.active():
            killing.cancel()
        await self.burials.wait(_LAST_CANCELS)
        self.budgets.stop()
        self._counting.stop()
        self._looking.stop()
        self._log_pins()
        self._threads.stop()
        await self._serving.stop()
        self._charges.close()
        self.log.info("stopped")

    def _kill_all(self) -> None:
        for post in self.posts:
            post.kill()
