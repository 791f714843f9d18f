"""
Prepared statements: a client's name for one, and the server's.

The law:

1. A client's named statement has a name of ours in the servers; clients whose text, parameter types and
   settings that give a text its meaning are equal share it.
2. A client's own Parse is always done by the server anew, so that what it says is what it would say directly.
   Only the way to another server has the proxy say Parse on its own.
3. A server keeps at most `limit` of them; the one used longest ago is closed first.
4. Nothing is believed to be in a server before the server has said so, and a batch that fails undoes what it
   was about to do.

Documentation: PostgreSQL manual, "Extended Query".
"""

from __future__ import annotations

from collections.abc import Hashable
from struct import Struct

from attrs import define

from pgproxy.session.settings import Settings
from pgproxy.session.verdict import Verdict
from pgproxy.wire import tags

_header = Struct(">cI").pack
_P, _C, _S = bytes((tags.PARSE,)), bytes((tags.CLOSE,)), b"S"

LONGEST_NAME = 63
"""Bytes that count of a statement's name: PostgreSQL's NAMEDATALEN - 1."""

MOST_OF_A_CLIENT = 16 * 1024 * 1024
"""Bytes of statements that are kept for one client."""

Key = tuple[bytes, Hashable]
"""The body of a statement's Parse, and the settings that give it its meaning."""


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

    @property
    def size(self) -> int:
        """How many bytes are kept for it."""
        return len(self.body)

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


class ServerStatements:
    """The statements of ours that one server has, least recently used first."""

    __slots__ = ("_last", "_names", "_prefix", "limit")

    def __init__(self, prefix: bytes, limit: int) -> None:
        self._prefix = prefix
        self._names: dict[Key, bytes] = {}
        self._last = 0
        self.limit = limit

    def __len__(self) -> int:
        return len(self._names)

    @property
    def names(self) -> frozenset[bytes]:
        """The names in the server."""
        return frozenset(self._names.values())

    @property
    def prefix(self) -> bytes:
        """How all of the names begin."""
        return self._prefix

    def find(self, key: Key) -> bytes | None:
        """Give the server's name for a statement, and count that as a use."""
        name = self._names.pop(key, None)
        if name is not None:
            self._names[key] = name
        return name

    def add(self, key: Key) -> tuple[bytes, bool]:
        """Give the name of a statement that the server is about to be told, and whether it has one of it."""
        name = self.find(key)
        if name is not None:
            return name, True
        self._last += 1
        name = self._names[key] = self._prefix + b"%d" % self._last
        return name, False

    def forget(self, key: Key) -> None:
        """Forget a statement that the server does not have after all."""
        self._names.pop(key, None)

    def surplus(self) -> list[bytes]:
        """Forget, and give, the names of those that are to be closed for the limit's sake."""
        names = []
        while len(self._names) > self.limit:
            names.append(self._names.pop(next(iter(self._names))))
        return names

    def keep_only(self, names: frozenset[bytes]) -> None:
        """Forget all but these names."""
        self._names = {key: name for key, name in self._names.items() if name in names}
