"""`pgproxy top` before a real pgproxy: on a terminal of its own, once, and for programs."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from pgproxy.demo.process import environment
from tests.fix_pgproxy import Pgproxy, PgproxyFactory
from tests.fix_postgres import PASSWORDS

PROGRAM = Path(sys.executable).with_name("pgproxy")
EVIL = "\x1b[31mevil[bold red]"
WRITTEN = r"\x1b[31mevil[bold red]"
SECONDS = 20.0
SGR = re.compile(r"\x1b\[[0-9;]*m")
OTHER_SCREEN, BACK = "\x1b[?1049h", "\x1b[?1049l"
ARGUMENTS = ("-h", "127.0.0.1", "-U", "other", "--interval", "0.2")


def environ(**more: str) -> dict[str, str]:
    whole = {"PGPASSWORD": PASSWORDS["other"], "TERM": "xterm-256color", "COLUMNS": "120", **more}
    return environment(whole)


def top(port: int, *options: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "top", *ARGUMENTS, "-p", str(port), *options],
        env=environ(**more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
    )


@pytest.fixture(scope="module")
def proxy(pgproxy_of_module: PgproxyFactory) -> Pgproxy:
    """One for those who only look; it has a database with a name that no terminal should see."""
    return pgproxy_of_module(
        pool_size=3,
        proxy={"admin_users": ["boss"], "stats_users": ["other"]},
        extra=f'[databases.{json.dumps(EVIL)}]\nname = "app"\n[databases.app]\n',
    )


@pytest.fixture(scope="module")
def busy(proxy: Pgproxy) -> Iterator[Pgproxy]:
    with proxy.connect(autocommit=True, dbname=EVIL, application_name=EVIL) as evil, proxy.connect() as one:
        evil.execute(f'create temporary table "{EVIL}\r\n" (a int)'.encode())
        one.execute("select 1")
        yield proxy


def test_once(busy: Pgproxy) -> None:
    done = top(busy.port, "--once")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("pgproxy ") and f"127.0.0.1:{busy.port}  active" in done.stdout
    assert all(line.isprintable() for line in done.stdout.splitlines()), "no colours where no terminal is"
    assert "transactions/s" in done.stdout and "1 pinned, 1 idle in transaction" in done.stdout
    assert f"{WRITTEN}/app" in done.stdout and "temporary_object" in done.stdout
    assert 'create temporary table "?[31mevil[bold red]??" (a int)' in done.stdout
    assert re.search(r"main +127\.0\.0\.1:\d+ +unknown +up ", done.stdout)


def test_json_has_numbers_and_names_as_they_are(busy: Pgproxy) -> None:
    done = top(busy.port, "--json", "--once")
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    assert line.isascii() and line.isprintable()
    seen = json.loads(line)
    pools = {pool["database"]: pool for pool in seen["pools"]}
    assert (pools[EVIL]["used"], pools[EVIL]["most"], pools["app"]["in_transaction"]) == (1, 3, 1)
    assert seen["servers"]["pinned"] == 1 and seen["clients"]["all"] >= 2
    assert seen["seconds"] >= 0.2 and seen["rates"]["transactions"] >= 0
    assert seen["pins"][0]["reason"] == "temporary_object" and "[bold red]" in seen["pins"][0]["digest"]
    assert (seen["targets"][0]["target"], seen["state"], seen["proxy"]) == (
        "main",
        "active",
        f"127.0.0.1:{busy.port}",
    )


@pytest.mark.parametrize(
    ("options", "more", "why"),
    [
        (["--once"], {"PGPASSWORD": "wrong"}, "password authentication failed"),
        (["--json"], {"PGPASSWORD": ""}, "no password supplied"),
        (["--json", "-U", "app"], {"PGPASSWORD": PASSWORDS["app"]}, 'user "app" may not use the console'),
        (["--json", "-d", "app"], {}, "the console says: unrecognized configuration parameter"),
        (["--json", "-d", "postgresql://127.0.0.1/?x=1"], {}, "invalid URI query parameter"),
        (["--once", "-p", "1"], {}, "Connection refused"),
        ([], {}, "say --once or --json"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_said_and_ends_it(
    proxy: Pgproxy, options: list[str], more: dict[str, str], why: str
) -> None:
    done = top(proxy.port, *options, **more)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("pgproxy top: ") and why in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_the_extra(proxy: Pgproxy) -> None:
    def run(*options: str) -> subprocess.CompletedProcess[str]:
        script = "import sys; sys.modules['rich'] = None; from pgproxy.command import main; sys.exit(main())"
        return subprocess.run(
            [sys.executable, "-c", script, "top", *ARGUMENTS, "-p", str(proxy.port), *options],
            env=environ(),
            capture_output=True,
            text=True,
            timeout=60,
        )

    without = run("--once")
    assert (without.returncode, without.stdout) == (1, "")
    assert "pip install 'pgproxy[top]'" in without.stderr and "Traceback" not in without.stderr
    assert json.loads(run("--json", "--once").stdout)["state"] == "active"


class Terminal:
    """A terminal with `pgproxy top` on it."""

    def __init__(self, port: int, *options: str, **more: str) -> None:
        self._ours, self._theirs = pty.openpty()
        self.resize(80, 24)
        self.modes = termios.tcgetattr(self._theirs)
        self._heard = b""
        self.text = ""
        self.process = subprocess.Popen(
            [PROGRAM, "top", *ARGUMENTS, "-p", str(port), *options],
            env=environ(**more),
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def frames(self) -> list[list[str]]:
        """Give the whole pictures so far, as lines without colours."""
        whole = self.text.split("\x1b[H")[1:-1]
        return [
            SGR.sub("", frame.replace("\x1b[K", "").replace("\x1b[J", "")).split("\r\n") for frame in whole
        ]

    def await_frame(self, pattern: str) -> list[str]:
        """Wait for a picture drawn from now on."""
        start, limit = len(self.frames()), time.monotonic() + SECONDS
        while time.monotonic() < limit:
            self._read(0.1)
            for frame in self.frames()[start:]:
                if re.search(pattern, "\n".join(frame)):
                    return frame
        raise AssertionError(f"no {pattern} in {SECONDS:g} s: {self.frames()[-1:]} {self.text[-500:]!r}")

    def await_end(self) -> int:
        limit = time.monotonic() + SECONDS
        while self.process.poll() is None:
            assert time.monotonic() < limit, self.text[-500:]
            self._read(0.05)
        self._read(0.0)
        return self.process.returncode

    def is_as_before(self) -> bool:
        """Whether the terminal's modes are those that it had, and its own screen is shown."""
        shown = self.text.rindex(BACK) > self.text.rindex(OTHER_SCREEN) and "\x1b[?25h" in self.text
        return shown and termios.tcgetattr(self._theirs) == self.modes

    def _read(self, seconds: float) -> None:
        while select.select([self._ours], [], [], seconds)[0]:
            # What is read may end within a letter, or a line's end.
            self._heard += os.read(self._ours, 65_536)
            seconds = 0.0
        self.text = self._heard.decode("utf-8", "replace").replace("\r\r\n", "\r\n")

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)


