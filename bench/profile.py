"""Where pgproxy's time goes: its functions by the time of their own, per query."""

import pstats
import signal
from pathlib import Path
from typing import Any

from attrs import evolve

from bench.processes import pgproxy
from bench.scenarios import Lane, Plan, Route
from bench.table import table

_LINES = 40
_NAMED = 60
"""Characters of a function's name."""


def profile(plan: Plan) -> str:
    """
    Run pgbench through a pgproxy under cProfile; gives the table.

    With the twin its functions are one line each: what they do isn't seen by a profiler of Python. The time
    that the profiler takes itself makes small functions look larger than they are; calls are exact.
    """
    scenario = plan.scenarios[0]
    file = plan.directory / "profile"
    directory = plan.directory / scenario.name
    directory.mkdir(mode=0o711)
    lane = Lane(plan, evolve(scenario), Route.PGPROXY, directory)
    options: list[str | Path] = ["--profile", file, "--profiler", "cprofile", "--savestats"]
    with pgproxy(lane.setup(), options=options) as pooler:
        queries = lane.count(pooler, *lane.extent())
        pooler.end(signal.SIGTERM)
    stats: dict[Any, Any] = pstats.Stats(str(file)).stats  # type: ignore[attr-defined]
    lines = sorted(((own, calls, place) for place, (_, calls, own, *_rest) in stats.items()), reverse=True)
    rows = [
        [_name(*place), f"{calls / queries:.2f}", f"{own * 1e6 / queries:.2f}"]
        for own, calls, place in lines[:_LINES]
    ]
    return table([["function", "calls/query", "own µs/query"], *rows], 1, markdown=False)


def _name(file: str, line: int, name: str) -> str:
    if file == "~":
        return name[:_NAMED]
    return f"{'/'.join(Path(file).parts[-2:])}:{line} {name}"[:_NAMED]
