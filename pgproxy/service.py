"""
The tree of services: built and wired in one visible place; the order of start, drain and stop; reload.

Start: threads, then the listeners. Stop: the listeners, the clients as they come to rest within
`drain_timeout` seconds (or until a second signal), the servers when what they do has been cancelled, the
threads. SIGHUP: the log file is opened anew, the configuration and the files it names are read anew; where
anything is wrong with them, what is in force stays in force.
"""

from __future__ import annotations

import os
import resource
import secrets
import signal
import ssl
from collections.abc import Callable
from importlib.util import find_spec
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
from pgproxy.auth.looks import Looks, commonest
from pgproxy.auth.users import UsersFileError, parse_users
from pgproxy.config import Config, ConfigError, Http, Problem
from pgproxy.console.alone import Alone
from pgproxy.console.columns import PERIOD
from pgproxy.console.company import Company
from pgproxy.console.desk import Desk
from pgproxy.console.door import Door
from pgproxy.console.here import Here
from pgproxy.console.rows import moment
from pgproxy.link.auth_query import AuthQuery
from pgproxy.link.client import ClientConnection
from pgproxy.link.elsewhere import Elsewhere
from pgproxy.link.front import Front, Materials
from pgproxy.link.keepalive import Keepalive
from pgproxy.link.listener import StreamPort, inherit, listen, listen_on
from pgproxy.link.look_ups import AT_ONCE
from pgproxy.link.server import Host
from pgproxy.link.threads import Threads
from pgproxy.link.tls import client_leg, server_leg
from pgproxy.observe.client import ClientLog
from pgproxy.observe.figures import figures_of
from pgproxy.observe.logs import TwistedObserver, make_logger
from pgproxy.observe.serving import Serving
from pgproxy.observe.sink import Sink
from pgproxy.succession.inherited import READ_ONLY, Inherited
from pgproxy.succession.retiring import retiring
from pgproxy.succession.succession import Succession
from pgproxy.watch.accounts import watchers_of
from pgproxy.watch.watchers import Watchers
from pgproxy.wire.errors import TERMINATED

if TYPE_CHECKING:
    from pgproxy.aws.service import Aws

COUNT = 300.0
"""Seconds between two lines of log with the figures of pins."""
WRONG = (ConfigError, UsersFileError, OSError, ssl.SSLError)
"""What is raised where a configuration, or a file that it names, can't be used."""
_LEFT_STEP = 0.2
"""Seconds between two looks whether all clients have left."""
_DRAIN_STEP = 0.05
"""Seconds between two looks at who has come to rest."""


def gather(config: Config) -> Materials:
    """Read the files it names. Raises OSError, ssl.SSLError, UsersFileError or ConfigError."""
    proxy = config.proxy
    users = (
        parse_users(proxy.users_file.read_text(encoding="utf-8"), str(proxy.users_file))
        if proxy.users_file is not None
        else {}
    )
    tls = client_leg(
        proxy.tls.mode,
        proxy.tls.certificate,
        proxy.tls.key,
        proxy.tls.client_ca,
        proxy.tls.client_certificate == "require" or proxy.auth == "cert",
    )
    keepalive = Keepalive(proxy.tcp_keepidle, proxy.tcp_keepintvl, proxy.tcp_keepcnt, proxy.tcp_user_timeout)
    hosts = {
        name: Host(
            target.server[0].host,
            target.server[0].port,
            server_leg(target.tls, target.ca, target.certificate, target.key),
            keepalive,
        )
        for name, target in config.targets.items()
    }
    # Where there is an auth_query, the one who asks is none of those who are asked about.
    asks = proxy.auth_query.user if proxy.auth_query is not None else None
    looks = commonest(secret for name, secret in users.items() if name != asks)
    if config.aws is not None and config.aws.secrets and not users:
        # The passwords of secrets are plain.
        looks = Looks(scram=False)
    return Materials(
        config,
        users,
        looks,
        tls,
        hosts,
        keepalive,
        AuthQuery.for_targets(config, users),
        watchers_of(config, users),
        _http_token(config.http),
    )


