"""
The way between a client and the servers it borrows, one after the other.

Bytes are sent on as they came, but for what the client's `Conversation` changes. The law:

1. A server is borrowed when a message comes that it must answer, and let go when it owes nothing, is in no
   transaction, the client is not in the middle of a message, and the conversation has no more use for it.
2. State changes before the bytes that announce it are sent.
3. Who can't take more makes the other stop: each side's transport has the other as its producer. While a
   client's messages have to wait, `buffer_limit` bytes are held, then it is not read; nor while it is owed
   more answers than the ledger has place for.
4. An error is said to a client only where its stream is between two messages.
5. What becomes of a client whose server is lost is said in session/loss.py. While it is answered here
   (session/bereft.py), no server is taken for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import frozen
from twisted.internet.defer import Deferred, succeed

from pgproxy.figures.sample import Sample
from pgproxy.link.held import (
    Held,
    begins_inside,
    from_next_message,
    without_first_batch,
    without_late_copy_data,
)
from pgproxy.link.server import ServerConnection
from pgproxy.link.transport import Stream
from pgproxy.observe.client import ClientLog
from pgproxy.pool.explain import Hold
from pgproxy.pool.release import Leftover
from pgproxy.pool.states import CloseReason, Parameters
from pgproxy.session.bereft import Bereft
from pgproxy.session.conversation import NOTHING_FIRST, Beginning, Conversation, Event, WriteRefused
from pgproxy.session.deadlines import NO_DEADLINES, Deadlines, Overdue, Watch
from pgproxy.session.ledger import IDLE
from pgproxy.session.reported import Reported
from pgproxy.session.server import ServerSession
from pgproxy.session.settings import Settings
from pgproxy.twin import know, quicken
from pgproxy.wire import errors, messages, tags
from pgproxy.wire.errors import Complaint, complaint
from pgproxy.wire.skim import Frame, Malformed, Skimmer

TERMINATED = "terminated"
"""The client has said that it goes."""
_TRIES = 2
"""Servers that are given up before a client is told that its settings are not to be restored."""
_MOST_LOST = 20
"""Servers in a row that a client is given and loses before they have anything of it, until it is told so."""
_A_ROW = 5.0
"""Seconds between two of which the later is one more of a row."""
_BEGIN_NOTHING = frozenset({tags.COPY_DONE, tags.COPY_FAIL, tags.TERMINATE})
"""What a client may say that no server has to answer."""
_OVERDUE = {
    Overdue.IDLE_CLIENT: errors.IDLE_CLIENT,
    Overdue.IDLE_TRANSACTION: errors.IDLE_TRANSACTION,
    Overdue.TRANSACTION: errors.TRANSACTION_TIMEOUT,
    Overdue.QUERY: errors.QUERY_TIMEOUT,
}


class Borrower(Protocol):
    """Who can ask a lender for a server."""

    def linked(self, server: ServerConnection) -> None:
        """Take a server."""

    def greeted(self, greeting: Reported) -> None:
        """Take the word how servers greet, in case that this is all it waits for."""

    def refused(self, why: Complaint) -> None:
        """Take the word that there is none."""

    def again(self, since: float) -> None:
        """Ask once more, as one who has waited since then: it may be to be had elsewhere now."""

    def server_lost(self, server: ServerConnection, reason: CloseReason) -> None:
        """Take the word that the server has gone."""

    def look_closely(self, weight: int) -> None:
        """Take the word that its next transaction is one that is looked at; it stands for so many."""

    def overdue(self, limit: float) -> bool:
        """Say whether the server has not answered the proxy itself for over `limit` seconds."""

    def cancel_sent(self) -> None:
        """Take the word that a cancel request to the server has arrived, or will not."""

    @property
    def hold(self) -> Hold:
        """Why it has its server."""


class Lender(Protocol):
    """Who lends servers."""

    def borrow(
        self,
        client: Borrower,
        parameters: Parameters,
        settings: Settings,
        home: ServerSession | None,
        since: float | None = None,
    ) -> None:
        """
        Ask for a server; the answer is `linked` or `refused`, perhaps before this returns.

        `since` says when a client has begun to wait that has done so elsewhere.
        """

    def take(
        self, client: Borrower, parameters: Parameters, settings: Settings, home: ServerSession | None
    ) -> ServerConnection | None:
        """Give a server if that can be done at once."""

    def leave(self, client: Borrower, aborts: bool) -> None:
        """No longer want one; `aborts`: although the client has asked for something."""

    def waited(self, seconds: float, text_of: Callable[[bytes], bytes] | None) -> Sample | None:
        """Enter that somebody has waited for a server, and has it if `text_of` is there; see `Sample`."""

    def kept(self, client: Borrower) -> None:
        """Enter that a transaction begins in a server that is kept."""

    def looked(self, sample: Sample) -> None:
        """Enter what was seen of a transaction."""

    def hand_on(self, server: ServerConnection) -> None:
        """Be done with a server in which nothing is left."""

    def give_back(self, server: ServerConnection, left: Leftover) -> None:
        """Be done with a server that may have to be cleaned."""

    def give_up(self, server: ServerConnection, reason: CloseReason) -> None:
        """Have a server closed."""

    def cancel(self, server: ServerConnection) -> Deferred[None]:
        """Cancel what a server is doing; fires when the request has reached it, or can't."""

    def make_way(self, databases: tuple[bytes, ...]) -> None:
        """Have idle servers leave these databases."""

    def hides(self) -> None:
        """Take the word that statements of the database do something in hiding."""

    def defaults_changed(self) -> None:
        """Have no server serve on that may have been opened with other defaults than new ones."""

    def account(self, client: Borrower) -> tuple[str, str]:
        """Say, to one who waits, who has the servers, and what can be done about it."""

    def alarm(self) -> None:
        """Take the word that a server may not be what it was."""


