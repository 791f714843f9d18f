"""
Reload, where there are several workers.

The law: another configuration is prepared by all workers, and taken by all or, where one of them has found
something wrong, by none. Who was starting meanwhile is brought up to date before anything else is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from structlog.typing import FilteringBoundLogger
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from pgproxy.config import Config
from pgproxy.gather import WRONG, gather
from pgproxy.head import log_filters, refuse_reload, reopen, warn_of_restart
from pgproxy.link.materials import Materials
from pgproxy.observe.sink import Sink
from pgproxy.succession.succession import Succession
from pgproxy.workers import messages
from pgproxy.workers.asking import ask
from pgproxy.workers.charges import Charges
from pgproxy.workers.exchange import Exchange
from pgproxy.workers.post import Post
from pgproxy.workers.share import greet_alike


class Reloads:
    """
    Has all workers go by the same configuration, one after the other.

    `load` reads it anew; `take` is called with one that all are about to take.
    """

    def __init__(
        self,
        posts: list[Post],
        charges: Charges,
        exchange: Exchange,
        load: Callable[[], Config],
        take: Callable[[Materials], None],
        sink: Sink,
        succession: Succession | None,
        log: FilteringBoundLogger,
    ) -> None:
        self._posts = posts
        self._charges = charges
        self._exchange = exchange
        self._load = load
        self._take = take
        self._sink = sink
        self._succession = succession
        self._log = log
        self._under_way = False
        self._again = False
        """Whether it was asked for once more meanwhile."""
        self._stopping = False
        self._retired = False

    def retire(self) -> None:
        """Have the configuration stay as it is on the disk for the process that follows."""
        self._retired = True

    def stop(self) -> None:
        """Have everything stay as it is."""
        self._stopping = True

    def reload(self) -> Deferred[str]:
        """Have all workers take the configuration as it is now; fires with what is wrong with it, if so."""
        reopen(self._sink, self._log)
        self._exchange.tell_all(messages.Reopen)
        if self._under_way:
            self._again = True
        if self._under_way or self._stopping or self._retired:
            return succeed("another reload is under way, or pgproxy is stopping")
        if self._succession is not None:
            self._succession.reloading()
        try:
            config = self._load()
            materials = gather(config)
        except WRONG as error:
            refuse_reload(self._log, str(error))
            self._say_reloaded()
            return succeed(str(error) or type(error).__name__)
        warn_of_restart(self._log, self._charges.in_force.config, config)
        return self._begin(self._agree(materials))

    def adjust(self, config: Config) -> Deferred[str]:
        """Have all workers take another configuration; fires with what is wrong with it, if anything."""
        if self._under_way or self._stopping:
            return succeed("a reload is under way, or pgproxy is stopping")
        try:
            return self._begin(self._agree(gather(config)))
        except WRONG as error:
            return succeed(str(error))

    def worker_ready(self, charge: int) -> None:
        """Take the word by which charge a new worker goes."""
        if charge != self._charges.in_force.number and not self._under_way:
            # It was starting while the others took another.
            self._begin(self._catch_up())

    def _begin(self, steps: Coroutine[Any, Any, str]) -> Deferred[str]:
        self._under_way = True
        reloaded = Deferred.fromCoroutine(steps)
        reloaded.addErrback(self._defect)
        return reloaded.addCallback(self._has_reloaded)

    def _defect(self, failure: Failure) -> None:
        self._log.error("defect", failure=failure.getTraceback())

    def _say_reloaded(self) -> None:
        if self._succession is not None:
            self._succession.reloaded()

    def _has_reloaded(self, wrong: str | None) -> str:
        self._under_way = False
        self._say_reloaded()
        if self._again:
            self._again = False
            self.reload()
        return "a defect in pgproxy; its log says more" if wrong is None else wrong

    async def _agree(self, materials: Materials) -> str:
        charge = self._charges.propose(materials.config)
        lives = {post: post.life for post in self._posts if post.ready}
        answers = await ask(self._posts, messages.Prepare)
        wrong = [answer["wrong"] for answer in answers.values() if answer["wrong"]]
        if wrong:
            refuse_reload(self._log, wrong[0])
        else:
            if not greet_alike(self._charges.in_force.config, charge.config):
                self._exchange.forget_welcomes()
            self._charges.agree(charge)
            self._take(materials)
            same = [post for post in answers if post.life == lives[post]]
            await ask(same, messages.Adopt)
            for post in answers:
                if post.life == lives[post]:
                    post.charge = charge.number
            self._log.info("reloaded")
            log_filters(self._log, charge.config)
        await self._catch_up()
        return str(wrong[0]) if wrong else ""

    async def _catch_up(self) -> str:
        """Have workers that were starting meanwhile take what is in force; nothing can be wrong with that."""
        while not self._stopping:
            number = self._charges.in_force.number
            late = [post for post in self._posts if post.ready and post.charge != number]
            if not late:
                break
            self._charges.repeat()
            lives = {post: post.life for post in late}
            answers = await ask(late, messages.Prepare)
            for post, answer in answers.items():
                if post.life != lives[post]:
                    continue
                if answer["wrong"]:
                    # As one that can't start: it is tried again until the files are right.
                    self._log.error("worker_out_of_date", worker=post.number, why=answer["wrong"])
                    post.kill()
                else:
                    post.tell(messages.Adopt)
                    post.charge = number
        return ""
