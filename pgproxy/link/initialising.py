"""Performs `init_query` in a server that nobody is linked to, and enters what it has set."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pgproxy.link.asking import Question
from pgproxy.session.initial import InitQueryFailed, initial_question, initial_settings, is_last
from pgproxy.session.question import ANSWER_LIMIT
from pgproxy.wire import messages, tags
from pgproxy.wire.skim import Malformed

if TYPE_CHECKING:
    from pgproxy.link.server import ServerConnection


class Initialising:
    """One run of it. One of `done` and `failed` is called, unless the connection ends."""

    def __init__(
        self,
        server: ServerConnection,
        done: Callable[[], None],
        failed: Callable[[InitQueryFailed], None],
    ) -> None:
        self._server = server
        self._done = done
        self._failed = failed
        self._reader = messages.MessageReader(ANSWER_LIMIT)

    def begin(self) -> None:
        """Send it."""
        self._server.receive = self._received
        self._server.transport.write(messages.query_of([self._server.init_query]))

    def _received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (came := self._reader.next()) is not None:
                tag, payload = came
                if tag == tags.PARAMETER_STATUS:
                    self._server.record.session.status(payload)
                elif is_last(tag, payload):
                    if self._reader.rest():
                        raise Malformed("bytes behind the answer to init_query")
                    Question(self._server, self._answered).ask(initial_question(self._server.init_query))
                    return
        except InitQueryFailed as error:
            self._failed(error)
        except Malformed as error:
            self._server.spoke_nonsense(error)

    def _answered(self, replies: list[tuple[int, bytes]]) -> None:
        session = self._server.record.session
        try:
            session.begins_with(initial_settings(replies, session.user, session.role))
        except InitQueryFailed as error:
            self._failed(error)
        else:
            self._done()
