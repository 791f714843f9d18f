"""
Answers a client whose server is lost, until it may have another one.

The law:

1. Each Query, FunctionCall and Sync gets one ReadyForQuery, in order; a message that was not whole when the
   server was lost is answered when it is.
2. One error tells of the loss: at once for what was under way, else as the answer to the next statement.
3. A client that was in a transaction is in a failed one, until it ends it: anything else would have one that
   does not look at errors run the rest of its transaction on its own. A COMMIT is never answered COMMIT.
4. Behind an error in a batch everything is skipped up to its Sync. COPY data that is late is dropped.
5. Nothing is sent to a server before the client is out of the transaction; what is not answered here is left
   whole (`rest`), and nothing is both.

Documentation: PostgreSQL manual, "Message Flow"; exec_simple_query() and its like in
src/backend/tcop/postgres.c say what a failed transaction answers.
"""

from __future__ import annotations

from typing import Protocol

from pgproxy.session.exits import Exit, exit_of
from pgproxy.session.ledger import FAILED, IDLE
from pgproxy.session.loss import Loss
from pgproxy.session.pins import words
from pgproxy.wire import errors, messages, tags
from pgproxy.wire.errors import Complaint, complaint
from pgproxy.wire.skim import HEADER, Frame

_EXITS = frozenset({Exit.ROLLBACK, Exit.COMMIT})
_MAY_BE_PREPARED = _EXITS | {Exit.EMPTY}
_IN_BATCH = frozenset({tags.PARSE, tags.BIND, tags.DESCRIBE, tags.EXECUTE, tags.CLOSE})
_MOST_PORTALS = 1000
_PARSED = messages.message(tags.PARSE_COMPLETE)
_BOUND = messages.message(tags.BIND_COMPLETE)
_CLOSED = messages.message(tags.CLOSE_COMPLETE)
_NO_ROWS = messages.message(tags.NO_DATA)
_NO_PARAMETERS = messages.message(tags.PARAMETER_DESCRIPTION, b"\0\0")
_NO_STATEMENT = messages.message(tags.EMPTY_QUERY_RESPONSE)
_IN_FAILED_TRANSACTION = complaint(errors.IN_FAILED_TRANSACTION).message()
_ROLLED_BACK = messages.message(tags.COMMAND_COMPLETE, b"ROLLBACK\0")
_PORTAL = ord("P")


class Book(Protocol):
    """The prepared statements of the client. What reads a message raises `Malformed`."""

    def text(self, name: bytes) -> bytes | None:
        """Give the text of a statement; None if there is none, or not all of it."""

    def enter(self, run: bytes, start: int, stop: int) -> bool:
        """Enter the statement of a Parse; False where the name is taken."""

    def strike(self, name: bytes) -> None:
        """Strike a statement out."""


