"""
Functions that are on no list: which of those that texts call are known to leave nothing in a session.

The law:

1. Functions of extensions that are listed here leave nothing, but for those that are named beside them: they
   are as the law of `vocabulary.FUNCTIONS` has it. That a function belongs to one is the server's word.
2. Of others the server gives the body, and it is read (bodies.py). They are known by the version of their row
   in pg_proc, and believed only where that was known before the call, and the server has said behind it that
   it is still the same.
3. A name stands for all functions of that name, in whatever schema.
4. What is known is forgotten where something is created, altered or dropped, and where a server is opened:
   the same holds for what statements do in hiding (hidden.py). It is forgotten, too, where a server that is
   asked all of it says that there is a new function.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from pgproxy.session.bodies import called_by

_MOST = 1000
"""Names that are known in one pool."""
MOST_ALIKE = 16
"""Functions of one name that are looked at: with a schema for each tenant there may be thousands."""
MOST_SOURCE = 64 * 1024
"""Bytes of all that is read at once: others wait meanwhile."""
_MOST_REACHED = 100
"""Functions that one may call, and these."""
_ALL: frozenset[bytes] = frozenset()

_LISTED = b"""
    btree_gin btree_gist citext cube earthdistance fuzzystrmatch h3 h3_postgis hstore intarray ltree
    pg_stat_statements pgcrypto postgis postgis_sfcgal unaccent uuid-ossp vector
""".split()
_EXCEPT: dict[bytes, frozenset[bytes]] = {
    **dict.fromkeys(_LISTED, _ALL),
    b"pg_trgm": frozenset({b"set_limit"}),
}
"""The extensions, each with the functions that do leave something."""
_ONLY: dict[bytes, frozenset[bytes]] = {
    b"timescaledb": frozenset(b"first histogram last time_bucket time_bucket_ng".split()),
}
"""Extensions of which most functions do, each with those that don't."""
_OF_EXTENSIONS = frozenset({b"internal", b"c", b"sql"})
"""The languages of these that are believed."""

Row = tuple[bytes, bytes, bytes]
"""
What a server says of one function: its name, its source, and what it is: the language, the version (oid and
xmin of its row) and, if it belongs to one, the extension, with spaces between.
"""


@frozen
class Harmless:
    """What leaves nothing, as long as these are its versions, and what it calls leaves nothing."""

    versions: frozenset[bytes]
    """Empty where they do not matter."""
    calls: tuple[bytes, ...]


_ALWAYS = Harmless(frozenset(), ())


class Functions:
    """What is known of functions by their names, in one pool."""

    __slots__ = ("_known", "_newest", "turn")

    def __init__(self) -> None:
        self._known: dict[bytes, Harmless | None] = {}
        """None is what may leave something."""
        self._newest = b""
        self.turn = 0
        """How often all was forgotten."""

    def leave_nothing(self, names: Iterable[bytes]) -> bool:
        """Whether all of these are known to leave nothing, whatever has happened since."""
        known = self._known
        return all(known.get(name) is _ALWAYS for name in names)

    def to_check(self, names: Iterable[bytes]) -> list[bytes] | None:
        """Give the functions that have to be the same still for these to leave nothing; None if they may."""
        reached = self._reached(names)
        if not reached or not all(map(self._known.get, reached)):
            return None
        return [name for name in reached if self._known[name] is not _ALWAYS]

    def unknown(self, names: Iterable[bytes]) -> list[bytes]:
        """Give those of which nothing is known, of these and of what they call."""
        return [name for name in self._reached(names) if name not in self._known]

    def _reached(self, names: Iterable[bytes]) -> list[bytes]:
        """Give these and what they call, as far as it is known; nothing if that is too much."""
        reached = dict.fromkeys(names)
        left = list(reached)
        while left:
            one = self._known.get(left.pop())
            new = [name for name in one.calls if name not in reached] if one is not None else []
            reached.update(dict.fromkeys(new))
            left += new
            if len(reached) > _MOST_REACHED:
                return []
        return list(reached)

    def learn(self, names: Iterable[bytes], rows: Iterable[Row]) -> None:
        """Take what a server has said of all functions of these names; it was asked in this `turn`."""
        said: dict[bytes, list[Row]] = {}
        for row in rows:
            said.setdefault(row[0], []).append(row)
        for name in names:
            self._enter(name, _judged(name, said.get(name, [])))

    @property
    def any_known(self) -> bool:
        """Whether anything is known, so that it is of interest whether there is a new function."""
        return bool(self._known)

    def newest_is(self, number: bytes) -> None:
        """Take the number of the newest function: where that has changed, what is known may have."""
        if self._newest != number:
            self._newest = number
            if self._known:
                self.forget()

    def give_up(self, names: Iterable[bytes]) -> None:
        """Enter that what these leave can't be found out."""
        for name in names:
            self._enter(name, None)

    def _enter(self, name: bytes, known: Harmless | None) -> None:
        if len(self._known) >= _MOST:
            self.forget()
        self._known[name] = known

    def are_the_same(self, names: Iterable[bytes], versions: Iterable[tuple[bytes, bytes]]) -> bool:
        """Say whether these are as they were, by the name and the version of all functions called so."""
        found: dict[bytes, set[bytes]] = {name: set() for name in names}
        for name, version in versions:
            found.setdefault(name, set()).add(version)
        known = self._known
        return all((one := known.get(name)) is not None and one.versions == found[name] for name in names)

    def forget(self) -> None:
        """Know nothing any more: some of it may have changed."""
        self._known.clear()
        self.turn += 1


def _judged(name: bytes, rows: list[Row]) -> Harmless | None:
    """Say what all functions of a name leave; None where that may be something."""
    versions: set[bytes] = set()
    calls: dict[bytes, None] = {}
    of_extensions = 0
    for _name, source, what in rows:
        language, version, *extension = what.split(b" ", 2)
        versions.add(version)
        if extension:
            if language not in _OF_EXTENSIONS or not _is_listed(name, extension[0]):
                return None
            of_extensions += 1
        else:
            called = called_by(language, source) if source else None
            if called is None:
                return None
            calls.update(dict.fromkeys(called))
    if len(rows) > MOST_ALIKE:
        return None
    # Where there is none of that name, none can be called, as long as that stays so.
    return _ALWAYS if rows and of_extensions == len(rows) else Harmless(frozenset(versions), tuple(calls))


def _is_listed(name: bytes, extension: bytes) -> bool:
    if extension in _EXCEPT:
        return name not in _EXCEPT[extension]
    return name in _ONLY.get(extension, _ALL)
