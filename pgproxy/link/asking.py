"""Asks a server that nobody is linked to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pgproxy.session.question import ANSWER_LIMIT
from pgproxy.wire import messages, tags
from pgproxy.wire.skim import Malformed

if TYPE_CHECKING:
    from pgproxy.link.server import ServerConnection

_MOST_REPLIES = 1000
"""Messages that answer a question of ours."""
_ERROR = bytes((tags.ERROR_RESPONSE,))


class Question:
    """Something asked of a server that nobody is linked to; `answered` gets the replies, tag and payload."""

    def __init__(self, server: ServerConnection, answered: Callable[[list[tuple[int, bytes]]], None]) -> None:
        self._server = server
        self._answered = answered
        self._reader = messages.MessageReader(ANSWER_LIMIT)
        self._replies: list[tuple[int, bytes]] = []

    def ask(self, query: bytes) -> None:
        """Send it."""
        self._server.receive = self._received
        self._server.transport.write(query)

    def _received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (came := self._reader.next()) is not None:
                tag, payload = came
                if tag == tags.PARAMETER_STATUS:
                    self._server.record.session.status(payload)
                elif tag != tags.READY_FOR_QUERY:
                    self._replies.append(came)
                    if len(self._replies) > _MOST_REPLIES:
                        raise Malformed("more replies than were asked for")
                elif payload != b"I":
                    raise Malformed("the answer does not end where it should")
                else:
                    self._ready(said_unasked(self._reader))
                    return
        except Malformed as error:
            self._server.spoke_nonsense(error)

    def _ready(self, more: bytes) -> None:
        self._server.rest()
        # One that says an error now ends, so its answer is of no use to anybody: its connection is lost next.
        if more[:1] != _ERROR:
            self._answered(self._replies)
        if more:
            self._server.dataReceived(more)


def said_unasked(reader: messages.MessageReader) -> bytes:
    """Take what came behind a ReadyForQuery. Raises `Malformed` where a server says no such thing unasked."""
    more = reader.rest()
    if more and more[0] not in tags.UNASKED:
        raise Malformed(f"a message of type {more[0]} behind the answer")
    return more
