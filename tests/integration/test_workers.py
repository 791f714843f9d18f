"""Several workers are one proxy: sockets, budget, cancel requests, reload, stop; what a dead one leaves."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgproxy.demo.postgres import Postgres
from pgproxy.demo.process import children, wait_until
from pgproxy.wire.startup import cancel_request
from tests.activity import running
from tests.fix_pgproxy import Pgproxy, PgproxyFactory
from tests.fix_postgres import PASSWORDS
from tests.raw import Raw, Refused, message, startup

WORKERS = 3
STOPPED = (0, -signal.SIGTERM)
OF_BOSS = (
    "select count(*) from pg_stat_activity where usename = 'boss' and backend_type = 'client backend' "
    "and application_name <> 'watch'"
)


@pytest.fixture
def start(pgproxy: PgproxyFactory, postgres: Postgres) -> Any:
    def started(pool_size: int = 20, **options: Any) -> Pgproxy:
        proxy = {"workers": WORKERS, **options.pop("proxy", {})}
        run = pgproxy(server=postgres, pool_size=pool_size, auth="trust", proxy=proxy, **options)
        run.await_event("started")
        return run

    return started


def pids(proxy: Pgproxy) -> dict[int, int]:
    """Give the workers' process ids by their numbers, as the log has them last."""
    return {event["worker"]: event["pid"] for event in proxy.log() if event["event"] == "worker_started"}


def app(proxy: Pgproxy) -> Raw:
    raw = Raw(proxy.port)
    raw.log_in(user="boss", database="app")
    return raw


def worker_of(proxy: Pgproxy, raw: Raw) -> int:
    """Say which worker a client is at: the one whose socket the other end is."""
    theirs = {f"socket:[{inode}]" for inode in _sockets_from(raw.socket.getsockname()[1])}
    for number, pid in pids(proxy).items():
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                if os.readlink(entry.path) in theirs:
                    return number
    raise AssertionError("this client is at no worker")


def _sockets_from(port: int) -> list[str]:
    with open("/proc/net/tcp") as table:
        # It has thousands of lines, of connections that have ended a moment ago.
        rows = [line.split() for line in table if f":{port:04X} " in line]
    return [row[9] for row in rows if row[2].endswith(f":{port:04X}")]


def starts(proxy: Pgproxy) -> int:
    """Say how often a worker was started."""
    return sum(event["event"] == "worker_started" for event in proxy.log())


def deaths(proxy: Pgproxy) -> int:
    """Say how often one has died."""
    return sum(event["event"] == "worker_died" for event in proxy.log())


def _more(count: Callable[[Pgproxy], int], proxy: Pgproxy, than: int) -> bool:
    return count(proxy) > than


def at_worker(proxy: Pgproxy, number: int, several: int) -> list[Raw]:
    """Connect clients until so many are at one worker."""
    found: list[Raw] = []
    for _ in range(200):
        raw = app(proxy)
        if worker_of(proxy, raw) == number:
            found.append(raw)
            if len(found) == several:
                return found
        else:
            raw.socket.close()
    raise AssertionError("the kernel doesn't spread connections")


def at_each_worker(proxy: Pgproxy) -> dict[int, Raw]:
    return {number: at_worker(proxy, number, 1)[0] for number in sorted(pids(proxy))}


def close(raws: Any) -> None:
    for raw in raws:
        raw.socket.close()


class Watch:
    """Looks how many servers there are, as often as it can."""

    def __init__(self, postgres: Postgres) -> None:
        self.most = 0
        self._over = threading.Event()
        self._dsn = postgres.dsn("boss", PASSWORDS["boss"], "app", application_name="watch")
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            while not self._over.wait(0.005):
                ((number,),) = connection.execute(OF_BOSS).fetchall()
                self.most = max(self.most, number)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_how: object) -> None:
        self._over.set()
        self._thread.join()


