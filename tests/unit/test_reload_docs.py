"""docs/operations.md names the options that a reload doesn't take: those that the log warns of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import attrs

from pgproxy.config import Config
from pgproxy.config.aws import Aws
from pgproxy.head import warn_of_restart

ROOT = Path(__file__).parents[2]


class Log:
    def __init__(self) -> None:
        self.options: list[str] = []

    def warning(self, event: str, *, option: str) -> None:
        assert event == "reload_needs_restart"
        self.options.append(option)


def otherwise(table: Any) -> Any:
    """Give a table in which each option is another, whether or not it could be so."""
    return attrs.evolve(table, **{one.name: object() for one in attrs.fields(type(table)) if one.init})


def test_what_takes_a_restart_is_said() -> None:
    before = Config()
    after = attrs.evolve(before, proxy=otherwise(before.proxy), http=otherwise(before.http), aws=Aws())
    log = Log()
    warn_of_restart(log, before, after)  # type: ignore[arg-type]
    text = (ROOT / "docs" / "operations.md").read_text()
    said = re.search(r"A reload takes all options but (.*?): these take a restart", text, re.DOTALL)
    assert said is not None
    assert sorted(re.findall(r"`([^`]+)`", said[1].replace("`[aws]`", "`aws`"))) == sorted(log.options)