@quicken
@frozen
class Terms:
    """On what terms a client uses servers."""

    session: bool
    """Whether it keeps one server until it goes."""
    parameters: Parameters
    """The startup parameters that its servers are to be opened with."""
    buffer_limit: int
    """Bytes held for it while it waits."""
    replication: bool = False


@quicken
class Splice:
    """A client after login. `goodbye` is called once, when the client's connection is to end."""

    __slots__ = (
        "_asked_since",
        "_bereft",
        "_blocked",
        "_cancel_wanted",
        "_client",
        "_deadlines",
        "_failures",
        "_first",
        "_goodbye",
        "_hear",
        "_held",
        "_held_size",
        "_keeps",
        "_leaving",
        "_lender",
        "_log",
        "_lost",
        "_lost_at",
        "_news",
        "_overdrawn",
        "_sample",
        "_seconds",
        "_server",
        "_skim",
        "_talk",
        "_tell",
        "_terms",
        "_unfinished",
        "_used",
        "_waiting",
        "_waiting_since",
        "_watch",
    )

    def __init__(
        self,
        client: Stream,
        lender: Lender,
        terms: Terms,
        conversation: Conversation,
        goodbye: Callable[[str], None],
        tell: Callable[[Event], None],
        seconds: Callable[[], float],
        log: ClientLog,
    ) -> None:
        self._seconds = seconds
        self._asked_since: float | None = None
        """Since when the server owes the proxy itself an answer, by `seconds`."""
        self._sample: Sample | None = None
        """What is seen of this transaction, if it is one that is looked at closely."""
        self._waiting_since = 0.0
        """Since when it waits for a server, or did the last time, by `seconds`."""
        self._client = client
        self._lender = lender
        self._terms = terms
        self._talk = conversation
        self._goodbye = goodbye
        self._tell = tell
        self._log = log
        self._deadlines = NO_DEADLINES
        self._watch = Watch()
        self._keeps = terms.session
        self._skim = Skimmer(conversation.direction)
        self._server: ServerConnection | None = None
        self._hear: Callable[[bytes], None] | None = None
        """Takes what a server sends; made once, until the client has gone."""
        self._used = False
        self._waiting = False
        self._blocked = False
        """Whether nothing is sent on: the server first has to answer something of ours, or is lost."""
        self._bereft: Bereft | None = None
        """Who answers the client in place of a server that is lost; it is `_blocked` then."""
        self._lost = 0
        """How many servers in a row were lost before they had anything of the client's."""
        self._lost_at = 0.0
        """When the last of them was, by `seconds`."""
        self._held: Held = []
        self._held_size = 0
        self._failures = 0
        """How many servers in a row did not take the client's settings."""
        self._unfinished = False
        """Whether something that the server said unasked, behind all that it owed, has not come whole."""
        self._overdrawn = False
        """Whether the client is not read because it is owed too much already."""
        self._leaving = False
        """The client has said Terminate; what it asked for before is still done."""
        self._cancel_wanted: Deferred[None] | None = None
        self._first: Deferred[ServerConnection | None] | None = None
        self._news = b""
        """What has changed in the server since it greeted us; the client is told behind the greeting."""

    @property
    def server(self) -> ServerConnection | None:
        """The server that the client is linked to."""
        return self._server

    @property
    def talk(self) -> Conversation:
        """What passes between the client and its servers."""
        return self._talk

    @property
    def hold(self) -> Hold:
        """Why it has its server."""
        ledger = self._talk.ledger
        if ledger.owed or ledger.batch_open:
            return Hold.WORKING
        if ledger.status != IDLE:
            return Hold.IN_TRANSACTION
        if self._keeps:
            return Hold.SESSION
        return Hold.PINNED if self._talk.pinned else Hold.WORKING

    @property
    def at_rest(self) -> bool:
        """Whether the client has nothing under way."""
        return not self._waiting and self._talk.ledger.settled and not self._skim.mid_message

    # At login.

    def first_server(self) -> Deferred[ServerConnection | None]:
        """
        Borrow a server before there is anything to send: for its greeting, or to keep it.

        Fires with None where the greeting has become known otherwise, and is all that was wanted. Never fires
        when there is none: the client has been told so by then.
        """
        first = self._first = Deferred()
        self._borrow()
        return first

    def settled_in(self) -> None:
        """Go on as the mode has it, now that the client knows that it is logged in."""
        if self._news:
            self._client.write(self._news)
        if self._server is not None and self._is_free(self._server):
            self._go_on()

    # From the client.

    def from_client(self, data: bytes) -> None:
        """Take what a client has sent."""
        if self._leaving:
            return
        # What is known to leave nothing needs no more than one look at the whole of it.
        skim, talk = self._skim, self._talk
        if (
            skim.left
            or skim.held
            or self._blocked
            or self._waiting
            or self._sample is not None
            or (known := talk.recognises(data)) is None
        ):
            self._cut(data)
            return
        server = self._server
        if server is None:
            server = self._lender.take(self, self._terms.parameters, talk.settings, talk.home)
            if server is None:
                self._wait_with(*skim.feed(data))
                return
            beginning = self._link(server)
            if beginning is not NOTHING_FIRST or self._sample is not None:
                self._pass_on(beginning.to_server, *skim.feed(data))
                return
        elif talk.ledger.status == IDLE:
            # It keeps its server, and begins with another transaction.
            self._cut(data)
            return
        talk.asked(data, known)
        self._used = True
        server.transport.write(data)

    def _cut(self, data: bytes) -> None:
        """Deal with what a client has sent, message by message."""
        try:
            run, frames = self._skim.feed(data)
        except Malformed as error:
            self._violation(error)
        else:
            self._said(run, frames)

    def look_closely(self, weight: int) -> None:
        """See when the statements of the next transaction begin and end; it stands for `weight` of them."""
        self._sample = Sample(weight, 0.0, self._talk.text_of)

    def _said(self, run: bytes, frames: list[Frame]) -> None:
        """Deal with what a client has sent."""
        first = b""
        if (
            self._server is None
            and not self._waiting
            and not self._blocked
            and frames
            and not frames[0][1]
            and frames[0][0] not in _BEGIN_NOTHING
        ):
            talk = self._talk
            server = self._lender.take(self, self._terms.parameters, talk.settings, talk.home)
            if server is not None:
                first = self._link(server).to_server
        elif self._server is not None and self._sample is None and self._talk.ledger.settled:
            # It keeps its server, and begins with another transaction.
            self._lender.kept(self)
        self._pass_on(first, run, frames)

    def _said_to(self, server: ServerConnection, run: bytes, frames: list[Frame]) -> None:
        """Be linked to a server that was taken, and deal with what the client has sent."""
        self._pass_on(self._link(server).to_server, run, frames)

    def _pass_on(self, first: bytes, run: bytes, frames: list[Frame]) -> None:
        """Send what a client has said, behind `first`, or hold it."""
        server = self._server
        try:
            if server is None or self._blocked:
                if first:
                    self._send(first)
                self._hold(run, frames)
            elif run:
                talk = self._talk
                if self._sample is not None:
                    self._see_said(run, frames)
                run = talk.from_client(run, frames)
                if talk.plain and not first:
                    self._used = True
                    server.transport.write(run)
                    return
                self._send(first + run)
                if talk.put_off is not None:
                    self._put_off([])
                self._after_client()
        except Malformed as error:
            self._violation(error)

    def _see_said(self, run: bytes, frames: list[Frame]) -> None:
        assert self._sample is not None
        ledger = self._talk.ledger
        if self._sample.began is not None and ledger.settled:
            # It has missed the end of its transaction.
            self._sample = None
            return
        self._sample.said(self._seconds(), run, frames, ledger.ours_ahead)

    def _see_heard(self, run: bytes, frames: list[Frame]) -> None:
        sample = self._sample
        assert sample is not None
        if sample.heard(self._seconds(), run, frames):
            self._sample = None
            self._lender.looked(sample)

    def _after_client(self) -> None:
        if self._talk.broken:
            self._violation(Malformed(self._talk.broken))
        elif self._talk.refusal is not None:
            self._log.warning("sequences_of_others", sqlstate=self._talk.refusal.sqlstate)
            self._end(self._talk.refusal, "sequences_of_others")
        elif self._talk.terminated:
            self._terminate()
        elif self._blocked:
            return
        elif self._server is not None and self._is_free(self._server):
            # The client has only ended what the server had answered already.
            self._go_on()

    def _send(self, data: bytes) -> None:
        server = self._server
        assert server is not None
        talk = self._talk
        if talk.make_way:
            databases, talk.make_way = talk.make_way, ()
            self._lender.make_way(databases)
        if talk.describing:
            server.skim.direction = tags.FROM_SERVER_DESCRIBING
        if data:
            self._used = True
            server.transport.write(data)
        if talk.ledger.full:
            self._overdrawn = True
            self._client.pauseProducing()

    def _put_off(self, rest: list[tuple[bytes, list[Frame]]]) -> None:
        """Hold what has to wait for an answer, and the rest behind it."""
        talk = self._talk
        assert talk.put_off is not None
        # It will be said once more.
        self._sample = None
        self._blocked = True
        self._asked_since = self._seconds()
        self._held = [talk.put_off, *rest]
        self._held_size = sum(len(run) for run, _frames in self._held)
        talk.put_off = None
        if any(frame[0] == tags.TERMINATE for _run, frames in self._held for frame in frames):
            self._leaving = True

    def _hold(self, run: bytes, frames: list[Frame]) -> None:
        """Keep what came until there is a server that can take it."""
        if self._bereft is not None:
            self._answer(self._bereft, [(run, frames)])
            return
        if not self._waiting and not self._blocked:
            run, frames = without_late_copy_data(run, frames)
            if frames and frames[0][0] == tags.TERMINATE:
                self._terminate()
                return
        if not run:
            return
        self._wait_with(run, frames)
        if any(tag == tags.TERMINATE for tag, _start, _stop in frames):
            self._leaving = True

    def _wait_with(self, run: bytes, frames: list[Frame]) -> None:
        """Have it sent to the next server, behind all that is held."""
        self._held.append((run, frames))
        self._held_size += len(run)
        if not self._waiting and not self._blocked:
            self._borrow()
        if (self._waiting or self._blocked) and self._held_size > self._terms.buffer_limit:
            self._client.pauseProducing()

    def _borrow(self) -> None:
        self._waiting = True
        self._waiting_since = self._seconds()
        self._lender.borrow(self, self._terms.parameters, self._talk.settings, self._talk.home)
        if self._waiting:
            self._watch.due = 0.0

    def again(self, since: float) -> None:
        """Ask once more for a server."""
        self._lender.borrow(self, self._terms.parameters, self._talk.settings, self._talk.home, since)

    def _terminate(self) -> None:
        self._leaving = True
        if self._server is not None:
            self._give_back(vanished=False)
        if not self._waiting:
            self._goodbye(TERMINATED)

    def _violation(self, error: Malformed) -> None:
        self._log.warning("client_broke_protocol", what=str(error))
        self._end(complaint(errors.PROTOCOL_VIOLATION, what=str(error)), "protocol_violation")

    # From the server.

    def linked(self, server: ServerConnection) -> None:
        """Take a server, and send it what was held."""
        if self._client.hung_up and self._has_vanished():
            self._waiting = False
            self._lender.hand_on(server)
            self._goodbye("vanished")
            return
        self._waiting = False
        self._sample = self._lender.waited(self._seconds() - self._waiting_since, self._talk.text_of)
        self._serve(server)

    def _serve(self, server: ServerConnection) -> None:
        """Be linked to a server that was waited for, and send it what was held."""
        try:
            self._serve_held(server)
        except Malformed as error:
            self._violation(error)
            return
        if self._first is not None:
            first, self._first = self._first, None
            first.callback(server)

    def _serve_held(self, server: ServerConnection) -> None:
        """Be linked to a server, and send it what was held. Raises `Malformed`."""
        self._send_held(self._link(server).to_server)

    def _link(self, server: ServerConnection) -> Beginning:
        """Be linked to a server; give what it has to be told first."""
        self._server = server
        self._used = False
        if self._hear is None:
            self._hear = self._from_server
        server.receive = self._hear if not server.skim.left else self._from_server_in_mid_message
        self._client.couple(server.transport)
        session = server.record.session
        if self._first is not None:
            self._talk.hears(session.greeting)
        beginning = self._talk.begin(session)
        if beginning is not NOTHING_FIRST:
            if self._first is not None:
                self._news = beginning.to_client
            elif beginning.to_client:
                self._client.write(beginning.to_client)
            self._blocked = beginning.wait
            self._asked_since = self._seconds() if beginning.to_server else None
        return beginning

    def _has_vanished(self) -> bool:
        """Say whether a client that is not read any more, and has hung up, did so without a word."""
        self._client.read_rest()
        return not self._leaving

    def _send_held(self, first: bytes = b"") -> None:
        """Send what was held, behind `first`, in one write. Raises `Malformed`."""
        if self._blocked:
            self._send(first)
            return
        held, self._held, self._held_size = self._held, [], 0
        self._client.resumeProducing()
        pieces = [first] if first else []
        for index, (run, frames) in enumerate(held):
            if self._sample is not None:
                self._see_said(run, frames)
            pieces.append(self._talk.from_client(run, frames))
            if self._talk.put_off is not None:
                self._put_off(held[index + 1 :])
                break
        self._send(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if held:
            self._after_client()

    def _from_server_in_mid_message(self, data: bytes) -> None:
        """Skip the rest of a notice that began before the link, and whose beginning went nowhere."""
        server = self._server
        assert server is not None
        left = server.skim.left
        server.skim.feed(data[:left])
        if not server.skim.mid_message:
            server.receive = self._from_server
            if data[left:]:
                self._from_server(data[left:])

    def _from_server(self, data: bytes) -> None:
        server = self._server
        assert server is not None
        talk = self._talk
        if (
            self._asked_since is None
            and self._sample is None
            and self._cancel_wanted is None
            and not (self._blocked or self._unfinished or self._overdrawn)
            and talk.answered(data, server.skim)
        ):
            # It needs no more than one look at the whole of it.
            if talk.ledger.status == IDLE and not (self._keeps or self._skim.left):
                if talk.lets_go and not server.cancels and not server.cancel_in_doubt:
                    self._let_go_plainly(server)
                else:
                    self._go_on()
            self._client.write(data)
            return
        try:
            run, frames = server.skim.feed(data)
        except Malformed as error:
            server.spoke_nonsense(error)
        else:
            self._heard(server, run, frames)

    def _heard(self, server: ServerConnection, run: bytes, frames: list[Frame]) -> None:
        talk = self._talk
        try:
            if frames or talk.swallows:
                if self._sample is not None:
                    self._see_heard(run, frames)
                run = talk.from_server(run, frames)
        except Malformed as error:
            server.spoke_nonsense(error)
            return
        if (
            talk.plain
            and frames
            and self._asked_since is None
            and not (self._blocked or self._unfinished or self._overdrawn)
            and self._cancel_wanted is None
        ):
            if not self._keeps and self._is_free(server):
                if talk.lets_go and not server.cancels and not server.cancel_in_doubt:
                    self._let_go_plainly(server)
                else:
                    self._go_on()
            self._client.write(run)
            return
        if self._asked_since is not None and not talk.swallows and not talk.waits:
            self._asked_since = None
        if talk.put_off is not None:
            self._put_off(self._held)
        if talk.cause is not None:
            # It ends, and has said why: nothing more is sent to it. It is given up if its connection stays.
            self._blocked = True
            self._asked_since = self._seconds()
        elif frames or self._unfinished:
            free = not self._keeps and self._is_free(server)
            if (
                free
                or talk.failure
                or talk.events
                or self._blocked
                or self._overdrawn
                or self._cancel_wanted is not None
            ):
                self._after_server(server)
                if talk.failure:
                    return
        if run:
            self._client.write(run)

    def _is_free(self, server: ServerConnection) -> bool:
        """Say whether nothing is under way, nor in the middle of a message on either side."""
        if not self._talk.ledger.settled or self._skim.left:
            return False
        self._unfinished = not server.skim.at_boundary
        return not self._unfinished

    def _after_server(self, server: ServerConnection) -> None:
        talk = self._talk
        if talk.failure:
            self._session_lost(server)
            return
        if self._overdrawn and not talk.ledger.full:
            self._overdrawn = False
            self._client.resumeProducing()
        if self._blocked and not talk.waits:
            self._blocked = False
            self._failures = self._lost = 0
            try:
                self._send_held()
            except Malformed as error:
                self._violation(error)
                return
        if self._cancel_wanted is not None and not talk.swallows:
            wanted, self._cancel_wanted = self._cancel_wanted, None
            self._cancel_now().chainDeferred(wanted)
        if self._server is not None and not self._blocked and self._is_free(self._server):
            self._go_on()
        elif talk.events:
            self._tell_events()

    def _session_lost(self, server: ServerConnection) -> None:
        """End a client whose settings are not to be had any more, before it works with others."""
        talk = self._talk
        self._log.warning("session_not_restored", sqlstate=talk.failure[:5])
        again = self._blocked and self._failures < _TRIES
        why = complaint(errors.SESSION_NOT_RESTORED, detail=talk.failure)
        self._part()
        talk.end()
        self._lender.give_up(server, CloseReason.SESSION_LOST)
        if again:
            # Nothing of the client's has been sent: another server may take what this one refused.
            self._failures += 1
            talk.failure = ""
            self._borrow()
            return
        self._end(why, "session_not_restored")

    def server_lost(self, server: ServerConnection, reason: CloseReason) -> None:
        """Tell the client, where it has lost something and can be told; end it, or go on."""
        talk = self._talk
        held = self._held
        half_said = begins_inside(*held[0]) if held else self._skim.mid_message
        told = talk.fatal or server.skim.mid_message
        now = self._seconds()
        self._lost = self._lost + 1 if now - self._lost_at < _A_ROW else 1
        self._lost_at = now
        self._part()
        fate: Complaint | Bereft | None
        if told or reason in (CloseReason.NONSENSE, CloseReason.SHUTDOWN):
            talk.end()
            nonsense = reason is CloseReason.NONSENSE
            fate = complaint(errors.SERVER_SPOKE_NONSENSE if nonsense else errors.SERVER_LOST)
        else:
            fate = talk.bereave(half_said, server.transport.not_received)
            if fate is None and self._lost > _MOST_LOST:
                fate = complaint(errors.SERVER_LOST)
        self._tell_events()
        if isinstance(fate, Complaint) or (fate is not None and self._leaving):
            self._end(fate if isinstance(fate, Complaint) and not told else None, reason.value)
            return
        if self._overdrawn:
            self._overdrawn = False
            self._client.resumeProducing()
        if fate is None:
            self._go_elsewhere()
        else:
            self._log.warning("client_lost_server", reason=reason.value, **fate.facts)
            self._bereft = fate
            self._blocked = True
            # Who doesn't read its answers is not read.
            self._client.registerProducer(self._client, True)
            self._take_from_held(fate)

    def _go_elsewhere(self) -> None:
        """Have another server for what is held, now that one is lost that had nothing of the client's."""
        again, self._talk.put_off = self._talk.put_off, None
        self._held = from_next_message(self._held)
        if again is not None:
            self._held.insert(0, again)
        self._held_size = sum(len(run) for run, _frames in self._held)
        if not self._held:
            self._client.resumeProducing()
        elif self._held[0][1][0][0] == tags.TERMINATE:
            self._terminate()
        else:
            self._borrow()

    def _take_from_held(self, bereft: Bereft) -> None:
        """Answer what was under way when the server was lost, and what is held."""
        held, self._held, self._held_size = self._held, [], 0
        self._client.resumeProducing()
        try:
            self._answer(bereft, held, bereft.begin())
        except Malformed as error:
            self._violation(error)

    def _answer(self, bereft: Bereft, said: Held, first: bytes = b"") -> None:
        """Answer a client that has no server, until it may have one again. Raises `Malformed`."""
        out = [first]
        rest: Held = []
        for index, (run, frames) in enumerate(said):
            out.append(bereft.take(run, frames))
            if bereft.over or bereft.terminated:
                rest = [bereft.rest, *said[index + 1 :]]
                break
        if not self._skim.mid_message:
            out.append(bereft.whole())
        self._talk.ledger.answered_here(bereft.answered, bereft.status, bereft.batch_open)
        over = bereft.over
        if over:
            self._bereft = None
            self._blocked = False
            self._client.unregisterProducer()
        answer = b"".join(out)
        if answer:
            self._client.write(answer)
        if bereft.terminated:
            self._terminate()
        elif over:
            for run, frames in rest:
                self._pass_on(b"", run, frames)

    def cancel_sent(self) -> None:
        """Go on, now that the fate of a cancel request is known."""
        if self._server is not None and not self._blocked and not self._keeps and self._is_free(self._server):
            self._go_on()

    def overdue(self, limit: float) -> bool:
        """Say whether the server has not answered the proxy itself for over `limit` seconds."""
        return self._asked_since is not None and self._seconds() - self._asked_since > limit

    def greeted(self, greeting: Reported) -> None:
        """Wait no longer, where it is only for a greeting."""
        if self._first is None or self._terms.session:
            return
        self._waiting = False
        self._lender.leave(self, aborts=False)
        self._talk.hears(greeting)
        first, self._first = self._first, None
        first.callback(None)

    def refused(self, why: Complaint) -> None:
        """Tell the client why it gets no server, and end it."""
        self._waiting = False
        self._lender.waited(self._seconds() - self._waiting_since, None)
        self._end(why, "refused")

    # The end of a link, and of the client.

    def _go_on(self) -> None:
        """Do what the conversation says, now that the server owes nothing."""
        server = self._server
        assert server is not None
        if server.cancels:
            # The request might hit what we ask. `cancel_sent` goes on.
            return
        talk = self._talk
        more = talk.rest()
        if talk.events:
            self._tell_events()
        if talk.defaults_changed:
            talk.defaults_changed = False
            self._lender.defaults_changed()
        if talk.hides:
            talk.hides = False
            self._lender.hides()
        if more is None:
            self._let_go(server)
        elif more:
            self._used = True
            self._asked_since = self._seconds()
            server.transport.write(more)

    def _let_go_plainly(self, server: ServerConnection) -> None:
        """Let a server go to which nothing but plain things were said."""
        self._server = None
        self._sample = None
        server.skim.direction = tags.FROM_SERVER
        self._client.uncouple(server.transport)
        self._talk.server = None
        self._lender.hand_on(server)

    def _let_go(self, server: ServerConnection) -> None:
        if self._talk.clean and not server.cancels and not server.cancel_in_doubt:
            self._part()
            self._talk.part()
            self._lender.hand_on(server)
        else:
            self._give_back(vanished=False)

    def _give_back(self, vanished: bool) -> None:
        server = self._server
        assert server is not None
        talk = self._talk
        self._part()
        clean = talk.clean and talk.ledger.settled
        lasting, unasked = talk.lasting, talk.unasked
        left = Leftover(
            talk.end(),
            used=self._used,
            vanished=vanished,
            mid_message=self._skim.mid_message,
            replication=self._terms.replication,
            lasting=lasting,
            clean=clean,
            unasked=unasked,
            patience=self._deadlines.patience,
        )
        self._tell_events()
        self._lender.give_back(server, left)

    def _part(self) -> None:
        server = self._server
        assert server is not None
        self._server = None
        self._sample = None
        self._blocked = False
        self._unfinished = False
        self._asked_since = None
        server.skim.direction = tags.FROM_SERVER
        self._client.uncouple(server.transport)
        if self._cancel_wanted is not None:
            wanted, self._cancel_wanted = self._cancel_wanted, None
            wanted.callback(None)

    def _tell_events(self) -> None:
        events = self._talk.events
        for event in events:
            if isinstance(event, WriteRefused):
                # It may be a writer that no longer is one.
                self._lender.alarm()
            else:
                self._tell(event)
        events.clear()

    def cancel(self) -> Deferred[None] | None:
        """Cancel what the client has under way in a server, if anything."""
        if self._waiting and self._first is None:
            self._cancel_held()
            return None
        if self._server is None or self._talk.ledger.settled:
            return None
        if self._talk.swallows:
            # What the server is doing is ours; what the client has sent comes next, if there is any.
            if self._talk.ledger.awaited == 1 and not self._talk.ledger.batch_open:
                return None
            self._cancel_wanted = self._cancel_wanted or Deferred()
            return self._cancel_wanted
        return self._lender.cancel(self._server)

    def _cancel_held(self) -> None:
        """Cancel what waits for a server: it is answered as if the server had begun with it."""
        rest = without_first_batch(self._held)
        if rest is None:
            return
        self._held = rest
        self._held_size = sum(len(run) for run, _frames in rest)
        self._client.write(complaint(errors.CANCELED).message() + messages.ready_for_query(b"I"))
        if self._held_size <= self._terms.buffer_limit:
            self._client.resumeProducing()
        if not rest:
            self._waiting = False
            self._lender.leave(self, aborts=True)

    def _cancel_now(self) -> Deferred[None]:
        return self.cancel() or succeed(None)

    def terminate(self, why: Complaint) -> None:
        """End the client from our side; what it has under way is cancelled."""
        self._end(why, "terminated_by_pgproxy")

    def limit(self, deadlines: Deadlines) -> None:
        """Have these limits hold for the client from now on."""
        self._deadlines = deadlines
        self._watch.due = 0.0

    def look(self, now: float) -> None:
        """Tell the client that it waits, or end it, if that is due; `now` is an `Attention`'s."""
        if now < self._watch.due or self._leaving:
            return
        deadlines = self._deadlines
        if self._waiting:
            if self._watch.wait(now, deadlines, self._talk):
                detail, hint = self._lender.account(self)
                self._client.write(complaint(errors.WAITING, detail, hint).message())
            return
        overdue = self._watch.look(
            now, deadlines, self._talk, self._skim.place, self._client.unsent, bool(self._held)
        )
        if overdue is not None:
            seconds = getattr(deadlines, overdue.value)
            self._end(complaint(_OVERDUE[overdue], seconds=f"{seconds:g}"), overdue.value)

    def client_lost(self) -> None:
        """Take the word that the client's connection has ended."""
        self._hear = None
        self._talk.gone()
        if self._blocked and self._leaving:
            # What it has said before it took its leave is still done.
            return
        if self._server is not None:
            self._give_back(vanished=True)
        elif self._waiting:
            if self._leaving:
                return
            self._waiting = False
            self._lender.leave(self, aborts=True)
        self._talk.apart()

    def _end(self, why: Complaint | None, reason: str) -> None:
        between_messages = self._server is None or not self._server.skim.mid_message
        self.client_lost()
        if why is not None and between_messages:
            self._client.write(why.message())
        self._goodbye(reason)


know(from_server=tags.FROM_SERVER)
