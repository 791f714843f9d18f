"""`pgproxy check`: the exit status, and what it says to people and to programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pgproxy.command import main

CONFIGS = Path(__file__).parents[1] / "config"


def test_nothing_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(CONFIGS / "valid" / "minimal.toml")]) == 0
    assert capsys.readouterr() == ("ok\n", "")


def test_all_that_is_wrong(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIGS / "invalid")
    assert main(["check", "ranges.toml"]) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", Path("ranges.expected").read_text())


def test_for_programs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIGS / "invalid")
    assert main(["check", "--json", "ranges.toml"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] is False
    assert len(said["problems"]) == len(Path("ranges.expected").read_text().splitlines())
    assert set(said["problems"][0]) == {"source", "path", "wrong", "right"}
    assert main(["check", "--json", str(CONFIGS / "valid" / "minimal.toml")]) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "problems": []}


@pytest.mark.parametrize(
    ("users", "where"),
    [('"app" "x" and more\n', "users.txt: line 1"), ('"a" "b"\n"a" "c"\n', "users.txt: line 2")],
)
def test_the_users_file_is_read_too(
    users: str, where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "users.txt").write_text(users)
    config = tmp_path / "pgproxy.toml"
    config.write_text('[proxy]\nusers_file = "users.txt"\n[targets.main]\nserver = "127.0.0.1:5432"\n')
    assert main(["check", str(config)]) == 1
    assert where in capsys.readouterr().err


def test_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "nowhere.toml")]) == 1
    assert "cannot be read" in capsys.readouterr().err


def test_usage() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["check"])
    assert ended.value.code == 2