class Load:
    """Clients that work without end; each that fails connects again."""

    def __init__(self, proxy: Pgproxy, clients: int) -> None:
        self.done = 0
        self.failures: list[str] = []
        self._proxy = proxy
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                with psycopg.connect(self._proxy.dsn(user="boss"), autocommit=True) as connection:
                    while not self._over.is_set():
                        with connection.transaction():
                            connection.execute("select pg_sleep(0.001)")
                        self.done += 1
            except psycopg.Error as error:
                self.failures.append(str(error))

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_how: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def go_on(self, more: int) -> None:
        """Wait until so much more is done."""
        goal = self.done + more
        assert wait_until(lambda: self.done >= goal, 30)


def test_clients_are_at_all_workers(start: Any) -> None:
    proxy = start()
    assert set(children(proxy.pid)) >= set(pids(proxy).values())
    clients = [app(proxy) for _ in range(60)]
    assert {worker_of(proxy, raw) for raw in clients} == {1, 2, 3}
    assert {raw.value("select 1") for raw in clients} == {"1"}
    logged = {event.get("worker") for event in proxy.log() if event["event"] == "client_logged_in"}
    assert logged == {1, 2, 3}
    close(clients)


def test_a_pool_is_one_over_all_workers(start: Any, postgres: Postgres) -> None:
    proxy = start(pool_size=4)
    with Watch(postgres) as watch, Load(proxy, 12) as load:
        load.go_on(600)
    assert load.failures == []
    assert 3 <= watch.most <= 4


def test_a_budget_is_one_over_all_workers(start: Any, postgres: Postgres) -> None:
    proxy = start(target={"max_server_connections": 5, "max_connecting_servers": 2})
    with Watch(postgres) as watch, Load(proxy, 12) as load:
        load.go_on(600)
    assert load.failures == []
    assert 4 <= watch.most <= 5


def test_one_worker_uses_the_whole_budget_while_others_idle(start: Any, postgres: Postgres) -> None:
    proxy = start(target={"max_server_connections": 6})
    each = at_each_worker(proxy)
    for raw in each.values():
        # All have had servers of their own.
        raw.query("begin")
    for raw in each.values():
        raw.query("commit")
    busy = at_worker(proxy, 1, 6)
    for raw in busy:
        raw.query("begin")
    assert postgres.execute(OF_BOSS) == [(6,)]
    assert len({raw.value("select pg_backend_pid()") for raw in busy}) == 6
    # Somebody else waits, and gets what becomes free.
    each[2].send(message("Q", b"select 5\0"))
    busy[0].query("commit")
    assert dict(each[2].until("Z"))["D"][6:] == b"5"
    close([*busy, *each.values()])


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_cancel_request_at_any_worker(start: Any, postgres: Postgres, mode: str) -> None:
    proxy = start(pool_mode=mode)
    (raw,) = at_worker(proxy, 2, 1)
    for _ in range(12):
        raw.send(message("Q", b"select pg_sleep(600) /* any worker */\0"))
        running(postgres, "any worker */")
        with Raw(proxy.port) as canceller:
            canceller.send(cancel_request(int.from_bytes(raw.key[:4], "big"), raw.key[4:]))
            assert canceller.ended()
        assert raw.error()["C"] == "57014"
        raw.until("Z")
    found = [event for event in proxy.log() if event["event"] == "cancel_request"]
    assert any(event.get("elsewhere") for event in found)
    with Raw(proxy.port) as canceller:
        canceller.send(cancel_request(1, b"none"))
        assert canceller.ended()
    raw.socket.close()


