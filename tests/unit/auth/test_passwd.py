"""The tool that sets a user's secret."""

import getpass
import io
import os
import sys
from pathlib import Path

import pytest

from pgproxy import __version__, command, passwd
from pgproxy.auth.secrets import PlainPassword, ScramVerifier, format_secret, md5_hash, scram_verifier
from pgproxy.auth.users import parse_users

VERIFIER = format_secret(scram_verifier("x", b"salt", 4096))
EXAMPLE = '; who may in\n"alice" "one"  # the first\n\n"bob" "two"\n# the end\n'


@pytest.fixture
def users(tmp_path: Path) -> Path:
    return tmp_path / "users.txt"


def give(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def type_in(monkeypatch: pytest.MonkeyPatch, *passwords: str) -> None:
    typed = iter(passwords)
    monkeypatch.setattr(sys, "stdin", type("Terminal", (), {"isatty": lambda self: True})())
    monkeypatch.setattr(getpass, "getpass", lambda prompt: next(typed))


def secret(path: Path, user: str) -> object:
    return parse_users(path.read_text(), str(path))[user]


def test_a_new_file_is_its_owners_alone(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, b"secret\n")
    assert passwd.main([str(users), "alice"]) == 0
    stored = secret(users, "alice")
    assert isinstance(stored, ScramVerifier) and len(stored.salt) == 16
    assert stored == scram_verifier("secret", stored.salt, 4096)
    assert users.stat().st_mode & 0o777 == 0o600
    assert users.read_bytes().endswith(b"\n") and os.listdir(users.parent) == ["users.txt"]


@pytest.mark.parametrize(
    ("method", "stored"), [("md5", md5_hash("alice", "se cret")), ("plain", PlainPassword("se cret"))]
)
@pytest.mark.parametrize("line", [b"se cret\n", b"se cret\r\n", b"se cret", b"se cret\nmore\n"])
def test_methods(
    users: Path, monkeypatch: pytest.MonkeyPatch, method: str, stored: object, line: bytes
) -> None:
    give(monkeypatch, line)
    assert passwd.main([str(users), "alice", "--method", method]) == 0
    assert secret(users, "alice") == stored


def test_iterations(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, b"secret\n")
    assert passwd.main([str(users), "alice", "--iterations", "5000"]) == 0
    stored = secret(users, "alice")
    assert isinstance(stored, ScramVerifier) and stored.iterations == 5000


@pytest.mark.parametrize("count", ["4095", "1000001", "-1", "many"])
def test_iterations_out_of_range(users: Path, count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        passwd.main([str(users), "alice", "--iterations", count])
    assert count in capsys.readouterr().err and not users.exists()


def test_a_verifier_is_stored_as_it_is(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, VERIFIER.encode() + b"\n")
    assert passwd.main([str(users), "alice"]) == 0
    assert users.read_text() == f'"alice" "{VERIFIER}"\n'


def test_everything_else_stays(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users.write_text(EXAMPLE)
    give(monkeypatch, b'n"w\n')
    assert command.main(["passwd", str(users), "alice", "--method", "plain"]) == 0
    assert users.read_text() == EXAMPLE.replace('"one"', '"n""w"')
    assert passwd.main([str(users), "bob", "--delete"]) == 0
    assert users.read_text() == EXAMPLE.replace('"one"', '"n""w"').replace('"bob" "two"\n', "")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", '"new" "pw"\n'),
        ('"a" "b"', '"a" "b"\n"new" "pw"\n'),
        ('"a" "b"\n', '"a" "b"\n"new" "pw"\n'),
        ('"a" "b"\n\n; c', '"a" "b"\n\n; c\n"new" "pw"\n'),
        ('"a" "b"\r\n"new" "x"\r\n', '"a" "b"\r\n"new" "pw"\r\n'),
        ('\ufeff"new" "x"\n', '\ufeff"new" "pw"\n'),
    ],
)
def test_where_an_entry_goes(users: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str) -> None:
    users.write_bytes(before.encode())
    give(monkeypatch, b"pw\n")
    assert passwd.main([str(users), "new", "--method", "plain"]) == 0
    assert users.read_bytes().decode() == after


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_the_mode_is_kept(
    users: Path, monkeypatch: pytest.MonkeyPatch, mode: int, capsys: pytest.CaptureFixture[str]
) -> None:
    users.write_text(EXAMPLE)
    users.chmod(mode)
    give(monkeypatch, b"pw\n")
    assert passwd.main([str(users), "alice"]) == 0
    assert users.stat().st_mode & 0o777 == mode
    assert ("everybody" in capsys.readouterr().err) == bool(mode & 0o004)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away")
def test_the_owner_is_kept(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users.write_text(EXAMPLE)
    os.chown(users, 12345, 23456)
    give(monkeypatch, b"pw\n")
    assert passwd.main([str(users), "alice"]) == 0
    assert (users.stat().st_uid, users.stat().st_gid) == (12345, 23456)


def test_a_link_stays_a_link(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = users.with_name("real.txt")
    real.write_text(EXAMPLE)
    users.symlink_to(real)
    give(monkeypatch, b"pw\n")
    assert passwd.main([str(users), "carol"]) == 0
    assert users.is_symlink() and "carol" in real.read_text()


def test_a_password_is_typed_twice(
    users: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    type_in(monkeypatch, "secret", "secret")
    assert passwd.main([str(users), "alice", "--method", "plain"]) == 0
    assert secret(users, "alice") == PlainPassword("secret")
    type_in(monkeypatch, "secret", "other")
    assert passwd.main([str(users), "alice", "--method", "plain"]) == 1
    assert "not the same; try again" in capsys.readouterr().err
    assert secret(users, "alice") == PlainPassword("secret")


def test_what_is_changed_while_somebody_types_stays(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users.write_text(EXAMPLE)

    def typed(prompt: str) -> str:
        users.write_text(EXAMPLE + '"late" "comer"\n')
        return "secret"

    type_in(monkeypatch)
    monkeypatch.setattr(getpass, "getpass", typed)
    assert passwd.main([str(users), "alice"]) == 0
    assert secret(users, "late") == PlainPassword("comer")


@pytest.mark.parametrize(
    ("content", "arguments", "line", "said"),
    [
        (EXAMPLE, ["alice"], b"\n", "empty"),
        (EXAMPLE, ["alice"], b"", "empty"),
        (EXAMPLE, ["alice"], b"se\xffcret\n", "UTF-8"),
        (EXAMPLE, ["alice"], b"se\0cret\n", "NUL"),
        (EXAMPLE, ["alice"], b"secret" * 20_000, "bytes"),
        (EXAMPLE, ["alice"], b"SCRAM-SHA-256$secret\n", "malformed"),
        (EXAMPLE, [""], b"secret\n", "1 to 128 bytes"),
        (EXAMPLE, ["x" * 129], b"secret\n", "1 to 128 bytes"),
        (EXAMPLE, ["a\nb"], b"secret\n", "line break"),
        (EXAMPLE, ["nobody", "--delete"], b"", "no user 'nobody'"),
        (EXAMPLE + "alice secret\n", ["alice"], b"secret\n", ":6: "),
        (EXAMPLE + "\udcff", ["alice"], b"secret\n", "not UTF-8"),
        (None, ["alice", "--delete"], b"", "not there"),
    ],
)
def test_what_is_refused_changes_nothing(
    users: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: str | None,
    arguments: list[str],
    line: bytes,
    said: str,
) -> None:
    if content is not None:
        users.write_text(content, errors="surrogateescape")
    give(monkeypatch, line)
    assert passwd.main([str(users), *arguments]) == 1
    told = capsys.readouterr().err
    assert said in told and told.startswith("pgproxy passwd: ") and told.count("\n") == 1
    assert "secret" not in told.replace("the secret", "").replace('"secret"', "").replace("a secret", "")
    assert users.exists() == (content is not None)
    if content is not None:
        assert users.read_text(errors="surrogateescape") == content


def test_a_folder_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give(monkeypatch, b"secret\n")
    assert passwd.main([str(tmp_path / "none" / "users.txt"), "alice"]) == 1
    assert str(tmp_path / "none") in capsys.readouterr().err


def test_a_write_that_fails_leaves_the_file(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users.write_text(EXAMPLE)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    give(monkeypatch, b"secret\n")
    assert passwd.main([str(users), "alice"]) == 1
    assert users.read_text() == EXAMPLE and os.listdir(users.parent) == ["users.txt"]


def test_control_c(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(prompt: str) -> str:
        raise KeyboardInterrupt

    type_in(monkeypatch)
    monkeypatch.setattr(getpass, "getpass", interrupted)
    assert passwd.main([str(users), "alice"]) == 1
    assert not users.exists()


def test_the_command_says_its_version_and_its_tools(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in ((["--version"], __version__), (["--help"], "passwd"), (["passwd", "-h"], "USER")):
        with pytest.raises(SystemExit) as ended:
            command.main(arguments)
        assert ended.value.code == 0 and said in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        command.main([])
    assert ended.value.code == 2