class Bereft:
    """One client without a server. Bytes go in with their frames, answers come out."""

    def __init__(self, loss: Loss, book: Book, news: bytes = b"") -> None:
        self._loss = loss
        self._news = news
        """ParameterStatus messages for what was undone."""
        self._book = book
        self.status = FAILED if loss.in_transaction and loss.ends is None else IDLE
        """The transaction status that the client is told."""
        self._pending: Complaint | None = loss.error
        """What it has yet to be told."""
        self._skipping = loss.batch_open
        self.batch_open = loss.batch_open
        """Whether a Sync is to come."""
        self._portals: dict[bytes, Exit] = {}
        self._late = b""
        """Answers to a message that has not come whole."""
        self._half = loss.half_said
        self.answered = 0
        """How many ReadyForQuery have been given, in all."""
        self.terminated = False
        self.rest: tuple[bytes, list[Frame]] = (b"", [])
        """What the client has said behind what was answered here, when it is `over`."""

    @property
    def facts(self) -> dict[str, object]:
        """Say for the log what the client has lost."""
        loss = self._loss
        return {
            "sqlstate": loss.error.sqlstate,
            "owed": loss.owed + loss.batch_open,
            "in_transaction": loss.in_transaction,
            "reasons": words(loss.reasons),
        }

    @property
    def over(self) -> bool:
        """Whether the client may have a server again."""
        return (
            self.status == IDLE
            and self._pending is None
            and not (self._skipping or self.batch_open or self._half)
        )

    def begin(self) -> bytes:
        """Answer what was under way."""
        loss = self._loss
        if not (loss.owed or loss.batch_open):
            return self._news
        if loss.ends is Exit.ROLLBACK and loss.by_query:
            # Whatever has become of it, that is what it has come to.
            self._pending = loss.state_lost
            return self._news + _ROLLED_BACK + self._ready()
        out = [self._news]
        told = loss.told
        error = loss.error.message()
        for _ in range(loss.owed):
            out.append(b"" if told else error)
            out.append(self._ready())
            told = False
        if loss.batch_open:
            out.append(b"" if told else error)
        self._pending = None
        if self._half:
            # What of it belongs to the message that is not whole comes last.
            last = 1 if loss.batch_open else 2
            self._late = b"".join(out[-last:])
            out = out[:-last]
        self.batch_open = loss.batch_open
        return b"".join(out)

    def take(self, run: bytes, frames: list[Frame]) -> bytes:
        """Take what the client has sent, give its answers. Raises `Malformed`."""
        out = []
        for index, (tag, start, stop) in enumerate(frames):
            out.append(self.whole())
            if self.over or self._leaves(tag, run, start, stop):
                self.rest = run[start:], [(t, a - start, b - start) for t, a, b in frames[index:]]
                break
            if tag == tags.TERMINATE:
                self.terminated = True
                break
            answer = self._answer(tag, run, start, stop)
            if start + 1 + int.from_bytes(run[start + 1 : start + HEADER], "big") > len(run):
                self._half = True
                self._late = answer
            else:
                out.append(answer)
        return b"".join(out)

    def whole(self) -> bytes:
        """Enter that the client's stream is between two messages; give the answers that waited for that."""
        self._half = False
        late, self._late = self._late, b""
        return late

    def _leaves(self, tag: int, run: bytes, start: int, stop: int) -> bool:
        """Say whether the next message is for a server, and be out of the transaction then."""
        if self._skipping:
            return False
        if self.batch_open and self.status == IDLE and self._pending is None:
            # The transaction was rolled back in this batch, which goes on.
            if tag in (tags.SYNC, tags.FLUSH):
                return False
            self.batch_open = False
            return True
        told = self._pending is None or self._loss.state_lost is None
        if tag == tags.QUERY and self.status == FAILED and told:
            kind, _name = exit_of(*_text(run, start, stop))
            if kind is Exit.ROLLBACK_AND_MORE:
                self._pending = None
                self.status = IDLE
                self.batch_open = False
                return True
        return False

    def _answer(self, tag: int, run: bytes, start: int, stop: int) -> bytes:
        if tag == tags.SYNC:
            self._skipping = False
            return self._ready()
        if self._skipping:
            return b""
        if tag == tags.QUERY:
            self._book.strike(b"")
            return self._query(*exit_of(*_text(run, start, stop))) + self._ready()
        if tag == tags.FUNCTION_CALL:
            return self._refusal() + self._ready()
        if tag not in _IN_BATCH:
            return b""
        self.batch_open = True
        if tag == tags.CLOSE:
            return self._close(run, start, stop)
        answer = self._in_batch(tag, run, start, stop)
        if answer is None:
            self._skipping = True
            answer = self._refusal()
        return answer

    def _query(self, kind: Exit, name: bytes) -> bytes:
        if self.status == FAILED:
            if kind in _EXITS:
                return self._exit(kind)
            if kind is Exit.ROLLBACK_TO and self._pending is None:
                shown = name.decode("utf-8", "replace")
                return complaint(errors.NO_SUCH_SAVEPOINT, name=shown).message()
            if kind is Exit.EMPTY and self._pending is None:
                return _NO_STATEMENT
            if kind is Exit.ROLLBACK_AND_MORE:
                # It is kept here to be told what else is gone.
                self._roll_back()
        return self._refusal()

    def _in_batch(self, tag: int, run: bytes, start: int, stop: int) -> bytes | None:
        """Answer a message of a batch; None for an error."""
        if self.status != FAILED:
            return None
        names = run[start + HEADER : stop].split(b"\0", 2)
        name = names[0]
        if tag == tags.PARSE:
            text = names[1] if len(names) == 3 else b""
            kind = exit_of(text)[0] if len(names) == 3 else Exit.OTHER
            return _PARSED if self._allows(kind) and self._book.enter(run, start, stop) else None
        if tag == tags.BIND:
            kind = self._prepared(names[1] if len(names) > 1 else b"")
            if not self._allows(kind) or len(self._portals) >= _MOST_PORTALS:
                return None
            self._portals[name] = kind
            return _BOUND
        if tag == tags.DESCRIBE:
            if name[:1] == b"P":
                return _NO_ROWS if name[1:] in self._portals else None
            return _NO_PARAMETERS + _NO_ROWS if self._allows(self._prepared(name[1:])) else None
        bound = self._portals.get(name, Exit.OTHER)
        if bound is Exit.EMPTY:
            return _NO_STATEMENT
        if bound not in _EXITS:
            return None
        answer = self._exit(bound)
        self._skipping = answer != _ROLLED_BACK
        return answer

    def _allows(self, kind: Exit) -> bool:
        # What tells of the loss is not a statement that has nothing to do with it.
        return kind in _EXITS or (kind is Exit.EMPTY and self._pending is None)

    def _prepared(self, name: bytes) -> Exit:
        text = self._book.text(name)
        return exit_of(text)[0] if text is not None else Exit.OTHER

    def _close(self, run: bytes, start: int, stop: int) -> bytes:
        what = run[start + HEADER : stop].split(b"\0", 1)[0]
        if what[:1] == b"P":
            self._portals.pop(what[1:], None)
        else:
            self._book.strike(what[1:])
        return _CLOSED

    def _exit(self, kind: Exit) -> bytes:
        """End the transaction by ROLLBACK, or by a COMMIT, which fails if the client may believe in it."""
        believes = kind is Exit.COMMIT and self._pending is not None
        self._roll_back()
        if believes:
            self._pending = None
            return self._loss.failed_commit.message()
        return _ROLLED_BACK

    def _roll_back(self) -> None:
        """Be out of the transaction; what else is gone has yet to be told where nothing was."""
        self.status = IDLE
        self._portals.clear()
        if self._pending is not None:
            self._pending = self._loss.state_lost

    def _refusal(self) -> bytes:
        """Build the error that is the answer to a statement now."""
        pending, self._pending = self._pending, None
        return pending.message() if pending is not None else _IN_FAILED_TRANSACTION

    def _ready(self) -> bytes:
        self.batch_open = False
        self.answered += 1
        if self.status == IDLE:
            self._portals.clear()
        return messages.ready_for_query(bytes((self.status,)))


def _text(run: bytes, start: int, stop: int) -> tuple[bytes, bool]:
    """Give the text of a Query, and whether it is all there."""
    whole = start + 1 + int.from_bytes(run[start + 1 : start + HEADER], "big") == stop
    return run[start + HEADER : stop].rstrip(b"\0") if whole else run[start + HEADER : stop], whole
