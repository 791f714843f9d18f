"""
What `init_query` makes of a session before anybody gets it.

The law:

1. What it sets is what every client begins with, and what it comes back to where it resets a setting of its
   own: `settings.beginning_with`. So it follows the client from server to server as all settings do.
2. It leaves nothing else that a client could notice or lose: the server is asked the same question as at the
   end of a transaction, and what would pin a client makes it fail.
"""

from __future__ import annotations

from pgproxy.session.pins import words
from pgproxy.session.question import NoAnswer, question, read_answer
from pgproxy.session.settings import Settings, settings_of
from pgproxy.session.suspicion import classify
from pgproxy.session.verdict import OPAQUE
from pgproxy.wire import tags
from pgproxy.wire.skim import Malformed

_COPIES = frozenset({tags.COPY_IN_RESPONSE, tags.COPY_OUT_RESPONSE, tags.COPY_BOTH_RESPONSE})
_OF_NO_INTEREST = frozenset(
    {
        tags.ROW_DESCRIPTION,
        tags.DATA_ROW,
        tags.COMMAND_COMPLETE,
        tags.EMPTY_QUERY_RESPONSE,
        tags.NOTICE_RESPONSE,
        tags.NOTIFICATION_RESPONSE,
    }
)


class InitQueryFailed(Exception):
    """It has failed: `said` is the server's ErrorResponse (its payload), else the text is what is wrong."""

    def __init__(self, why: str = "", said: bytes = b"") -> None:
        super().__init__(why)
        self.said = said


def is_last(tag: int, payload: bytes) -> bool:
    """
    Take a message of the answer; say whether it is the last one.

    Raises `InitQueryFailed`, and `Malformed` for what no answer to a Query has in it.
    """
    if tag == tags.READY_FOR_QUERY:
        if payload != b"I":
            raise InitQueryFailed("init_query leaves a transaction open")
        return True
    if tag == tags.ERROR_RESPONSE:
        raise InitQueryFailed(said=payload)
    if tag in _COPIES:
        raise InitQueryFailed("init_query has a COPY in it that needs a client")
    if tag not in _OF_NO_INTEREST:
        raise Malformed(f"a message of type {tag} in the answer to init_query")
    return False


def initial_question(text: bytes) -> bytes:
    """Build the question that finds out what `init_query` has set."""
    verdict = classify(text)
    return question(verdict.names, functions=bool(verdict.flags & OPAQUE))


def initial_settings(replies: list[tuple[int, bytes]], user: bytes, role: bytes) -> Settings:
    """
    Read the replies, tag and payload of each; `user` and `role` as in `read_answer`.

    Raises `InitQueryFailed`.
    """
    try:
        answer = read_answer(replies, user, role)
    except NoAnswer as error:
        raise InitQueryFailed(f"what init_query has set cannot be found out: {error}") from error
    if answer.reasons:
        left = ", ".join(words(answer.reasons))
        raise InitQueryFailed(f"init_query may only set something, and leaves behind: {left}")
    return settings_of(answer.settings)
