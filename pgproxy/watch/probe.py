"""
Asks one host, over one connection that it keeps.

A question that is not answered for `host_timeout` ends the connection; the next look opens another. There is
never more than one connection to a host, nor more than one question on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from attrs import define, evolve
from structlog.typing import FilteringBoundLogger
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from pgproxy.auth.secrets import Credentials
from pgproxy.link.asking import Question
from pgproxy.link.keys import open_with_keys
from pgproxy.link.opening import open_server
from pgproxy.link.server import Account, Host, OpenFailed, ServerConnection
from pgproxy.link.threads import Threads
from pgproxy.pool.states import CloseReason, Parameters, Server
from pgproxy.pool.trouble import Stage
from pgproxy.pool.trouble import Trouble as OpenTrouble
from pgproxy.session.question import read_row
from pgproxy.session.server import Habits, ServerSession
from pgproxy.session.statements import ServerStatements
from pgproxy.targets.facts import (
    COLUMNS,
    NEWS_AT_ONCE,
    QUESTION,
    SHORT_QUESTION,
    Answer,
    NotAnAnswer,
    Trouble,
    read_answer,
)
from pgproxy.targets.pace import HESITATION
from pgproxy.wire import messages, tags
from pgproxy.wire.skim import Malformed

_PARAMETERS: Parameters = (("application_name", "pgproxy watcher"),)
_NOT_THERE_YET = ("57P01", "57P02", "57P03")
"""What a PostgreSQL says that stops, has crashed, or starts."""
_LASTING = ("42", "0A")
"""Classes of errors that come again: no such function, no right to call it, not supported."""


@define(eq=False)
class _Record:
    """What stands for a pool's record of a server: no pool has this one."""

    session: ServerSession
    parameters: Parameters = _PARAMETERS
    number: int = 0


