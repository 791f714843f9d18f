"""The prepared statements of one client, by the client's names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from pgproxy.session.statements import MOST_OF_A_CLIENT, Statement
from pgproxy.twin import quicken


@quicken
class NamedStatements:
    """
    A client's book. What is entered ahead of the server's word is taken back by the `undo` that comes of it.

    A statement that is too long to be kept, or more of them than may be kept, make it `too_heavy`.
    """

    __slots__ = ("_long", "_size", "_statements")

    def __init__(self) -> None:
        self._statements: dict[bytes, Statement] = {}
        self._size = 0
        self._long = 0

    def __contains__(self, name: bytes) -> bool:
        return name in self._statements

    def __len__(self) -> int:
        return len(self._statements)

    @property
    def too_heavy(self) -> bool:
        """Whether the client has to keep its server, as not all of its statements can be said again."""
        return self._long > 0 or self._size > MOST_OF_A_CLIENT

    def get(self, name: bytes) -> Statement | None:
        """Give a statement."""
        return self._statements.get(name)

    def items(self) -> Iterable[tuple[bytes, Statement]]:
        """Give all of them with their names."""
        return self._statements.items()

    def add(self, name: bytes, statement: Statement) -> Callable[[], None]:
        """Enter a statement; give what takes that back."""
        before = self._statements.get(name)
        self._put(name, statement)
        return partial(self._restore, name, statement, before)

    def remove(self, name: bytes) -> Callable[[], None]:
        """Strike a statement out; give what takes that back."""
        before = self._statements.get(name)
        self._put(name, None)
        return partial(self._restore, name, None, before)

    def keep(self, names: frozenset[bytes]) -> None:
        """Strike out all but these."""
        for name in self._statements.keys() - names:
            self._put(name, None)

    def _restore(self, name: bytes, now: Statement | None, before: Statement | None) -> None:
        if self._statements.get(name) is now:
            self._put(name, before)

    def _put(self, name: bytes, statement: Statement | None) -> None:
        old = self._statements.pop(name, None)
        if old is not None:
            self._size -= old.size
            self._long -= not old.whole
        if statement is not None:
            self._statements[name] = statement
            self._size += statement.size
            self._long += not statement.whole
