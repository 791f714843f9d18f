"""
What the proxy itself says to a server between two batches of the client's, and what is answered to that.

The law: each aside ends in one ReadyForQuery, and all that comes up to it is the proxy's, but for what a
server says unasked: notifications go to the client, settings are entered.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from pgproxy.session.question import ANSWER_LIMIT
from pgproxy.wire import messages


class Aside(Enum):
    """What was said."""

    RESTORE = 0
    """The client's settings, before its first message."""
    QUESTION = 1
    """What the session holds."""
    OTHER = 2
    """Something whose success does not matter."""
    FORGET = 3
    """That it forgets what others have left for currval() and lastval()."""


class Asides:
    """Those that are still to be answered."""

    __slots__ = ("_collected", "_said", "_size")

    def __init__(self) -> None:
        self._said: deque[Aside] = deque()
        self._collected: list[bytes] = []
        self._size = 0

    def __bool__(self) -> bool:
        return bool(self._said)

    def __contains__(self, aside: Aside) -> bool:
        return aside in self._said

    def said(self, aside: Aside) -> None:
        """Enter that one has been said."""
        self._said.append(aside)

    def collect(self, data: bytes) -> None:
        """Take a part of the answer; what goes beyond what is read is thrown away."""
        self._size += len(data)
        if self._size <= ANSWER_LIMIT:
            self._collected.append(data)

    def answered(self) -> tuple[Aside, list[tuple[int, bytes]]]:
        """
        Enter that all of an answer has come; give what it answers, and its messages: none if it was too long.

        Raises `Malformed`.
        """
        replies: list[tuple[int, bytes]] = []
        if self._size <= ANSWER_LIMIT:
            reader = messages.MessageReader(ANSWER_LIMIT)
            reader.feed(b"".join(self._collected))
            while (came := reader.next()) is not None:
                replies.append(came)
        self._collected.clear()
        self._size = 0
        return self._said.popleft(), replies

    def clear(self) -> None:
        """Forget all of them."""
        self._said.clear()
        self._collected.clear()
        self._size = 0
