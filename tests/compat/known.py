"""The differences that are known and explained: known.toml."""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from tests.compat.shell import CompatError

FILE = Path(__file__).with_name("known.toml")


@frozen
class Difference:
    """Tests that may fail through pgproxy, and why."""

    suite: str
    test: re.Pattern[str]
    """Matches the whole name of a test."""
    reason: str

    def explains(self, suite: str, test: str) -> bool:
        """Say whether it is about this test."""
        return suite == self.suite and self.test.fullmatch(test) is not None


def read_known(path: Path = FILE) -> Sequence[Difference]:
    """Read the list. Raises CompatError where an entry is not as it should be."""
    with path.open("rb") as file:
        entries = tomllib.load(file).get("difference", [])
    return [_difference(entry, path) for entry in entries]


def _difference(entry: dict[str, Any], path: Path) -> Difference:
    if entry.keys() != {"suite", "test", "reason"} or not all(isinstance(v, str) for v in entry.values()):
        raise CompatError(f"{path}: an entry has to have suite, test and reason, each a text: {entry}")
    try:
        pattern = re.compile(entry["test"])
    except re.error as error:
        raise CompatError(f"{path}: {entry['test']!r} is no regular expression: {error}") from error
    return Difference(entry["suite"], pattern, " ".join(entry["reason"].split()))


def explanation(known: Sequence[Difference], suite: str, test: str) -> str | None:
    """Return why a test may fail through pgproxy; None where nobody has said so."""
    return next((entry.reason for entry in known if entry.explains(suite, test)), None)
