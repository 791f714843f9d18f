"""
One user's talk with the console: PostgreSQL's protocol, simple and extended, from the server's side.

Whole messages go in, bytes to be sent come out. What takes time is `due`: whoever has the talk performs it
and says `done`, and gives no other message before that. The law:

1. Each message is answered as a PostgreSQL would: after an error in a batch all is skipped up to the Sync.
2. A statement's columns are known before it is performed, so Describe costs nothing.
3. What is kept for a user is bounded: `_MOST_KEPT` statements and portals, `LONGEST` bytes of a message.

Documentation: PostgreSQL manual, "Message Flow" ("Simple Query", "Extended Query").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from struct import Struct
from struct import error as StructError

from attrs import define, frozen

from pgproxy.console.chatter import Chat
from pgproxy.console.columns import SHOWN
from pgproxy.console.commands import Command, Right, Show, denied, needed, parse, split
from pgproxy.console.parts import AT_ONCE
from pgproxy.console.tables import Column, Row, Table, data_row, row_description
from pgproxy.wire import messages, tags
from pgproxy.wire.errors import Complaint, Refusal, complaint
from pgproxy.wire.skim import Malformed

LONGEST = 16 * 1024
"""Bytes of a message."""
_MOST_KEPT = 200
_MOST_ROWS = 50_000
"""Rows that are kept for a user, of all portals together."""

_count = Struct(">h")
_word = Struct(">I")

_NO_STATEMENT = Refusal("26000", 'prepared statement "{name}" does not exist', severity="ERROR")
_NO_PORTAL = Refusal("34000", 'portal "{name}" does not exist', severity="ERROR")
_TAKEN = Refusal("42P05", 'prepared statement "{name}" already exists', severity="ERROR")
_SEVERAL = Refusal("42601", "cannot insert multiple commands into a prepared statement", severity="ERROR")
_PARAMETERS = Refusal(
    "0A000",
    "the commands of pgproxy's console take no parameters",
    "Write the value into the command itself.",
    severity="ERROR",
)
_TOO_MANY = Refusal("54000", "too many prepared statements", "Close some of them.", severity="ERROR")
_TOO_MANY_ROWS = Refusal(
    "54000", "too many rows are kept", "Take all rows at once, or close other portals.", severity="ERROR"
)
_FAILED = Refusal(
    "25P02",
    "current transaction is aborted, commands ignored until end of transaction block",
    severity="ERROR",
)
_UNKNOWN_MESSAGE = Refusal(
    "0A000", "pgproxy's console has no use for a message of type {tag}", severity="ERROR"
)


@frozen
class Done:
    """What has come of a command: a table, or only the word that it is done."""

    tag: str
    table: Table | None = None


@define
class _Statement:
    text: bytes
    command: Command | None
    """None for an empty text."""

    @property
    def columns(self) -> tuple[Column, ...] | None:
        match self.command:
            case Show(what):
                return SHOWN[what]
            case Chat(table=table) if table is not None:
                return table.columns
        return None


@define
class _Portal:
    statement: _Statement
    formats: Sequence[int]
    rows: list[Row] | None = None
    """What is left of them; None before the first Execute."""
    tag: str = ""
    given: int = 0


class Talk:
    """One user's; `right` gives what it may do, None: nothing any more."""

    def __init__(self, user: str, database: str, right: Callable[[], Right | None]) -> None:
        self._user = user
        self._database = database
        self._right = right
        self.due: Command | None = None
        """What is to be performed."""
        self.over = False
        """Whether the user has taken its leave."""
        self._status = b"I"
        self._skipping = False
        self._queue: list[bytes] = []
        """The statements of a Query that are still to be performed."""
        self._within: tuple[_Portal, int] | None = None
        """The portal that is being executed, and the most rows that are wanted of it."""
        self._simple = False
        self._statements: dict[bytes, _Statement] = {}
        self._portals: dict[bytes, _Portal] = {}

    def received(self, tag: int, payload: bytes) -> bytes:
        """Take a message. Raises `Malformed`."""
        assert self.due is None
        if tag == tags.TERMINATE:
            self.over = True
            return b""
        if tag == tags.SYNC:
            self._skipping = False
            if self._status == b"I":
                self._portals.clear()
            return messages.ready_for_query(self._status)
        if self._skipping or tag == tags.FLUSH:
            return b""
        reader = _READERS.get(tag)
        if reader is None:
            return self._failed(complaint(_UNKNOWN_MESSAGE, tag=tag))
        try:
            return reader(self, payload)
        except (StructError, ValueError, IndexError) as error:
            raise Malformed(f"a message of type {tag} that cannot be read") from error

    def done(self, outcome: Done | Complaint) -> Iterator[bytes]:
        """Take what has come of what was due; gives the answer in parts, as a table may be long."""
        command, self.due = self.due, None
        assert command is not None
        if self._simple:
            if isinstance(outcome, Complaint):
                return iter([self._end_query(outcome)])
            end = _complete(outcome.tag) + self._go_on()
            if outcome.table is None:
                return iter([end])
            columns = outcome.table.columns
            return _in_parts(row_description(columns), columns, outcome.table.rows, (), end)
        assert self._within is not None
        portal, most = self._within
        self._within = None
        if isinstance(outcome, Complaint):
            return iter([self._failed(outcome)])
        portal.tag = outcome.tag
        rows = list(outcome.table.rows) if outcome.table is not None else []
        if most and len(rows) + sum(len(one.rows or ()) for one in self._portals.values()) > _MOST_ROWS:
            return iter([self._failed(complaint(_TOO_MANY_ROWS))])
        portal.rows = rows
        return self._give(portal, most)

    # Simple queries.

    def _query(self, payload: bytes) -> bytes:
        self._simple = True
        self._queue = split(_until_nul(payload)[0])
        self._statements.pop(b"", None)
        self._portals.pop(b"", None)
        if not self._queue:
            self._simple = False
            return messages.message(tags.EMPTY_QUERY_RESPONSE) + messages.ready_for_query(self._status)
        return self._go_on()

    def _go_on(self) -> bytes:
        """Answer what can be answered at once, up to what takes time or the end."""
        said = b""
        while self._queue:
            command = self._read(self._queue.pop(0))
            if isinstance(command, Complaint):
                return said + self._end_query(command)
            if not isinstance(command, Chat):
                self.due = command
                return said
            self._move(command)
            if command.table is not None:
                said += row_description(command.table.columns) + _rows(command.table, ())
            said += _complete(command.tag)
        return said + self._end_query(None)

    def _end_query(self, why: Complaint | None) -> bytes:
        self._simple = False
        self._queue = []
        said = self._error(why) if why is not None else b""
        return said + messages.ready_for_query(self._status)

    # What a statement is.

    def _read(self, text: bytes) -> Command | Complaint:
        """Give the command of a statement, if this user may say it now."""
        command = parse(text, self._user, self._database)
        if isinstance(command, Complaint):
            return command
        if self._status == b"E" and not (isinstance(command, Chat) and command.moves):
            return complaint(_FAILED)
        # A reload may have taken it away.
        right = self._right()
        if right is None or (needed(command) is Right.ADMINISTER and right is not Right.ADMINISTER):
            return denied(command)
        return command

    def _move(self, command: Chat) -> None:
        if command.moves:
            self._status = command.moves.encode()

    def _error(self, why: Complaint) -> bytes:
        if self._status == b"T":
            self._status = b"E"
        return why.message()

    def _failed(self, why: Complaint) -> bytes:
        self._skipping = True
        return self._error(why)

    # Extended queries.

    def _parse(self, payload: bytes) -> bytes:
        name, rest = _until_nul(payload)
        text, rest = _until_nul(rest)
        if name and name in self._statements:
            return self._failed(complaint(_TAKEN, name=_shown(name)))
        if len(self._statements) >= _MOST_KEPT:
            return self._failed(complaint(_TOO_MANY))
        if _count.unpack_from(rest)[0]:
            return self._failed(complaint(_PARAMETERS))
        texts = split(text)
        if len(texts) > 1:
            return self._failed(complaint(_SEVERAL))
        command = self._read(texts[0]) if texts else None
        if isinstance(command, Complaint):
            return self._failed(command)
        self._statements[name] = _Statement(text, command)
        return messages.message(tags.PARSE_COMPLETE)

    def _bind(self, payload: bytes) -> bytes:
        name, rest = _until_nul(payload)
        statement_name, rest = _until_nul(rest)
        statement = self._statements.get(statement_name)
        if statement is None:
            return self._failed(complaint(_NO_STATEMENT, name=_shown(statement_name)))
        codes = _count.unpack_from(rest)[0]
        rest = rest[2 + 2 * codes :]
        if _count.unpack_from(rest)[0]:
            return self._failed(complaint(_PARAMETERS))
        rest = rest[2:]
        formats = [_count.unpack_from(rest, 2 + 2 * place)[0] for place in range(_count.unpack_from(rest)[0])]
        wanted = statement.columns or ()
        if len(formats) <= 1:
            formats = formats * len(wanted)
        elif len(formats) != len(wanted):
            raise ValueError("as many formats as columns")
        if len(self._portals) >= _MOST_KEPT:
            return self._failed(complaint(_TOO_MANY))
        self._portals[name] = _Portal(statement, formats)
        return messages.message(tags.BIND_COMPLETE)

    def _describe(self, payload: bytes) -> bytes:
        kind, (name, _rest) = payload[:1], _until_nul(payload[1:])
        if kind == b"S":
            statement = self._statements.get(name)
            if statement is None:
                return self._failed(complaint(_NO_STATEMENT, name=_shown(name)))
            none = messages.message(tags.PARAMETER_DESCRIPTION, _count.pack(0))
            return none + _described(statement.columns, ())
        portal = self._portals.get(name)
        if portal is None:
            return self._failed(complaint(_NO_PORTAL, name=_shown(name)))
        return _described(portal.statement.columns, portal.formats)

    def _execute(self, payload: bytes) -> bytes:
        name, rest = _until_nul(payload)
        most = _word.unpack_from(rest)[0]
        portal = self._portals.get(name)
        if portal is None:
            return self._failed(complaint(_NO_PORTAL, name=_shown(name)))
        statement = portal.statement
        if statement.command is None:
            return messages.message(tags.EMPTY_QUERY_RESPONSE)
        if portal.rows is not None:
            return b"".join(self._give(portal, most))
        # The status, and so what may be said, can have changed since the Parse.
        command = self._read(split(statement.text)[0])
        if isinstance(command, Complaint):
            return self._failed(command)
        if isinstance(command, Chat):
            self._move(command)
            portal.tag = command.tag
            portal.rows = list(command.table.rows) if command.table is not None else []
            return b"".join(self._give(portal, most))
        self._within = portal, most
        self.due = command
        return b""

    def _give(self, portal: _Portal, most: int) -> Iterator[bytes]:
        rows, columns = portal.rows, portal.statement.columns
        assert rows is not None
        now = rows[:most] if most else rows
        portal.rows = rows[len(now) :]
        end = messages.message(tags.PORTAL_SUSPENDED) if portal.rows else _complete(portal.tag)
        return _in_parts(b"", columns or (), now, portal.formats, end)

    def _close(self, payload: bytes) -> bytes:
        kind, (name, _rest) = payload[:1], _until_nul(payload[1:])
        (self._statements if kind == b"S" else self._portals).pop(name, None)
        return messages.message(tags.CLOSE_COMPLETE)


