"""
The look-ups of secrets that are under way, and who waits for them.

The law:

1. `AT_ONCE` run at a time (of several workers each has a share), each for another user and database;
   `MOST_WAITING` wait, whoever comes then is refused.
2. Those who ask for the same user and database while it waits share one. One that runs is not shared: it may
   have looked before the secret was changed that the newcomer knows.
3. One for which nobody waits any more is not begun.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from pgproxy.auth.secrets import Secret
from pgproxy.link.auth_query import AuthQuery, UsersUnavailable

AT_ONCE = 4
MOST_WAITING = 1000

_What = tuple[AuthQuery, str, str]
_Answer = Deferred[Secret | None]


class LookUps:
    """All of a process. `run` calls a function that blocks, in a thread."""

    def __init__(self, run: Callable[..., _Answer], at_once: int = AT_ONCE) -> None:
        self._run = run
        self._at_once = at_once
        self._running: set[_What] = set()
        self._waiting: dict[_What, list[_Answer]] = {}

    def ask(self, where: AuthQuery, database: str, user: str) -> _Answer:
        """Give a user's secret, None for an unknown one; may fail with `UsersUnavailable`."""
        what = where, database, user
        answer: _Answer = Deferred(partial(self._leave, what))
        if what not in self._waiting and len(self._waiting) >= MOST_WAITING:
            answer.errback(Failure(UsersUnavailable("auth_query: too many look-ups wait already")))
            return answer
        self._waiting.setdefault(what, []).append(answer)
        self._begin()
        return answer

    def _leave(self, what: _What, answer: _Answer) -> None:
        waiting = self._waiting.get(what, [])
        if answer in waiting:
            waiting.remove(answer)
            if not waiting:
                del self._waiting[what]

    def _begin(self) -> None:
        for what in list(self._waiting):
            if len(self._running) >= self._at_once:
                return
            if what not in self._running:
                self._running.add(what)
                where, database, user = what
                asked = self._run(where.ask, database, user)
                asked.addBoth(self._ended, what, self._waiting.pop(what))

    def _ended(self, result: Secret | Failure | None, what: _What, answers: list[_Answer]) -> None:
        self._running.discard(what)
        for answer in answers:
            if not answer.called:
                answer.callback(result)
        self._begin()
