"""Figures of all workers together: the numbers of tables within tables are added up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Figures = dict[str, Any]

_OF_NOW = frozenset({"now", "clients", "logging_in", "waiting", "servers", "pools", "period"})
_OF_NOW |= {"targets", "processes", "memory", "pinned_clients"}
"""What is no more when its worker has ended; all the rest has been, and is kept."""
_MOST = frozenset({"longest", "most"})
"""What is not added up: the most of all holds."""


class AllFigures:
    """Those of all workers, by life; the dead's as far as they last."""

    def __init__(self) -> None:
        self._heard: dict[int, Figures] = {}
        self._past: Figures = {}

    def heard(self, worker: int, figures: Figures) -> None:
        """Take a worker's word."""
        self._heard[worker] = figures

    def ended(self, worker: int) -> None:
        """Enter that a worker has ended."""
        self._past = total([self._past, past(self._heard.pop(worker, {}))])

    def total(self) -> Figures:
        """Give those of all together."""
        return total([self._past, *self._heard.values()])


def total(several: Iterable[Mapping[str, Any]]) -> Figures:
    """Add them up."""
    found: Figures = {}
    for figures in several:
        for name, value in figures.items():
            if isinstance(value, Mapping):
                found[name] = total([found.get(name, {}), value])
            else:
                found[name] = (max if name in _MOST else sum)((found.get(name, 0), value))
                if isinstance(found[name], float):
                    found[name] = round(found[name], 6)
    return found


def past(figures: Mapping[str, Any]) -> Figures:
    """Give what stays of a worker's figures when it has ended; of what is now, nothing."""
    return {name: _past(name, value) for name, value in figures.items()}


def _past(name: str, value: Any) -> Any:
    if name in _OF_NOW:
        return {} if isinstance(value, Mapping) else 0
    return past(value) if isinstance(value, Mapping) else value