@pytest.mark.parametrize(("way", "status"), [("q", 0), ("Ctrl-C", 0), ("SIGTERM", 128 + signal.SIGTERM)])
def test_it_draws_again_and_again_and_gives_the_terminal_back(busy: Pgproxy, way: str, status: int) -> None:
    with Terminal(busy.port) as terminal:
        frame = terminal.await_frame("transactions/s")
        assert len(frame) <= 24 and all(len(line) <= 80 for line in frame)
        assert termios.tcgetattr(terminal._theirs)[3] & (termios.ICANON | termios.ECHO) == 0
        again = terminal.await_frame("transactions/s")
        assert again is not frame
        assert EVIL.split("[b")[0] not in terminal.text and "\\x1b[31mevil" in terminal.text
        if way == "q":
            terminal.resize(50, 12)
            small = terminal.await_frame(r"^pgproxy [^\n]{0,42}\n")
            assert len(small) <= 12 and all(len(line) <= 50 for line in small)
            terminal.press(b"xq")
        elif way == "Ctrl-C":
            terminal.press(b"\x03")
        else:
            terminal.process.terminate()
        assert terminal.await_end() == status
        assert terminal.is_as_before()
        assert "Traceback" not in terminal.text


def test_somebody_else_may_have_the_terminal_for_a_while(busy: Pgproxy) -> None:
    with Terminal(busy.port) as terminal:
        terminal.await_frame("active")
        terminal.press(b"\x1a")
        limit = time.monotonic() + SECONDS
        how = os.WSTOPPED | os.WNOHANG | os.WNOWAIT
        while os.waitid(os.P_PID, terminal.process.pid, how) is None:
            assert time.monotonic() < limit
            terminal._read(0.1)
        # What it wrote before it stopped.
        terminal._read(0.1)
        assert terminal.is_as_before()
        terminal.process.send_signal(signal.SIGCONT)
        terminal.await_frame("active")
        assert not terminal.is_as_before()
        terminal.press(b"q")
        assert terminal.await_end() == 0 and terminal.is_as_before()


