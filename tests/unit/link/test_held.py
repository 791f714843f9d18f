"""What waits for a server, without what was cancelled."""

from __future__ import annotations

import pytest

from pgproxy.link.held import without_first_batch
from pgproxy.wire import tags
from pgproxy.wire.skim import Skimmer
from tests.raw import message

QUERY, SYNC, PARSE = message("Q", b"select 1\0"), message("S"), message("P", b"\0select 2\0\0\0")


def held(*pieces: bytes) -> list[tuple[bytes, list[tuple[int, int, int]]]]:
    skim = Skimmer(tags.FROM_CLIENT)
    return [skim.feed(piece) for piece in pieces]


@pytest.mark.parametrize(
    ("pieces", "left"),
    [
        ((QUERY,), b""),
        ((QUERY, QUERY), QUERY),
        ((QUERY + PARSE, SYNC), PARSE + SYNC),
        ((PARSE, PARSE + SYNC + QUERY), QUERY),
        ((QUERY + message("X"),), message("X")),
    ],
)
def test_the_first_batch_goes(pieces: tuple[bytes, ...], left: bytes) -> None:
    rest = without_first_batch(held(*pieces))
    assert rest is not None
    assert b"".join(run for run, _frames in rest) == left
    for run, frames in rest:
        assert all(run[start] == tag for tag, start, _stop in frames)


@pytest.mark.parametrize("pieces", [(), (PARSE,), (PARSE, PARSE), (QUERY[:7], QUERY[7:])])
def test_what_is_not_whole_stays(pieces: tuple[bytes, ...]) -> None:
    assert without_first_batch(held(*pieces)) is None
