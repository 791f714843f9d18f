"""What a service manager is told, and that nobody waits for it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from pgproxy.succession.manager import Manager


def heard(one: socket.socket) -> list[str]:
    return one.recv(65_536).decode().split("\n")


def test_each_word(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind(str(tmp_path / "notify"))
        one.settimeout(10)
        manager = Manager({"NOTIFY_SOCKET": str(tmp_path / "notify")}, 1)
        manager.ready("Serving 3 clients")
        assert heard(one) == ["READY=1", "STATUS=Serving 3 clients"]
        manager.reloading()
        reloading, since = heard(one)
        assert reloading == "RELOADING=1" and since.removeprefix("MONOTONIC_USEC=").isdigit()
        manager.alive("Serving 4 clients")
        assert heard(one) == ["WATCHDOG=1", "STATUS=Serving 4 clients"]
        manager.main_is(77)
        assert heard(one) == ["MAINPID=77"]
        manager.stopping()
        assert heard(one)[0] == "STOPPING=1"
        manager.forget()
        manager.ready("")
        one.setblocking(False)
        with pytest.raises(BlockingIOError):
            one.recv(1)


@pytest.mark.parametrize("address", ["", "/nowhere/at/all", "@nobody-is-there", "x" * 500])
def test_nobody_is_there(address: str) -> None:
    manager = Manager({"NOTIFY_SOCKET": address}, 1)
    for _ in range(3):
        manager.ready("Serving")


def test_one_that_does_not_read(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind(str(tmp_path / "notify"))
        manager = Manager({"NOTIFY_SOCKET": str(tmp_path / "notify")}, 1)
        for _ in range(2000):
            manager.alive("Serving")


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "2"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog(environ: dict[str, str], seconds: float | None) -> None:
    assert Manager({"NOTIFY_SOCKET": "/x", **environ}, 1).watchdog == seconds
    assert Manager(environ, 1).watchdog is None
