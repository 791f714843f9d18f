"""
The way between a client and the servers it borrows, one after the other.

Bytes are sent on as they came; only the frames that the skimmers hand out are looked at. The law:

1. A server is borrowed when a message comes that it must answer, and given back when it owes nothing, is
   in no transaction, and the client is not in the middle of a message; in session mode, when the client
   goes.
2. State changes before the bytes that announce it are sent.
3. Who can't take more makes the other stop: each side's transport has the other as its producer. While
   there is no server, `buffer_limit` bytes of a client are held, then it is not read.
4. An error is said to a client only where its stream is between two messages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import frozen
from structlog.typing import FilteringBoundLogger
from twisted.internet.defer import Deferred

from pgproxy.link.server import ServerConnection
from pgproxy.link.transport import Stream
from pgproxy.pool.release import Leftover
from pgproxy.pool.states import CloseReason, Parameters
from pgproxy.session.ledger import Ledger
from pgproxy.wire import errors, tags
from pgproxy.wire.errors import Complaint, complaint
from pgproxy.wire.messages import read_error_fields
from pgproxy.wire.skim import HEADER, Frame, Malformed, Skimmer

_COPY_ENDS = frozenset({tags.COPY_DONE, tags.COPY_FAIL})
_LOAD = b"LOAD\0"


class Borrower(Protocol):
    """Who can ask a lender for a server."""

    def linked(self, server: ServerConnection) -> None:
        """Take a server."""

    def refused(self, why: Complaint) -> None:
        """Take the word that there is none."""

    def server_lost(self, server: ServerConnection, reason: CloseReason) -> None:
        """Take the word that the server has gone."""


class Lender(Protocol):
    """Who lends servers."""

    def borrow(self, client: Borrower, parameters: Parameters) -> None:
        """Ask for a server; the answer is `linked` or `refused`, perhaps before this returns."""

    def leave(self, client: Borrower) -> None:
        """No longer want one."""

    def give_back(self, server: ServerConnection, left: Leftover) -> None:
        """Be done with a server."""

    def cancel(self, server: ServerConnection) -> Deferred[None]:
        """Cancel what a server is doing; fires when the request has reached it, or can't."""


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


def enter(ledger: Ledger, run: bytes, frames: list[Frame]) -> bool:
    """Enter a server's frames into the ledger; say whether one of them told that a library was loaded."""
    loaded = False
    for tag, start, _stop in frames:
        if tag == tags.READY_FOR_QUERY:
            ledger.ready(run[start + HEADER])
        elif tag == tags.COMMAND_COMPLETE:
            loaded = loaded or run.startswith(_LOAD, start + HEADER)
        elif tag == tags.ERROR_RESPONSE:
            ledger.error()
        elif tag == tags.COPY_IN_RESPONSE:
            ledger.copy_in()
        else:
            ledger.copy_both()
    return loaded


