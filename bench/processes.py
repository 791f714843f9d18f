"""The poolers under test: their configuration, their start and end, and what the kernel counts for them."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Literal

import trustme
from attrs import frozen

from pgproxy.demo.ports import free_port, is_listening
from pgproxy.demo.process import Account, DemoError, end, server_account, spawn, wait_until

PoolMode = Literal["session", "transaction"]

_CPUCLOCK_SCHED = 2
"""Linux: the kind of a CPU clock, in the low bits of its number."""
_START_SECONDS = 20
_STOP_SECONDS = 15

_Configure = Callable[[int, Path, Path, Path], list[str | Path]]
"""Writes a pooler's configuration for a port, certificate, key and users file; returns the command."""


class StartError(Exception):
    """A pooler that can't be measured because it doesn't run; the text is the reason."""


@frozen
class Certificate:
    """The certificate that everything in front of the clients shows, and its authority, as PEM files."""

    chain: Path
    key: Path
    authority: Path


@frozen
class Setup:
    """What a pooler is to be: the same for each of them."""

    pool_mode: PoolMode
    pool_size: int
    workers: int
    """Processes; of use for pgproxy only."""
    most_clients: int
    server_tls: bool
    """Whether the connections to PostgreSQL are in TLS."""
    server_port: int
    user: str
    verifier: str
    """The server's own SCRAM verifier: a pooler then logs in there with what the client's login reveals."""
    certificate: Certificate
    directory: Path
    """Where its files go: a directory of its own."""


class Pooler:
    """A running pooler."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self._process = process
        self.port = port
        self._log = log

    def check(self) -> None:
        """Raise `StartError` where it has ended."""
        status = self._process.poll()
        if status is not None:
            raise StartError(f"ended with status {status}: {_last_words(self._log)}")

    def end(self, how: signal.Signals) -> None:
        """End it now, and wait for that."""
        end(self._process, how, _STOP_SECONDS)

    def cpu_seconds(self) -> float:
        """
        Return the CPU seconds of its threads and workers, user and system. Raises OSError where it has ended.

        It's what proc_pid_stat(5) has in steps of 10 ms, too coarse for a short round; this is the clock that
        clock_getcpuclockid(3) would give, which Python has for threads only.
        """
        return sum(time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED) for pid in self._processes())

    def memory_kib(self) -> int:
        """
        Return the KiB of memory that are its own: its resident anonymous pages (proc_pid_smaps(5)).

        Pages of programs and libraries are left out: whose share they are changes with every process that
        others start. Raises OSError where it has ended.
        """
        return sum(map(_anonymous_kib, self._processes()))

    def _processes(self) -> list[int]:
        """Give the process and its children, by proc_pid_task(5)."""
        own = self._process.pid
        children = Path(f"/proc/{own}/task/{own}/children").read_text()
        return [own, *map(int, children.split())]


def _anonymous_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "Anonymous":
            return int(value.split()[0])
    raise StartError("the kernel doesn't tell its memory")


def make_certificate(directory: Path) -> Certificate:
    """Make an authority and have it sign a certificate for 127.0.0.1."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    certificate = Certificate(directory / "server.crt", directory / "server.key", directory / "ca.crt")
    authority.cert_pem.write_to_path(str(certificate.authority))
    issued.private_key_pem.write_to_path(str(certificate.key))
    for index, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(str(certificate.chain), append=index > 0)
    return certificate


def pgbouncer_program() -> Path | None:
    """Find PgBouncer; Debian keeps it where only root's PATH leads."""
    found = shutil.which("pgbouncer", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin")
    return Path(found) if found else None


@contextmanager
def pgproxy(
    setup: Setup, environment: Sequence[str] = (), options: Sequence[str | Path] = ()
) -> Iterator[Pooler]:
    """Run pgproxy, with variables of the environment and options of twistd. Raises `StartError`."""

    def configure(port: int, chain: Path, key: Path, users: Path) -> list[str | Path]:
        config = setup.directory / "pgproxy.toml"
        config.write_text(f"""\
[proxy]
listen = "127.0.0.1:{port}"
pool_mode = "{setup.pool_mode}"
pool_size = {setup.pool_size}
max_client_connections = {setup.most_clients}
workers = {setup.workers}
log_connections = false
auth = "scram-sha-256"
users_file = "{users}"
[proxy.tls]
mode = "allow"
certificate = "{chain}"
key = "{key}"
[targets.main]
server = "127.0.0.1:{setup.server_port}"
tls = "{_server_tls(setup)}"
""")
        twistd = Path(sys.executable).with_name("twistd")
        command = [twistd, "--nodaemon", "--pidfile=", *options, "pgproxy", "--config", config]
        return ["/usr/bin/env", *environment, *command]

    with _running(setup, configure, account=None) as pooler:
        yield pooler


def pure_pgproxy(setup: Setup) -> AbstractContextManager[Pooler]:
    """Run pgproxy without its compiled twin. Raises `StartError`."""
    return pgproxy(setup, ["PGPROXY_PURE=1"])


def _server_tls(setup: Setup) -> str:
    return "require" if setup.server_tls else "disable"


@contextmanager
def pgbouncer(setup: Setup) -> Iterator[Pooler]:
    """Run PgBouncer. Raises `StartError`."""
    program = pgbouncer_program()
    if program is None:
        raise StartError("not installed (Debian, Ubuntu: apt install pgbouncer)")
    found: Path = program

    def configure(port: int, chain: Path, key: Path, users: Path) -> list[str | Path]:
        config = setup.directory / "pgbouncer.ini"
        config.write_text(f"""\
[databases]
* = host=127.0.0.1 port={setup.server_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
pool_mode = {setup.pool_mode}
default_pool_size = {setup.pool_size}
max_client_conn = {setup.most_clients}
auth_type = scram-sha-256
auth_file = {users}
client_tls_sslmode = allow
client_tls_cert_file = {chain}
client_tls_key_file = {key}
server_tls_sslmode = {_server_tls(setup)}
ignore_startup_parameters = extra_float_digits
log_connections = 0
log_disconnections = 0
""")
        return [found, config]

    with _running(setup, configure, account=_account()) as pooler:
        yield pooler


def _account() -> Account | None:
    """Say whom a program runs as that refuses to be root."""
    try:
        return server_account()
    except DemoError as error:
        raise StartError(str(error)) from error


@contextmanager
def _running(setup: Setup, configure: _Configure, account: Account | None) -> Iterator[Pooler]:
    """Write the files, start the program and wait until it listens; end it afterwards."""
    directory = setup.directory
    directory.mkdir(mode=0o700)
    users = directory / "users.txt"
    users.write_text(f'"{setup.user}" "{setup.verifier}"\n')
    chain = Path(shutil.copy(setup.certificate.chain, directory / "server.crt"))
    key = Path(shutil.copy(setup.certificate.key, directory / "server.key"))
    port = free_port()
    command = configure(port, chain, key, users)
    if account is not None:
        for path in (directory, *directory.iterdir()):
            os.chown(path, account.uid, account.gid)
    log = directory / "log"
    process = spawn(command, log=log, account=account, cwd=directory)
    try:
        pooler = Pooler(process, port, log)
        wait_until(lambda: process.poll() is not None or is_listening(port), _START_SECONDS)
        pooler.check()
        if not is_listening(port):
            raise StartError(f"did not listen within {_START_SECONDS} s: {_last_words(log)}")
        yield pooler
    finally:
        end(process, signal.SIGTERM, _STOP_SECONDS)


def _last_words(log: Path) -> str:
    """Return the last line of a log that says something."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "its log is empty")
