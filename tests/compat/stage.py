"""One PostgreSQL, and one pgproxy in front of it."""

import json
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from pgproxy.demo.binaries import Binaries
from pgproxy.demo.conf import FAST_AND_LOOSE, Setting
from pgproxy.demo.ports import free_port, is_listening
from pgproxy.demo.postgres import Postgres
from pgproxy.demo.process import Account, end, spawn, tail, wait_until
from tests.compat.shell import CompatError
from tests.compat.suite import USER

POOL_SIZE = 60
_START_SECONDS = 20
_STOP_SECONDS = 15
_SETTINGS: dict[str, Setting] = {
    **FAST_AND_LOOSE,
    "max_connections": 200,
    "max_prepared_transactions": 10,
    "wal_level": "logical",
    "jit": False,
}
_CONFIG = """\
[proxy]
listen = "127.0.0.1:{port}"
pool_size = {pool_size}
max_client_connections = 2000
session_audit = {session_audit}
users_file = "users.txt"
[proxy.auth_query]
user = "{user}"
database = "template1"
[targets.main]
server = "127.0.0.1:{server_port}"
tls = "disable"
"""


@frozen
class Stage:
    """Both of them, running, and the superuser's password for either."""

    server: Postgres
    port: int
    """The proxy's."""
    password: str
    log: Path
    _process: subprocess.Popen[bytes]

    def check(self) -> list[str]:
        """Say what is wrong with the proxy: that it has died, or what its log has of errors of its own."""
        complaints = []
        status = self._process.poll()
        if status is not None:
            complaints.append(f"pgproxy ended with status {status}; the end of its log:\n{tail(self.log)}")
        text = self.log.read_text(errors="replace")
        tracebacks = text.count("Traceback (most recent call last)")
        errors = [event for line in text.splitlines() if (event := _error(line))]
        if tracebacks or errors:
            complaints.append(
                f"pgproxy's log, {self.log}, has {tracebacks} tracebacks and {len(errors)} errors"
                + (f", the first: {errors[0]}" if errors else "")
            )
        return complaints


@contextmanager
def opened(
    binaries: Binaries, account: Account | None, directory: Path, session_audit: float
) -> Iterator[Stage]:
    """Start both, with the proxy's files in `directory`, and end both. Raises CompatError or DemoError."""
    directory.mkdir(parents=True, exist_ok=True)
    password = secrets.token_urlsafe()
    with Postgres(binaries, account, settings=_SETTINGS) as server:
        server.execute(f"ALTER ROLE {USER} PASSWORD '{password}'")
        port, log = free_port(), directory / "pgproxy.log"
        config, users = directory / "pgproxy.toml", directory / "users.txt"
        users.touch(mode=0o600)
        users.write_text(f'"{USER}" "{password}"\n')
        config.write_text(
            _CONFIG.format(
                port=port,
                pool_size=POOL_SIZE,
                session_audit=session_audit,
                user=USER,
                server_port=server.port,
            )
        )
        log.write_bytes(b"")
        twistd = Path(sys.executable).with_name("twistd")
        command: list[str | Path] = [twistd, "--nodaemon", "--pidfile=", "pgproxy", "--config", config]
        process = spawn(command, log=log, cwd=directory)
        try:
            wait_until(lambda: process.poll() is not None or is_listening(port), _START_SECONDS)
            if process.poll() is not None or not is_listening(port):
                raise CompatError(f"pgproxy did not start; the end of {log}:\n{tail(log)}")
            yield Stage(server, port, password, log, process)
        finally:
            end(process, signal.SIGTERM, _STOP_SECONDS)


def _error(line: str) -> str | None:
    """Return the event of a line of the log where it tells of an error of pgproxy's own."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return str(event.get("event")) if event.get("level") in ("error", "critical") else None
