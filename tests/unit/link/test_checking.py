"""Logins share the questions whether new sessions would begin otherwise."""

from __future__ import annotations

from typing import Any

import structlog
from twisted.internet.task import Clock

from pgproxy.link.checking import PATIENCE, PAUSE, Check, Checks


class Pool:
    """One server, which is asked; `answer` has it say that nothing has changed."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.asked: list[Check] = []
        self.idle = True
        self.checks = Checks(
            self._lend, lambda _server: None, lambda: None, self.clock, structlog.testing.CapturingLogger()
        )
        self.done = 0

    def _lend(self, check: Check) -> bool:
        if self.idle:
            self.asked.append(check)
        return self.idle

    def log_in(self) -> None:
        def done(_result: Any) -> None:
            self.done += 1

        self.checks.check().addCallback(done)

    def answer(self) -> None:
        self.checks.ended(None, False)


def test_the_first_is_asked_at_once() -> None:
    pool = Pool()
    pool.log_in()
    assert (len(pool.asked), pool.done) == (1, 0)
    pool.answer()
    assert pool.done == 1


def test_who_comes_after_a_question_was_asked_shares_the_next() -> None:
    pool = Pool()
    pool.log_in()
    pool.log_in()
    pool.answer()
    pool.log_in()
    assert (len(pool.asked), pool.done) == (1, 1)
    pool.clock.advance(PAUSE)
    assert (len(pool.asked), pool.done) == (2, 1)
    pool.answer()
    assert pool.done == 3
    pool.clock.advance(PAUSE)
    assert len(pool.asked) == 2 and not pool.clock.getDelayedCalls()


def test_who_comes_later_waits_for_nobody() -> None:
    pool = Pool()
    pool.log_in()
    pool.answer()
    pool.clock.advance(PAUSE)
    pool.log_in()
    assert len(pool.asked) == 2


def test_where_no_server_becomes_idle_nobody_waits_for_long() -> None:
    pool = Pool()
    pool.idle = False
    pool.log_in()
    pool.clock.advance(PATIENCE)
    assert pool.done == 1 and not pool.asked
