"""How times are spread: a count for each range of seconds."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

from pgproxy.twin import know, quicken

BOUNDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0),
)
"""Seconds: the upper ends of the ranges, each included; what is beyond the last has a range of its own."""
know(bounds=BOUNDS)
_NAMES = (*(f"{bound:g}" for bound in BOUNDS), "inf")


@quicken
class Histogram:
    """One of them."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    def add(self, seconds: float, weight: int = 1) -> None:
        """Enter a time, for so many like it. A clock that was set back has measured nothing."""
        seconds = max(0.0, seconds)
        self.counts[bisect_left(BOUNDS, seconds)] += weight
        self.seconds += seconds * weight

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(self.counts)

    def figures(self, at_once: int = 0) -> dict[str, Any]:
        """Give what there is as figures that can be added up; `at_once` more took no time at all."""
        ranges = {name: number for name, number in zip(_NAMES, self.counts, strict=True) if number}
        if at_once > 0:
            ranges[_NAMES[0]] = ranges.get(_NAMES[0], 0) + at_once
        return {"count": self.count + max(0, at_once), "seconds": round(self.seconds, 6), "ranges": ranges}


def cumulative(figures: dict[str, Any]) -> list[tuple[str, int]]:
    """Give the ranges' upper ends, as Prometheus writes them, and how many are at most that, of figures."""
    ranges = figures.get("ranges", {})
    found, so_far = [], 0
    for bound in _NAMES:
        so_far += int(ranges.get(bound, 0))
        found.append(("+Inf" if bound == "inf" else bound, so_far))
    return found


def counts_of(figures: Mapping[str, Any]) -> tuple[int, ...]:
    """Give the count of each range, of figures, in the order of `BOUNDS`, and of what is beyond."""
    ranges = figures.get("ranges", {})
    return tuple(int(ranges.get(bound, 0)) for bound in _NAMES)


def quantile(counts: Sequence[int], share: float) -> float | None:
    """
    Estimate the seconds that a share (0 to 1) of the times are at most; None where there are none.

    Within a range times are taken to be spread evenly; of what is beyond the last bound nothing is known
    but that.
    """
    place = share * sum(counts)
    if not any(counts):
        return None
    lower = 0.0
    for bound, count in zip(BOUNDS, counts, strict=False):
        if count and place <= count:
            return lower + (bound - lower) * max(0.0, place) / count
        place -= count
        lower = bound
    return BOUNDS[-1]