def test_a_worker_that_is_killed(start: Any, postgres: Postgres) -> None:
    proxy = start(pool_size=6)
    proxy.expect_errors()
    each = at_each_worker(proxy)
    each[1].query("begin")
    each[2].send(message("Q", b"select pg_sleep(600) /* left */\0"))
    each[3].query("begin")
    own = each[3].value("select pg_backend_pid()")
    with Watch(postgres) as watch, Load(proxy, 6) as load:
        load.go_on(100)
        os.kill(pids(proxy)[2], signal.SIGKILL)
        died = proxy.await_event("worker_died", worker=2)
        load.go_on(200)
        assert died["signal"] == signal.SIGKILL
        assert wait_until(lambda: starts(proxy) == WORKERS + 1, 20)
    with pytest.raises((EOFError, ConnectionError)):
        each[2].until("Z")
    # Nobody else has noticed.
    assert each[3].value("select pg_backend_pid()") == own
    each[1].query("commit")
    each[3].query("commit")
    left = "select count(*) from pg_stat_activity where query like '%/* left */' and pid <> pg_backend_pid()"
    assert wait_until(lambda: postgres.execute(left) == [(0,)], 30)
    assert watch.most <= 6
    # Only who was there has lost a connection.
    assert len(load.failures) <= 6
    with at_worker(proxy, 2, 1)[0] as again:
        assert again.value("select 7") == "7"
    close([each[1], each[3]])
    # All permits are back.
    clients = [app(proxy) for _ in range(6)]
    for raw in clients:
        raw.query("begin")
    assert postgres.execute(OF_BOSS) == [(6,)]
    close(clients)


@pytest.mark.long
def test_workers_that_die_again_and_again(start: Any, postgres: Postgres) -> None:
    proxy = start(pool_size=3)
    proxy.expect_errors()
    with Watch(postgres) as watch, Load(proxy, 6) as load:
        for round_ in range(6):
            number = round_ % WORKERS + 1
            before = deaths(proxy)
            os.kill(pids(proxy)[number], signal.SIGKILL)
            assert wait_until(partial(_more, deaths, proxy, before), 30)
            load.go_on(30)
            assert wait_until(partial(_more, starts, proxy, WORKERS + round_), 20)
        load.go_on(100)
    assert watch.most <= 3


def test_processes_that_stand_still_for_a_while(start: Any, postgres: Postgres) -> None:
    """Workers and supervisor by turns, or are killed so: no limit is passed, no permit is lost."""
    proxy = start(pool_size=4)
    proxy.expect_errors()
    with Watch(postgres) as watch, Load(proxy, 8) as load:
        for round_ in range(9):
            number = round_ % WORKERS + 1
            stopped = proxy.pid if round_ % 3 == 2 else pids(proxy)[number]
            os.kill(stopped, signal.SIGSTOP)
            time.sleep(0.7)
            if round_ % 3 == 1:
                before = deaths(proxy), starts(proxy)
                os.kill(stopped, signal.SIGKILL)
                assert wait_until(partial(_more, deaths, proxy, before[0]), 30)
                assert wait_until(partial(_more, starts, proxy, before[1]), 30)
            else:
                os.kill(stopped, signal.SIGCONT)
            load.go_on(30)
    assert watch.most <= 4
    clients = at_worker(proxy, 1, 4)
    for raw in clients:
        raw.query("begin")
    assert postgres.execute(OF_BOSS) == [(4,)]
    close(clients)


def test_a_supervisor_that_is_killed(start: Any, postgres: Postgres) -> None:
    proxy = start()
    proxy.expect_errors()
    workers = list(pids(proxy).values())
    with app(proxy) as busy:
        busy.send(message("Q", b"select pg_sleep(600) /* orphan */\0"))
        time.sleep(0.2)
        proxy.kill()
        assert wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers), 30)
    left = (
        "select count(*) from pg_stat_activity where query like '%/* orphan */' and pid <> pg_backend_pid()"
    )
    assert wait_until(lambda: postgres.execute(left) == [(0,)], 30)


def is_a_worker(pid: int) -> bool:
    return b"pgproxy.workers" in Path(f"/proc/{pid}/cmdline").read_bytes()


def _starting_again(proxy: Pgproxy) -> int:
    """Kill worker 1; give the process id of the next, which stands still before it is ready."""
    before = {*children(proxy.pid)}
    os.kill(pids(proxy)[1], signal.SIGKILL)
    found: set[int] = set()

    def is_there() -> bool:
        # Before it is a program of its own its parent waits for it, and would stand still with it.
        found.update(pid for pid in {*children(proxy.pid)} - before if is_a_worker(pid))
        return bool(found)

    assert wait_until(is_there, 30)
    (pid,) = found
    os.kill(pid, signal.SIGSTOP)
    return pid


