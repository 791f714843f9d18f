"""What holds in a process that another has followed: it keeps no server that its last clients don't need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from attrs import evolve

from pgproxy.config import Config, Database, User

_Entry = TypeVar("_Entry", Database, User)
_SOON = 1.0
"""Seconds after which an idle server is closed: the successor opens its own within the same target."""


def retiring(config: Config) -> Config:
    """Give the configuration of such a process."""
    return evolve(
        config,
        proxy=evolve(config.proxy, min_pool_size=0, server_idle_timeout=_SOON),
        databases=_without_minimums(config.databases),
        users=_without_minimums(config.users),
    )


def _without_minimums(entries: Mapping[str, _Entry]) -> dict[str, _Entry]:
    return {
        name: evolve(
            entry,
            min_pool_size=None if entry.min_pool_size is None else 0,
            min_server_connections=0,
        )
        for name, entry in entries.items()
    }
