"""
pgproxy as its users run it: `twistd -n pgproxy`, a process of its own with a configuration of its own.

It is forked from an interpreter that has imported it already (`tests.nursery`).
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest
from psycopg.rows import TupleRow

from pgproxy.demo.ports import free_port, is_listening
from pgproxy.demo.postgres import url
from pgproxy.demo.process import end, environment, tail, wait_until
from tests.fix_postgres import PASSWORDS
from tests.nursery import Child, nursery

Toml = str | int | float | bool | list[str]

WORKERS = int(os.environ.get("PGPROXY_TEST_WORKERS", "1"))
"""
Processes of each pgproxy that says nothing of it. With several, a server serves only clients of one of them:
tests that count on the same server for all clients leave that out, and those that are about nothing else are
marked `one_process`, with the reason.
"""
_START_SECONDS = 20.0
_STOP_SECONDS = 15.0
_EVENT_SECONDS = 20.0
_ERRORS = {"error", "critical"}
_TAKEN = "Address already in use"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what is about one process, where there are to be several."""
    for item in items:
        mark = item.get_closest_marker("one_process")
        if mark is not None and WORKERS > 1:
            item.add_marker(pytest.mark.skip(reason=f"one process: {mark.args[0]}"))


def share(limit: int) -> int:
    """Give what each worker has of a limit that is divided among them."""
    return -(-limit // WORKERS)


class HasPort(Protocol):
    """A server on 127.0.0.1: `Postgres`, `TlsPostgres`, a stand-in."""

    @property
    def port(self) -> int: ...


class PgproxyFactory(Protocol):
    """Starts pgproxy, see `pgproxy`."""

    def __call__(
        self,
        *,
        config: str | None = None,
        port: int | None = None,
        server: HasPort | None = None,
        pool_mode: str = "transaction",
        pool_size: int = 20,
        auth: str = "scram-sha-256",
        users: Mapping[str, str] | None = None,
        proxy: Mapping[str, Toml] | None = None,
        target: Mapping[str, Toml] | None = None,
        extra: str = "",
        env: Mapping[str, str] | None = None,
    ) -> "Pgproxy": ...


class NotOurChild:
    """A process that another than ours has started; its exit status is not known."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def poll(self) -> int | None:
        """Give 0 if it has ended."""
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return 0
        return 0 if state in "ZX" else None

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it is there."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended. Raises subprocess.TimeoutExpired."""
        if not wait_until(lambda: self.poll() is not None, _EVENT_SECONDS if timeout is None else timeout):
            raise subprocess.TimeoutExpired(str(self.pid), timeout or _EVENT_SECONDS)
        return 0


Process = Child | NotOurChild


class Beaten(Exception):
    """Somebody else was faster to listen on a port."""


class Pgproxy:
    """One running pgproxy. What went wrong with it fails the test at its end (`check`)."""

    def __init__(
        self,
        directory: Path,
        config: str,
        users: Mapping[str, str],
        port: int,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.port = port
        self.log_file = directory / "pgproxy.log"
        self._log_read = 0
        self._events: list[dict[str, Any]] = []
        self._errors_expected = False
        self._stopped = False
        self._told_to_stop = False
        self.write_users(users)
        self.write_config(config)
        twistd = Path(sys.executable).with_name("twistd")
        command = [twistd, "--nodaemon", "--pidfile=", "pgproxy", "--config", directory / "pgproxy.toml"]
        whole = environment(env)
        self.predecessors: list[Process] = []
        """Those that others have taken over from; they end when their clients have gone."""
        self.process: Process = nursery(whole.get("PGPROXY_PURE")).start(
            [str(word) for word in command], self.log_file, directory, whole, _workers(config)
        )

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def await_start(self) -> None:
        """
        Wait until it listens; fails the test with the end of its log where it doesn't.

        Raises `Beaten` where somebody else has taken the port meanwhile.
        """
        limit = time.monotonic() + _START_SECONDS
        # That somebody listens is not enough: it might be who was faster.
        while not (is_listening(self.port) and "started" in self.text()):
            if self.process.poll() is not None:
                self._stopped = True
                if _TAKEN in self.text():
                    raise Beaten(self.port)
                pytest.fail(f"pgproxy ended with {self.process.poll()}:\n{tail(self.log_file, 40)}")
            if time.monotonic() > limit:
                pytest.fail(f"pgproxy does not listen on {self.port}:\n{tail(self.log_file, 40)}")
            time.sleep(0.02)
        if WORKERS > 1:
            # The supervisor listens before its workers are there to accept.
            self.await_event("started")

    def dsn(self, user: str = "app", password: str | None = None, dbname: str = "app", **options: str) -> str:
        """Build the URL of a login through it; the known users' passwords need not be said."""
        return url(
            self.port, user, PASSWORDS.get(user, "") if password is None else password, dbname, **options
        )

    def connect(self, **parameters: Any) -> psycopg.Connection[TupleRow]:
        """Connect through it with psycopg, as user app to database app where not said otherwise."""
        user = parameters.get("user", "app")
        defaults: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": self.port,
            "user": user,
            "password": PASSWORDS.get(user, ""),
            "dbname": "app",
            "connect_timeout": 10,
        }
        return psycopg.connect(**(defaults | parameters))

    def write_users(self, users: Mapping[str, str]) -> None:
        """Write the users file: names and secrets, these as they shall stand there."""
        lines = [f"{_userlist(name)} {_userlist(secret)}\n" for name, secret in users.items()]
        path = self.directory / "users.txt"
        path.touch(mode=0o600)
        path.write_text("".join(lines))

    def write_config(self, config: str) -> None:
        """Write the configuration; `reload` makes it hold."""
        (self.directory / "pgproxy.toml").write_text(config)

    def reload(self) -> None:
        """Tell it to read its configuration again (SIGHUP). It does so soon, not at once."""
        self.process.send_signal(signal.SIGHUP)

    def restart(self) -> None:
        """Have another process take over (SIGUSR2), which is the one that is meant from then on."""
        self.await_event("started")
        before = sum(event["event"] == "successor_serves" for event in self.log())
        self.process.send_signal(signal.SIGUSR2)
        limit = time.monotonic() + _EVENT_SECONDS
        while sum(event["event"] == "successor_serves" for event in self.log()) == before:
            if time.monotonic() > limit:
                pytest.fail(f"no successor in {_EVENT_SECONDS:.0f} s:\n{tail(self.log_file, 40)}")
            time.sleep(0.02)
        started = [event["successor"] for event in self.log() if event["event"] == "restarting"]
        self.predecessors.append(self.process)
        self.process = NotOurChild(started[-1])

    def text(self) -> str:
        """Return all that it has said so far."""
        return self.log_file.read_text(errors="replace")

    def log(self) -> list[dict[str, Any]]:
        """Return its structured log lines; what was read before isn't read again: many wait by this."""
        with self.log_file.open("rb") as log:
            log.seek(self._log_read)
            new, end_of_line, _rest = log.read().rpartition(b"\n")
        self._log_read += len(new + end_of_line)
        self._events += [json.loads(line) for line in new.split(b"\n") if line.startswith(b"{")]
        return list(self._events)

    def await_event(self, name: str, **values: object) -> dict[str, Any]:
        """Return the first log line of an event that has these values, once it is there."""
        limit = time.monotonic() + _EVENT_SECONDS
        while time.monotonic() < limit:
            for event in self.log():
                if event["event"] == name and values.items() <= event.items():
                    return event
            time.sleep(0.02)
        pytest.fail(f"no event {name} {values} in {_EVENT_SECONDS:.0f} s:\n{tail(self.log_file, 40)}")

    def await_everywhere(self, name: str, **values: object) -> None:
        """Wait for an event in each worker, where there are several: each finds out for itself."""
        for worker in range(1, WORKERS + 1):
            self.await_event(name, **(values | {"worker": worker} if WORKERS > 1 else values))

    def closings(self) -> list[str]:
        """
        Return why servers were closed so far.

        With several workers a server that another of them needs is closed here and opened there, whatever the
        test is about: that is left out.
        """
        reasons = [event["reason"] for event in self.log() if event["event"] == "server_closed"]
        return reasons if WORKERS == 1 else [reason for reason in reasons if reason != "needed_elsewhere"]

    def expect_errors(self) -> None:
        """Say that errors in the log are what this test is about."""
        self._errors_expected = True

    def begin_to_stop(self) -> None:
        """Tell it to end in order, and don't wait."""
        self._told_to_stop = True
        self.process.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        """End it in order (SIGTERM), or by force where it takes too long; returns the exit status."""
        crashed = not self._stopped and not self._told_to_stop and self.process.poll() is not None
        self._stopped = True
        for process in self.predecessors:
            end(process, signal.SIGTERM, _STOP_SECONDS)
        status = end(self.process, signal.SIGTERM, _STOP_SECONDS)
        if crashed:
            pytest.fail(f"pgproxy has crashed (exit status {status}):\n{tail(self.log_file, 40)}")
        if status == -signal.SIGKILL:
            pytest.fail(f"pgproxy didn't stop within {_STOP_SECONDS:.0f} s:\n{tail(self.log_file, 40)}")
        return status

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self._stopped = True
        self.process.kill()
        self.process.wait()

    def check(self) -> None:
        """Stop it where it still runs, and fail the test where it crashed or its log tells of an error."""
        if not self._stopped:
            self.stop()
        if not self._errors_expected:
            if "Traceback (most recent call last)" in self.text():
                pytest.fail(f"pgproxy's log has a traceback:\n{tail(self.log_file, 60)}")
            errors = [event for event in self.log() if event.get("level") in _ERRORS]
            if errors:
                pytest.fail(f"pgproxy's log has errors: {errors}")


@pytest.fixture
def pgproxy(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PgproxyFactory]:
    """What `starting` gives, for one test."""
    yield from starting(request, tmp_path_factory)


@pytest.fixture(scope="module")
def pgproxy_of_module(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PgproxyFactory]:
    """
    What `starting` gives, for all tests of a module: each of them must leave it as it was.

    Who asks for one like one that was started before gets that: most of what a short test costs is the start.
    """
    for start in starting(request, tmp_path_factory):
        known: dict[str, Pgproxy] = {}

        def alike(
            start: PgproxyFactory = start, known: dict[str, Pgproxy] = known, **options: Any
        ) -> Pgproxy:
            key = repr(sorted(options.items()))
            if key not in known or known[key].process.poll() is not None:
                known[key] = start(**options)
            return known[key]

        yield alike


def starting(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PgproxyFactory]:
    """
    A function that starts pgproxy: `run = pgproxy(pool_size=1)`, before `postgres` where no server is named.

    `proxy` and `target` are more options of those two tables, `extra` is more TOML behind them; `config`
    replaces all of it (and comes with the `port` that it says). `env` is added to its environment. What was
    started is stopped in the end, and checked.
    """
    running: list[Pgproxy] = []

    def start(
        *,
        config: str | None = None,
        port: int | None = None,
        server: HasPort | None = None,
        pool_mode: str = "transaction",
        pool_size: int = 20,
        auth: str = "scram-sha-256",
        users: Mapping[str, str] | None = None,
        proxy: Mapping[str, Toml] | None = None,
        target: Mapping[str, Toml] | None = None,
        extra: str = "",
        env: Mapping[str, str] | None = None,
    ) -> Pgproxy:
        def config_of(port: int) -> str:
            if config is not None:
                return config
            return toml(
                proxy={
                    "listen": f"127.0.0.1:{port}",
                    "pool_mode": pool_mode,
                    "pool_size": pool_size,
                    "auth": auth,
                    "users_file": "users.txt",
                    **(proxy or {}),
                },
                target={
                    "server": f"127.0.0.1:{(server or request.getfixturevalue('postgres')).port}",
                    **(target or {}),
                },
                extra=extra,
            )

        known = PASSWORDS if users is None else users
        while True:
            chosen = port or free_port()
            directory = tmp_path_factory.mktemp("pgproxy")
            run = Pgproxy(directory, config_of(chosen), known, chosen, env)
            running.append(run)
            try:
                run.await_start()
            except Beaten:
                assert port is None, run.text()
                running.remove(run)
            else:
                return run

    yield start
    # The later ones are stopped even where an earlier one fails the test.
    try:
        for run in running:
            run.check()
    finally:
        for run in running:
            for process in (*run.predecessors, run.process):
                end(process, signal.SIGKILL, 1.0)


def toml(proxy: Mapping[str, Toml], target: Mapping[str, Toml], extra: str = "") -> str:
    """Write a configuration with the tables [proxy] and [targets.main]."""
    if WORKERS > 1:
        proxy = {"workers": WORKERS, **proxy}
    tables = {"[proxy]": proxy, "[targets.main]": target}
    lines = []
    for header, options in tables.items():
        # JSON's strings, numbers, booleans and lists of them are TOML's, too.
        lines += [header, *(f"{name} = {json.dumps(value)}" for name, value in options.items()), ""]
    return "\n".join(lines) + extra


def _workers(config: str) -> int:
    """Give how many workers a configuration says, if it says a number."""
    said = re.search(r"^workers = (\d+)$", config, re.MULTILINE)
    several = int(said[1]) if said else 1
    return several if several > 1 else 0


def _userlist(word: str) -> str:
    """Quote a word of a users file: a quote in it is doubled."""
    return '"' + word.replace('"', '""') + '"'