def test_a_worker_that_starts_during_a_reload(start: Any) -> None:
    proxy = start(pool_size=2, extra='[databases.shop]\nname = "app"\n')
    proxy.expect_errors()
    config = (proxy.directory / "pgproxy.toml").read_text()
    starting = _starting_again(proxy)
    proxy.write_config(config.replace("databases.shop", "databases.store"))
    proxy.reload()
    proxy.await_event("reloaded")
    os.kill(starting, signal.SIGCONT)
    assert wait_until(lambda: starts(proxy) == WORKERS + 1, 20)

    def are_up_to_date() -> bool:
        for _ in range(30):
            with Raw(proxy.port) as raw:
                raw.send(startup(user="boss", database="store"))
                if raw.message()[0] == "E":
                    return False
        return True

    assert wait_until(are_up_to_date, 30)


def test_a_worker_that_dies_during_a_reload(start: Any) -> None:
    proxy = start(pool_size=2, extra='[databases.shop]\nname = "app"\n')
    proxy.expect_errors()
    config = (proxy.directory / "pgproxy.toml").read_text()
    os.kill(pids(proxy)[2], signal.SIGSTOP)
    proxy.write_config(config.replace("databases.shop", "databases.store"))
    proxy.reload()
    time.sleep(0.5)
    os.kill(pids(proxy)[2], signal.SIGKILL)
    proxy.await_event("reloaded")
    assert wait_until(lambda: starts(proxy) == WORKERS + 1, 20)
    for _ in range(20):
        with Raw(proxy.port) as raw:
            raw.log_in(user="boss", database="store")
            assert raw.value("select 1") == "1"


def test_a_worker_that_dies_while_it_catches_up(start: Any) -> None:
    """It has become ready during a reload, and ends before it could answer what it was asked then."""
    proxy = start(pool_size=2, extra='[databases.shop]\nname = "app"\n')
    proxy.expect_errors()
    config = (proxy.directory / "pgproxy.toml").read_text()
    slow, late = pids(proxy)[2], _starting_again(proxy)
    os.kill(slow, signal.SIGSTOP)
    try:
        proxy.write_config(config.replace("databases.shop", "databases.store"))
        proxy.reload()
        assert wait_until(partial(_has_taken, proxy.pid, signal.SIGHUP), 20)
        os.kill(late, signal.SIGCONT)
        assert wait_until(lambda: starts(proxy) == WORKERS + 1, 20)
        os.kill(late, signal.SIGSTOP)
    finally:
        os.kill(slow, signal.SIGCONT)
    proxy.await_event("reloaded")
    time.sleep(0.5)
    os.kill(late, signal.SIGKILL)
    assert wait_until(lambda: starts(proxy) == WORKERS + 2, 20)
    for _ in range(20):
        with Raw(proxy.port) as raw:
            raw.log_in(user="boss", database="store")
            assert raw.value("select 1") == "1"


def test_reload_reaches_all_or_none(start: Any) -> None:
    proxy = start(pool_size=2, extra='[databases.shop]\nname = "app"\n')
    proxy.expect_errors()
    config = (proxy.directory / "pgproxy.toml").read_text()
    proxy.write_config(config.replace("databases.shop", "databases.store"))
    proxy.reload()
    proxy.await_event("reloaded")
    for _ in range(20):
        with Raw(proxy.port) as raw:
            raw.log_in(user="boss", database="store")
            assert raw.value("select 1") == "1"
    proxy.write_config("[proxy]\npool_size = 0\n")
    proxy.reload()
    assert "pgproxy.toml" in proxy.await_event("reload_refused")["why"]
    # A worker that is started now has the configuration in force, not the one that lies there.
    os.kill(pids(proxy)[1], signal.SIGKILL)
    proxy.await_event("worker_died", worker=1)
    assert wait_until(lambda: starts(proxy) == WORKERS + 1, 20)
    for _ in range(20):
        with Raw(proxy.port) as raw:
            raw.log_in(user="boss", database="store")
            assert raw.value("select 1") == "1"


