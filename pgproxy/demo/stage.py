"""The demonstration's directory: its lock, PostgreSQL's data, and what pgproxy reads."""

import fcntl
import hashlib
import os
from pathlib import Path
from typing import IO

import attrs

from pgproxy.demo.binaries import Binaries
from pgproxy.demo.postgres import Postgres
from pgproxy.demo.process import Account, DemoError, can_enter, check_ours

USER = PASSWORD = DATABASE = "demo"

_KEPT = Path("/var/tmp")
_CONFIG = """\
# Written anew by each start of the demonstration.
[proxy]
listen = "127.0.0.1:{port}"
pool_mode = "session"
pool_size = 20
auth = "scram-sha-256"
users_file = "users.txt"
admin_users = ["{user}"]

[targets.main]
server = "127.0.0.1:{server_port}"
"""
_PAGE = """
[http]
listen = "127.0.0.1:{port}"
"""


@attrs.frozen
class Stage:
    """Where a demonstration keeps its things, locked against a second one as long as this object lives."""

    directory: Path
    server_directory: Path
    _lock: IO[str]

    @property
    def config(self) -> Path:
        """The configuration that pgproxy is started with."""
        return self.directory / "pgproxy.toml"

    @property
    def proxy_log(self) -> Path:
        """What pgproxy has said since this start."""
        return self.directory / "pgproxy.log"


def open_stage(directory: Path, account: Account | None) -> Stage:
    """
    Make or open the demonstration's directory and lock it.

    Raises DemoError where it belongs to another user or another demonstration runs in it.
    """
    directory = directory.absolute()
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        lock = (directory / "lock").open("a")
    except OSError as error:
        raise DemoError(
            f"cannot write to {directory} ({error.strerror}). If another user has run the demonstration here,"
            f" remove it as that user (rm -r {directory}) or take another directory: make run DIR=/tmp/demo"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise DemoError(
            f"another demonstration runs in {directory}: stop it, or take another directory and port: "
            "make run PORT=7000 DIR=/tmp/demo"
        ) from error
    server_directory = _server_directory(directory, account)
    server_directory.mkdir(mode=0o755, exist_ok=True)
    return Stage(directory, server_directory, lock)


def check_data(stage: Stage, server: Postgres, binaries: Binaries, account: Account | None) -> None:
    """Raise DemoError where the data is not for this user and this version of PostgreSQL."""
    if not server.data.exists():
        return
    remedy = f"Remove the demonstration's data and start again: rm -r {stage.server_directory}"
    if server.data.stat().st_uid != (account.uid if account else os.geteuid()):
        raise DemoError(f"{server.data} was made by another user. {remedy}")
    made_by = (server.data / "PG_VERSION").read_text().strip()
    if made_by != str(binaries.major):
        raise DemoError(f"{server.data} was made by PostgreSQL {made_by}, this is {binaries.major}. {remedy}")


def add_user(server: Postgres) -> None:
    """Make the demonstration's user and database, where they aren't there yet."""
    if not server.execute(f"select 1 from pg_roles where rolname = '{USER}'"):
        server.execute(f"create role {USER} login password '{PASSWORD}'")
    if not server.execute(f"select 1 from pg_database where datname = '{DATABASE}'"):
        server.execute(f"create database {DATABASE} owner {USER}")


def write_config(
    stage: Stage, port: int, server_port: int, page_port: int | None = None, more: str = ""
) -> None:
    """
    Write the users file and the configuration for pgproxy, and begin a new log.

    `page_port` is where the status page is served, if it is; `more` goes behind the configuration.
    """
    users = stage.directory / "users.txt"
    users.touch(mode=0o600)
    users.write_text(f'"{USER}" "{PASSWORD}"\n')
    page = _PAGE.format(port=page_port) if page_port is not None else ""
    stage.config.write_text(_CONFIG.format(port=port, server_port=server_port, user=USER) + page + more)
    stage.proxy_log.write_bytes(b"")


def _server_directory(directory: Path, account: Account | None) -> Path:
    """Choose where PostgreSQL's files go: to /var/tmp where its user can't reach `directory`."""
    if can_enter(directory, account):
        return directory / "postgresql"
    name = hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]
    kept = _KEPT / f"pgproxy-demo-{os.geteuid()}-{name}"
    if os.path.lexists(kept):
        check_ours(kept)
    return kept
