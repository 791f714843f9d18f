"""
What the proxy itself says to a server between two batches of the client's, and what is answered to that.

The law: each aside ends in one ReadyForQuery, and all that comes up to it is the proxy's, but for what a
server says unasked: notifications go to the client, settings are entered.
"""

from __future__ import annotations

import re
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


_OF_NO_INTEREST_IF_DONE = frozenset({Aside.RESTORE, Aside.OTHER})
"""Where what the server says is of no interest, as long as that is that it is done."""
_is_done = re.compile(rb"(?:C\x00\x00\x00[^\x00][^\x00]*\x00)+Z\x00\x00\x00\x05I", re.DOTALL).fullmatch
"""Finds an answer that is short command tags and nothing else: a tag's text ends at its only zero byte."""


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
        Enter that all of an answer has come; give what it answers, and its messages.

        There are none if it was too long, and none of where something is done whose success does not matter.

        Raises `Malformed`.
        """
        data = b"".join(self._collected)
        self._collected.clear()
        what = self._said.popleft()
        replies: list[tuple[int, bytes]] = []
        if what in _OF_NO_INTEREST_IF_DONE and _is_done(data):
            self._size = 0
            return what, replies
        if self._size <= ANSWER_LIMIT:
            reader = messages.MessageReader(ANSWER_LIMIT)
            reader.feed(data)
            while (came := reader.next()) is not None:
                replies.append(came)
        self._size = 0
        return what, replies

    def clear(self) -> None:
        """Forget all of them."""
        self._said.clear()
        self._collected.clear()
        self._size = 0
