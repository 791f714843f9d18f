"""What of a picture has room, and how figures look."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.top.layout import LONGEST, bytes_, cells, number, pause, shares, shown, time


@given(st.integers(-3, 60), st.dictionaries(st.sampled_from("abcd"), st.integers(0, 40)))
def test_tables_have_no_more_lines_than_there_are(room: int, wanted: dict[str, int]) -> None:
    given_ = shares(room, wanted)
    assert given_.keys() == wanted.keys()
    assert all(0 <= given_[name] <= wanted[name] for name in wanted)
    assert sum(rows + 2 for rows in given_.values() if rows) <= max(0, room)
    if any(0 < given_[name] < wanted[name] for name in wanted):
        assert sum(rows + 2 for rows in given_.values() if rows) == room, "a line is left"


def test_lines_are_shared_out_evenly_and_the_first_go_first() -> None:
    assert shares(20, {"pools": 50, "targets": 1, "statements": 20, "pins": 0}) == {
        "pools": 7,
        "targets": 1,
        "statements": 6,
        "pins": 0,
    }
    assert shares(6, {"pools": 9, "targets": 2, "pins": 1}) == {"pools": 1, "targets": 1, "pins": 0}


@given(st.integers(0, 3000), st.integers(0, 3000), st.integers(0, 5000), st.integers(3, 40))
def test_a_bar_shows_whatever_there_is(used: int, idle: int, most: int, width: int) -> None:
    bar = cells(used, idle, most, width)
    assert sum(bar) == width and min(bar) >= 0
    free = max(most, used + idle, 1) - used - idle
    assert [bool(cell) for cell in bar] == [bool(used), bool(idle), bool(free)]


@given(st.text(max_size=2 * LONGEST))
def test_nothing_that_is_shown_can_be_obeyed(text: str) -> None:
    said = shown(text)
    assert said.isprintable()
    assert said == text[:LONGEST] or not text[:LONGEST].isprintable()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("caf\xe9 [red]x[/red]", "caf\xe9 [red]x[/red]"),
        ("\x1b[2J\r\n", r"\x1b[2J\r\n"),
        ("a\u202eb\x9b\x7f\ud800", r"a\u202eb\x9b\x7f\ud800"),
    ],
)
def test_what_is_not_printable_is_written_out(text: str, said: str) -> None:
    assert shown(text) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "-"), (0, "0"), (0.25, "0.25"), (1.26, "1.3"), (12.6, "13"), (12345, "12,345"), (2.5e6, "2.5 M")],
)
def test_numbers(value: float | None, said: str) -> None:
    assert number(value) == said


@pytest.mark.parametrize(
    ("value", "said"), [(None, "-"), (0, "0 B"), (1023, "1,023 B"), (1536, "1.5 KiB"), (5 << 40, "5,120 GiB")]
)
def test_bytes(value: float | None, said: str) -> None:
    assert bytes_(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "-"),
        (0, "0"),
        (0.0001, "<1 ms"),
        (0.021, "21 ms"),
        (1.24, "1.2 s"),
        (45.2, "45 s"),
        (300, "5 min"),
        (9000, "2.5 h"),
    ],
)
def test_times(value: float | None, said: str) -> None:
    assert time(value) == said


def test_the_pause_before_another_try_is_bounded() -> None:
    assert [pause(failures) for failures in (0, 1, 2, 3, 4, 5, 10_000)] == [0, 1, 2, 4, 8, 10, 10]
