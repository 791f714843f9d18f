"""Child processes: as whom they run, what they see, how they end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pgproxy.demo.process import (
    Account,
    DemoError,
    can_enter,
    check_ours,
    end,
    environment,
    run,
    server_account,
    spawn,
    tail,
    temporary_directory,
    wait_until,
)


def test_only_root_runs_servers_as_somebody_else() -> None:
    account = server_account()
    assert (account is None) == (os.geteuid() != 0)
    if account is not None:
        assert account.uid != 0


def test_libpq_s_variables_do_not_reach_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLMODE", "disable")
    monkeypatch.setenv("PGPROXY_KEPT", "yes")
    seen = environment({"LC_ALL": "C"})
    assert "PGSSLMODE" not in seen
    assert seen["PGPROXY_KEPT"] == "yes"
    assert seen["LC_ALL"] == "C"


def test_a_short_command_runs_as_the_account() -> None:
    account = server_account()
    answer = run(["id", "-u"], account)
    assert int(answer.stdout) == (account.uid if account else os.geteuid())


def test_a_long_command_runs_as_the_account_without_groups(tmp_path: Path) -> None:
    account = server_account()
    log = tmp_path / "log"
    assert spawn(["/usr/bin/id", "-G"], log=log, account=account).wait(10) == 0
    if account is not None:
        assert log.read_text().split() == [str(account.gid)]


def test_a_program_that_is_not_there_is_said_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert spawn(["/no/such/program"], log=log).wait(10) == 1
    assert "cannot run /no/such/program: No such file or directory" in tail(log)


_PARENT = """
import sys, time
from pathlib import Path
from pgproxy.demo.process import spawn
print(spawn(["/bin/sleep", "60"], log=Path(sys.argv[1])).pid, flush=True)
time.sleep(60)
"""


def test_a_child_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT, tmp_path / "log"], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = Path("/proc", parent.stdout.readline().strip())
        assert wait_until(lambda: (child / "comm").read_text() == "sleep\n", 10)
        parent.kill()
    assert wait_until(lambda: not child.exists(), 10)


def test_one_that_ignores_the_signal_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = spawn(["/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"], log=log)
    assert wait_until(lambda: "ready" in tail(log), 10)
    assert end(process, signal.SIGTERM, 0.2) == -signal.SIGKILL
    assert end(process, signal.SIGTERM, 0.2) == -signal.SIGKILL


def test_the_tail_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert "no log" in tail(log)
    log.touch()
    assert "empty" in tail(log)
    log.write_bytes(b"".join(b"%d\xff\n" % number for number in range(100)))
    assert tail(log, 2) == "    98\ufffd\n    99\ufffd"


def test_a_temporary_directory_can_be_entered_by_the_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = server_account()
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.setattr("tempfile.tempdir", str(closed))
    directory = temporary_directory("pgproxy-test-", account)
    try:
        assert can_enter(directory, account)
        assert len(str(directory)) < 80
    finally:
        directory.rmdir()


def test_a_planted_directory_is_refused(tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    ours.mkdir(mode=0o755)
    check_ours(ours)
    link = tmp_path / "link"
    link.symlink_to(ours)
    loose = tmp_path / "loose"
    loose.mkdir()
    loose.chmod(0o777)
    planted = [link, loose]
    if os.geteuid() == 0:
        theirs = tmp_path / "theirs"
        theirs.mkdir()
        os.chown(theirs, 65534, 65534)
        planted.append(theirs)
    for path in planted:
        with pytest.raises(DemoError, match=f"{path} was not made by this user"):
            check_ours(path)


def test_an_account_may_be_refused_a_directory(tmp_path: Path) -> None:
    account = server_account()
    if account is None:
        pytest.skip("only root can ask for another user")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    assert can_enter(closed, None)
    assert not can_enter(closed, Account(account.name, account.uid, account.gid))