_READERS = {
    tags.QUERY: Talk._query,
    tags.PARSE: Talk._parse,
    tags.BIND: Talk._bind,
    tags.DESCRIBE: Talk._describe,
    tags.EXECUTE: Talk._execute,
    tags.CLOSE: Talk._close,
}


def _described(columns: Sequence[Column] | None, formats: Sequence[int]) -> bytes:
    return row_description(columns, formats) if columns is not None else messages.message(tags.NO_DATA)


def _rows(table: Table, formats: Sequence[int]) -> bytes:
    return b"".join(data_row(table.columns, row, formats) for row in table.rows)


def _in_parts(
    head: bytes, columns: Sequence[Column], rows: Sequence[Row], formats: Sequence[int], end: bytes
) -> Iterator[bytes]:
    """Give the messages of an answer, made as they are asked for."""
    for start in range(0, len(rows) or 1, AT_ONCE):
        part = [data_row(columns, row, formats) for row in rows[start : start + AT_ONCE]]
        yield b"".join([head, *part, end if start + AT_ONCE >= len(rows) else b""])
        head = b""


def _complete(tag: str) -> bytes:
    return messages.message(tags.COMMAND_COMPLETE, tag.encode() + b"\0")


def _until_nul(data: bytes) -> tuple[bytes, bytes]:
    end = data.index(b"\0")
    return data[:end], data[end + 1 :]


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "replace")
