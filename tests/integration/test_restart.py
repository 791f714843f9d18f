"""One process takes over from another: nobody is refused, nothing is lost, and the old one ends."""

from __future__ import annotations

import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path

import psycopg
import pytest

from pgproxy.demo.binaries import Binaries
from pgproxy.demo.ports import free_port
from pgproxy.demo.postgres import Postgres
from pgproxy.demo.process import end, environment, wait_until
from tests.fix_pgproxy import PgproxyFactory
from tests.fix_postgres import PASSWORDS
from tests.raw import Raw, message

OF_BOSS = "select count(*) from pg_stat_activity where usename = 'boss' and backend_type = 'client backend'"

_SECONDS = 40.0
_RATE = 400
"""
Transactions a second: enough for all clients to be at work in every moment, and not all that the machine can.
"""


@pytest.fixture(scope="module")
def pgbench(binaries: Binaries) -> str:
    found = shutil.which("pgbench") or shutil.which("pgbench", path=str(binaries.bindir))
    if found is None:
        pytest.skip("no pgbench here")
    return found


@pytest.fixture(scope="module")
def filled(pgbench: str, postgres: Postgres) -> None:
    where = ["-h", "127.0.0.1", "-p", str(postgres.port), "-U", "boss", "app"]
    environ = environment({"PGPASSWORD": PASSWORDS["boss"]})
    done = subprocess.run(
        [pgbench, "-i", "-q", "-s", "1", *where], env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def boss(port: int) -> Raw:
    raw = Raw(port)
    raw.log_in(user="boss", database="app")
    return raw


class Bench:
    """A pgbench at work."""

    def __init__(self, program: str, port: int, directory: Path, *options: str) -> None:
        # A line for each transaction that is done, written some hundred at a time.
        script = ["-n", "-c", "8", "-j", "1", "-T", "600", "-R", str(_RATE), "-l", *options]
        self._process = subprocess.Popen(
            [program, *script, "-h", "127.0.0.1", "-p", str(port), "-U", "boss", "app"],
            cwd=directory,
            env=environment({"PGSSLMODE": "disable"}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._log = directory / f"pgbench_log.{self._process.pid}"

    def works(self) -> None:
        """Wait until it tells of transactions that were done since the last time."""
        # What it tells of first may have been done before.
        for _ in range(2):
            before = self._told()
            assert wait_until(partial(self._tells_more, before), _SECONDS), "it does nothing any more"

    def _tells_more(self, than: int) -> bool:
        return self._told() > than

    def _told(self) -> int:
        return self._log.stat().st_size if self._log.exists() else 0

    def stop(self) -> None:
        """End it; every client of it has to be there still."""
        assert self._process.poll() is None
        self._process.terminate()
        _out, said = self._process.communicate(timeout=30)
        assert said == ""

    def kill(self) -> None:
        end(self._process, signal.SIGKILL, 1)


@pytest.mark.parametrize(
    ("workers", "options"),
    [
        (1, ["-S", "-M", "simple"]),
        (1, ["-S", "-M", "extended"]),
        (1, ["-S", "-M", "prepared"]),
        (1, ["-S", "-C"]),
        (1, ["-b", "tpcb-like", "-M", "prepared"]),
        (2, ["-S", "-M", "prepared"]),
        (2, ["-S", "-C"]),
    ],
    ids=lambda value: "".join(value) if isinstance(value, list) else str(value),
)
def test_nobody_notices(
    pgproxy: PgproxyFactory,
    postgres: Postgres,
    pgbench: str,
    filled: None,
    tmp_path: Path,
    workers: int,
    options: list[str],
) -> None:
    """Two restarts and two reloads, a server for each client: PQprepare waits for one alone."""
    proxy = pgproxy(server=postgres, auth="trust", proxy={"workers": workers})
    bench = Bench(pgbench, proxy.port, tmp_path, *options)
    try:
        bench.works()
        for _ in range(2):
            proxy.restart()
            bench.works()
            proxy.reload()
            bench.works()
        bench.stop()
    finally:
        bench.kill()
    for process in proxy.predecessors:
        assert process.wait(20) == 0
    with boss(proxy.port) as raw:
        assert raw.value("select 1") == "1"


def test_clients_stay_where_they_are(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(server=postgres, auth="trust")
    with boss(proxy.port) as client:
        client.query("begin")
        proxy.restart()
        (before,) = proxy.predecessors
        with boss(proxy.port) as other:
            assert other.value("select 1") == "1"
        assert client.value("select 2") == "2"
        client.query("commit")
        assert client.value("select 3") == "3"
        assert before.poll() is None
    assert before.wait(20) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_what_the_old_one_does_can_be_cancelled(
    pgproxy: PgproxyFactory, postgres: Postgres, workers: int
) -> None:
    proxy = pgproxy(server=postgres, auth="trust", proxy={"workers": workers})
    with psycopg.connect(proxy.dsn("boss"), autocommit=True) as client:
        client.execute("select 1")
        proxy.restart()
        client.pgconn.send_query(b"select pg_sleep(600) /* restarted */")
        assert wait_until(
            lambda: (
                postgres.execute(
                    "select 1 from pg_stat_activity where query like '%restarted%' and state = 'active' "
                    "and pid <> pg_backend_pid()"
                )
                != []
            ),
            20,
        )
        client.cancel()
        result = client.pgconn.get_result()
        assert result is not None and result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"57014"
        assert client.pgconn.get_result() is None


@pytest.mark.parametrize("workers", [1, 2])
def test_behind_several_restarts_it_can_be_cancelled_too(
    pgproxy: PgproxyFactory, postgres: Postgres, workers: int
) -> None:
    proxy = pgproxy(server=postgres, auth="trust", proxy={"workers": workers})
    running = (
        "select 1 from pg_stat_activity where query like '%restarted%' and state = 'active' "
        "and pid <> pg_backend_pid()"
    )
    with psycopg.connect(proxy.dsn("boss"), autocommit=True) as first:
        first.execute("select 1")
        proxy.restart()
        # The one between has no clients, and stays as long as the first has some.
        proxy.restart()
        between = proxy.predecessors[1]
        for _ in range(3):
            first.pgconn.send_query(b"select pg_sleep(30) /* restarted */")
            assert wait_until(lambda: postgres.execute(running) != [], 20)
            first.cancel()
            result = first.pgconn.get_result()
            assert result is not None
            assert result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"57014"
            assert first.pgconn.get_result() is None
        assert between.poll() is None
    for process in proxy.predecessors:
        assert process.wait(20) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_who_only_looks_on_keeps_no_process_alive(
    pgproxy: PgproxyFactory, postgres: Postgres, workers: int
) -> None:
    proxy = pgproxy(server=postgres, auth="trust", proxy={"workers": workers, "admin_users": ["boss"]})
    with proxy.connect(user="boss", dbname="pgproxy", autocommit=True) as console:
        with boss(proxy.port) as client:
            proxy.restart()
            assert ("shutting_down", "yes") in console.execute("show state").fetchall()
            assert client.value("select 1") == "1"
        assert proxy.predecessors[0].wait(20) == 0
        with pytest.raises(psycopg.errors.AdminShutdown):
            console.execute("show state")


def test_who_stays_too_long_is_sent_away(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(server=postgres, auth="trust", proxy={"restart_drain_timeout": 0.3, "drain_timeout": 0.3})
    with boss(proxy.port) as idle, boss(proxy.port) as busy:
        busy.query("begin")
        proxy.restart()
        assert idle.error()["C"] == "57P01"
        assert busy.error()["C"] == "57P01"
    assert proxy.predecessors[0].wait(20) == 0


def test_the_old_one_keeps_no_idle_servers(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(server=postgres, auth="trust", proxy={"min_pool_size": 2})
    with boss(proxy.port) as client:
        assert client.value("select 1") == "1"
        proxy.restart()
        assert wait_until(lambda: postgres.execute(OF_BOSS) == [(0,)], 20)
        assert client.value("select 2") == "2"


def test_one_that_cannot_start_changes_nothing(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(server=postgres, auth="trust")
    proxy.expect_errors()
    config = (proxy.directory / "pgproxy.toml").read_text()
    proxy.write_config("nonsense")
    proxy.process.send_signal(signal.SIGUSR2)
    proxy.await_event("restart_failed")
    with boss(proxy.port) as raw:
        assert raw.value("select 1") == "1"
    proxy.write_config(config)
    proxy.restart()
    with boss(proxy.port) as raw:
        assert raw.value("select 1") == "1"


def test_a_stop_does_not_wait_for_the_next(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(server=postgres, auth="trust")
    proxy.process.send_signal(signal.SIGUSR2)
    successor = int(proxy.await_event("restarting")["successor"])
    proxy.stop()
    assert wait_until(lambda: not Path(f"/proc/{successor}/cmdline").exists() or not _runs(successor), 20)


def _runs(pid: int) -> bool:
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (3, 2)])
def test_a_restart_takes_another_number_of_workers(
    pgproxy: PgproxyFactory, postgres: Postgres, before: int, after: int
) -> None:
    proxy = pgproxy(server=postgres, auth="trust", proxy={"workers": before})
    text = (proxy.directory / "pgproxy.toml").read_text()
    proxy.write_config(text.replace(f"workers = {before}", f"workers = {after}"))
    proxy.restart()
    for process in proxy.predecessors:
        assert process.wait(20) == 0
    clients = [boss(proxy.port) for _ in range(20)]
    for client in clients:
        with client:
            client.send(message("Q", b"select 1\0"))
            client.until("Z")


def test_a_restart_takes_other_addresses(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(server=postgres, auth="trust")
    other = free_port()
    text = (proxy.directory / "pgproxy.toml").read_text()
    old = proxy.port
    proxy.write_config(text.replace(str(old), str(other)))
    proxy.restart()
    proxy.port = other
    with boss(other) as raw:
        assert raw.value("select 1") == "1"
    assert proxy.predecessors[0].wait(20) == 0
    with pytest.raises(ConnectionRefusedError):
        Raw(old)
