"""What is wrong with a configuration: the file, the path in it, what is wrong, and what would be right."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from datetime import date, datetime, time

from attrs import define, field, frozen

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SHOWN = 60
"""Characters of a value that a message repeats."""


@frozen
class Problem:
    """One thing that is wrong."""

    source: str
    """The file's path, or "" where the values came from the command line."""
    path: str
    """Dotted, as in `proxy.pool_size`; an option as in `--pool-size`; "" for the file as a whole."""
    wrong: str
    right: str = ""

    def __str__(self) -> str:
        where = [part for part in (self.source, self.path) if part]
        return ": ".join([*where, f"{self.wrong}; {self.right}" if self.right else self.wrong])


class ConfigError(Exception):
    """A configuration that cannot be used; its text is one problem a line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def dotted(*keys: str) -> str:
    """Join keys to a path as TOML writes it: a key that needs quotes has them."""
    return ".".join(key if _BARE_KEY.fullmatch(key) else json.dumps(key, ensure_ascii=False) for key in keys)


def shown(value: object) -> str:
    """Write a value as TOML would, cut where it is long; of tables and arrays only say what they are."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            cut = value if len(value) <= _SHOWN else value[:_SHOWN] + "…"
            return json.dumps(cut, ensure_ascii=False)
        case list():
            return "an array"
        case dict():
            return "a table"
        case int() | float() | datetime() | date() | time():
            return str(value) if not isinstance(value, int) or abs(value) < 10**_SHOWN else "a long number"
        case _:
            raise TypeError(value)


@define
class Report:
    """Collects the problems of one source."""

    source: str
    name: Callable[[str], str]
    """What the path of an option is called in this source."""
    problems: list[Problem] = field(factory=list)

    def add(self, path: str, wrong: str, right: str = "") -> None:
        """Add a problem with the option at a path."""
        self.problems.append(Problem(self.source, self.name(path), wrong, right))
