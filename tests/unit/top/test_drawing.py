"""Pictures as lines: within the paper, and without anything that texts could do to a terminal."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from pgproxy.top.drawing import Caption, Paper, draw
from pgproxy.top.picture import Picture, picture
from tests.unit.top.house import counted, look, row

SGR = re.compile(r"\x1b\[[0-9;]*m")
TEXTS = st.sampled_from(
    [
        "",
        "app",
        "[bold red]x[/]",
        "\x1b[31mred",
        "\x1b]0;title\x07",
        "a\nb\r",
        "\u202eevil",
        "\x9b2J",
        "漢字" * 40,
    ]
) | st.text(max_size=60)
NUMBERS = st.integers(0, 10**7)


@st.composite
def pictures(draw_: st.DrawFn) -> Picture:
    def rows(table: str, texts: tuple[str, ...], numbers: tuple[str, ...]) -> list[dict[str, object]]:
        some = st.fixed_dictionaries({**dict.fromkeys(texts, TEXTS), **dict.fromkeys(numbers, NUMBERS)})
        return [row(table, **values) for values in draw_(st.lists(some, max_size=8))]

    sv = ("sv_active", "sv_idle", "sv_login", "pool_size", "cl_waiting", "maxwait")
    now = look(
        2.0,
        version=[row("version", version=draw_(TEXTS))],
        pools=rows("pools", ("database", "user", "target", "pool_mode"), (*sv, "paused")),
        targets=rows("targets", ("target", "host", "role", "state"), ("port", "servers", "lag", "waiting")),
        pins=rows("pins", ("reason", "digest"), ("client", "seconds")),
        statements=rows("statements", ("database", "digest"), ("calls", "seconds", "mean_ms")),
        stats_totals=[counted("app", draw_(NUMBERS))],
    )
    before = draw_(st.sampled_from([None, look(1.0, stats_totals=[counted("app", 0)])]))
    return picture(now, before)


@given(
    st.none() | pictures(),
    st.integers(1, 200),
    st.integers(1, 40) | st.none(),
    st.sampled_from(["utf-8", "ascii", "latin-1"]),
    st.booleans(),
    TEXTS,
)
def test_whatever_there_is_fits_and_does_nothing(
    seen: Picture | None, width: int, height: int | None, encoding: str, colours: bool, alarm: str
) -> None:
    paper = Paper(width, height, encoding, colours, plain=False)
    lines = draw(seen, Caption("\x1b[2J:1", "12:00:00", alarm), paper).split("\n")
    assert height is None or len(lines) <= height
    for line in lines:
        text = SGR.sub("", line) if colours else line
        assert text.isprintable(), repr(text)
        assert cell_len(text) <= max(20, width)


def small() -> Picture:
    pools = [
        row("pools", database=f"db{n}", user="u", sv_active=n, pool_size=20, pool_mode="transaction")
        for n in range(30)
    ]
    pools[3] |= {"cl_waiting": 4, "maxwait": 3, "paused": 1, "sv_active": 20}
    targets = [row("targets", target="main", host="::1", port=5432, role="writer", state="up", servers=7)]
    statements = [row("statements", database="app", digest=f"select {n}", mean_ms=n) for n in range(9)]
    return picture(look(1.0, pools=pools, targets=targets, statements=statements), None)


def test_a_terminal_of_80_by_24() -> None:
    text = draw(small(), Caption("127.0.0.1:6432", "12:00:00"), Paper(80, 24, "utf-8", False, False))
    lines = text.split("\n")
    assert len(lines) == 24
    assert lines[0].startswith("pgproxy 0.1.0  127.0.0.1:6432  active") and lines[0].endswith("12:00:00")
    assert lines[2].startswith("Clients  0: 4 waiting, the longest for 3.0 s")
    assert lines[6].split() == ["db3/u", "paused", "█" * 14, "20", "0", "20", "4", "4", "3.0", "s"]
    assert "more pools" in text and "[::1]:5432" in text and "select 8" not in lines[-1]


def test_without_unicode_and_without_colours() -> None:
    paper = Paper(80, 24, "ascii", True, True)
    text = draw(small(), Caption("x:1", "12:00:00"), paper)
    assert "#" * 14 in text and text.replace("…", "").isascii()
    assert _codes(text) and _codes(text) <= {"0", "1", "2", "4"}, "bold, dim and underlined are no colours"
    coloured = draw(small(), Caption("x:1", "12:00:00"), Paper(80, 24, "utf-8", True, False))
    assert any(code.startswith("3") for code in _codes(coloured))


def _codes(text: str) -> set[str]:
    return {code for found in re.findall(r"\x1b\[([0-9;]*)m", text) for code in found.split(";")}


@pytest.mark.parametrize("seen", [None, small()], ids=["nothing yet", "old figures"])
def test_a_lost_console_is_the_second_line(seen: Picture | None) -> None:
    caption = Caption("x:1", "12:00:00", "Lost, tries again every 2 s: \x1b[31mgone")
    lines = draw(seen, caption, Paper(80, 24, "utf-8", False, False)).split("\n")
    assert lines[1] == r"Lost, tries again every 2 s: \x1b[31mgone"
    assert "active" not in lines[0] and "Rates" not in "".join(lines)
