"""
Performs what pool/release.py decides for a server that was given back.

The answers to our own statements are known to the letter. Any other answer, or none in time, and the
server is closed: it may be somebody else's leftover.
"""

from __future__ import annotations

from collections.abc import Callable

from pgproxy.link.initialising import Initialising
from pgproxy.link.server import ServerConnection
from pgproxy.pool.release import Leftover, Step, next_step
from pgproxy.pool.states import CloseReason
from pgproxy.session.conversation import enter
from pgproxy.session.initial import InitQueryFailed
from pgproxy.wire import messages, tags
from pgproxy.wire.skim import HEADER, Malformed

_ROLLBACK = messages.query("ROLLBACK")
_ROLLBACK_TAG = b"ROLLBACK\0"
_CLEAN = messages.query("DISCARD ALL")
_CLEAN_TAG = b"DISCARD ALL\0"
_INIT_QUERY = b"init_query"
"""Stands for the tags of statements that are not ours."""
_LOAD = b"LOAD\0"
_END_BATCH = messages.message(tags.EXECUTE, b"pgproxy_has_no_such_portal\0" + bytes(4)) + messages.SYNC
"""
Ends a batch that its client left open, as the end of its connection would have: in an error. A Sync alone
would commit what the client never said was complete.
"""
_PATIENCE = 1.0
"""Seconds between two cancel requests for the same query."""
_PATIENT = frozenset({Step.WAIT, Step.END_BATCH, Step.TERMINATE})
"""The steps after which it depends on what the client asked for how long it takes."""
_UNASKED = frozenset({tags.PARAMETER_STATUS, tags.NOTIFICATION_RESPONSE, tags.NOTICE_RESPONSE})
_OUTPUT = frozenset({tags.DATA_ROW, tags.COPY_DATA})
_MOST_NOTICES = 10
"""Notices for a client that has gone, beyond which they are output: PostgreSQL would find nobody there."""


