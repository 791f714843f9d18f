"""Mappings that are kept once: two clients with the same settings have the same object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

V = TypeVar("V")


class Values(Mapping[bytes, V], Generic[V]):
    """A mapping that never changes. Make it with `Interned.of`; compare it with `is`."""

    __slots__ = ("__weakref__", "_pairs")

    def __init__(self, pairs: Mapping[bytes, V]) -> None:
        self._pairs = dict(pairs)

    @property
    def pairs(self) -> dict[bytes, V]:
        """The same as a dictionary, which is quicker to walk over; it must not be changed."""
        return self._pairs

    def __getitem__(self, name: bytes) -> V:
        return self._pairs[name]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__


class Interned(Generic[V]):
    """All the mappings of one kind that are in use; they are forgotten when the last user has gone."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[frozenset[tuple[bytes, V]], Values[V]] = WeakValueDictionary()
        self.none: Values[V] = self.of({})
        """The empty one."""

    def of(self, pairs: Mapping[bytes, V]) -> Values[V]:
        """Give the one mapping with these pairs."""
        key = frozenset(pairs.items())
        values = self._known.get(key)
        if values is None:
            values = self._known[key] = Values(pairs)
        return values