def _has_taken(pid: int, number: int) -> bool:
    """Say whether a process has been given all signals of a number that were sent to it."""
    said = re.search(r"^ShdPnd:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert said is not None
    return not int(said[1], 16) >> (number - 1) & 1


def test_a_reload_that_comes_during_another_is_done_behind_it(start: Any) -> None:
    proxy = start(pool_size=2, extra='[databases.shop]\nname = "app"\n')
    config = (proxy.directory / "pgproxy.toml").read_text()
    slow = pids(proxy)[1]
    os.kill(slow, signal.SIGSTOP)
    try:
        for name in ("store", "mall"):
            proxy.write_config(config.replace("databases.shop", f"databases.{name}"))
            proxy.reload()
            # Two of these that come before the supervisor has run are one.
            assert wait_until(partial(_has_taken, proxy.pid, signal.SIGHUP), 20)
            time.sleep(0.5)
    finally:
        os.kill(slow, signal.SIGCONT)
    assert wait_until(lambda: [event["event"] for event in proxy.log()].count("reloaded") == 2, 20)
    with Raw(proxy.port) as raw:
        raw.log_in(user="boss", database="mall")
        assert raw.value("select 1") == "1"


def test_stop_drains_all_workers(start: Any, postgres: Postgres) -> None:
    proxy = start()
    each = at_each_worker(proxy)
    for raw in each.values():
        raw.query("begin")
    proxy.begin_to_stop()
    proxy.await_event("stopping")
    assert wait_until(lambda: not _listens(proxy.port), 30)
    for number, raw in each.items():
        assert raw.value(f"select {number}") == str(number)
        raw.query("commit")
        assert raw.error()["C"] == "57P01"
    assert proxy.stop() in STOPPED
    assert proxy.log()[-1]["event"] == "stopped"
    assert postgres.execute(OF_BOSS) == [(0,)]


@pytest.mark.long
def test_a_stop_while_workers_start(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    for later in range(6):
        proxy = pgproxy(server=postgres, auth="trust", proxy={"workers": WORKERS})
        # Some are there, the others about to be.
        proxy.await_event("worker_started")
        time.sleep(later / 50)
        assert proxy.stop() in STOPPED
        assert proxy.log()[-1]["event"] == "stopped"


@pytest.mark.long
def test_a_worker_that_hangs_at_a_stop(start: Any, postgres: Postgres) -> None:
    """It is ended; the others send their clients away in order."""
    proxy = start(proxy={"drain_timeout": 3600})
    each = at_each_worker(proxy)
    for raw in each.values():
        raw.query("begin")
    os.kill(pids(proxy)[2], signal.SIGSTOP)
    proxy.begin_to_stop()
    proxy.await_event("stopping", worker=1)
    proxy.await_event("stopping", worker=3)
    for number in (1, 3):
        assert each[number].value("select 1") == "1"
        each[number].query("commit")
        assert each[number].error()["C"] == "57P01"
    assert proxy.stop() in STOPPED
    assert wait_until(lambda: postgres.execute(OF_BOSS) == [(0,)], 30)
    close(each.values())


def test_a_worker_that_is_killed_during_a_stop(start: Any, postgres: Postgres) -> None:
    proxy = start(proxy={"drain_timeout": 3600})
    each = at_each_worker(proxy)
    each[1].query("begin")
    each[2].send(message("Q", b"select pg_sleep(600)\0"))
    time.sleep(0.2)
    proxy.begin_to_stop()
    proxy.await_event("stopping", worker=2)
    os.kill(pids(proxy)[2], signal.SIGKILL)
    working = f"{OF_BOSS} and state = 'active'"
    assert wait_until(lambda: postgres.execute(working) == [(0,)], 30)
    each[1].query("commit")
    assert each[1].error()["C"] == "57P01"
    assert proxy.stop() in STOPPED
    close(each.values())


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_signals_that_reach_everybody_are_the_supervisors(start: Any) -> None:
    """A terminal sends Ctrl-C to all of its processes, and systemd SIGTERM to all of a service."""
    proxy = start(proxy={"drain_timeout": 3600})
    with app(proxy) as busy:
        busy.query("begin")
        proxy.begin_to_stop()
        for pid in pids(proxy).values():
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGHUP)
        proxy.await_event("stopping", worker=1)
        time.sleep(0.3)
        assert busy.value("select 1") == "1"
        busy.query("commit")
        assert busy.error()["C"] == "57P01"
    assert proxy.stop() in STOPPED


def test_a_worker_that_cannot_start(start: Any, postgres: Postgres) -> None:
    proxy = start()
    proxy.expect_errors()
    users = (proxy.directory / "users.txt").read_text()
    (proxy.directory / "users.txt").write_text("nonsense\n")
    os.kill(pids(proxy)[3], signal.SIGKILL)
    assert wait_until(lambda: deaths(proxy) >= 3, 30)
    # The others serve its clients meanwhile, also those that the kernel gives to its socket.
    for _ in range(20):
        with app(proxy) as raw:
            assert raw.value("select 1") == "1"
    (proxy.directory / "users.txt").write_text(users)
    assert wait_until(lambda: starts(proxy) == WORKERS + 1, 30)
    with at_worker(proxy, 3, 1)[0] as raw:
        assert raw.value("select 1") == "1"


def test_a_worker_for_which_there_are_no_means(start: Any) -> None:
    """What a process needs is not to be had for a while, here descriptors; then it is."""
    proxy = start()
    proxy.expect_errors()
    before = resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE, (3, before[1]))
    os.kill(pids(proxy)[1], signal.SIGKILL)
    try:
        proxy.await_event("worker_not_started", worker=1)
    finally:
        resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE, before)
    assert wait_until(lambda: starts(proxy) == WORKERS + 1, 30)
    close(at_each_worker(proxy).values())


