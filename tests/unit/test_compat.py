"""What tests.compat makes of outcomes: which differences there are, which are known, the table."""

import re
from pathlib import Path

import pytest

from pgproxy.demo.process import wait_until
from tests.compat.known import Difference, explanation, read_known
from tests.compat.report import Result, lay_out, unexplained
from tests.compat.shell import CompatError, call
from tests.compat.suite import Outcomes, Route

KNOWN = [Difference("driver", re.compile(r"test_pid\[.*\]"), "the pid is another")]


def result(direct: dict[str, str], pgproxy: dict[str, str]) -> Result:
    outcomes = {Route.DIRECT: Outcomes(direct), Route.PGPROXY: Outcomes(pgproxy)}
    return Result("driver", "1.0", outcomes)


@pytest.mark.parametrize("outcome", ["failed", "error", "skipped", None])
def test_a_test_is_lost_where_it_does_not_pass(outcome: str | None) -> None:
    there = {"test_a": outcome} if outcome else {}
    assert result({"test_a": "passed"}, there).lost == ["test_a"]


@pytest.mark.parametrize("outcome", ["failed", "error", "skipped"])
def test_what_does_not_pass_directly_is_no_difference(outcome: str) -> None:
    assert result({"test_a": outcome}, {"test_a": "failed"}).lost == []


def test_only_what_nobody_explains_is_unexplained() -> None:
    both = dict.fromkeys(("test_pid[1]", "test_pids", "test_b"), "passed")
    found = result(both, {"test_b": "passed"})
    assert unexplained([found], KNOWN) == ["driver: test_pids"]
    assert unexplained([Result("other", outcomes=found.outcomes)], KNOWN) == [
        "other: test_pid[1]",
        "other: test_pids",
    ]


def test_the_report() -> None:
    found = result(
        {"test_pid[1]": "passed", "test_b": "failed", "test_c": "xfailed"},
        {"test_pid[1]": "error", "test_b": "failed", "test_c": "xfailed"},
    )
    report = lay_out([found, Result("rest", left_out="it is not there")], KNOWN, markdown=False)
    lines = report.splitlines()
    assert lines[2].split() == ["driver", "1.0", "1", "1", "1", "0", "2", "1", "1"]
    assert "rest was LEFT OUT: it is not there" in lines
    assert "driver, without pgproxy, too\n- test_b" in report
    assert "driver, through pgproxy only, known: the pid is another\n- test_pid[1]" in report


def test_the_list_is_sound() -> None:
    known = read_known()
    name = "tests/test_connection_async.py::test_broken[asyncio]"
    assert explanation(known, "psycopg", name)
    assert explanation(known, "psycopg", "tests/test_connection.py::test_broken_in_two") is None
    assert {difference.suite for difference in known} <= {"regress", "asyncpg", "psycopg"}


@pytest.mark.parametrize("entry", ["test = 'a'", "suite = 'a'\ntest = '('\nreason = 'b'"])
def test_a_bad_list_is_refused(tmp_path: Path, entry: str) -> None:
    path = tmp_path / "known.toml"
    path.write_text(f"[[difference]]\n{entry}\n")
    with pytest.raises(CompatError):
        read_known(path)


def test_nothing_stays_behind(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = f"sleep 60 & echo $! > {pid}; exit 3"
    assert call(["/bin/sh", "-c", script], log=tmp_path / "log", cwd=tmp_path, limit=10) == 3
    assert wait_until(lambda: _is_gone(pid.read_text().strip()), 5)


def _is_gone(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_what_takes_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(CompatError, match="did not end"):
        call(["/bin/sleep", "60"], log=tmp_path / "log", cwd=tmp_path, limit=0.2)
