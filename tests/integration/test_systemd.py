"""pgproxy under systemd, as far as that can be had without it: what is told and passed, and the units."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgproxy.demo.ports import free_port
from pgproxy.demo.postgres import Postgres, url
from pgproxy.demo.process import end
from tests.fix_pgproxy import NotOurChild, toml
from tests.fix_postgres import PASSWORDS
from tests.systemd import Manager, start, stop

UNITS = Path(__file__).parents[2] / "etc"
STOPPED = (0, -signal.SIGTERM)
Started = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture(params=["file", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    one = Manager(tmp_path, request.param == "abstract")
    yield one
    one.close()


@pytest.fixture
def service(manager: Manager, postgres: Postgres, tmp_path: Path) -> Iterator[Started]:
    running: list[subprocess.Popen[bytes]] = []

    def started(
        sockets: list[socket.socket] | None = None, watchdog: float | None = None, **proxy: Any
    ) -> subprocess.Popen[bytes]:
        config = tmp_path / "pgproxy.toml"
        (tmp_path / "users.txt").write_text(f'"boss" "{PASSWORDS["boss"]}"\n')
        options = {"auth": "trust", "users_file": "users.txt", "listen": f"127.0.0.1:{free_port()}", **proxy}
        config.write_text(toml(proxy=options, target={"server": f"127.0.0.1:{postgres.port}"}))
        running.append(start(manager, config, sockets or [], watchdog))
        return running[-1]

    yield started
    for process in running:
        end(process, signal.SIGKILL, 1)


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as one:
        yield one


@pytest.mark.parametrize("workers", [1, 2])
def test_it_says_what_it_does(manager: Manager, service: Started, tmp_path: Path, workers: int) -> None:
    process = service(workers=workers)
    manager.hear("READY=1")
    process.send_signal(signal.SIGHUP)
    manager.hear("RELOADING=1")
    manager.hear("READY=1", 2)
    assert any(re.fullmatch(r"MONOTONIC_USEC=\d+", line) for line in manager.heard)
    (tmp_path / "pgproxy.toml").write_text("nonsense")
    process.send_signal(signal.SIGHUP)
    manager.hear("READY=1", 3)
    process.send_signal(signal.SIGTERM)
    manager.hear("STOPPING=1")
    assert process.wait(20) in STOPPED


def test_the_watchdog_hears_of_it(manager: Manager, service: Started) -> None:
    process = service(watchdog=0.2)
    manager.hear("WATCHDOG=1", 3)
    assert any(line.startswith("STATUS=Serving") for line in manager.heard)
    assert stop(process) in STOPPED


@pytest.mark.parametrize("workers", [1, 3])
def test_sockets_that_were_passed(
    manager: Manager, service: Started, listening: socket.socket, workers: int
) -> None:
    port = listening.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as other:
        # Before anybody is there to accept.
        early = socket.create_connection(("127.0.0.1", port))
        process = service([listening, other], workers=workers, listen="127.0.0.1:1")
        manager.hear("READY=1")
        for one in (port, other.getsockname()[1]):
            with psycopg.connect(url(one, "boss", "", "app", sslmode="disable")) as connection:
                assert connection.execute("select 1").fetchone() == (1,)
        early.sendall(bytes.fromhex("0000000804d2162f"))
        early.settimeout(20)
        assert early.recv(1) == b"N"
        early.close()
        assert stop(process) in STOPPED
        # They are systemd's: whoever comes now waits for the next start.
        socket.create_connection(("127.0.0.1", port), 5).close()


def test_what_is_no_socket_to_listen_on(service: Started, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = service([theirs])
        assert process.wait(30) == 1
    assert "no TCP socket that listens" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_restart_names_the_main_process(
    manager: Manager, service: Started, listening: socket.socket, workers: int
) -> None:
    port = listening.getsockname()[1]
    process = service([listening], watchdog=5, workers=workers)
    manager.hear("READY=1")
    process.send_signal(signal.SIGUSR2)
    manager.hear("READY=1", 2)
    (main,) = [line for line in manager.heard if line.startswith("MAINPID=")]
    successor = NotOurChild(int(main.removeprefix("MAINPID=")))
    try:
        assert process.wait(30) == 0
        assert manager.heard.index(main) < len(manager.heard) - manager.heard[::-1].index("READY=1")
        assert "STOPPING=1" not in manager.heard
        manager.hear("WATCHDOG=1", 2)
        with psycopg.connect(url(port, "boss", "", "app", sslmode="disable")) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
        os.kill(successor.pid, signal.SIGTERM)
        manager.hear("STOPPING=1")
    finally:
        end(successor, signal.SIGTERM, 15)


def systemd_analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("systemd-analyze is not installed here: the units were not checked")
    return found


def test_the_units_are_right(tmp_path: Path) -> None:
    """What ExecStart names is not there on a machine that pgproxy isn't installed on."""
    program = systemd_analyze()
    for name in ("pgproxy.service", "pgproxy.socket"):
        text = (UNITS / name).read_text().replace("/opt/pgproxy/venv/bin/twistd", "/bin/true")
        (tmp_path / name).write_text(text.replace("/opt/pgproxy/venv/bin/pgproxy", "/bin/true"))
    done = subprocess.run(
        [program, "verify", "--man=no", str(tmp_path / "pgproxy.service"), str(tmp_path / "pgproxy.socket")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    ours = [line for line in done.stderr.splitlines() if "pgproxy" in line]
    assert ours == []


def test_the_hardening_is_rated_well() -> None:
    done = subprocess.run(
        [systemd_analyze(), "security", "--offline=yes", "--no-pager", str(UNITS / "pgproxy.service")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    found = re.search(r"Overall exposure level for pgproxy\.service: ([\d.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    # 10 is no protection at all; below 2 systemd calls it OK.
    assert float(found[1]) < 2, done.stdout
