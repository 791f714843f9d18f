"""What one process answers when a console asks: its rows, and what it does of what is asked of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pgproxy.config import Config
from pgproxy.console.company import Refused, Reply, Request, as_reply, refuse
from pgproxy.console.parts import listed
from pgproxy.console.process import Process
from pgproxy.console.rows import rows
from pgproxy.link.front import Front
from pgproxy.pool.states import CloseReason
from pgproxy.wire.errors import KILLED, Refusal

_NOT_PAUSED = Refusal(
    "55000", 'database "{name}" is not paused', "SHOW DATABASES says which are.", severity="ERROR"
)
_ALL_PAUSED = Refusal(
    "55000", "all databases are paused together", "Say RESUME without a name.", severity="ERROR"
)
_NOBODY_PAUSED = Refusal("55000", "nothing is paused", severity="ERROR")


class Here:
    """
    One process's part of the console.

    `figures` gives what there is to count, with what statements cost or without.
    """

    def __init__(
        self,
        front: Front,
        worker: int,
        config: Callable[[], Config],
        figures: Callable[[bool], dict[str, Any]],
    ) -> None:
        self._front = front
        self._process = Process(front, worker, config)
        self._figures = figures
        self._acts: dict[str, Callable[[str], Reply]] = {
            "pause": self._pause,
            "resume": self._resume,
            "reconnect": self._reconnect,
            "kill": self._kill,
            "kill_client": self._kill_client,
            "disable": self._disable,
            "enable": self._enable,
            "left": self._left,
            "drain": self._drain,
            "undrain": self._undrain,
            "undrained": self._undrained,
        }

    async def answer(self, request: Request) -> Reply:
        """Answer a request, at once but for rows; never raises for what an operator may say."""
        if "rows" in request:
            return {"rows": await listed(rows(self._process, request["rows"]), self._front.reactor)}
        if "figures" in request:
            return {"figures": self._figures(request["figures"])}
        try:
            return self._acts[request["act"]](request["name"])
        except Refused as refused:
            return as_reply(refused.why)

    def _pause(self, name: str) -> Reply:
        self._front.targets.pause(name, CloseReason.PAUSED)
        return {}

    def _resume(self, name: str) -> Reply:
        paused = self._front.targets.paused
        if not paused:
            raise refuse(_NOBODY_PAUSED)
        if name and name not in paused:
            raise refuse(_ALL_PAUSED if "" in paused else _NOT_PAUSED, name=name)
        self._front.targets.resume(name)
        return {}

    def _reconnect(self, name: str) -> Reply:
        for lender in self._front.targets.of_database(name):
            lender.retire(CloseReason.RECONNECT)
        return {}

    def _kill(self, name: str) -> Reply:
        self._front.targets.pause(name, CloseReason.KILLED)
        for client in list(self._front.clients):
            startup = client.startup
            if startup is not None and client.visit is None and name in ("", startup.database):
                client.terminate(KILLED)
        return {}

    def _kill_client(self, name: str) -> Reply:
        number = self._process.number_of(int(name))
        for client in list(self._front.clients):
            if client.number == number:
                client.terminate(KILLED)
                return {"found": True}
        return {"found": False}

    def _disable(self, name: str) -> Reply:
        self._front.disabled.add(name)
        return {}

    def _enable(self, name: str) -> Reply:
        self._front.disabled.discard(name)
        return {}

    def _drain(self, name: str) -> Reply:
        self._front.targets.drain(name, self._front.config.proxy.connection_borrow_timeout)
        return {}

    def _undrain(self, name: str) -> Reply:
        self._front.targets.undrain(name)
        return {}

    def _undrained(self, name: str) -> Reply:
        return {"servers": self._front.targets.undrained(name)}

    def _left(self, name: str) -> Reply:
        """Count the servers that are still there of what was paused."""
        lenders = self._front.targets.of_database(name)
        return {"servers": sum(lender.pool.account.count for lender in lenders)}