def _http_token(http: Http) -> bytes:
    """Read the token of HTTP; see whether what is to be served can be."""
    if http.listen and find_spec("prometheus_client") is None:
        right = "install pgproxy[metrics], or take it out"
        raise ConfigError([Problem("", "http.listen", "needs the package prometheus-client", right)])
    if http.token_file is None:
        return b""
    token = http.token_file.read_text(encoding="utf-8").partition("\n")[0].strip().encode()
    if not token:
        raise ConfigError([Problem(str(http.token_file), "", "has no token in its first line")])
    return token


def _take_all_file_descriptors() -> None:
    """Raise our limit of open files to what we may: each client and each server takes one."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _forget_libpq_environment() -> None:
    """Let nothing in our environment (PGHOSTADDR, PGSERVICE …) say where auth_query's connections go."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]


def reopen(sink: Sink, log: FilteringBoundLogger) -> None:
    """Open the log file anew."""
    try:
        sink.reopen()
    except OSError as error:
        log.error("cannot_reopen_log", why=str(error))


def refuse_reload(log: FilteringBoundLogger, why: str) -> None:
    """Say that the configuration stays as it is."""
    log.error("reload_refused", why=why, in_force="the configuration read before")


def warn_of_restart(log: FilteringBoundLogger, before: Config, after: Config) -> None:
    """Say what a reload does not change."""
    for option in ("listen", "listen_read_only", "workers"):
        if getattr(before.proxy, option) != getattr(after.proxy, option):
            log.warning("reload_needs_restart", option=f"proxy.{option}")
    for option in ("listen", "page"):
        if getattr(before.http, option) != getattr(after.http, option):
            log.warning("reload_needs_restart", option=f"http.{option}")
    if before.aws is None and after.aws is not None:
        log.warning("reload_needs_restart", option="aws")


