"""
The service that twistd runs where there are several workers: it carries no client itself.

It opens the sockets, starts the workers and starts them again, keeps the budgets, passes on what one worker
has for the others, and reloads and stops all in order.
"""

from __future__ import annotations

import secrets
import signal
import socket
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from attrs import evolve
from structlog.typing import FilteringBoundLogger
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import ILogObserver
from twisted.protocols.amp import Command
from twisted.python.failure import Failure

from pgproxy import __version__
from pgproxy.config import Config
from pgproxy.link.front import Materials
from pgproxy.link.listener import inherit
from pgproxy.link.threads import Threads
from pgproxy.observe.logs import TwistedObserver, make_logger
from pgproxy.observe.serving import Serving
from pgproxy.observe.sink import Sink
from pgproxy.service import COUNT, WRONG, gather, outlive_sigusr1, refuse_reload, reopen, warn_of_restart
from pgproxy.succession.inherited import READ_ONLY
from pgproxy.succession.retiring import retiring
from pgproxy.succession.succession import Succession
from pgproxy.workers import messages
from pgproxy.workers.bereft import Left, end_all
from pgproxy.workers.budgets import Budgets
from pgproxy.workers.charges import Charges
from pgproxy.workers.exchange import Exchange
from pgproxy.workers.figures import AllFigures, Figures
from pgproxy.workers.headquarters import Headquarters
from pgproxy.workers.line import Line
from pgproxy.workers.messages import name_of
from pgproxy.workers.post import LOOK, Post
from pgproxy.workers.share import Charge, greet_alike, number_of_workers
from pgproxy.workers.sockets import NOTHING, open_sockets
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
        self._load = load
        self._threads = Threads(reactor)
        self._materials = gather(config)
        workers = number_of_workers(config)
        first = Charge(1, config, workers, secrets.token_bytes(32), self._sink.path, reactor_name)
        self._charges = Charges(first)
        self._sockets: list[list[socket.socket]] = []
        self._writing = 0
        """How many of each worker's sockets, the first, are read-write endpoints."""
        self.posts: list[Post] = []
        self.keys: dict[int, dict[tuple[str, int], bytes]] = {}
        """By worker, the keys of its servers."""
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
        self._burials: set[Deferred[None]] = set()
        """What is being done about those that have ended."""
        self._started = False
        self._stopping = False
        self._leaving = False
        self._retired = False
        """Whether another process has taken over."""
        self._reloading = False
        self._reload_again = False
        """Whether it was asked for once more meanwhile."""
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
        config = self._charges.in_force.config
        try:
            inherited = self._succession.inherited if self._succession is not None else NOTHING
            proxy, workers = config.proxy, self._charges.in_force.workers
            inherited.keep((*proxy.listen, *proxy.listen_read_only))
            keepalive = self._materials.keepalive
            writing = open_sockets(proxy.listen, workers, keepalive, inherited)
            reading = open_sockets(proxy.listen_read_only, workers, keepalive, inherited)
            self._writing = len(writing[0])
            self._sockets = [one + other for one, other in zip(writing, reading, strict=True)]
        except OSError as error:
            self.log.critical(
                "cannot_listen",
                address=str(error.filename),
                why=str(error.strerror or error),
                remedy="choose another address in proxy.listen (or --listen), or stop what listens there",
            )
            raise SystemExit(1) from error
        shared = self._succession is not None and self._succession.inherited.line is not None
        self._serving.start(shared)

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
                number, self, self._sockets, self._writing, self._charges.files, self._reactor, self.log
            )
            self.posts.append(post)
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
        if charge != self._charges.in_force.number and not self._reloading:
            # It was starting while the others took another.
            self._reloading_by(self._catch_up())

    def _say_started(self) -> None:
        proxy = self._charges.in_force.config.proxy
        names = [one.getsockname() for one in self._sockets[0]]
        self.log.info(
            "started",
            version=__version__,
            listen=[f"{name[0]}:{name[1]}" for name in names],
            auth=proxy.auth,
            tls=proxy.tls.mode,
            pool_mode=proxy.pool_mode,
            pool_size=proxy.pool_size,
            workers=[post.pid for post in self.posts],
            sockets=self._succession.inherited.whose if self._succession is not None else "nobody",
        )
        self._log_filters()
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
        return {
            one.fileno(): READ_ONLY if place >= self._writing else ""
            for own in self._sockets
            for place, one in enumerate(own)
        }

    def retire(self) -> None:
        """Have the workers accept nobody any more; end when the clients have gone."""
        self.log.info("successor_serves", clients=self.exchange.clients)
        self._retired = True
        retired = Deferred.fromCoroutine(self._retire())
        retired.addErrback(self._defect)

    async def _retire(self) -> None:
        self._let_nobody_in()
        await self._serving.stop()
        answers = await self._ask_all(messages.Deafen, _DEAF)
        for post in self.posts:
            if post not in answers:
                post.kill()
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
            self._reactor.stop()

    def _let_nobody_in(self) -> None:
        for own in self._sockets:
            for one in own:
                one.close()
        for post in self.posts:
            post.let_end()
        self._sockets = []

    def cancel_for_successor(self, pid: int, secret: bytes) -> Deferred[bool]:
        """Cancel what a client of some worker has under way; fires with whether there is one."""
        return self.exchange.cancel(0, pid, secret)

    def _log_filters(self) -> None:
        filters = self._charges.in_force.config.proxy.session_pinning_filters
        if filters:
            self.log.warning("pinning_filters_in_force", filters=sorted(filters))

    # A worker that has ended.

    def worker_ended(self, post: Post, life: int, in_order: bool) -> None:
        """Take care of what a worker leaves; its place is already to be filled again."""
        self.figures.ended(life)
        self.exchange.ended(life)
        keys = self.keys.pop(life, {})
        if self._stopping and in_order:
            # It has cancelled what was to be.
            keys = {}
        if not self.stopping:
            self._tending.ended(post, life)
        self.budgets.died(life)
        left = [Left(self._host(where), pid, secret) for (where, pid), secret in keys.items()]
        if self._stopping and not left:
            return
        ending = Deferred.fromCoroutine(end_all(self._reactor, self._threads, left))
        ending.addErrback(self._defect)
        ending.addCallback(lambda _: self.budgets.buried(life))
        self._burials.add(ending)
        ending.addCallback(lambda _: self._burials.discard(ending))

    def _host(self, where: str) -> Any:
        """Give where a server is that may have been opened before a reload."""
        _name, host, port = where.rsplit(" ", 2)
        known = self._materials.hosts.get(name_of(where)) or next(iter(self._materials.hosts.values()))
        return evolve(known, name=host, port=int(port))

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

    # Reload.

    def reload(self) -> Deferred[str]:
        """Have all workers take the configuration as it is now; fires with what is wrong with it, if so."""
        reopen(self._sink, self.log)
        self.exchange.tell_all(messages.Reopen)
        if self._reloading:
            self._reload_again = True
        if self._reloading or self._stopping or self._retired:
            return succeed("another reload is under way, or pgproxy is stopping")
        if self._succession is not None:
            self._succession.reloading()
        try:
            config = self._load()
            materials = gather(config)
        except WRONG as error:
            refuse_reload(self.log, str(error))
            self._say_reloaded()
            return succeed(str(error) or type(error).__name__)
        before = self._charges.in_force.config
        warn_of_restart(self.log, before, config)
        return self._reloading_by(self._reload(materials))

    def _reloading_by(self, steps: Coroutine[Any, Any, str]) -> Deferred[str]:
        self._reloading = True
        reloaded = Deferred.fromCoroutine(steps)
        reloaded.addErrback(self._defect)
        return reloaded.addCallback(self._has_reloaded)

    def _say_reloaded(self) -> None:
        if self._succession is not None:
            self._succession.reloaded()

    def _has_reloaded(self, wrong: str | None) -> str:
        self._reloading = False
        self._say_reloaded()
        if self._reload_again:
            self._reload_again = False
            self.reload()
        return "a defect in pgproxy; its log says more" if wrong is None else wrong

    async def _reload(self, materials: Materials) -> str:
        charge = self._charges.propose(materials.config)
        lives = {post: post.life for post in self.posts if post.ready}
        answers = await self._ask_all(messages.Prepare)
        wrong = [answer["wrong"] for answer in answers.values() if answer["wrong"]]
        if wrong:
            refuse_reload(self.log, wrong[0])
        else:
            if not greet_alike(self._charges.in_force.config, charge.config):
                self.exchange.forget_welcomes()
            self._charges.agree(charge)
            self._materials = materials
            for own in self._sockets:
                for one in own:
                    inherit(one, materials.keepalive)
            self.budgets.configure(charge.config)
            await self._ask([post for post in answers if post.life == lives[post]], messages.Adopt)
            for post in answers:
                if post.life == lives[post]:
                    post.charge = charge.number
            self.log.info("reloaded")
            self._log_filters()
        await self._catch_up()
        return str(wrong[0]) if wrong else ""

    # What consoles ask.

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._charges.in_force.config

    @property
    def stopping(self) -> bool:
        """Whether pgproxy stops, or is about to."""
        return self._stopping or self._leaving or self._retired

    def adjust(self, config: Config) -> Deferred[str]:
        """Have all workers take another configuration; fires with what is wrong with it, if anything."""
        if self._reloading or self._stopping:
            return succeed("a reload is under way, or pgproxy is stopping")
        try:
            return self._reloading_by(self._reload(gather(config)))
        except WRONG as error:
            return succeed(str(error))

    def shut_down(self, how: str) -> None:
        """Stop: at once, `wait_for_servers` or `wait_for_clients`."""
        self.log.warning("shutdown", how=how or "at_once")
        if how == "wait_for_clients":
            self._leaving = True
            Deferred.fromCoroutine(self._await_clients()).addErrback(self._defect)
            return
        if not how:
            self.exchange.tell_all(messages.Hurry)
        self._reactor.callLater(0, self._reactor.stop)

    async def _await_clients(self) -> None:
        """Stop when the last client has gone; nobody is taken in, and no worker started, meanwhile."""
        for post in self.posts:
            post.let_end()
        await self._ask_all(messages.Deafen)
        await self.company.everybody({"act": "leave"})
        while await self._count_clients():
            await deferLater(self._reactor, _LEFT_STEP)
            if self._stopping:
                return
        self._reactor.stop()

    async def _count_clients(self) -> int:
        """Count the clients but for those at the console; a worker that does not answer may have one."""
        replies = await self.company.everybody({"act": "clients"})
        return sum(reply.get("clients", 1) for reply in replies)

    async def _catch_up(self) -> str:
        """Have workers that were starting meanwhile take what is in force; nothing can be wrong with that."""
        while not self._stopping:
            number = self._charges.in_force.number
            late = [post for post in self.posts if post.ready and post.charge != number]
            if not late:
                break
            self._charges.repeat()
            lives = {post: post.life for post in late}
            answers = await self._ask(late, messages.Prepare)
            for post, answer in answers.items():
                if post.life != lives[post]:
                    continue
                if answer["wrong"]:
                    # As one that can't start: it is tried again until the files are right.
                    self.log.error("worker_out_of_date", worker=post.number, why=answer["wrong"])
                    post.kill()
                else:
                    post.tell(messages.Adopt)
                    post.charge = number
        return ""

    async def _ask_all(self, command: type[Command], seconds: float | None = None) -> dict[Post, Any]:
        """Ask all workers that are there; give the answers of those that still were, and in time."""
        return await self._ask([post for post in self.posts if post.ready], command, seconds)

    async def _ask(
        self, posts: list[Post], command: type[Command], seconds: float | None = None
    ) -> dict[Post, Any]:
        # Without a limit: who doesn't answer is ended (`Post.look`), and the question with it.
        asked = [post.ask(command) for post in posts]
        if seconds is not None:
            for question in asked:
                question.addTimeout(seconds, self._reactor)
        answers = await DeferredList(asked, consumeErrors=True)
        return {post: answer for post, (answered, answer) in zip(posts, answers, strict=True) if answered}

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
        if self._succession is not None:
            self._succession.stopping()
        self.log.info("stopping", clients=self.exchange.clients)
        self._let_nobody_in()
        # Nobody is sent away while another worker would still take him in, or is about to.
        starting = [post for post in self.posts if not post.ready]
        for post in starting:
            post.kill()
        await DeferredList([post.gone for post in starting])
        answers = await self._ask_all(messages.Deafen, _DEAF)
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
        burials: Deferred[Any] = DeferredList(list(self._burials))
        burials.addTimeout(_LAST_CANCELS, self._reactor, onTimeoutCancel=lambda _value, _seconds: None)
        await burials
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
