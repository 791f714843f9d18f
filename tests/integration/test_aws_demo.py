"""`make run AWS=1`: the application never notices."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pgproxy.demo.__main__ import Interrupts, demonstrate, twistd
from pgproxy.demo.ports import free_port
from pgproxy.demo.postgres import url


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that PostgreSQL's user can enter, as pytest's own isn't where root runs the tests."""
    path = Path(tempfile.mkdtemp(prefix="pgproxy-demo-test-"))
    path.chmod(0o755)
    yield path / "demo"
    shutil.rmtree(path)


def test_the_demonstration(directory: Path) -> None:
    port, interrupts = free_port(), Interrupts()
    heard: list[str] = []

    def say(text: str) -> None:
        heard.append(text)
        if text.startswith("rotation 1: finish"):
            with psycopg.connect(url(port, "demo", "demo", "demo")) as connection:
                connection.execute("select 1")
            interrupts.came = True

    demonstrate(port, directory, twistd, interrupts, say, with_aws=True)
    (end,) = (text for text in heard if "In the end" in text)
    assert "0 failures" in end, heard
    log = (directory / "pgproxy.log").read_text()
    assert "server_refused_key" in log and "before the first rotation" not in log
