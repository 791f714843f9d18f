"""
Prepared statements: a client's name for one, and the server's.

The law:

1. A client's named statement has a name of ours in the servers; clients whose text, parameter types and
   settings that give a text its meaning are equal share it.
2. A client's own Parse is always done by the server anew, so that what it says is what it would say directly.
   Only the way to another server has the proxy say Parse on its own.
3. What was prepared in a server before the client's own Parse is not used for it: a table may have been
   another then. Nor is what the server describes otherwise than the client was told.
4. A server keeps at most `limit` of them; the one used longest ago is closed first.
5. Nothing is believed to be in a server before the server has said so, and a batch that fails undoes what it
   was about to do.

Documentation: PostgreSQL manual, "Extended Query".
"""

from __future__ import annotations

from collections.abc import Hashable
from itertools import count
from struct import Struct

from attrs import define

from pgproxy.session.ledger import Ledger
from pgproxy.session.settings import Settings
from pgproxy.session.verdict import Verdict
from pgproxy.twin import know, quicken
from pgproxy.wire import tags

_header = Struct(">cI").pack
_P, _C, _S = bytes((tags.PARSE,)), bytes((tags.CLOSE,)), b"S"


MOST_OF_A_CLIENT = 16 * 1024 * 1024
"""Bytes of statements that are kept for one client."""

_OVERHEAD = 300
"""Bytes that a statement takes beside its text, about."""

Key = tuple[bytes, Hashable]
"""The body of a statement's Parse, and the settings that give it its meaning."""


_turns = count(1)
next_turn = _turns.__next__
"""Numbers each time that a statement is prepared, anywhere: who has a larger one was later."""


know(turns=_turns)


@quicken
@define(eq=False)
class Statement:
    """A statement that a client has prepared."""

    body: bytes
    """Its Parse message behind the name: the text and the types of the parameters."""
    verdict: Verdict
    meaning: Settings
    """What of the client's settings it was analysed under."""
    whole: bool
    """Whether `body` is all of it: what is longer can't be said again to another server."""
    turn: int
    """When the client prepared it."""
    description: bytes | None = None
    """What the client was told about it, if it asked (described.py)."""

    @property
    def size(self) -> int:
        """How many bytes are kept for it."""
        return len(self.body) + _OVERHEAD

    @property
    def text(self) -> bytes:
        """What the client has said, for a digest."""
        return self.body.partition(b"\0")[0]


def parse(name: bytes, body: bytes) -> bytes:
    """Build a Parse message."""
    return _header(_P, len(name) + len(body) + 5) + name + b"\0" + body


def close(name: bytes) -> bytes:
    """Build the Close message of a statement."""
    return _header(_C, len(name) + 6) + _S + name + b"\0"


@quicken
@define(eq=False)
class Copy:
    """A statement as one server has it."""

    name: bytes
    turn: int
    """When it was prepared there, see `next_turn`."""
    description: bytes | None = None
    """What the server says of it, if it was asked (described.py)."""
    unsure: tuple[Ledger, int] | None = None
    """The account of a link and the batch in which it is prepared, if it may be thrown away there."""


@quicken
class ServerStatements:
    """The statements of ours that one server has, least recently used first."""

    __slots__ = ("_copies", "_last", "latest", "limit", "prefix")

    def __init__(self, prefix: bytes, limit: int) -> None:
        self.prefix = prefix
        """How all of their names begin."""
        self.limit = limit
        self._copies: dict[Key, Copy] = {}
        self._last = 0
        self.latest: Copy | None = None
        """The one used last, if it is still there: it is the last of them."""

    def __len__(self) -> int:
        return len(self._copies)

    @property
    def names(self) -> frozenset[bytes]:
        """The names in the server."""
        return frozenset(copy.name for copy in self._copies.values())

    def find(self, key: Key) -> Copy | None:
        """Give a statement as the server has it, and count that as a use."""
        copy = self._copies.get(key)
        if copy is not None and copy is not self.latest:
            del self._copies[key]
            self._copies[key] = self.latest = copy
        return copy

    def anew(self, key: Key, turn: int) -> tuple[Copy, bool]:
        """Enter a statement that the server is about to be told; say whether it has one under that name."""
        old = self._copies.pop(key, None)
        if old is None:
            self._last += 1
        name = old.name if old is not None else self.prefix + b"%d" % self._last
        copy = self._copies[key] = self.latest = Copy(name, turn)
        return copy, old is not None

    def forget(self, key: Key, copy: Copy) -> None:
        """Forget a statement that the server does not have after all; one it was told again since stays."""
        if self._copies.get(key) is copy:
            del self._copies[key]
            self.latest = None

    def surplus(self, more: int) -> list[bytes]:
        """Forget, and give, the names of those that are to be closed: all above the limit and `more`."""
        names = []
        while len(self._copies) > self.limit + more:
            names.append(self._copies.pop(next(iter(self._copies))).name)
        self.latest = self.latest if self._copies else None
        return names

    def keep_only(self, names: frozenset[bytes]) -> None:
        """Forget all but these names."""
        self._copies = {key: copy for key, copy in self._copies.items() if copy.name in names}
        self.latest = None
