"""What a conversion comes to: the tables that are to be written, and the notes on what they don't say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from attrs import define, field

from pgproxy.config.kinds import Seconds, Unfit, Whole
from pgproxy.convert.ini import Entry

Table = dict[str, Any]
_TRUE = frozenset({"1", "yes", "on", "true", "y", "t"})
_FALSE = frozenset({"0", "no", "off", "false", "n", "f", ""})


@define
class Draft:
    """Our configuration as it comes into being."""

    proxy: Table = field(factory=dict)
    tls: Table = field(factory=dict)
    auth_query: Table = field(factory=dict)
    targets: dict[str, Table] = field(factory=dict)
    databases: dict[str, Table] = field(factory=dict)
    users: dict[str, Table] = field(factory=dict)
    notes: list[str] = field(factory=list)

    def note(self, entry: Entry | None, what: str) -> None:
        """Note that a key doesn't mean the same here, or nothing; None for what stands nowhere."""
        self.notes.append(what if entry is None else f"{entry.where}: {entry.key}: {what}")

    def file(self, entry: Entry) -> str:
        """Give the absolute path of a file that a key names; PgBouncer's are from where it runs."""
        path = Path(entry.value).absolute()
        if not path.is_file():
            self.note(entry, f"{path} is not there")
        return str(path)

    def put(self, table: Table, cls: type[Any], name: str, value: object, entry: Entry | None) -> None:
        """Set an option; where it doesn't take the value, the nearest that it takes, with a note."""
        kind = attrs.fields_dict(cls)[name].metadata["kind"]
        try:
            kind.read(value, Path("/"))
        except Unfit as error:
            nearest = _nearest(kind, value)
            if nearest is None:
                self.note(entry, f"{error}; {name} takes {kind.words}")
                return
            self.note(entry, f"{name} takes {kind.words}; it is {nearest:g} now")
            value = nearest
        table[name] = value


def _nearest(kind: object, value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        return None
    if isinstance(kind, Whole):
        return min(max(int(value), kind.low), kind.high)
    if isinstance(kind, Seconds):
        return min(max(value, 1 if kind.positive else 0), kind.high)
    return None


def number(text: str) -> int | None:
    """Read a whole number, as C's strtol does where it has to take all of it."""
    text = text.strip()
    digits = text.removeprefix("-").removeprefix("+")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) < 19 else None


def seconds(text: str) -> float | int | None:
    """Read a time in seconds."""
    whole = number(text)
    if whole is not None:
        return whole
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < 1e15 else None


def truth(text: str) -> bool | None:
    """Read a switch."""
    word = text.strip().lower()
    return True if word in _TRUE else False if word in _FALSE else None