class Releasing:
    """One server between a client and the next."""

    def __init__(
        self,
        server: ServerConnection,
        left: Leftover,
        now: Callable[[], float],
        cancel: Callable[[ServerConnection], object],
        ready: Callable[[ServerConnection], None],
        close: Callable[[ServerConnection, CloseReason], None],
    ) -> None:
        self.server = server
        self._left = left
        self._now = now
        self._cancel = cancel
        self._ready = ready
        self._close = close
        self._awaiting = b""
        """The tag of the command of ours that is under way."""
        self._confirmed = False
        self._ended = False
        self._cancelled_at = 0.0
        """When we have sent a cancel request last."""
        self.since: float | None = None
        """When we began to wait for something that has to come soon; the lender's clock."""
        self._unasked = left.unasked or bool(left.ledger.owed)
        """Whether something may be defined that no server was asked about."""
        self._begun = now()
        self._notices = 0
        """How many have come that would have been the client's."""

    def start(self) -> None:
        """Begin."""
        self.server.receive = self._received
        self.server.skim.direction = tags.FROM_SERVER_LEFT
        self.server.in_mid_message = self._left.mid_message
        self.proceed()

    def proceed(self) -> None:
        """Do the next step, as far as can be done without waiting."""
        left = self._left
        while not self._ended and not self._awaiting:
            left.cancels = self.server.cancels
            step, reason = next_step(left)
            if self.server.cancel_in_doubt:
                step, reason = Step.CLOSE, CloseReason.CANCEL_TIMEOUT
            if self.since is None and (step not in _PATIENT or left.cancels):
                self.since = self._now()
            if step is Step.CLOSE:
                assert reason is not None
                self._end_with(reason)
            elif step is Step.CANCEL:
                left.cancelled = left.ledger.answered
                self._cancelled_at = self._now()
                self._cancel(self.server)
            elif step is Step.END_BATCH:
                left.ledger.sent(tags.SYNC)
                self.server.transport.write(_END_BATCH)
            elif step is Step.TERMINATE:
                left.terminated = reason
                self.server.say_goodbye()
            elif step is Step.ROLLBACK:
                self._say(_ROLLBACK, _ROLLBACK_TAG)
            elif step is Step.CLEAN:
                self._say(_CLEAN, _CLEAN_TAG)
            elif step is Step.INITIALISE:
                self._initialise()
            elif step is Step.READY:
                self._ended = True
                self.server.skim.direction = tags.FROM_SERVER
                self.server.rest()
                self.over()
                self._ready(self.server)
            else:
                return

    @property
    def why_it_ends(self) -> CloseReason:
        """Say why the server ends, if it does so by itself."""
        return self._left.terminated or CloseReason.LOST

    def over(self) -> None:
        """Take the word that all is done that the client has left to be done."""
        if self._unasked:
            self.server.record.session.habits.due = True

    def overdue(self, limit: float) -> bool:
        """Say whether the wait has lasted for over `limit` seconds."""
        return self.since is not None and self._now() - self.since > limit

    def insist(self) -> None:
        """
        Cancel what goes on for longer than it may, and once more what goes on all the same.

        A request that comes between two queries is forgotten: PostgreSQL has said that it is ready, and has
        not yet begun with what we want to end.
        """
        left = self._left
        if left.patience and not left.vanished and self._now() - self._begun > left.patience:
            left.vanished = True
            self.proceed()
        elif left.cancelled == left.ledger.answered and self._now() - self._cancelled_at >= _PATIENCE:
            left.cancelled = None
            self.proceed()

    def give_up(self) -> None:
        """Close a server that does not get ready."""
        self._end_with(CloseReason.CLEANING_TIMEOUT)

    def _end_with(self, reason: CloseReason) -> None:
        self._ended = True
        self._close(self.server, reason)

    def _say(self, statement: bytes, tag: bytes) -> None:
        self._awaiting = tag
        self._confirmed = False
        self._left.ledger.sent(tags.QUERY)
        self.server.transport.write(statement)

    def _initialise(self) -> None:
        if not self.server.skim.at_boundary:
            # What the server says unasked has not come whole.
            self._end_with(CloseReason.CLEANING_FAILED)
            return
        self._awaiting = _INIT_QUERY
        Initialising(self.server, self._initialised, self._not_initialised).begin()

    def _initialised(self) -> None:
        self._left.uninitialised = False
        self._awaiting = b""
        self.proceed()

    def _not_initialised(self, error: InitQueryFailed) -> None:
        said = messages.read_error_fields(error.said)
        self.server.log.warning(
            "init_query_failed", sqlstate=said.get("C", ""), why=said.get("M", str(error))[:200]
        )
        self._end_with(CloseReason.INIT_QUERY_FAILED)

    def _received(self, data: bytes) -> None:
        try:
            run, frames = self.server.skim.feed(data)
            for tag, start, stop in frames:
                if tag == tags.PARAMETER_STATUS:
                    self.server.record.session.status(run[start + HEADER : stop])
        except Malformed as error:
            self.server.spoke_nonsense(error)
            return
        if not frames:
            return
        if not self._awaiting:
            ledger = self._left.ledger
            for frame in frames:
                # What a question of ours is answered was never for the client.
                self._notices += frame[0] == tags.NOTICE_RESPONSE
                if (frame[0] in _OUTPUT or self._notices > _MOST_NOTICES) and not ledger.ours_next:
                    self._left.vanished = True
                enter(ledger, run, [frame])
            if any(run.startswith(_LOAD, start + HEADER) for tag, start, _stop in frames):
                self._left.lasting = True
        else:
            for tag, start, _stop in frames:
                if tag in _UNASKED:
                    continue
                if not self._confirmed and tag == tags.COMMAND_COMPLETE:
                    self._confirmed = run.startswith(self._awaiting, start + HEADER)
                    continue
                if not self._confirmed or tag != tags.READY_FOR_QUERY or not self._awaiting:
                    self._end_with(CloseReason.CLEANING_FAILED)
                    return
                self._left.ledger.ready(run[start + HEADER])
                if self._awaiting is _CLEAN_TAG:
                    self._left.clean = True
                    self._left.uninitialised = bool(self.server.init_query)
                    self.server.record.session.cleaned()
                self._awaiting = b""
        self.proceed()
