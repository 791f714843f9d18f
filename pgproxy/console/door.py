"""Where clients enter the console: who may, and the way between their connection and their talk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from pgproxy.config import Config
from pgproxy.console.chatter import REPORTED
from pgproxy.console.commands import Command, Right
from pgproxy.console.desk import Desk
from pgproxy.console.talk import LONGEST, Done, Talk
from pgproxy.observe.client import ClientLog
from pgproxy.wire import errors, messages
from pgproxy.wire.errors import Complaint, Refusal, complaint
from pgproxy.wire.skim import Malformed
from pgproxy.wire.startup import StartupMessage

_MOST_HELD = 1024 * 1024
"""Bytes that may come while a command is performed."""
_MOST_UNSENT = 16 * 1024 * 1024
"""Bytes of answers that the client has not taken when it asks for more."""
_AT_ONCE = 100
"""Messages that are answered in one turn of the reactor."""
_AS_LONG_AS_ONE = 128
"""Bytes of a message that count as one more."""
_DEFECT = Refusal("XX000", "a defect in pgproxy", "Its log says more.", severity="ERROR")


class Door:
    """A `link.front.Console`."""

    def __init__(self, config: Callable[[], Config], desk: Desk) -> None:
        self._config = config
        self._desk = desk

    def right(self, user: str) -> Right | None:
        """Say what a user may do; None: nothing."""
        proxy = self._config().proxy
        if user in proxy.admin_users:
            return Right.ADMINISTER
        return Right.READ if user in proxy.stats_users else None

    def refuses(self, user: str) -> Complaint | None:
        """Say why a user may not enter, if so."""
        return complaint(errors.NO_CONSOLE, user=user) if self.right(user) is None else None

    def enter(
        self,
        startup: StartupMessage,
        write: Callable[[bytes], None],
        unsent: Callable[[], int],
        goodbye: Callable[[str], None],
        log: ClientLog,
    ) -> Visitor:
        """Let a user in."""
        return Visitor(self._desk, startup, lambda: self.right(startup.user), write, unsent, goodbye, log)


class Visitor:
    """One client at the console."""

    def __init__(
        self,
        desk: Desk,
        startup: StartupMessage,
        right: Callable[[], Right | None],
        write: Callable[[bytes], None],
        unsent: Callable[[], int],
        goodbye: Callable[[str], None],
        log: ClientLog,
    ) -> None:
        self._desk = desk
        self._user = startup.user
        self._talk = Talk(startup.user, startup.database, right)
        self._reader = messages.MessageReader(LONGEST)
        self._write = write
        self._unsent = unsent
        self._goodbye = goodbye
        self._log = log
        self._performing: Deferred[Any] | None = None
        self._over = False
        told = {**REPORTED, "session_authorization": startup.user}
        told["application_name"] = dict(startup.parameters).get("application_name", "")
        told["is_superuser"] = "on" if right() is Right.ADMINISTER else "off"
        self.greeting = b"".join(
            messages.parameter_status(name.encode(), value.encode("utf-8", "replace"))
            for name, value in told.items()
        )

    def received(self, data: bytes) -> None:
        """Take what the client has sent."""
        self._reader.feed(data)
        if self._performing is not None and self._reader.size > _MOST_HELD:
            self._end(complaint(errors.PROTOCOL_VIOLATION, what="too much was sent ahead of the answer"))
            return
        self._go_on()

    def _go_on(self) -> None:
        said = b""
        left = _AT_ONCE
        try:
            while self._performing is None and not self._over:
                due = self._talk.due
                message = self._reader.next() if due is None else None
                if due is None and message is None:
                    break
                if self._unsent() > _MOST_UNSENT:
                    raise Malformed("the answers before are not being read")
                if due is not None:
                    self._perform(due)
                    continue
                assert message is not None
                said += self._talk.received(*message)
                left -= 1 + len(message[1]) // _AS_LONG_AS_ONE
                if self._talk.over:
                    self._over = True
                    self._goodbye("terminated")
                elif self._talk.due is not None:
                    self._write(said)
                    said = b""
                elif left <= 0:
                    self._give_way(self._go_on)
        except Malformed as error:
            self._write(said)
            self._end(complaint(errors.PROTOCOL_VIOLATION, what=str(error)))
            return
        if said:
            self._write(said)

    def _give_way(self, then: Callable[[], None]) -> None:
        """Let others have their turn before we go on."""
        self._performing = self._desk.next_turn()
        self._performing.addBoth(self._had_their_turn, then).addErrback(self._broken)

    def _had_their_turn(self, _result: object, then: Callable[[], None]) -> None:
        self._performing = None
        if not self._over:
            then()

    def _perform(self, command: Command) -> None:
        performing = Deferred.fromCoroutine(self._desk.perform(command, self._user))
        self._performing = performing
        performing.addErrback(self._defect).addCallback(self._performed).addErrback(self._broken)

    def _defect(self, failure: Failure) -> Complaint:
        failure.trap(Exception)
        if not failure.check(CancelledError):
            self._log.error("defect", failure=failure.getTraceback())
        return complaint(_DEFECT)

    def _broken(self, failure: Failure) -> None:
        """End a talk that can't go on: nobody else would."""
        self._log.error("defect", failure=failure.getTraceback())
        self._end(complaint(errors.DEFECT), "defect")

    def _performed(self, outcome: Done | Complaint) -> None:
        self._performing = None
        if not self._over:
            answer = self._talk.done(outcome)
            self._say(next(answer), answer)

    def _say(self, part: bytes, answer: Iterator[bytes]) -> None:
        """Write a part of an answer, and go on behind the last."""
        self._write(part)
        following = next(answer, None)
        if following is None:
            self._go_on()
        else:
            self._give_way(lambda: self._say(following, answer))

    def cancel(self) -> None:
        """End what the client waits for."""
        if self._performing is not None:
            self._performing.cancel()

    def lost(self) -> None:
        """Take the word that the connection has ended."""
        self._over = True
        self.cancel()

    def _end(self, why: Complaint, reason: str = "protocol_violation") -> None:
        self._over = True
        self.cancel()
        self._write(why.message())
        self._goodbye(reason)