def test_a_password_is_asked_for(proxy: Pgproxy) -> None:
    with Terminal(proxy.port, "--once", PGPASSWORD="", NO_COLOR="1") as terminal:
        limit = time.monotonic() + SECONDS
        while "Password: " not in terminal.text and time.monotonic() < limit:
            terminal._read(0.1)
        terminal.press(PASSWORDS["other"].encode() + b"\n")
        assert terminal.await_end() == 0
        assert "active" in terminal.text and PASSWORDS["other"] not in terminal.text
        assert not re.search(r"\x1b\[[0-9;]*3[0-7]", terminal.text), "NO_COLOR"


class Lines:
    """A `pgproxy top --json`, line by line."""

    def __init__(self, port: int) -> None:
        self.process = subprocess.Popen(
            [PROGRAM, "top", *ARGUMENTS, "-p", str(port), "--json"],
            env=environ(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def next(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        return dict(json.loads(self.process.stdout.readline()))

    def until(self, key: str) -> dict[str, Any]:
        limit = time.monotonic() + 2 * SECONDS
        while time.monotonic() < limit:
            seen = self.next()
            if key in seen:
                return seen
        raise AssertionError(f"no {key}")


def test_a_console_that_goes_and_comes_again(pgproxy: PgproxyFactory) -> None:
    proxy = pgproxy(proxy={"stats_users": ["other"]})
    config = (proxy.directory / "pgproxy.toml").read_text()
    lines = Lines(proxy.port)
    try:
        with Terminal(proxy.port) as terminal:
            terminal.await_frame("active")
            assert lines.next()["rates"] is None and lines.next()["rates"] is not None
            # Another process takes over: they go with it, and don't keep the old one.
            proxy.restart()
            assert proxy.predecessors[0].wait(20) == 0
            terminal.await_frame("active")
            # Of several workers each says that its supervisor is gone.
            proxy.expect_errors()
            proxy.kill()
            lost = lines.until("lost")
            assert lost["again_in"] == 1.0 and lost["lost"]
            frame = terminal.await_frame("Lost, tries again every")
            assert "Rates" not in "\n".join(frame) and "Servers" in "\n".join(frame)
            pgproxy(config=config, port=proxy.port)
            assert lines.until("rates")["rates"] is None
            terminal.await_frame("active[^/]*transactions/s")
            terminal.press(b"q")
            assert terminal.await_end() == 0 and terminal.is_as_before()
            assert "Traceback" not in terminal.text + proxy.text()
    finally:
        lines.process.send_signal(signal.SIGINT)
        _, said = lines.process.communicate(timeout=20)
    assert (lines.process.returncode, said) == (0, "")


def test_it_sees_the_last_clients_off(pgproxy: PgproxyFactory) -> None:
    """Nobody else answers: so it stays with the one that is leaving, and is not waited for."""
    proxy = pgproxy(proxy={"stats_users": ["other"], "admin_users": ["boss"]})
    lines = Lines(proxy.port)
    try:
        lines.until("rates")
        with proxy.connect() as client:
            with proxy.connect(user="boss", dbname="pgproxy", autocommit=True) as console:
                console.execute("shutdown wait_for_clients")
            while (seen := lines.until("rates"))["state"] != "shutting_down":
                pass
            assert lines.until("rates")["rates"] is not None and seen["clients"]["all"] >= 1
            client.execute("select 1")
        assert lines.until("lost")["again_in"] == 1.0
        assert proxy.process.wait(20) in (0, -signal.SIGTERM)
        proxy.begin_to_stop()
    finally:
        lines.process.send_signal(signal.SIGINT)
        lines.process.communicate(timeout=20)


def test_who_has_read_enough(proxy: Pgproxy) -> None:
    lines = Lines(proxy.port)
    lines.next()
    assert lines.process.stdout is not None and lines.process.stderr is not None
    lines.process.stdout.close()
    assert lines.process.wait(20) == 0
    assert lines.process.stderr.read() == ""
    lines.process.stderr.close()
