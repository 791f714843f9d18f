"""
Asks an idle server, when a client arrives, whether new sessions would begin as those of the pool have.

It goes on while the client proves who it is, so it takes no time of its own. Once in a while an idle server
is also asked whether statements of its database change sessions in hiding (session/hidden.py), as others may
have defined what does. The law:

1. A login goes by a check that began after it came. Logins that come while one is under way, or soon after it
   has begun, share the next one.
2. In a storm, `MANY` logins within `A_WHILE` seconds, one goes by a check that began up to `FRESH` seconds
   before it came, whether that has ended or is under way: each would have its own otherwise, as they come
   further apart than checks may follow.
3. Where no server becomes idle within `PATIENCE` seconds nothing is asked: the login goes by what was known
   before.
4. Where none could be asked what is done in hiding, the next question of a client's that is asked in any case
   asks it. Where that was answered by an error, as by statement_timeout, the pool goes by what was known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from structlog.typing import FilteringBoundLogger
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall

from pgproxy.link.asking import Question
from pgproxy.link.server import ServerConnection
from pgproxy.pool.explain import Hold
from pgproxy.pool.states import CloseReason
from pgproxy.session.opening import defaults_question, hiding_question, read_defaults, read_hiding
from pgproxy.session.question import NoAnswer
from pgproxy.session.reported import Reported
from pgproxy.twin import quicken
from pgproxy.wire.errors import Complaint
from pgproxy.wire.skim import Malformed

PAUSE = 0.005
"""Seconds from the beginning of a check to that of the next: logins in between share that one."""
FRESH = 0.05
"""Seconds from the beginning of a check in which those go by it who come in a storm."""
MANY = 10
"""Logins within `A_WHILE` that are a storm."""
A_WHILE = 0.1
"""Seconds."""
PATIENCE = 0.2
"""Seconds that a login waits for an idle server to ask."""


@quicken
class Checks:
    """
    The checks of one pool.

    `lend` links a `Check` to an idle server, or returns False; `hand_on` takes the server back; `retire` has
    none of today's servers serve anybody else; `asked` gets what a server says that statements do in hiding,
    None where there was none to ask.
    """

    __slots__ = (
        "_asked",
        "_before",
        "_began",
        "_came",
        "_due",
        "_fresh",
        "_hand_on",
        "_lend",
        "_log",
        "_next",
        "_patience",
        "_pause",
        "_reactor",
        "_retire",
        "_since",
        "_thorough",
        "_under_way",
        "_waiting",
    )

    def __init__(
        self,
        lend: Callable[[Check], bool],
        hand_on: Callable[[ServerConnection], None],
        retire: Callable[[], None],
        asked: Callable[[bool | None], None],
        reactor: Any,
        log: FilteringBoundLogger,
    ) -> None:
        self._lend = lend
        self._hand_on = hand_on
        self._retire = retire
        self._asked = asked
        self._reactor = reactor
        self._log = log
        self._under_way: Check | None = None
        self._waiting: list[Deferred[None]] = []
        self._next: list[Deferred[None]] = []
        self._began = 0.0
        """When the last check did, by `seconds`."""
        self._due = 0.0
        """When the next check may begin, by `seconds`."""
        self._fresh = 0.0
        """Until when logins of a storm go by the last one."""
        self._since = 0.0
        """When the stretch of `A_WHILE` began in which ..."""
        self._came = 0
        """... so many have come, ..."""
        self._before = 0
        """... and so many in the one before."""
        self._thorough = False
        """Whether the next one is to ask about what is done in hiding as well."""
        self._pause: IDelayedCall | None = None
        """Runs until then, if one is wanted."""
        self._patience: IDelayedCall | None = None
        """Runs while there is no server to ask."""

    @property
    def wanted(self) -> bool:
        """Whether a server that becomes idle is to be asked."""
        return self._patience is not None

    def seconds(self) -> float:
        """Give the time, in seconds."""
        return float(self._reactor.seconds())

    def check(self) -> Deferred[None]:
        """Fire when the check has ended that this login goes by; one of a moment ago may have already."""
        now = self.seconds()
        storm = self._is_storm(now)
        if storm and now < self._fresh:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        if storm and self._under_way is not None and now < self._began + FRESH:
            self._waiting.append(waiting)
        else:
            self._next.append(waiting)
            self._want()
        return waiting

    def be_thorough(self) -> None:
        """Have it asked, soon, whether statements change sessions in hiding; nobody waits for that."""
        self._thorough = True
        self._want()

    def _is_storm(self, now: float) -> bool:
        """Count one more that comes; say whether they come thick."""
        elapsed = now - self._since
        if elapsed >= A_WHILE:
            self._before = self._came if elapsed < 2 * A_WHILE else 0
            self._since, self._came = now, 0
        self._came += 1
        return max(self._before, self._came) >= MANY

    def _want(self) -> None:
        """Begin with the next check, as soon as that may be."""
        if (self._next or self._thorough) and self._under_way is None and self._pause is None:
            wait = self._due - self.seconds()
            if wait > 0:
                self._pause = self._reactor.callLater(wait, self._begin)
            else:
                self._begin()

    def _begin(self) -> None:
        self._pause = None
        now = self.seconds()
        self._due, self._began = now + PAUSE, now
        check = Check(self, self._thorough)
        self._thorough = False
        self._waiting, self._next = self._next, []
        self._under_way = check
        if not self._lend(check):
            self._patience = self._reactor.callLater(PATIENCE, self._give_up)

    def idle(self) -> None:
        """Take the word that a server is idle."""
        check, patience = self._under_way, self._patience
        if check is not None and patience is not None and self._lend(check):
            patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        self._patience = None
        self.ended(None, None)

    def ended(self, server: ServerConnection | None, changed: bool | None) -> None:
        """
        Enter whether a check has found that something has changed; None where that is not known.

        Without a server there was none, or it has gone.
        """
        check, self._under_way = self._under_way, None
        waiting, self._waiting = self._waiting, []
        if changed is not None:
            self._fresh = self._began + FRESH
        if check is not None and check.thorough and not check.answered:
            self._asked(None)
        if changed:
            self._retire()
        if server is not None:
            self._hand_on(server)
        for one in waiting:
            if not one.called:
                one.callback(None)
        self._want()

    def found(self, hidden: bool) -> None:
        """Enter what is done in hiding."""
        self._asked(hidden)

    def say(self, why: str) -> None:
        """Log that a check has failed."""
        self._log.warning("check_failed", why=why[:200])


class Check:
    """One check: a borrower of its own."""

    def __init__(self, checks: Checks, thorough: bool) -> None:
        self._checks = checks
        self.thorough = thorough
        """Whether it asks about what is done in hiding as well."""
        self._server: ServerConnection | None = None
        self._since = 0.0
        self.answered = False
        """Whether a server has answered, if only by an error."""

    def linked(self, server: ServerConnection) -> None:
        """Ask."""
        self._server = server
        self._since = self._checks.seconds()
        # A Query does away with the unnamed statement.
        session = server.record.session
        session.unnamed = None
        question = hiding_question if self.thorough else defaults_question
        Question(server, self._answered).ask(question(session.user, session.database))

    def _answered(self, replies: list[tuple[int, bytes]]) -> None:
        server, self._server = self._server, None
        assert server is not None
        session = server.record.session
        changed = None
        self.answered = True
        try:
            if self.thorough:
                hidden, defaults = read_hiding(replies)
                self._checks.found(hidden)
            else:
                defaults = read_defaults(replies)
            changed = defaults != session.defaults
        except (NoAnswer, Malformed) as error:
            self._checks.say(str(error))
        self._checks.ended(server, changed)

    def look_closely(self, weight: int) -> None:
        """Nothing of ours is looked at."""

    def overdue(self, limit: float) -> bool:
        """Say whether the server has not answered for over `limit` seconds."""
        return self._server is not None and self._checks.seconds() - self._since > limit

    @property
    def hold(self) -> Hold:
        """Why it has its server."""
        return Hold.WORKING

    def cancel_sent(self) -> None:
        """Nothing of ours is cancelled."""

    def refused(self, why: Complaint) -> None:
        """Take the word that there is no server; it asks for idle ones only."""

    def again(self, since: float) -> None:
        """Nothing to do: it waits for no server."""

    def greeted(self, greeting: Reported) -> None:
        """Do nothing: a check waits for an answer."""

    def server_lost(self, server: ServerConnection, reason: CloseReason) -> None:
        """Take the word that the server has gone."""
        self._server = None
        self._checks.ended(None, None)
