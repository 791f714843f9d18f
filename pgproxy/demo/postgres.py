"""A PostgreSQL server of our own: made, started, stopped, killed, paused, and gone with its maker."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode

import psycopg
from psycopg.rows import TupleRow

from pgproxy.demo.binaries import Binaries
from pgproxy.demo.conf import LOCAL_HBA, ServerTls, Setting, write_conf
from pgproxy.demo.ports import free_port
from pgproxy.demo.process import (
    Account,
    DemoError,
    children,
    end,
    make_directory,
    run,
    spawn,
    tail,
    temporary_directory,
    wait_until,
)

_START_SECONDS = 30.0
_STOP_SECONDS = 15.0
_TAKEN = b"Address already in use"


class Postgres:
    """
    One server with its own data directory, on a port of a loopback address and a unix socket of its own.

    As a context manager it is started, and closed at the end. `directory` keeps the data where given, else a
    temporary one goes with the server. It never outlives the thread that started it, whatever ends that (see
    `process.spawn`). `settings` and `hba` may be changed; they hold from the next `start` or `reload`.
    """

    def __init__(
        self,
        binaries: Binaries,
        account: Account | None,
        *,
        directory: Path | None = None,
        settings: Mapping[str, Setting] | None = None,
        hba: Sequence[str] = LOCAL_HBA,
        tls: ServerTls | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        if tls is not None and not binaries.has_openssl:
            raise DemoError(f"PostgreSQL in {binaries.bindir} was built without OpenSSL")
        self.binaries = binaries
        self.settings = dict(settings or {})
        self.hba = list(hba)
        self.tls = tls
        self.address = address
        self.port = 0
        self._account = account
        self._scratch = temporary_directory("pgproxy-pg-", account)
        self._files = self._scratch if directory is None else directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        """The data directory."""
        return self._files / "data"

    @property
    def log(self) -> Path:
        """The file that the server's messages go to."""
        return self._files / "postgresql.log"

    @property
    def socket_directory(self) -> Path:
        """The directory of the unix socket: what libpq calls `host` then."""
        return self._scratch / "socket"

    @property
    def pid(self) -> int:
        """The postmaster's process id. Raises DemoError where it isn't running."""
        return self._running().pid

    def exit_status(self) -> int | None:
        """Return how the server ended by itself (negative: the signal it died of); None where it didn't."""
        return self._process.poll() if self._process else None

    def initialise(self) -> None:
        """Make the data directory, in one step or not at all. Raises DemoError with what initdb said."""
        fresh = self._files / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        make_directory(fresh, self._account)
        answer = run(
            [
                self.binaries.bindir / "initdb",
                *("--pgdata", fresh, "--username", "postgres", "--auth", "reject"),
                *("--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions"),
            ],
            self._account,
        )
        if answer.returncode != 0:
            raise DemoError(f"initdb failed:\n{answer.stdout}")
        fresh.rename(self.data)

    def start(self) -> None:
        """
        Start the server and wait until it takes connections; after a stop or a kill, on the same port again.

        Raises DemoError with the end of the log where it doesn't come up.
        """
        if not self.data.exists():
            self.initialise()
        if not self.socket_directory.exists():
            make_directory(self.socket_directory, self._account)
        self._await_predecessor()
        chosen = self.port
        for _ in range(1 if chosen else 5):
            self.port = chosen or free_port(self.address)
            log_size = self.log.stat().st_size if self.log.exists() else 0
            if self._launch():
                return
            with self.log.open("rb") as log:
                log.seek(log_size)
                if _TAKEN not in log.read():
                    break
        self.port = chosen
        raise DemoError(f"PostgreSQL did not start; the end of {self.log}:\n{tail(self.log)}")

    def _launch(self) -> bool:
        """Start the postmaster on the chosen port; returns whether it takes connections, else stops it."""
        process = spawn(
            [self.binaries.bindir / "postgres", "-D", self.data, "-c", f"config_file={self._configure()}"],
            log=self.log,
            account=self._account,
            death_signal=signal.SIGINT,  # a fast shutdown
            env={"LC_ALL": "C"},
        )
        self._process = process
        wait_until(lambda: self._is_ready(process) or process.poll() is not None, _START_SECONDS)
        if self._is_ready(process):
            return True
        self.stop()
        return False

    def stop(self, *, immediately: bool = False) -> None:
        """
        Shut down fast, so that transactions under way are rolled back; nothing where it isn't running.

        `immediately` is without a checkpoint: the next start recovers (PostgreSQL manual, 19.5).
        """
        if self._process is not None:
            _signal_all(self._process, signal.SIGCONT)  # a frozen one would not hear the rest
            end(self._process, signal.SIGQUIT if immediately else signal.SIGINT, _STOP_SECONDS)
            self._process = None

    def restart(self) -> None:
        """Stop and start on the same port."""
        self.stop()
        self.start()

    def reload(self) -> None:
        """Take over changed `hba` and `settings`, as far as PostgreSQL can without a restart (SIGHUP)."""
        self._configure()
        self._running().send_signal(signal.SIGHUP)

    def kill(self) -> None:
        """End all of its processes at once, as a power cut would: nobody is told, the next start recovers."""
        process = self._running()
        process.send_signal(signal.SIGSTOP)  # or it would start others while we kill
        backends = children(process.pid)
        for pid in backends:
            _send(pid, signal.SIGKILL)
        process.kill()
        process.wait()
        self._process = None
        wait_until(lambda: not any(_is_postgres(pid) for pid in backends), _STOP_SECONDS)

    def pause(self) -> None:
        """Freeze all of its processes: connections stay open, nothing is answered, as on a dead network."""
        _signal_all(self._running(), signal.SIGSTOP)

    def unpause(self) -> None:
        """Let the frozen processes go on."""
        _signal_all(self._running(), signal.SIGCONT)

    def close(self) -> None:
        """Stop, and remove what is temporary."""
        self.stop()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def dsn(self, user: str, password: str = "", dbname: str = "", **options: str) -> str:
        """Build the URL that psql, psycopg and asyncpg take, over TCP. Options are libpq's (sslmode=...)."""
        return url(self.port, user, password, dbname, address=self.address, **options)

    def connect(self, **parameters: Any) -> psycopg.Connection[TupleRow]:
        """Connect over TCP with psycopg; `parameters` are libpq's (user, password, dbname) and its own."""
        defaults: dict[str, Any] = {"host": self.address, "port": self.port, "connect_timeout": 10}
        return psycopg.connect(**(defaults | parameters))

    def admin(self, dbname: str = "postgres") -> psycopg.Connection[TupleRow]:
        """Connect as the superuser, through the unix socket, in autocommit mode."""
        return psycopg.connect(
            host=str(self.socket_directory),
            port=self.port,
            user="postgres",
            dbname=dbname,
            autocommit=True,
            connect_timeout=10,
        )

    def execute(self, *statements: str, dbname: str = "postgres") -> list[TupleRow]:
        """Run statements as the superuser, each on its own; returns the rows of the last, if it has any."""
        with self.admin(dbname) as connection:
            rows: list[TupleRow] = []
            for statement in statements:
                cursor = connection.execute(statement.encode())
                rows = cursor.fetchall() if cursor.description else []
            return rows

    def _configure(self) -> Path:
        """Write the configuration; returns the path of postgresql.conf."""
        settings: dict[str, Setting] = {
            "listen_addresses": self.address,
            "port": self.port,
            "unix_socket_directories": str(self.socket_directory),
            "password_encryption": "scram-sha-256",
            "log_line_prefix": "%m [%p] %q%u@%d ",
            "timezone": "UTC",
            **self.settings,
        }
        return write_conf(self._files, self._account, settings, self.hba, self.tls)

    def _is_ready(self, process: subprocess.Popen[bytes]) -> bool:
        """Read what the postmaster says in postmaster.pid (pidfile.h: line 1 its pid, line 8 its state)."""
        lines = self._pid_file()
        return len(lines) >= 8 and lines[0] == str(process.pid) and lines[7].strip() == "ready"

    def _pid_file(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return []

    def _await_predecessor(self) -> None:
        """Give the server of a process that was killed a moment ago the time to shut down."""
        lines = self._pid_file()
        if lines and lines[0].isdigit():
            wait_until(lambda: not _is_postgres(int(lines[0])), _STOP_SECONDS)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise DemoError("this PostgreSQL is not running")
        return self._process


def url(
    port: int, user: str, password: str = "", dbname: str = "", *, address: str = "127.0.0.1", **options: str
) -> str:
    """Build a connection URL for a loopback address (PostgreSQL manual, 32.1.1.2)."""
    login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    query = f"?{urlencode(options, quote_via=quote)}" if options else ""
    return f"postgresql://{login}@{address}:{port}/{quote(dbname, safe='')}{query}"


def _signal_all(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal the postmaster, then its children: once it stands still there won't be new ones."""
    process.send_signal(number)
    for pid in children(process.pid):
        _send(pid, number)


def _send(pid: int, number: signal.Signals) -> None:
    """Signal a process that may just have ended."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _is_postgres(pid: int) -> bool:
    """Say whether this process id is a living PostgreSQL's, and not another program's by now."""
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return name == "postgres" and state not in "ZX"
