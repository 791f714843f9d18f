"""The supervisor's end of the line to one worker: what it tells becomes calls."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.protocols.amp import AMP
from twisted.python.failure import Failure

from pgproxy.pool.permits import Part, Report
from pgproxy.workers import messages

if TYPE_CHECKING:
    from pgproxy.workers.post import Post
    from pgproxy.workers.supervisor import Supervisor


class Line(AMP):
    """One process's."""

    def __init__(self, supervisor: Supervisor, post: Post) -> None:
        super().__init__()
        self._supervisor = supervisor
        self._post = post
        self._life = post.life

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Tell that the worker is gone, or about to."""
        # First: who has asked it something is told by the other, and must not ask again.
        self._post.line_broken(self)
        super().connectionLost(reason)

    @messages.Ready.responder
    def _ready(self, charge: int) -> dict[str, Any]:
        # What this tells arrives before the answer.
        self._supervisor.worker_ready(self._post, charge)
        return {}

    @messages.Reported.responder
    def _reported(
        self,
        where: str,
        database: str,
        user: str,
        walsender: bool,
        heard: int,
        servers: int,
        opening: int,
        idle: int,
        turned: int,
        waiting: int,
        waited: float,
        kept: bool,
    ) -> dict[str, Any]:
        part = Part(database, user, walsender)
        report = Report(part, heard, servers, opening, idle, turned, waiting, waited, kept)
        self._supervisor.budgets.report(self._life, where, report)
        return {}

    @messages.Learned.responder
    def _learned(self, where: str, capacity: int) -> dict[str, Any]:
        self._supervisor.budgets.learned(where, capacity)
        return {}

    @messages.ServerOpened.responder
    def _server_opened(self, where: str, pid: int, secret: bytes) -> dict[str, Any]:
        self._supervisor.burials.opened(self._life, where, pid, secret)
        return {}

    @messages.ServerEnded.responder
    def _server_ended(self, where: str, pid: int) -> dict[str, Any]:
        self._supervisor.burials.closed(self._life, where, pid)
        return {}

    @messages.AskEverybody.responder
    def _ask_everybody(self, request: str) -> Any:
        asked = Deferred.fromCoroutine(self._supervisor.company.everybody(json.loads(request)))
        return asked.addCallback(lambda replies: {"replies": json.dumps(replies)})

    @messages.AskHead.responder
    def _ask_head(self, request: str) -> Any:
        asked = Deferred.fromCoroutine(self._supervisor.company.head(json.loads(request)))
        return asked.addCallback(lambda reply: {"reply": json.dumps(reply)})

    @messages.Figures.responder
    def _figures(self, figures: str) -> dict[str, Any]:
        self._supervisor.figures.heard(self._life, json.loads(figures))
        return {}

    @messages.Clients.responder
    def _clients(self, number: int) -> dict[str, Any]:
        self._supervisor.exchange.count_clients(self._life, number)
        return {}

    @messages.Cancel.responder
    def _cancel(self, pid: int, secret: bytes) -> Any:
        found = self._supervisor.exchange.cancel(self._life, pid, secret)
        return found.addCallback(lambda found: {"found": found})

    @messages.Welcome.responder
    def _welcome(self, database: str, user: str, parameters: bytes, greeting: bytes) -> dict[str, Any]:
        self._supervisor.exchange.welcome(self._life, (database, user, parameters), greeting)
        return {}

    @messages.MakeWay.responder
    def _make_way(self, target: str, databases: list[bytes]) -> dict[str, Any]:
        self._supervisor.exchange.make_way(self._life, target, databases)
        return {}

    @messages.DefaultsChanged.responder
    def _defaults_changed(self, target: str) -> dict[str, Any]:
        self._supervisor.exchange.defaults_changed(self._life, target)
        return {}
