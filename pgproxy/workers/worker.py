"""One of several processes that carry clients: the proxy as in one process, but for what all share."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from pgproxy.config import Config
from pgproxy.console.company import Reply, Request
from pgproxy.gather import WRONG, gather
from pgproxy.head import reopen
from pgproxy.link.listener import StreamPort
from pgproxy.link.materials import Materials
from pgproxy.link.target import TargetPools
from pgproxy.observe.figures import figures_of
from pgproxy.observe.logs import make_logger
from pgproxy.observe.sink import Sink
from pgproxy.pool.states import Parameters
from pgproxy.service import Pgproxy
from pgproxy.session.reported import Reported
from pgproxy.workers.colleagues import Colleagues
from pgproxy.workers.seat import Seat
from pgproxy.workers.share import Charge, greet_alike, of_worker

_FIGURES = 2.0
"""Seconds between two times that the supervisor is told figures."""
_A_LAST_WORD = 1.0
"""Seconds for servers to be cancelled where the supervisor is gone."""


def read_charge(descriptor: int) -> Charge:
    """Read what the supervisor has laid ready, as it is now."""
    # It is written by our own parent, into memory that only its children have.
    charge = pickle.loads(os.pread(descriptor, os.fstat(descriptor).st_size, 0))
    assert isinstance(charge, Charge)
    return charge


class Worker(Pgproxy):
    """
    One worker. `sockets` gives, for each worker, the descriptors of what it listens on.

    `read` gives the next charge; `end` is called when it has stopped.
    """

    def __init__(
        self,
        number: int,
        charge: Charge,
        read: Callable[[], Charge],
        sockets: list[list[int]],
        writing: int,
        seat: Seat,
        reactor: Any,
        end: Callable[[], None],
    ) -> None:
        sink = Sink.file(charge.log_file) if charge.log_file is not None else Sink.standard_output()
        log = make_logger(sink).bind(worker=number)
        super().__init__(of_worker(charge.config, charge.workers), _no_load, reactor, sink, seat, log)
        self.front.mock_key = charge.mock_key
        self._number = number
        self._charge = charge.number
        self._read = read
        self._sockets = sockets
        self._writing = writing
        """How many of each worker's sockets, the first, are read-write endpoints."""
        self._seat = seat
        self._end = end
        self._prepared: Materials | None = None
        self._whole_prepared = charge.config
        self._tended: dict[int, list[StreamPort]] = {}
        self._stopping = False
        self._bereft = False
        self._telling = LoopingCall(self._tell_figures)
        self._telling.clock = reactor
        self._whole = charge.config
        """The configuration in force, of which ours is a part."""
        self._open_console(number, Colleagues(seat, lambda: self._whole))
        seat.work = self

    # As a service.

    def privilegedStartService(self) -> None:
        """Do nothing: the supervisor has opened what we listen on."""

    def startService(self) -> None:
        """Begin to serve."""
        super().startService()
        self._telling.start(_FIGURES)
        self._seat.ready(self._charge).addCallbacks(self._serve, lambda _gone: None)

    def _serve(self, _told: object) -> None:
        if self._sockets:
            self._endpoints.take(self._listen(self._number))

    def _heed_signals(self) -> None:
        """Heed none: the supervisor does, and tells."""

    def _heed_impatience(self) -> None:
        """Heed none."""

    def _say_started(self) -> None:
        self.log.info("worker_started", pid=os.getpid())

    def _log_pins(self) -> None:
        """Leave that to the supervisor."""

    def _listen(self, number: int) -> list[StreamPort]:
        return [
            self._endpoints.listen_on(descriptor, read_only=place >= self._writing)
            for place, descriptor in enumerate(self._sockets[number - 1])
        ]

    def _tell_figures(self) -> None:
        self._seat.figures(figures_of(self.front))

    # As a `Work`.

    async def answer(self, request: Request) -> Reply:
        """Answer what a console asks."""
        if request.get("act") == "leave":
            self.front.stopping = True
            return {}
        if request.get("act") == "clients":
            return {"clients": sum(client.visit is None for client in self.front.clients)}
        return await self.here.answer(request)

    @property
    def clients(self) -> int:
        """How many clients are here."""
        return self.front.present

    def targets(self) -> list[TargetPools]:
        """Give all targets in use."""
        return self.front.targets.targets

    def welcome(self, database: str, user: str, parameters: Parameters, greeting: Reported) -> None:
        """Take the word how a server of a pool greets."""
        self.front.targets.welcome(database, user, parameters, greeting)

    def tend(self, worker: int, on: bool) -> None:
        """Accept connections for another worker, or no longer."""
        if on and worker not in self._tended and self._sockets:
            self._tended[worker] = self._listen(worker)
        elif not on:
            for port in self._tended.pop(worker, []):
                port.stopListening()

    def prepare(self) -> str:
        """Read the configuration; give what is wrong with it."""
        try:
            charge = self._read()
            self._prepared = gather(of_worker(charge.config, charge.workers))
            self._whole_prepared = charge.config
        except WRONG as error:
            self._prepared = None
            return str(error) or type(error).__name__
        return ""

    def adopt(self) -> None:
        """Take it."""
        if self._prepared is not None:
            self._whole = self._whole_prepared
            if not greet_alike(self.front.config, self._prepared.config):
                self._seat.forget_welcomes()
            self.take(self._prepared)
            self._prepared = None

    def reopen(self) -> None:
        """Open the log file anew."""
        reopen(self._sink, self.log)

    def deafen(self) -> Deferred[None]:
        """Listen no more."""
        return Deferred.fromCoroutine(self._deafen())

    async def _deafen(self) -> None:
        for worker in list(self._tended):
            self._endpoints.take(self._tended.pop(worker))
        await self._endpoints.close()
        for descriptors in self._sockets:
            for descriptor in descriptors:
                os.close(descriptor)
        self._sockets = []

    def stop(self) -> None:
        """Stop in order."""
        if not self._stopping:
            self._stopping = True
            self._telling.stop()
            self.stopService().addBoth(self._stopped)

    def _stopped(self, _result: object) -> None:
        self._tell_figures()
        # One turn for the line to take that.
        self._reactor.callLater(0, self._end)

    def bereft(self) -> None:
        """Stop at once: the supervisor is gone."""
        if self._stopping:
            self.hurry()
            return
        self.log.error("supervisor_lost")
        self._bereft = True
        # Whoever comes now, and a supervisor that is started anew, finds nobody listening.
        self.deafen()
        self._reactor.callLater(_A_LAST_WORD, self.hurry)
        self.stop()

    def _drain_timeout(self) -> float:
        return 0.0 if self._bereft else super()._drain_timeout()


def _no_load() -> Config:
    raise NotImplementedError("the supervisor reads the configuration")