def test_all_workers_die_at_once(start: Any, postgres: Postgres) -> None:
    proxy = start(pool_size=4)
    proxy.expect_errors()
    with Watch(postgres) as watch, Load(proxy, 6) as load:
        load.go_on(50)
        for pid in pids(proxy).values():
            os.kill(pid, signal.SIGKILL)
        assert wait_until(lambda: starts(proxy) == 2 * WORKERS, 30)
        load.go_on(100)
    assert watch.most <= 4
    close(at_each_worker(proxy).values())


@pytest.mark.long
@pytest.mark.timeout(180)
def test_a_worker_that_hangs(start: Any, postgres: Postgres) -> None:
    """It is ended in time, as one that died, and what it has comes back."""
    proxy = start(pool_size=2)
    proxy.expect_errors()
    each = at_each_worker(proxy)
    with at_worker(proxy, 2, 1)[0] as second:
        each[2].query("begin")
        second.query("begin")
        os.kill(pids(proxy)[2], signal.SIGSTOP)
        # It has the whole pool; who waits gets a server in the end.
        each[1].socket.settimeout(90)
        assert each[1].value("select 1") == "1"
        assert proxy.await_event("worker_died", worker=2)["signal"] == signal.SIGKILL
        assert proxy.await_event("worker_silent", worker=2)
    assert wait_until(lambda: starts(proxy) == WORKERS + 1, 20)
    assert deaths(proxy) == 1
    close(each.values())
    close(at_each_worker(proxy).values())


def test_who_does_not_wait_at_all(start: Any) -> None:
    """In each worker somebody gets a server in the end, whoever has it before."""
    proxy = start(pool_size=1, proxy={"connection_borrow_timeout": 0})

    def gets_one(number: int) -> bool:
        for _ in range(60):
            with Raw(proxy.port) as raw:
                raw.send(startup(user="boss", database="app"))
                # Until somebody has had a server, logging in takes one.
                if _first_of(raw, "EZ") == "E":
                    return False
                if worker_of(proxy, raw) == number:
                    raw.send(message("Q", b"select 'served'\0"))
                    return _first_of(raw, "ED") == "D"
        raise AssertionError("the kernel doesn't spread connections")

    for number in (1, 2, 3, 1):
        assert wait_until(partial(gets_one, number), 20)