class Splice:
    """A client after login. `goodbye` is called once, when the client's connection is to end."""

    def __init__(
        self,
        client: Stream,
        lender: Lender,
        terms: Terms,
        goodbye: Callable[[str], None],
        log: FilteringBoundLogger,
    ) -> None:
        self._client = client
        self._lender = lender
        self._terms = terms
        self._goodbye = goodbye
        self._log = log
        self._skim = Skimmer(tags.FROM_CLIENT)
        self._ledger = Ledger()
        self._server: ServerConnection | None = None
        self._used = False
        self._library_loaded = False
        self._waiting = False
        self._held: list[bytes] = []
        self._held_size = 0
        self._leaving = False
        """The client has said Terminate; what it asked for before is still done."""
        self._fatal = False
        """The server has told the client why it ends."""
        self._first: Deferred[ServerConnection] | None = None

    @property
    def server(self) -> ServerConnection | None:
        """The server that the client is linked to."""
        return self._server

    @property
    def at_rest(self) -> bool:
        """Whether the client has nothing under way."""
        return not self._waiting and self._ledger.settled and not self._skim.mid_message

    # At login.

    def first_server(self) -> Deferred[ServerConnection]:
        """
        Borrow a server before there is anything to send: for its greeting, or to keep it.

        Never fires when there is none: the client has been told so by then.
        """
        self._first = Deferred()
        self._waiting = True
        first = self._first
        self._lender.borrow(self, self._terms.parameters)
        return first

    def settled_in(self) -> None:
        """Go on as the mode has it, now that the client knows that it is logged in."""
        if self._server is not None:
            self._give_back_if_settled()

    # From the client.

    def from_client(self, data: bytes) -> None:
        """Take what a client has sent."""
        if self._leaving:
            return
        try:
            run, frames = self._skim.feed(data)
        except Malformed as error:
            self._violation(error)
            return
        if self._server is None and not self._waiting:
            run, frames = self._without_late_copy_data(run, frames)
        for tag, start, _stop in frames:
            if tag == tags.TERMINATE:
                self._forward(run[:start])
                self._terminate()
                return
            self._ledger.sent(tag)
        self._forward(run)
        if self._server is not None:
            self._give_back_if_settled()

    def _without_late_copy_data(self, run: bytes, frames: list[Frame]) -> tuple[bytes, list[Frame]]:
        """Drop COPY data that comes after its statement has failed, as a server would."""
        for index, (tag, start, _stop) in enumerate(frames):
            if tag not in _COPY_ENDS:
                return run[start:], [(t, a - start, b - start) for t, a, b in frames[index:]]
        return b"", []

    def _forward(self, run: bytes) -> None:
        if not run:
            return
        if self._server is not None:
            self._used = True
            self._server.transport.write(run)
            return
        self._held.append(run)
        self._held_size += len(run)
        if not self._waiting:
            self._waiting = True
            self._lender.borrow(self, self._terms.parameters)
        if self._waiting and self._held_size > self._terms.buffer_limit:
            self._client.pauseProducing()

    def _terminate(self) -> None:
        self._leaving = True
        if self._server is not None:
            self._give_back(vanished=False)
        if not self._waiting:
            self._goodbye("terminated")

    def _violation(self, error: Malformed) -> None:
        self._log.warning("client_broke_protocol", what=str(error))
        self._end(complaint(errors.PROTOCOL_VIOLATION, what=str(error)), "protocol_violation")

    # From the server.

    def linked(self, server: ServerConnection) -> None:
        """Take a server, and send it what was held."""
        self._waiting = False
        self._server = server
        self._used = False
        server.receive = (
            self._from_server if not server.skim.mid_message else self._from_server_in_mid_message
        )
        server.transport.registerProducer(self._client, True)
        self._client.registerProducer(server.transport, True)
        held, self._held, self._held_size = self._held, [], 0
        self._client.resumeProducing()
        if held:
            self._used = True
            server.transport.write(held[0] if len(held) == 1 else b"".join(held))
        if self._leaving:
            self._give_back(vanished=False)
            self._goodbye("terminated")
        if self._first is not None:
            first, self._first = self._first, None
            first.callback(server)

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
        try:
            run, frames = server.skim.feed(data)
        except Malformed as error:
            server.spoke_nonsense(error)
            return
        if frames:
            if enter(self._ledger, run, frames):
                self._library_loaded = True
            self._note_fatal(run, frames)
            self._give_back_if_settled()
        if run:
            self._client.write(run)

    def _note_fatal(self, run: bytes, frames: list[Frame]) -> None:
        for tag, start, stop in frames:
            if tag == tags.ERROR_RESPONSE:
                fields = read_error_fields(run[start + HEADER : stop])
                if fields.get("V", fields.get("S")) in ("FATAL", "PANIC"):
                    self._fatal = True

    def server_lost(self, server: ServerConnection, reason: CloseReason) -> None:
        """Tell the client, where it can be told, and end it."""
        self._server = None
        self._client.unregisterProducer()
        if self._fatal or server.skim.mid_message:
            self._end(None, reason.value)
        elif reason is CloseReason.NONSENSE:
            self._end(complaint(errors.SERVER_SPOKE_NONSENSE), reason.value)
        else:
            self._end(complaint(errors.SERVER_LOST), reason.value)

    def refused(self, why: Complaint) -> None:
        """Tell the client why it gets no server, and end it."""
        self._waiting = False
        self._end(why, "refused")

    # The end of a link, and of the client.

    def _give_back_if_settled(self) -> None:
        if not self._terms.session and self._ledger.settled and not self._skim.mid_message:
            self._give_back(vanished=False)

    def _give_back(self, vanished: bool) -> None:
        server = self._server
        assert server is not None
        self._server = None
        server.transport.unregisterProducer()
        self._client.unregisterProducer()
        left = Leftover(
            self._ledger,
            used=self._used,
            vanished=vanished,
            mid_message=self._skim.mid_message,
            replication=self._terms.replication,
            library_loaded=self._library_loaded,
        )
        self._ledger = Ledger()
        self._library_loaded = False
        self._lender.give_back(server, left)

    def cancel(self) -> Deferred[None] | None:
        """Cancel what the client has under way in a server, if anything."""
        if self._server is None or self._ledger.settled:
            return None
        return self._lender.cancel(self._server)

    def terminate(self, why: Complaint) -> None:
        """End the client from our side; what it has under way is cancelled."""
        self._end(why, "terminated_by_pgproxy")

    def client_lost(self) -> None:
        """Take the word that the client's connection has ended."""
        if self._server is not None:
            self._give_back(vanished=True)
        elif self._waiting and not self._leaving:
            self._waiting = False
            self._lender.leave(self)

    def _end(self, why: Complaint | None, reason: str) -> None:
        between_messages = self._server is None or not self._server.skim.mid_message
        self.client_lost()
        if why is not None and between_messages:
            self._client.write(why.message())
        self._goodbye(reason)
