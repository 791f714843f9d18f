"""Logins share the questions whether new sessions would begin otherwise."""

from __future__ import annotations

from typing import Any

import structlog
from twisted.internet.task import Clock

from pgproxy.link.checking import A_WHILE, FRESH, MANY, PATIENCE, PAUSE, Check, Checks


class Pool:
    """One server, which is asked; `answer` has it say that nothing has changed."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.asked: list[Check] = []
        self.idle = True
        self.found: list[bool | None] = []
        self.checks = Checks(
            self._lend,
            lambda _server: None,
            lambda: None,
            self.found.append,
            self.clock,
            structlog.testing.CapturingLogger(),
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

    def answer(self, changed: bool | None = False) -> None:
        self.checks.ended(None, changed)


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


def a_storm(pool: Pool) -> None:
    """Have many come, further apart than checks may follow, each of which has its own check."""
    for _ in range(MANY):
        pool.clock.advance(A_WHILE / MANY)
        pool.log_in()
        pool.answer()
    assert pool.done == MANY


def test_in_a_storm_a_check_of_a_moment_ago_counts() -> None:
    pool = Pool()
    a_storm(pool)
    asked = len(pool.asked)
    pool.clock.advance(FRESH / 2)
    pool.log_in()
    assert (len(pool.asked), pool.done) == (asked, MANY + 1)
    pool.clock.advance(FRESH / 2)
    pool.log_in()
    assert (len(pool.asked), pool.done) == (asked + 1, MANY + 1)
    pool.answer()
    assert pool.done == MANY + 2


def test_in_a_storm_a_check_that_is_under_way_counts() -> None:
    pool = Pool()
    a_storm(pool)
    asked = len(pool.asked)
    pool.clock.advance(FRESH)
    pool.log_in()
    pool.clock.advance(FRESH / 2)
    pool.log_in()
    pool.clock.advance(FRESH)
    pool.log_in()
    assert (len(pool.asked), pool.done) == (asked + 1, MANY)
    pool.answer()
    assert (len(pool.asked), pool.done) == (asked + 2, MANY + 2)
    pool.answer()
    assert pool.done == MANY + 3 and not pool.clock.getDelayedCalls()


def test_most_of_a_storm_goes_by_the_checks_of_others() -> None:
    pool = Pool()
    every, seconds = PAUSE * 1.2, 2.0
    for _ in range(round(seconds / every)):
        pool.clock.advance(every)
        before = len(pool.asked)
        pool.log_in()
        if len(pool.asked) > before:
            pool.answer()
    assert pool.done == round(seconds / every)
    assert len(pool.asked) <= MANY + seconds / FRESH + 2


def test_after_a_storm_everybody_is_checked_again() -> None:
    pool = Pool()
    a_storm(pool)
    pool.clock.advance(2 * A_WHILE)
    pool.log_in()
    pool.answer()
    asked = len(pool.asked)
    pool.clock.advance(PAUSE)
    pool.log_in()
    assert len(pool.asked) == asked + 1


def test_where_it_is_not_known_nobody_goes_by_it() -> None:
    pool = Pool()
    a_storm(pool)
    pool.clock.advance(FRESH)
    pool.log_in()
    pool.answer(changed=None)
    asked = len(pool.asked)
    pool.clock.advance(PAUSE)
    pool.log_in()
    assert len(pool.asked) == asked + 1


def test_what_is_done_in_hiding_is_asked_about_with_what_a_login_asks() -> None:
    pool = Pool()
    pool.log_in()
    pool.checks.be_thorough()
    pool.log_in()
    pool.answer()
    pool.clock.advance(PAUSE)
    assert [check.thorough for check in pool.asked] == [False, True]
    pool.asked[1].answered = True
    pool.answer()
    assert (pool.done, pool.found) == (2, [])
    pool.clock.advance(PAUSE)
    assert len(pool.asked) == 2 and not pool.clock.getDelayedCalls()


def test_nobody_has_to_log_in_for_that() -> None:
    pool = Pool()
    pool.checks.be_thorough()
    assert [check.thorough for check in pool.asked] == [True]


def test_where_nobody_is_asked_that_it_is_said() -> None:
    pool = Pool()
    pool.log_in()
    pool.answer(changed=None)
    assert pool.found == []
    for answered in (False, True):
        pool.checks.be_thorough()
        pool.clock.advance(PAUSE)
        pool.asked[-1].answered = answered
        pool.answer(changed=None)
        assert pool.found == [None]
    pool.idle = False
    pool.checks.be_thorough()
    pool.clock.advance(2 * PAUSE)
    pool.clock.advance(PATIENCE)
    assert pool.found == [None, None]