def _first_of(raw: Raw, tags: str) -> str:
    """Give the tag of the first message that has one of these."""
    while True:
        tag, _payload = raw.message()
        if tag in tags:
            return tag


def test_nobody_needs_a_server_to_log_in(start: Any) -> None:
    """Nor who has come before another worker's first server was there to say how it greets."""
    proxy = start(pool_size=1)
    raws = [Raw(proxy.port) for _ in range(12)]
    for raw in raws:
        raw.send(startup(user="boss", database="app"), message("Q", b"begin\0"))
    for raw in raws:
        raw.until("Z")
    close(raws)


def test_nor_in_a_worker_that_has_forgotten_its_pool(start: Any) -> None:
    proxy = start(pool_size=1)
    with app(proxy) as first:
        number = worker_of(proxy, first)
        assert first.value("select 1") == "1"
    (other,) = at_worker(proxy, number % WORKERS + 1, 1)
    other.query("begin")
    # Pools without clients and servers are looked for once in a second.
    time.sleep(2.5)
    close(at_worker(proxy, number, 1))
    other.socket.close()


def test_nor_in_a_worker_that_starts_behind_a_reload(start: Any) -> None:
    proxy = start(pool_size=1)
    proxy.expect_errors()
    with app(proxy) as holder:
        holder.query("begin")
        number = worker_of(proxy, holder) % WORKERS + 1
        proxy.reload()
        proxy.await_event("reloaded")
        os.kill(pids(proxy)[number], signal.SIGKILL)
        assert wait_until(lambda: starts(proxy) == WORKERS + 1, 30)
        close(at_worker(proxy, number, 1))


def test_a_minimum_is_kept_warm(start: Any, postgres: Postgres) -> None:
    proxy = start(pool_size=4, proxy={"min_pool_size": 2})
    with app(proxy) as raw:
        assert raw.value("select 1") == "1"
    # Supervisor and worker both look after the pool once in a second, now the one first, now the other.
    for _ in range(4):
        assert wait_until(lambda: postgres.execute(OF_BOSS) == [(2,)], 30)
        time.sleep(1.3)
        postgres.execute(OF_BOSS.replace("count(*)", "pg_terminate_backend(pid)"))
    assert wait_until(lambda: postgres.execute(OF_BOSS) == [(2,)], 30)


def test_limits_of_clients_are_for_all_workers(start: Any) -> None:
    proxy = start(proxy={"max_client_connections": 12})
    clients = [app(proxy) for _ in range(12)]
    in_a_row = 0

    def is_full() -> bool:
        """Say whether each worker has heard of all of them, as far as can be seen."""
        nonlocal in_a_row
        try:
            app(proxy).socket.close()
            in_a_row = 0
        except Refused:
            in_a_row += 1
        return in_a_row == 6

    assert wait_until(is_full, 20)
    with pytest.raises(psycopg.OperationalError, match="too many clients"):
        psycopg.connect(proxy.dsn(user="boss", password=PASSWORDS["boss"]))
    close(clients)


@pytest.mark.long
def test_idle_servers_of_all_workers_leave_a_database(start: Any, postgres: Postgres) -> None:
    postgres.execute("drop database if exists leave", "create database leave")
    proxy = start(pool_size=6)
    seen = set()
    raws = []
    for _ in range(60):
        raw = Raw(proxy.port)
        raw.log_in(user="boss", database="leave")
        raws.append(raw)
        number = worker_of(proxy, raw)
        if number not in seen:
            seen.add(number)
            raw.query("begin")
    for raw in raws:
        raw.query("commit")
    close(raws)
    assert seen == {1, 2, 3}
    with app(proxy) as raw:
        raw.query("drop database leave")
    assert postgres.execute("select count(*) from pg_database where datname = 'leave'") == [(0,)]
