"""Recorded conversations of real clients, cut at every byte: the same frames, the same bytes."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path

import pytest

from pgproxy.wire import tags
from pgproxy.wire.skim import Skimmer

RECORDED = sorted(Path(__file__).with_name("recorded").glob("*.json"))
DIRECTIONS = {"client": tags.FROM_CLIENT, "server": tags.FROM_SERVER}


def skim(direction: tags.Direction, *chunks: bytes) -> tuple[bytes, list[tuple[int, bytes]], bool]:
    skimmer = Skimmer(direction)
    stream, seen = b"", []
    for chunk in chunks:
        run, frames = skimmer.feed(chunk)
        stream += run
        seen += [(tag, run[start:stop]) for tag, start, stop in frames]
    return stream, seen, skimmer.at_boundary


def test_there_are_recordings() -> None:
    assert len(RECORDED) == 3


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
@pytest.mark.parametrize("who", DIRECTIONS)
def test_cut_at_every_byte(path: Path, who: str) -> None:
    stream, direction = b64decode(json.loads(path.read_text())[who]), DIRECTIONS[who]
    whole = skim(direction, stream)
    assert whole[0] == stream and whole[1] and whole[2]
    for cut in range(len(stream) + 1):
        assert skim(direction, stream[:cut], stream[cut:]) == whole
    assert skim(direction, *(stream[place : place + 1] for place in range(len(stream)))) == whole
