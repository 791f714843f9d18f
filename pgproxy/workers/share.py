"""What of a configuration is each worker's, and what is the supervisor's to keep for all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from attrs import evolve, frozen

from pgproxy.config import Config, Database, User

_Entry = TypeVar("_Entry", Database, User)

_ANY = 1_000_000
SHORTEST_WAIT = 0.1
"""Seconds: who doesn't wait for a server at all would be gone before the supervisor hears what it needs."""


@frozen
class Charge:
    """What the supervisor hands a worker."""

    number: int
    """Each that is laid ready has its own."""
    config: Config
    """The whole one; `of_worker` gives the worker's."""
    workers: int
    mock_key: bytes
    """Makes the salts of users that are not there: the same in all workers, or asking twice would tell."""
    log_file: Path | None
    reactor: str | None
    """Twistd's name for the reactor, if it was told one."""


def number_of_workers(config: Config) -> int:
    """Say how many there are to be."""
    return config.proxy.workers or len(os.sched_getaffinity(0))


def greet_alike(before: Config, after: Config) -> bool:
    """Say whether servers greet as before, as far as a configuration has a say in it."""
    return before.targets == after.targets and before.databases == after.databases


def of_worker(config: Config, workers: int) -> Config:
    """
    Give the configuration that one of so many workers goes by.

    What the supervisor's budget sees to limits nobody here. What is counted by each for itself is divided.
    The least that a pool is to have stays: it says that the pool is kept, to be given what it lacks.
    """
    proxy = config.proxy
    return evolve(
        config,
        proxy=evolve(
            proxy,
            max_waiting_clients=_part(proxy.max_waiting_clients, workers),
            max_logins=_part(proxy.max_logins, workers),
            max_connection_rate=_part(proxy.max_connection_rate, workers),
            server_idle_timeout=0.0,
            connection_borrow_timeout=max(proxy.connection_borrow_timeout, SHORTEST_WAIT),
        ),
        targets={
            name: evolve(target, max_connecting_servers=_ANY, admin_connections=0)
            for name, target in config.targets.items()
        },
        databases=_without_limits(config.databases),
        users=_without_limits(config.users),
    )


def _part(number: int, workers: int) -> int:
    return -(-number // workers)


def _without_limits(entries: Mapping[str, _Entry]) -> dict[str, _Entry]:
    return {
        name: evolve(
            entry,
            max_server_connections=0,
            min_server_connections=0,
        )
        for name, entry in entries.items()
    }
