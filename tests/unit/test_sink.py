"""A log that can't be written harms nobody."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pgproxy.observe.logs import make_logger
from pgproxy.observe.sink import Sink


def test_a_full_disk(capfd: pytest.CaptureFixture[str]) -> None:
    number = os.open("/dev/full", os.O_WRONLY)
    sink = Sink(number)
    log = make_logger(sink)
    for _ in range(3):
        log.info("something")
    os.close(number)
    assert sink.lost == 3
    assert capfd.readouterr().err == "pgproxy cannot write its log: No space left on device; it goes on\n"


def test_a_pipe_that_nobody_reads() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    sink = Sink(writer)
    make_logger(sink).info("something")
    assert sink.lost == 1
    os.close(writer)


def test_what_is_missing_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "log"
    sink = Sink.file(path)
    sink.lost = 2
    log = make_logger(sink)
    log.info("one")
    log.info("other")
    one, other = map(json.loads, path.read_text().splitlines())
    assert one["lost_before"] == 2 and "lost_before" not in other


def test_a_file_that_was_moved_away(tmp_path: Path) -> None:
    path = tmp_path / "log"
    sink = Sink.file(path)
    sink.write("one\n")
    path.rename(tmp_path / "old")
    sink.write("two\n")
    sink.reopen()
    sink.write("three\n")
    assert (tmp_path / "old").read_text() == "one\ntwo\n"
    assert path.read_text() == "three\n"
