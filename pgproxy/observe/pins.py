"""
The pins: a line of log for each, with its reason and the statement's digest, and figures for all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from pgproxy.observe.client import ClientLog
from pgproxy.session.conversation import AuditFound, Event, Pinned, QuestionFailed, Unpinned
from pgproxy.session.digest import digest
from pgproxy.session.pins import PinReason, words


class Pins:
    """The figures: by reason, how often clients were pinned, how many are now, and for how long they were."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self.total: Counter[PinReason] = Counter()
        self.now: Counter[PinReason] = Counter()
        self.ended_seconds: dict[PinReason, float] = dict.fromkeys(PinReason, 0.0)
        """Seconds, of the pins that have ended."""
        self.clients = 0
        """How many clients are pinned now."""
        self.audit_found = 0
        self.questions_failed = 0

    def figures(self) -> dict[str, dict[str, float]]:
        """Give what there is, for a line of log or a table."""
        return {
            reason.value: {
                "pins": self.total[reason],
                "now": self.now[reason],
                "seconds": round(self.ended_seconds[reason], 3),
            }
            for reason in PinReason
            if self.total[reason]
        }

    def of_client(self, log: ClientLog) -> ClientPins:
        """Begin the account of one client."""
        return ClientPins(self, self._seconds, log)


class ClientPins:
    """One client's pins, as they begin and end."""

    def __init__(self, pins: Pins, seconds: Callable[[], float], log: ClientLog) -> None:
        self._pins = pins
        self._seconds = seconds
        self._log = log
        self.now: dict[PinReason, tuple[float, str]] = {}
        """The pins there are: since when, by the reactor's clock, and the digest of what did it."""

    def told(self, event: Event) -> None:
        """Take an event of the client's conversation."""
        match event:
            case Pinned(reasons, statement):
                shown = digest(statement)
                self._pinned(reasons, shown)
                self._log.info("client_pinned", reasons=words(reasons), digest=shown)
            case Unpinned(reasons):
                seconds = self._unpinned(reasons)
                self._log.info("client_unpinned", reasons=words(reasons), seconds=round(seconds, 3))
            case AuditFound(what, statement):
                self._pins.audit_found += 1
                self._log.warning("audit_found", what=what, digest=digest(statement))
            case QuestionFailed(why):
                self._pins.questions_failed += 1
                self._log.warning("session_question_failed", why=why[:200])

    def _pinned(self, reasons: frozenset[PinReason], shown: str) -> None:
        now = self._seconds()
        self._pins.clients += bool(reasons and not self.now)
        for reason in reasons:
            self.now[reason] = now, shown
            self._pins.total[reason] += 1
            self._pins.now[reason] += 1

    def _unpinned(self, reasons: frozenset[PinReason]) -> float:
        now = self._seconds()
        longest = 0.0
        before = bool(self.now)
        for reason in reasons:
            seconds = now - self.now.pop(reason, (now, ""))[0]
            self._pins.now[reason] -= 1
            self._pins.ended_seconds[reason] += seconds
            longest = max(longest, seconds)
        self._pins.clients -= before and not self.now
        return longest
