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
                elif payload != b"I" or self._reader.rest():
                    raise Malformed("the answer does not end where it should")
                else:
                    self._answered(self._replies)
                    return
        except Malformed as error:
            self._server.spoke_nonsense(error)
