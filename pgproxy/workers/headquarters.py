"""The supervisor's part of the console: it asks all workers, and answers for what is its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, DeferredList

from pgproxy.config import Config
from pgproxy.config.adjust import adjusted
from pgproxy.config.problems import ConfigError
from pgproxy.console.alone import reload_refused, unfit
from pgproxy.console.company import Reply, Request, as_reply
from pgproxy.console.values import moment
from pgproxy.wire.errors import Refusal, complaint
from pgproxy.workers import messages
from pgproxy.workers.figures import Figures
from pgproxy.workers.post import Post

if TYPE_CHECKING:
    from pgproxy.workers.supervisor import Supervisor

_PATIENCE = 5.0
"""Seconds for a worker to answer; the table goes without it then."""

_SOON = 1.0
"""Seconds for figures, which are asked for often."""

_SILENT = Refusal(
    "57P03",
    "a worker has not answered within {seconds} s",
    "It may not have done what was said: SHOW WORKERS, and pgproxy's log, say more. Say it again.",
    severity="ERROR",
)


class Headquarters:
    """A `console.company.Company`."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._standing: dict[tuple[str, str], str] = {}
        """What holds until it is revoked, for workers that are still to come: by verb and name, as JSON."""

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._supervisor.config

    async def everybody(self, request: Request) -> list[Reply]:
        """Have each worker answer; give the replies of those that have."""
        text = json.dumps(request)
        self._remember(request, text)
        asked: Deferred[Any] = DeferredList(
            [self._ask(post, text) for post in self._supervisor.posts if post.ready], consumeErrors=True
        )
        replies: list[Reply] = []
        for answered, answer in await asked:
            if answered and answer:
                replies.append(json.loads(answer["reply"]))
            elif "act" in request:
                # What is shown may be without it; what is done must not be taken for done.
                replies.append(as_reply(complaint(_SILENT, seconds=f"{_PATIENCE:g}")))
        return replies

    def _ask(self, post: Post, request: str) -> Deferred[Any]:
        asked = post.ask(messages.Answer, request=request)
        clock = self._supervisor.reactor
        return asked.addTimeout(_PATIENCE, clock, onTimeoutCancel=lambda _value, _seconds: None)

    async def figures(self) -> Figures:
        """Give those of all workers together; of one that does not answer soon, as it has told them last."""
        supervisor = self._supervisor
        text = json.dumps({"figures": False})
        asked = [
            # Entered as each comes: behind the word that its worker has ended it would count twice.
            post.ask(messages.Answer, request=text)
            .addCallback(self._heard, post.life)
            .addTimeout(_SOON, supervisor.reactor)
            for post in supervisor.posts
            if post.ready
        ]
        await DeferredList(asked, consumeErrors=True)
        restarts = max(0, Post.lives - len(supervisor.posts))
        return {**supervisor.figures.total(), "restarts": restarts}

    def _heard(self, answer: dict[str, str], life: int) -> None:
        self._supervisor.figures.heard(life, json.loads(answer["reply"])["figures"])

    def _remember(self, request: Request, text: str) -> None:
        verb, name = request.get("act", ""), request.get("name", "")
        if verb in ("pause", "kill"):
            self._standing["pause", name] = json.dumps({"act": "pause", "name": name})
        elif verb == "disable":
            self._standing["disable", name] = text
        elif verb == "resume" and not name:
            for key in [key for key in self._standing if key[0] == "pause"]:
                del self._standing[key]
        elif verb in ("resume", "enable"):
            self._standing.pop(("pause" if verb == "resume" else "disable", name), None)

    def greet(self, post: Post) -> None:
        """Tell a new worker what holds."""
        for request in self._standing.values():
            self._ask(post, request).addErrback(lambda _failure: None)

    async def head(self, request: Request) -> Reply:
        """Answer what concerns all workers together."""
        supervisor = self._supervisor
        if "posts" in request:
            now = supervisor.reactor.seconds()
            posts = [
                {"worker": post.number, "pid": post.pid, "since": moment(post.since, now)}
                for post in supervisor.posts
            ]
            return {"posts": posts, "stopping": supervisor.stopping, "budgets": supervisor.budgets.servers}
        if "set" in request:
            try:
                config = adjusted(self.config, *request["set"])
            except ConfigError as error:
                return as_reply(unfit(error))
            wrong = await supervisor.adjust(config)
            return as_reply(reload_refused(wrong)) if wrong else {}
        if request["act"] == "reload":
            wrong = await supervisor.reload()
            return as_reply(reload_refused(wrong)) if wrong else {}
        supervisor.shut_down(request["act"].removeprefix("shutdown").lstrip("_"))
        return {}
