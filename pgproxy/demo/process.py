"""Child processes that never outlive us: dropping root, dying with the parent, ending in time."""

import os
import pwd
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import attrs

_LAUNCHER = Path(__file__).with_name("launch.py")
_SHORT = 60  # a unix socket's path has 107 bytes at most: what a directory for one may use of them


class DemoError(Exception):
    """What went wrong with the demonstration, in words for its user: what it is and what would help."""


@attrs.frozen
class Account:
    """The operating system's user that PostgreSQL runs as where we are root: it refuses to be root."""

    name: str
    uid: int
    gid: int


def server_account() -> Account | None:
    """Say whom a server has to run as: None for ourselves; where we are root, `postgres`, else `nobody`."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise DemoError(
        "PostgreSQL refuses to run as root, and this machine has neither a user postgres nor nobody"
    )


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Build a child's environment: ours less what libpq reads (PGHOST, PGSSLMODE, ...), then `extra`."""
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PG") or name.startswith("PGPROXY_")
    }
    return ours | dict(extra or {})


def run(argv: Sequence[str | Path], account: Account | None) -> subprocess.CompletedProcess[str]:
    """
    Run a short command to its end as `account`, in "/", its standard error mixed into its output.

    Raises OSError where that user can't execute it; a failing exit status is the caller's to read.
    """
    return subprocess.run(
        [str(word) for word in argv],
        cwd="/",
        env=environment({"LC_ALL": "C"}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        timeout=120,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )


def spawn(
    argv: Sequence[str | Path],
    *,
    log: Path,
    account: Account | None = None,
    death_signal: signal.Signals = signal.SIGTERM,
    cwd: Path | str = "/",
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """
    Start a long-running program whose output is appended to `log`, and that gets `death_signal` when we end.

    That holds for kill -9 too. It is the end of the *thread* that starts the program which counts (prctl(2)):
    call this from one that lives as long as the program shall. The program has a session of its own, so that
    Ctrl-C on a terminal reaches us alone and we choose the order in which things end.
    """
    drop = (account.uid, account.gid) if account else (-1, -1)
    numbers = [os.getpid(), int(death_signal), *drop]
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(_LAUNCHER), *map(str, numbers), *map(str, argv)],
            cwd=cwd,
            env=environment(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


class Endable(Protocol):
    """A process that can be ended; subprocess.Popen is one."""

    def poll(self) -> int | None:
        """Give the exit status if it has ended."""

    def send_signal(self, sig: int, /) -> None:
        """Send it a signal."""

    def kill(self) -> None:
        """End it at once."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises subprocess.TimeoutExpired."""


def end(process: Endable, how: signal.Signals, seconds: float) -> int:
    """Send `how`, wait so many seconds, then kill; returns the exit status (negative: a signal's)."""
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def wait_until(true: Callable[[], bool], seconds: float) -> bool:
    """Ask every 20 ms, for so many seconds at most; returns whether it came true."""
    limit = time.monotonic() + seconds
    while not true():
        if time.monotonic() > limit:
            return False
        time.sleep(0.02)
    return True


def children(pid: int) -> list[int]:
    """List the processes that a process has started itself (proc_pid_task(5)); none where it has ended."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def tail(log: Path, lines: int = 15) -> str:
    """Return the last lines of a log, indented, for an error message."""
    try:
        text = log.read_text(errors="replace").splitlines()[-lines:]
    except OSError as error:
        return f"    (no log: {error})"
    return "\n".join(f"    {line}" for line in text) or "    (the log is empty)"


def can_enter(directory: Path, account: Account | None) -> bool:
    """Say whether `account` reaches what lies in a directory; root's home is 0700 in many places."""
    return run(["test", "-x", directory], account).returncode == 0


def temporary_directory(prefix: str, account: Account | None) -> Path:
    """Make a directory of ours with a short path, in which `account` can be given things."""
    for base in (Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")):
        if len(os.fsencode(base)) < _SHORT and can_enter(base, account):
            directory = Path(tempfile.mkdtemp(prefix=prefix, dir=base))
            directory.chmod(0o755 if account else 0o700)
            return directory
    who = f"the user {account.name}" if account else "this user"
    raise DemoError(f"{who} can enter neither {tempfile.gettempdir()} nor /tmp, or their paths are too long")


def make_directory(path: Path, account: Account | None) -> None:
    """Make a directory that only `account` can look into."""
    path.mkdir(mode=0o700)
    if account is not None:
        os.chown(path, account.uid, account.gid)


def check_ours(path: Path) -> None:
    """
    Make sure that a directory at a well-known path of /var/tmp was made by us and can't be changed by others.

    Raises DemoError where somebody else made it, or it is a link, or others may write to it.
    """
    status = path.lstat()
    if not path.is_dir() or path.is_symlink() or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise DemoError(f"{path} was not made by this user: look what it is, and remove it")
