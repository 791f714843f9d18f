"""
Looks at all processes, and tells those who look at the page.

The law: each second while somebody looks. What was before is shown, too, so otherwise it looks once in
`_SELDOM` seconds: to look costs something for each client that there is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from structlog.typing import FilteringBoundLogger
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from pgproxy import __version__
from pgproxy.config import Config
from pgproxy.console.commands import Show
from pgproxy.console.desk import Desk
from pgproxy.console.talk import Done
from pgproxy.page.history import NAMES, History
from pgproxy.page.shown import PARTS, shown
from pgproxy.page.stream import Stream, event

MOST = 16
"""Streams at a time."""
_BETWEEN = 1.0
"""Seconds between two looks, while somebody looks at the page."""
_SELDOM = 10
"""The same while nobody does, a multiple."""
_TABLES = 2
"""Tables are asked for at one look in so many, while somebody looks."""
_STATEMENTS = 6
"""Those of statements, of which there may be many, at one in so many."""


class Watch:
    """
    The page's figures, and its streams.

    `figures` and `desk` give those of all processes, `wall` the seconds since 1970.
    """

    def __init__(
        self,
        reactor: Any,
        figures: Callable[[], Awaitable[dict[str, Any]]],
        desk: Desk,
        config: Callable[[], Config],
        log: FilteringBoundLogger,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._reactor = reactor
        self._wall = wall
        self._figures = figures
        self._desk = desk
        self._config = config
        self._log = log
        self._history = History()
        self._streams: set[Stream] = set()
        self._seconds = 0
        self._looks = 0
        self._tables: dict[str, Any] = {}
        """What was shown last of each table."""
        self._asking = False
        """Whether the tables are being asked for."""
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor

    def start(self) -> None:
        """Begin to look."""
        self._looking.start(_BETWEEN, now=False)

    def stop(self) -> None:
        """Look no more, and end all streams."""
        if self._looking.running:
            self._looking.stop()
        for stream in list(self._streams):
            stream.end()

    def add(self, request: Any) -> bool:
        """Go on answering a request; says whether it may have a stream."""
        if len(self._streams) >= MOST:
            return False
        if not self._streams:
            # What was shown is of when somebody has last looked.
            self._tables = {}
            self._looks = -1
        stream = Stream(request, self._reactor.seconds())
        self._streams.add(stream)
        request.notifyFinish().addBoth(lambda _end: self._streams.discard(stream))
        self._tell(stream, b"")
        return True

    async def _look(self) -> None:
        self._seconds += 1
        if self._seconds % _SELDOM and not self._streams:
            return
        # An exception would end the looping.
        try:
            figures = await self._figures()
            self._history.add(self._wall(), figures)
        except Exception:
            self._log.error("defect", failure=Failure().getTraceback())
            return
        if self._streams:
            self._looks += 1
            self._tell_all(event("point", _json(self._history.last)))
            # A worker that hangs is waited for: nobody else has to.
            if self._looks % _TABLES == 0 and not self._asking:
                self._asking = True
                asked = Deferred.fromCoroutine(self._ask(figures, self._looks % _STATEMENTS == 0))
                asked.addErrback(self._defect).addBoth(self._asked)

    async def _ask(self, figures: dict[str, Any], with_statements: bool) -> None:
        asked = [what for what in PARTS if what != "statements" or with_statements]
        answers = await gatherResults(
            [Deferred.fromCoroutine(self._desk.perform(Show(what), "")) for what in asked]
        )
        for what, answer in zip(asked, answers, strict=True):
            if isinstance(answer, Done) and answer.table is not None:
                self._tables[what] = shown(what, answer.table)
        self._tables["about"] = self._about(figures)
        self._tell_all(event("tables", _json(self._tables)))

    def _asked(self, _result: object) -> None:
        self._asking = False

    def _defect(self, failure: Failure) -> None:
        self._log.error("defect", failure=failure.getTraceback())

    def _about(self, figures: dict[str, Any]) -> dict[str, Any]:
        config = self._config()
        return {
            "version": __version__,
            "clients_max": config.proxy.max_client_connections,
            "workers": figures.get("processes", 0),
            "restarts": figures.get("restarts", 0),
            "memory": figures.get("memory", 0),
            "failovers": sum(one.get("most", 0) for one in figures.get("failovers", {}).values()),
            "statements": config.proxy.statement_statistics,
        }

    def _tell_all(self, news: bytes) -> None:
        for stream in list(self._streams):
            self._tell(stream, news)

    def _tell(self, stream: Stream, news: bytes) -> None:
        """Send what is new, or all to one that has missed something."""
        if not stream.ready(self._reactor.seconds()):
            return
        if stream.behind:
            stream.behind = False
            all_of_it = {"names": NAMES, "columns": self._history.columns()}
            news = event("history", _json(all_of_it)) + (
                event("tables", _json(self._tables)) if self._tables else b""
            )
        stream.send(news)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
