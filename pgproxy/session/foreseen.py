"""
What SET, RESET and DISCARD ALL leave, where it need not be asked: the server has told it before.

The law:

1. What a text leaves is learned from an answer of the server's, never from the text: in which spelling, and
   whether it can fail where it is said again. Only where the server has called a setting custom before is the
   value read from the text: PostgreSQL keeps it as it is.
2. It is believed only of the same text, to the same pool, where the server has said by its command tags, in
   the order in which it was said, that all of it was done, and nothing of it was undone.
3. Whatever else may have changed the session in between leads to a question, as ever.

Documentation: PostgreSQL manual, "SET", "RESET", "DISCARD".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from attrs import frozen

from pgproxy.session.commands import COMMIT, RESET, UNDO
from pgproxy.session.settings import (
    IDENTITY,
    NOTHING_SET,
    ROLE,
    Setting,
    Settings,
    setting,
    settings_of,
)
from pgproxy.session.verdict import ALL_SETTINGS, EVERYTHING, Verdict

if TYPE_CHECKING:
    from pgproxy.session.server import ServerSession

_MOST = 1000
"""Texts that are known in one pool."""
_LONGEST = 256
"""Bytes of such a text."""
_MOST_SAID = 100
"""Texts between two questions; of more nothing is foreseen."""
_ALL = frozenset({ALL_SETTINGS, EVERYTHING})
_NEUTRAL = UNDO - {RESET} | {COMMIT}
"""Command tags that tell of nothing that is set."""

Lesson = tuple[bytes, tuple[bytes, ...]]
"""A text, and the settings of which an answer tells what it makes of them."""


class Effects:
    """What texts make of the settings that they name, in one pool."""

    __slots__ = ("_custom", "_known")

    def __init__(self) -> None:
        self._known: dict[bytes, dict[bytes, tuple[bytes, Setting] | None]] = {}
        """By the text and the setting's name in lower case; None is a setting that is set no longer."""
        self._custom: dict[bytes, bytes] = {}
        """How the names of custom settings are spelled, by the same in lower case."""

    def learn(self, lessons: Iterable[Lesson], before: Settings, after: Mapping[bytes, Setting]) -> None:
        """
        Take what was set in a server before and after these texts.

        Where a name is in neither it has another meaning, old names of settings are read as their new ones:
        nobody knows then which text has made what.
        """
        found = {name.lower(): (name, one) for name, one in after.items()}
        known = found.keys() | {name.lower() for name in before}
        lessons = list(lessons)
        if not all(known.issuperset(names) for _text, names in lessons):
            return
        later: set[bytes] = set()
        for text, names in reversed(lessons):
            is_last = later.isdisjoint(names)
            later.update(names)
            if len(text) > _LONGEST or not is_last:
                continue
            if len(self._known) >= _MOST:
                self._known.clear()
            if len(self._custom) >= _MOST:
                self._custom.clear()
            self._known[text] = {name: found.get(name) for name in names}
            for name in names:
                if name in found and found[name][1].custom:
                    self._custom[name] = found[name][0]

    def of(self, said: Said) -> Mapping[bytes, tuple[bytes, Setting] | None] | None:
        """
        Say what a text makes of settings; None where that is not known.

        A custom setting is whatever text it is set to.
        """
        known = self._known.get(said.text)
        if known is None and said.value is not None and said.sets[0] in self._custom:
            name = self._custom[said.sets[0]]
            return {said.sets[0]: (name, setting(name, said.value, b"custom"))}
        return known


@frozen
class Said:
    """A text of a client's: what it sets, and to what, as in its `Verdict`."""

    text: bytes
    sets: tuple[bytes, ...]
    value: bytes | None


class Foresight:
    """What a client has said since the server was asked last, as long as nothing else can have happened."""

    __slots__ = ("_done", "_expected", "_lost", "_said")

    def __init__(self) -> None:
        self._said: list[Said] = []
        self._expected: list[bytes] = []
        """The command tags that tell that it is done, in order, and ..."""
        self._done = 0
        """... how many of them have come."""
        self._lost = False

    def announced(self, text: bytes, verdict: Verdict) -> None:
        """Enter what is said: nothing of it is to end what is held."""
        if not verdict.sets or len(self._said) >= _MOST_SAID:
            self.lose()
        if self._lost:
            return
        self._said.append(Said(text, verdict.sets, verdict.value))
        self._expected += verdict.tags

    def heard(self, tag: bytes) -> None:
        """Enter a command tag that is not quiet."""
        if self._expected[self._done : self._done + 1] == [tag]:
            self._done += 1
        elif tag not in _NEUTRAL:
            self.lose()

    def lose(self) -> None:
        """Enter that something else has happened, or may have: an error, a rollback, another statement."""
        self._lost = True
        self._said.clear()

    @property
    def discards_all(self) -> bool:
        """Whether the one thing that was said, and done, is DISCARD ALL."""
        return self._is_done and [one.sets for one in self._said] == [(EVERYTHING,)]

    @property
    def _is_done(self) -> bool:
        return not self._lost and self._done == len(self._expected)

    def outcome(self, server: ServerSession) -> Settings | None:
        """Say what the server has set by now; None where it has to be asked."""
        if self.discards_all:
            return _discarded(server)
        if not self._is_done:
            return None
        settings = dict(server.settings.pairs)
        for said in self._said:
            if _is_another(said, server):
                return None
            if said.sets == (ALL_SETTINGS,):
                if not _is_plain(settings):
                    return None
                settings.clear()
                continue
            # Nor is it known of DISCARD ALL beside others.
            change = server.habits.effects.of(said)
            if change is None:
                return None
            for name in [name for name in settings if name.lower() in change]:
                del settings[name]
            settings.update(filter(None, change.values()))
        return settings_of(settings)

    def lessons(self, server: ServerSession) -> list[Lesson]:
        """Say of which texts the answer to a question that is asked now tells what they do."""
        if not self._is_done or any(_ALL.intersection(one.sets) for one in self._said):
            return []
        if any(_is_another(said, server) for said in self._said):
            return []
        return [(said.text, said.sets) for said in self._said]


def _is_another(said: Said, server: ServerSession) -> bool:
    """Whether a text sets a role where sessions begin with one: that is no setting of the client's then."""
    return ROLE in said.sets and server.role != b"none"


def _is_plain(settings: Mapping[bytes, Setting]) -> bool:
    """Whether a reset leaves nothing: a custom setting is there still, and empty; a role is not reset."""
    return not any(b"." in name for name in settings) and IDENTITY.isdisjoint(settings)


def _discarded(server: ServerSession) -> Settings | None:
    """Say what is set behind DISCARD ALL; where sessions begin with a role, that may come back."""
    return NOTHING_SET if server.role == b"none" and _is_plain(server.settings.pairs) else None
