"""
What of a picture has room on a terminal, and how figures and texts look there.

Texts come from clients: whatever is not printable in them is written out, so that none can move the cursor or
colour what follows.
"""

from __future__ import annotations

from collections.abc import Mapping

LONGEST = 300
"""Characters of a text; no terminal shows more of it in a line."""


def shown(text: str) -> str:
    """Write out what a terminal might obey: controls, and what turns the direction of writing."""
    cut = text[:LONGEST]
    if cut.isprintable():
        return cut
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in cut
    )


def shares(room: int, wanted: Mapping[str, int]) -> dict[str, int]:
    """
    Divide the lines of a terminal among tables, by the rows that each of them wants.

    A table takes two lines more, for its head and the blank before it, and none at all where it has no rows
    or no room for one. Tables that come first go first where there is not enough for all; beyond one row
    each they get the same, and what one doesn't want goes to the others.
    """
    given: dict[str, int] = {}
    for name, rows in wanted.items():
        if rows and room >= 3:
            given[name] = 1
            room -= 3
    while room > 0:
        hungry = [name for name in given if given[name] < wanted[name]]
        if not hungry:
            break
        for name in hungry[:room]:
            given[name] += 1
        room -= len(hungry[:room])
    return {name: given.get(name, 0) for name in wanted}


def cells(used: int, idle: int, most: int, width: int) -> tuple[int, int, int]:
    """
    Divide a bar of `width` (3 at least) cells into used, idle and free servers.

    What there is at all has a cell, so only a pool that is full looks full. `most` 0 is no limit.
    """
    whole = max(most, used + idle, 1)
    parts = (used, idle, whole - used - idle)
    given = [max(1, part * width // whole) if part else 0 for part in parts]
    while sum(given) < width:
        lacking = [part * width / whole - cells for part, cells in zip(parts, given, strict=True)]
        given[lacking.index(max(lacking))] += 1
    while sum(given) > width:
        given[given.index(max(given))] -= 1
    return given[0], given[1], given[2]


def number(value: float | None) -> str:
    """Write a figure: 7, 0.25, 12,345, 1.2 M; a dash for what is not known."""
    if value is None:
        return "-"
    if value >= 1e6:
        return f"{value / 1e6:,.1f} M"
    if value >= 10 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def bytes_(value: float | None) -> str:
    """Write a number of bytes, in units of 1024."""
    if value is None:
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{value:,.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"


def time(seconds: float | None) -> str:
    """Write a time: 3 ms, 1.2 s, 45 s, 12 min, 3.5 h."""
    if seconds is None:
        return "-"
    if seconds <= 0:
        return "0"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.001 else "<1 ms"
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def pause(failures: int) -> float:
    """Give the seconds before the console is tried again, after so many failures in a row: 1 to 10."""
    return min(10.0, 2.0 ** min(failures - 1, 10)) if failures else 0.0