class Probe:
    """One host's. `account` gives as whom to log in; None: nobody is known yet."""

    def __init__(
        self,
        host: Host,
        account: Callable[[], Account | None],
        timeout: float,
        answered: Callable[[Answer], None],
        failed: Callable[[Trouble, str], None],
        reactor: Any,
        threads: Threads,
        log: FilteringBoundLogger,
    ) -> None:
        self.host = host
        self._account = account
        self._timeout = timeout
        self._answered = answered
        self._failed = failed
        self._reactor = reactor
        self._threads = threads
        self._log = log.bind(host=str(host))
        self._connection: ServerConnection | None = None
        self._opening: Deferred[None] | None = None
        self._asked_at: float | None = None
        self._short = False
        """Whether the host has refused the longer question."""
        self._lasting = False
        """Whether it will refuse it again."""
        self._waits: Deferred[list[list[str]]] | None = None
        """Who waits for the answer to that which is under way."""
        self._wanted: list[tuple[str, Deferred[list[list[str]]]]] = []
        """What else it is to be asked, and who waits for the answer."""

    def look(self, urgent: bool = False) -> None:
        """
        Ask, or see how long the last question has been without an answer.

        With `urgent` a host in recovery is to say at once when it no longer is.
        """
        if self._asked_at is not None:
            self._see_how_long()
        elif self._connection is not None:
            self._ask(self._connection, urgent)
        else:
            self._open()

    @property
    def waits_well(self) -> bool:
        """Whether the host can be asked to wait with its answer."""
        return self._connection is not None and not self._short

    def ask(self, query: str) -> Deferred[list[list[str]]]:
        """Ask something else, when the question under way is answered; gives rows of texts. May fail."""
        waits: Deferred[list[list[str]]] = Deferred()
        self._wanted.append((query, waits))
        if self._connection is not None and self._asked_at is None:
            self._ask_what_is_wanted(self._connection)
        return waits

    def _ask_what_is_wanted(self, connection: ServerConnection) -> None:
        if self._wanted:
            query, waits = self._wanted.pop(0)
            self._asked_at = self._reactor.seconds()
            Question(connection, lambda replies: self._told(connection, replies, waits)).ask(
                messages.query(query)
            )
            self._waits = waits

    def _told(
        self, connection: ServerConnection, replies: list[tuple[int, bytes]], waits: Deferred[list[list[str]]]
    ) -> None:
        self._asked_at = None
        self._waits = None
        try:
            rows = [_texts(payload) for tag, payload in replies if tag == tags.DATA_ROW]
            errors = [payload for tag, payload in replies if tag == tags.ERROR_RESPONSE]
            if errors:
                fields = messages.read_error_fields(errors[0])
                raise NotAnAnswer(f"{fields.get('C', '')} {fields.get('M', '')[:200]}")
        except (NotAnAnswer, Malformed) as error:
            if not waits.called:
                waits.errback(Failure(error))
        else:
            if not waits.called:
                waits.callback(rows)
        if connection is self._connection and self._asked_at is None:
            self._ask_what_is_wanted(connection)

    def _disappoint(self, why: str) -> None:
        """Tell those who wait for an answer that there is none."""
        waiting = [waits for _query, waits in self._wanted]
        if self._waits is not None:
            waiting.append(self._waits)
        self._wanted.clear()
        self._waits = None
        for waits in waiting:
            if not waits.called:
                waits.errback(Failure(NotAnAnswer(why)))

    def stop(self) -> None:
        """End the connection."""
        self._disappoint("the host is not watched any more")
        self._asked_at = None
        if self._opening is not None:
            self._opening.cancel()
        self._drop()

    def _see_how_long(self) -> None:
        assert self._asked_at is not None
        waited = self._reactor.seconds() - self._asked_at
        if waited >= self._timeout:
            self._asked_at = None
            if self._opening is not None:
                self._opening.cancel()
            self._drop()
        if waited >= HESITATION:
            self._failed(Trouble.SILENT, f"no answer for {waited:.1f} s")

    def _drop(self) -> None:
        self._disappoint("no answer")
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close(0.0)

    # Opening.

    def _open(self) -> None:
        account = self._account()
        if account is None:
            return
        self._asked_at = self._reactor.seconds()
        session = ServerSession(account.user.encode(), ServerStatements(b"", 0), Habits())
        record = cast(Server, _Record(session))

        def make(credentials: Credentials) -> ServerConnection:
            as_whom = evolve(account, credentials=credentials)
            return ServerConnection(record, self.host, as_whom, self._threads, b"", self._lost, self._log)

        def attempt(connection: ServerConnection) -> Deferred[ServerConnection]:
            coroutine = open_server(self._reactor, self._threads, connection, self._timeout)
            return Deferred.fromCoroutine(coroutine)

        vault = account.vault
        if vault is not None and vault.has_keys(account.user):
            trying = open_with_keys(self._reactor, vault, account.user, make, attempt)
            opening = Deferred.fromCoroutine(trying)
        else:
            opening = attempt(make(account.credentials))
        self._opening = opening.addCallbacks(self._opened, self._not_opened)
        self._opening.addErrback(self._defect)
        if opening.called:
            self._opening = None

    def _opened(self, connection: ServerConnection) -> None:
        self._opening = None
        self._connection = connection
        self._short = False
        self._ask(connection)

    def _not_opened(self, failure: Failure) -> None:
        self._opening = None
        given_up = self._asked_at is None
        self._asked_at = None
        error = failure.value
        if not isinstance(error, OpenFailed):
            self._defect(failure)
        elif not given_up:
            self._disappoint("the host cannot be asked")
            self._failed(*_in_words(error.trouble))

    def _defect(self, failure: Failure) -> None:
        self._log.error("defect", failure=failure.getTraceback())

    def _lost(self, connection: ServerConnection, _reason: CloseReason) -> None:
        if connection is self._connection:
            self._connection = None
            self._asked_at = None
            self._disappoint("the connection has ended")
            self._failed(Trouble.LOST, "the connection has ended")

    # Asking.

    def _ask(self, connection: ServerConnection, urgent: bool = False) -> None:
        self._asked_at = self._reactor.seconds()
        question = SHORT_QUESTION if self._short else NEWS_AT_ONCE if urgent else QUESTION
        Question(connection, lambda replies: self._came(connection, replies)).ask(messages.query(question))

    def _came(self, connection: ServerConnection, replies: list[tuple[int, bytes]]) -> None:
        if connection is not self._connection:
            return
        self._asked_at = None
        try:
            answer = self._read(replies)
        except (NotAnAnswer, Malformed) as error:
            self._failed(Trouble.REFUSED, str(error))
            return
        if answer is None:
            self._ask(connection)
            return
        self._answered(answer)
        if not self._lasting:
            # What was wrong with the question was so just then: nobody is to go on without what it tells.
            self._short = False
        if self._asked_at is None and connection is self._connection:
            self._ask_what_is_wanted(connection)

    def _read(self, replies: list[tuple[int, bytes]]) -> Answer | None:
        """Read the replies; None: the shorter question is to be asked. Raises `NotAnAnswer`, `Malformed`."""
        row = b""
        for tag, payload in replies:
            if tag == tags.ERROR_RESPONSE:
                fields = messages.read_error_fields(payload)
                if not self._short:
                    self._short = True
                    self._lasting = fields.get("C", "")[:2] in _LASTING
                    return None
                raise NotAnAnswer(f"{fields.get('C', '')} {fields.get('M', '')[:200]}")
            if tag == tags.DATA_ROW:
                row = payload
        if not row:
            raise NotAnAnswer("the answer has no row")
        return read_answer(read_row(row, COLUMNS))


def _in_words(trouble: OpenTrouble) -> tuple[Trouble, str]:
    """Say what an opening that has failed says of the host."""
    why = trouble.complaint
    words = why.detail or why.text
    if trouble.stage in (Stage.LOOK_UP, Stage.CONNECT):
        return Trouble.UNREACHABLE, words
    if why.sqlstate in _NOT_THERE_YET:
        return Trouble.STARTING, f"{why.sqlstate} {why.text}"
    if trouble.passing and not why.sqlstate.startswith("53"):
        return Trouble.LOST, words
    return Trouble.REFUSED, f"{why.sqlstate} {why.text}"


def _texts(payload: bytes) -> list[str]:
    """Read the columns of a DataRow as texts, empty where they are NULL. Raises `Malformed`."""
    columns = int.from_bytes(payload[:2], "big")
    return [column.decode("utf-8", "replace") for column in read_row(payload, columns)]
