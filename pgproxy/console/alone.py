"""The company of one process: it is everybody, and the head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgproxy.config import Config
from pgproxy.config.adjust import adjusted
from pgproxy.config.problems import ConfigError
from pgproxy.console.company import Reply, Request, as_reply
from pgproxy.wire.errors import Complaint, Refusal, complaint

if TYPE_CHECKING:
    from pgproxy.service import Pgproxy

_RELOAD_REFUSED = Refusal(
    "F0000", "the configuration stays as it is", "Correct the file, and say RELOAD again.", severity="ERROR"
)
_UNFIT = Refusal("22023", "{what}", "SHOW CONFIG lists the options.", severity="ERROR")


def reload_refused(why: str) -> Complaint:
    """Say why a RELOAD has changed nothing."""
    return complaint(_RELOAD_REFUSED, detail=" ".join(why.split()))


def unfit(error: ConfigError) -> Complaint:
    """Say why a SET has changed nothing."""
    problem = error.problems[0]
    return Complaint(
        "ERROR", _UNFIT.sqlstate, f"{problem.path}: {problem.wrong}", "", problem.right or _UNFIT.hint
    )


class Alone:
    """A `Company`."""

    def __init__(self, service: Pgproxy) -> None:
        self._service = service

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._service.front.config

    async def everybody(self, request: Request) -> list[Reply]:
        """Answer."""
        return [await self._service.here.answer(request)]

    async def head(self, request: Request) -> Reply:
        """Answer."""
        service = self._service
        if "posts" in request:
            return service.posts()
        if "set" in request:
            try:
                config = adjusted(self.config, *request["set"])
            except ConfigError as error:
                return as_reply(unfit(error))
            wrong = service.adjust(config)
            return as_reply(reload_refused(wrong)) if wrong else {}
        if request["act"] == "reload":
            wrong = service.reload()
            return as_reply(reload_refused(wrong)) if wrong else {}
        service.shut_down(request["act"].removeprefix("shutdown").lstrip("_"))
        return {}