def outlive_sigusr1(reactor: Any, log: FilteringBoundLogger) -> None:
    """
    Only log a SIGUSR1, which would end the process.

    It is PgBouncer's PAUSE, so somebody's scripts may send it.
    """

    def told() -> None:
        remedy = "say PAUSE on the console; SIGHUP opens the log anew"
        log.warning("signal_ignored", signal="SIGUSR1", remedy=remedy)

    signal.signal(signal.SIGUSR1, lambda *_: reactor.callFromThread(told))


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
        self._ports: list[StreamPort] = []
        self._serving = Serving(reactor, lambda: self.front.materials, self._figures, Alone(self), self.log)
        self._connections = 0
        self._in_a_hurry = False
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
        proxy = self.front.config.proxy
        inherited = self._succession.inherited if self._succession is not None else Inherited()
        inherited.keep((*proxy.listen, *proxy.listen_read_only))
        keepalive = self.front.materials.keepalive
        endpoints = [(address, self._client) for address in proxy.listen]
        endpoints += [(address, self._reading_client) for address in proxy.listen_read_only]
        for address, client in endpoints:
            there = inherited.at(address)
            for one in there:
                inherit(one, keepalive)
                self._ports.append(listen_on(self._reactor, one.fileno(), client))
                one.close()
            if there:
                continue
            try:
                port = listen(self._reactor, address.host, address.port, client, keepalive)
                self._ports.append(port)
            except CannotListenError as error:
                self.log.critical(
                    "cannot_listen",
                    address=f"{address.host}:{address.port}",
                    why=str(error.socketError),
                    remedy="choose another address in proxy.listen (or --listen), or stop what listens there",
                )
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
            listen=[f"{port.getHost().host}:{port.getHost().port}" for port in self._ports],
            auth=proxy.auth,
            tls=proxy.tls.mode,
            pool_mode=proxy.pool_mode,
            pool_size=proxy.pool_size,
            sockets=self._succession.inherited.whose if self._succession is not None else "nobody",
        )
        self._log_filters()
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
        return {port.fileno(): READ_ONLY if port.make == self._reading_client else "" for port in self._ports}

    def retire(self) -> None:
        """Accept nobody any more; end when the clients have gone."""
        self.log.info("successor_serves", clients=len(self.front.clients))
        self._retired = True
        retiring_ = Deferred.fromCoroutine(self._retire())
        retiring_.addErrback(self._defect)

    async def _retire(self) -> None:
        await self._listen_no_more()
        await self._serving.stop()
        materials = self.front.materials
        self.take(evolve(materials, config=retiring(materials.config)))
        end = self._reactor.seconds() + self.front.config.proxy.restart_drain_timeout
        while (self._has_clients or self._follows) and self._reactor.seconds() < end:
            await deferLater(self._reactor, _DRAIN_STEP)
        if not self.front.stopping:
            self._reactor.stop()

    def cancel_for_successor(self, pid: int, secret: bytes) -> Deferred[bool]:
        """Cancel what one of our clients has under way; fires with whether there is such a client."""
        client = self.front.keys.find(pid, secret)
        if client is None:
            return self._succession.cancel(pid, secret) if self._succession is not None else succeed(False)
        sent = client.cancel()
        self.log.info("cancel_request", found=True, sent=sent is not None, elsewhere=True)
        return (sent if sent is not None else succeed(None)).addBoth(lambda _: True)

    def _defect(self, failure: Failure) -> None:
        self.log.error("defect", failure=failure.getTraceback())

    def _sweep(self) -> None:
        # An exception would end the looping, and with it every limit of time.
        try:
            self.front.sweep()
        except Exception:
            self.log.error("defect", failure=Failure().getTraceback())

    def _log_filters(self) -> None:
        """Put on record what the owner has excluded."""
        filters = self.front.config.proxy.session_pinning_filters
        if filters:
            self.log.warning("pinning_filters_in_force", filters=sorted(filters))

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
        self._in_a_hurry = True

    async def _stop(self) -> None:
        front = self.front
        front.stopping = True
        if self._succession is not None:
            self._succession.stopping()
        self.log.info("stopping", clients=len(front.clients))
        await self._listen_no_more()
        end = self._reactor.seconds() + self._drain_timeout()
        while True:
            for client in list(front.clients):
                if client.at_rest:
                    client.terminate(TERMINATED)
            busy = [client for client in front.clients if not client.ended]
            if not busy or self._in_a_hurry or self._reactor.seconds() >= end:
                break
            await deferLater(self._reactor, _DRAIN_STEP)
        for client in list(front.clients):
            client.terminate(TERMINATED)
        # What is under way is being cancelled: a connection that is closed ends nothing in PostgreSQL.
        end = self._reactor.seconds() + front.config.proxy.cancel_timeout
        while any(lender.releasing for lender in front.targets.lenders):
            if self._in_a_hurry or self._reactor.seconds() >= end:
                break
            await deferLater(self._reactor, _DRAIN_STEP)
        self._watchers.stop()
        front.targets.close_all()
        # One turn for what was just written, the rest is the kernel's.
        await deferLater(self._reactor, _DRAIN_STEP)
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

    async def _listen_no_more(self) -> None:
        """Listen no more."""
        while self._ports:
            await self._ports.pop().stopListening()

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
        self._log_filters()
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
        post = {"worker": 1, "pid": os.getpid(), "since": moment(self._started_at)}
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
        self._reactor.callLater(0, self._reactor.stop)

    @property
    def _has_clients(self) -> bool:
        """Whether there is anybody but those at the console: who only looks on keeps no process alive."""
        return any(client.visit is None for client in self.front.clients)

    @property
    def _follows(self) -> bool:
        """Whether the process is still there that this one has followed: who asks for it asks here."""
        return self._succession is not None and self._succession.follows

    async def _await_clients(self) -> None:
        """Stop when the last client has gone."""
        await self._listen_no_more()
        while self._has_clients:
            await deferLater(self._reactor, _LEFT_STEP)
            if not self.running:
                return
        self._reactor.stop()

    def take(self, materials: Materials) -> None:
        """Take another configuration and what it names."""
        self.front.configure(materials)
        self._watchers.configure(materials)
        for port in self._ports:
            inherit(port.socket, materials.keepalive)
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
