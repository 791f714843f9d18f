"""The twistd face: options, their errors, and the service that comes of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from twisted.application.service import IService
from twisted.internet.testing import MemoryReactorClock
from twisted.python import usage

from pgproxy import __version__
from pgproxy.config import Address, ConfigError
from pgproxy.tap import Options, makeService

TOML = '[proxy]\nusers_file = "users.txt"\npool_size = {size}\n[targets.main]\nserver = "127.0.0.1:5433"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "users.txt").write_text('"app" "secret"\n')
    file = tmp_path / "pgproxy.toml"
    file.write_text(TOML.format(size=5))
    return file


def parsed(*arguments: str) -> Options:
    options = Options()
    options.parseOptions(arguments)
    return options


def refused(*arguments: str) -> str:
    with pytest.raises(usage.UsageError) as caught:
        parsed(*arguments)
    return str(caught.value)


def test_a_file(file: Path) -> None:
    config = parsed("--config", str(file)).config
    assert config.proxy.pool_size == 5
    assert config.targets["main"].server == (Address("127.0.0.1", 5433),)


def test_options_instead_of_a_file(file: Path) -> None:
    config = parsed(
        *("--listen", "127.0.0.1:7000", "--server", "db.example:5432", "--pool-mode", "transaction"),
        *("--pool-size", "3", "--auth", "md5", "--users", str(file.parent / "users.txt")),
    ).config
    assert config.proxy.listen == (Address("127.0.0.1", 7000),)
    assert config.targets["main"].server == (Address("db.example", 5432),)
    assert config.proxy.pool_mode == "transaction"
    assert config.proxy.pool_size == 3
    assert config.proxy.auth == "md5"


def test_the_defaults() -> None:
    config = parsed("--auth", "trust").config
    assert config.proxy.listen == (Address("127.0.0.1", 6432),)
    assert config.targets["main"].server == (Address("127.0.0.1", 5432),)
    assert f"[{config.proxy.pool_mode}]" in str(Options())
    assert f"[{config.proxy.pool_size}]" in str(Options()).replace("\n", " ")


def test_remote_trust() -> None:
    assert "or set --allow-remote-trust" in refused("--auth", "trust", "--listen", "0.0.0.0:6432")
    parsed("--auth", "trust", "--listen", "0.0.0.0:6432", "--allow-remote-trust")


@pytest.mark.parametrize("others", [["--auth", "trust"], ["--allow-remote-trust"], ["--listen", "h:1"]])
def test_a_file_goes_with_no_other_option(file: Path, others: list[str]) -> None:
    assert refused("--config", str(file), *others) == (
        f"{others[0]}: cannot go with --config; write it into {file}"
    )


def test_every_problem_is_told(file: Path) -> None:
    file.write_text(TOML.format(size=0) + "[users.app]\npool_size = 0\n")
    assert refused("--config", str(file)).splitlines() == [
        f"{file}: {path}: 0 is too small; it takes a whole number from 1 to 10000"
        for path in ("proxy.pool_size", "users.app.pool_size")
    ]


def test_the_users_file_is_read_too(file: Path) -> None:
    (file.parent / "users.txt").write_text('"app"\n')
    assert str(file.parent / "users.txt") in refused("--config", str(file))


def test_other_arguments_are_refused() -> None:
    assert refused("--auth", "trust", "more")


def test_check_says_ok(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parsed("--config", str(file), "--check")
    assert caught.value.code == 0
    assert capsys.readouterr().out == "ok\n"


def test_check_says_what_is_wrong(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(TOML.format(size='"many"'))
    with pytest.raises(SystemExit) as caught:
        parsed("--config", str(file), "--check")
    assert caught.value.code == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f'{file}: proxy.pool_size: "many" is not a whole number; it takes')


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parsed("--version")
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"pgproxy {__version__}\n"


def test_load_reads_anew_from_wherever_the_process_has_gone(
    file: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    options = parsed("--config", "pgproxy.toml")
    from_users = parsed("--users", "users.txt")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    file.write_text(TOML.format(size=9))
    assert options.load().proxy.pool_size == 9
    assert options.config.proxy.pool_size == 5
    assert from_users.load().proxy.users_file == file.parent / "users.txt"
    os.remove(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        options.load()


def test_make_service(file: Path) -> None:
    reactor = MemoryReactorClock()
    service = makeService(parsed("--config", str(file)), reactor)
    assert IService.providedBy(service)
    assert reactor.tcpServers == []
