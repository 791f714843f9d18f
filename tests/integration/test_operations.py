"""Reload, stop, logs and limits of a running pgproxy."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgproxy.demo.ports import free_port, is_listening
from pgproxy.demo.postgres import Postgres
from pgproxy.demo.process import children, wait_until
from tests.fix_pgproxy import WORKERS, Pgproxy, PgproxyFactory
from tests.fix_postgres import PASSWORDS, PostgresFactory
from tests.raw import Raw, message, startup

# twistd stops in order, then ends itself by the signal that it was sent.
STOPPED = (0, -signal.SIGTERM)
TWISTD = Path(sys.executable).with_name("twistd")


def app(proxy: Pgproxy) -> Raw:
    raw = Raw(proxy.port)
    raw.log_in(user="boss", database="app")
    return raw


def await_event(proxy: Pgproxy, name: str) -> dict[str, object]:
    for _ in range(200):
        for event in proxy.log():
            if event["event"] == name:
                return event
        time.sleep(0.05)
    raise AssertionError(f"no event {name}:\n{proxy.text()}")


def test_stopping_lets_transactions_end(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(server=postgres, pool_mode="transaction", pool_size=2, auth="trust")
    with app(proxy) as idle, app(proxy) as busy:
        assert idle.value("select 1") == "1"
        busy.query("begin")
        proxy.begin_to_stop()
        fields = idle.error()
        assert (fields["S"], fields["C"]) == ("FATAL", "57P01")
        assert idle.ended()
        assert busy.value("select 2") == "2"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", proxy.port))
        busy.query("commit")
        assert busy.error()["C"] == "57P01"
    assert proxy.stop() in STOPPED
    ((left,),) = postgres.execute(
        "select count(*) from pg_stat_activity where usename = 'boss' and backend_type = 'client backend'"
    )
    assert left == 0


def test_stopping_has_an_end(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(server=postgres, pool_mode="transaction", auth="trust", proxy={"drain_timeout": 0.5})
    with app(proxy) as busy:
        busy.query("begin")
        assert proxy.stop() in STOPPED
        assert busy.error()["C"] == "57P01"


def test_a_second_signal_is_a_hurry(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(server=postgres, pool_mode="transaction", auth="trust", proxy={"drain_timeout": 3600})
    with app(proxy) as busy:
        busy.query("begin")
        proxy.begin_to_stop()
        await_event(proxy, "stopping")
        assert proxy.stop() in STOPPED
        assert busy.error()["C"] == "57P01"


def test_stopping_in_mid_query(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(server=postgres, pool_mode="session", auth="trust", proxy={"drain_timeout": 0.5})
    with app(proxy) as busy:
        busy.send(message("Q", b"select pg_sleep(600) /* stopping */\0") * 3)
        time.sleep(0.2)
        assert proxy.stop() in STOPPED
        assert busy.error()["C"] == "57P01"
    ((left,),) = postgres.execute(
        "select count(*) from pg_stat_activity where state = 'active' and query like '%/* stopping */'"
    )
    assert left == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_pgbouncers_signal_to_pause_ends_nobody(
    pgproxy: PgproxyFactory, postgres: Postgres, workers: int
) -> None:
    proxy = pgproxy(server=postgres, auth="trust", proxy={"workers": workers})
    proxy.await_event("started")
    with app(proxy) as client:
        for pid in (*children(proxy.pid), proxy.pid):
            os.kill(pid, signal.SIGUSR1)
        assert proxy.await_event("signal_ignored")["signal"] == "SIGUSR1"
        assert client.value("select 1") == "1"


def test_new_users_after_a_reload(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(server=postgres, users={})
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        proxy.connect()
    proxy.write_users({"app": PASSWORDS["app"]})
    proxy.reload()
    await_event(proxy, "reloaded")
    with proxy.connect() as connection:
        connection.execute("select 1")


def test_a_reload_that_is_wrong_changes_nothing(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(server=postgres)
    proxy.expect_errors()
    with proxy.connect(autocommit=True) as before:
        proxy.write_config("[proxy]\npool_size = 0\n[targets.main]\nserver = 'x'\n")
        proxy.reload()
        refused = await_event(proxy, "reload_refused")
        assert "proxy.pool_size" in str(refused["why"]) and "pgproxy.toml" in str(refused["why"])
        assert before.execute("select 1").fetchone() == (1,)
        with proxy.connect() as connection:
            connection.execute("select 1")


def test_a_smaller_pool_after_a_reload(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(server=postgres, pool_mode="transaction", pool_size=3, auth="trust")
    some = [app(proxy) for _ in range(3)]
    for raw in some:
        raw.query("begin")
    config = (proxy.directory / "pgproxy.toml").read_text()
    proxy.write_config(config.replace("pool_size = 3", "pool_size = 1"))
    proxy.reload()
    await_event(proxy, "reloaded")
    for raw in some:
        raw.query("commit")
    pids = {raw.value("select pg_backend_pid()") for raw in some for _ in range(5)}
    assert len(pids) == 1 or WORKERS > 1
    for raw in some:
        raw.socket.close()


@pytest.fixture
def elsewhere(postgres: Postgres) -> None:
    postgres.execute("drop database if exists elsewhere", "create database elsewhere")


DATABASES = '[databases.shop]\nname = "app"\n[databases.other]\nname = "app"\n'


def shop(proxy: Pgproxy) -> Raw:
    raw = Raw(proxy.port)
    raw.log_in(user="boss", database="shop")
    return raw


def change(proxy: Pgproxy, old: str, new: str) -> None:
    config = (proxy.directory / "pgproxy.toml").read_text()
    assert old in config
    proxy.write_config(config.replace(old, new))
    proxy.reload()
    await_event(proxy, "reloaded")


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_database_that_is_elsewhere_after_a_reload(
    pgproxy: PgproxyFactory, postgres: Postgres, elsewhere: None, mode: str
) -> None:
    proxy = pgproxy(server=postgres, pool_mode=mode, pool_size=2, auth="trust", extra=DATABASES)
    where = "select current_database()"
    with shop(proxy) as busy:
        busy.query("begin")
        with shop(proxy) as gone:
            assert gone.value(where) == "app"
        change(proxy, 'shop]\nname = "app"', 'shop]\nname = "elsewhere"')
        assert busy.value(where) == "app"
        with shop(proxy) as new:
            assert new.value(where) == "elsewhere"
        busy.query("commit")
        assert busy.value(where) == ("elsewhere" if mode == "transaction" else "app")
    for _ in range(3):
        with shop(proxy) as new:
            assert new.value(where) == "elsewhere"


def test_a_target_that_is_elsewhere_after_a_reload(
    pgproxy: PgproxyFactory, postgres: Postgres, postgres_factory: PostgresFactory
) -> None:
    proxy = pgproxy(server=postgres, pool_mode="transaction", pool_size=2, auth="trust")
    new = postgres_factory()
    with app(proxy) as idle, app(proxy) as busy:
        busy.query("begin")
        assert idle.value("show port") == str(postgres.port)
        change(proxy, f"127.0.0.1:{postgres.port}", f"127.0.0.1:{new.port}")
        assert busy.value("show port") == str(postgres.port)
        assert idle.value("show port") == str(new.port)
        busy.query("commit")
        assert busy.value("show port") == str(new.port)
    left = "select count(*) from pg_stat_activity where usename = 'boss' and backend_type = 'client backend'"
    for _ in range(100):
        ((number,),) = postgres.execute(left)
        if not number:
            break
        time.sleep(0.05)
    assert number == 0


def test_a_database_that_is_gone_after_a_reload(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(server=postgres, pool_mode="transaction", pool_size=1, auth="trust", extra=DATABASES)
    with shop(proxy) as busy, shop(proxy) as waits:
        busy.query("begin")
        waits.send(message("Q", b"select 1\0"))
        time.sleep(0.2)
        change(proxy, "databases.shop", "databases.store")
        assert waits.error()["C"] == "3D000" and waits.ended()
        with Raw(proxy.port) as new:
            new.send(startup(user="boss", database="shop"))
            assert new.error()["C"] == "3D000"
        assert busy.value("select 2") == "2"
        busy.query("commit")
        busy.send(message("Q", b"select 3\0"))
        assert busy.error()["C"] == "3D000" and busy.ended()
    assert proxy.closings() == ["removed"]
    change_back = (proxy.directory / "pgproxy.toml").read_text().replace("databases.store", "databases.shop")
    proxy.write_config(change_back)
    proxy.reload()
    for _ in range(100):
        if sum(event["event"] == "reloaded" for event in proxy.log()) == 2:
            break
        time.sleep(0.05)
    with shop(proxy) as again:
        assert again.value("select 4") == "4"


def test_a_reload_of_the_same_keeps_servers(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(server=postgres, pool_mode="transaction", pool_size=1, auth="trust", extra=DATABASES)
    with shop(proxy) as raw:
        pid = raw.value("select pg_backend_pid()")
        change(proxy, "pool_size = 1", "pool_size = 3")
        assert raw.value("select pg_backend_pid()") == pid


def test_a_port_in_use_is_said_and_ends_the_start(postgres: Postgres) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [str(TWISTD), "-n", "--pidfile=", "pgproxy", "--listen", address, "--auth", "trust"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "cannot_listen" in done.stdout and address in done.stdout and "--listen" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_trust_is_for_loopback_only() -> None:
    command = [
        str(TWISTD),
        "-n",
        "--pidfile=",
        "pgproxy",
        "--listen",
        "0.0.0.0:1",
        "--auth",
        "trust",
        "--check",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "--allow-remote-trust" in done.stderr and "0.0.0.0" in done.stderr
    done = subprocess.run([*command, "--allow-remote-trust"], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, "ok\n")


def test_a_log_is_one_event_a_line_whatever_clients_send(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(server=postgres, users={})
    with pytest.raises(psycopg.OperationalError):
        proxy.connect(user='evil"\n{"event": "forged"}', password="x", dbname="a\nb")
    proxy.stop()
    lines = proxy.text().splitlines()
    assert len(lines) == len(proxy.log())
    assert "forged" not in {event["event"] for event in proxy.log()}


def test_running_out_of_file_descriptors(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(server=postgres, pool_mode="transaction", pool_size=2, auth="trust")
    proxy.expect_errors()
    with app(proxy) as first:
        assert first.value("select 1") == "1"
        resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE, (40, 40))
        many = [socket.create_connection(("127.0.0.1", proxy.port), 5) for _ in range(80)]
        time.sleep(0.5)
        assert first.value("select 2") == "2"
        for one in many:
            one.close()
        time.sleep(0.5)
        with app(proxy) as later:
            assert later.value("select 3") == "3"


def test_500_clients_over_5_servers(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(server=postgres, pool_mode="transaction", pool_size=5, auth="trust")
    clients: list[Raw] = []
    lock = threading.Lock()

    def connect() -> None:
        for _ in range(125):
            raw = app(proxy)
            with lock:
                clients.append(raw)

    threads = [threading.Thread(target=connect) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(clients) == 500
    for number, raw in enumerate(clients):
        raw.send(message("Q", f"select {number}\0".encode()))
    for number, raw in enumerate(clients):
        row = dict(raw.until("Z"))["D"]
        assert row[6:] == str(number).encode()
    ((servers,),) = postgres.execute("select count(*) from pg_stat_activity where usename = 'boss'")
    assert servers <= 5
    for raw in clients:
        raw.socket.close()


def serve(
    directory: Path, postgres: Postgres, *options: str, **how: Any
) -> tuple[subprocess.Popen[str], int]:
    """Start twistd as somebody would by hand."""
    port = free_port()
    (directory / "users.txt").write_text(f'"boss" "{PASSWORDS["boss"]}"\n')
    command = [str(TWISTD), "--pidfile=pid", *options, "pgproxy", "--users", "users.txt"]
    command += ["--listen", f"127.0.0.1:{port}", "--server", f"127.0.0.1:{postgres.port}", "--auth", "trust"]
    how.setdefault("stderr", subprocess.PIPE)
    process = subprocess.Popen(command, cwd=directory, text=True, **how)
    assert wait_until(lambda: is_listening(port) or process.poll() not in (None, 0), 20)
    return process, port


def served(port: int) -> None:
    with Raw(port) as raw:
        raw.log_in(user="boss", database="app")
        assert raw.value("select 1") == "1"


def test_a_log_that_cannot_be_written(postgres: Postgres, tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        process, port = serve(tmp_path, postgres, "-n", stdout=full)
    try:
        for _ in range(3):
            served(port)
    finally:
        process.terminate()
        _, said = process.communicate(timeout=20)
    assert process.returncode in STOPPED
    assert said == "pgproxy cannot write its log: No space left on device; it goes on\n"


def test_a_log_file(postgres: Postgres, tmp_path: Path) -> None:
    process, port = serve(tmp_path, postgres, "-n", "--logfile", "some.log", stdout=subprocess.PIPE)
    try:
        served(port)
    finally:
        process.terminate()
        out, _ = process.communicate(timeout=20)
    events = [json.loads(line)["event"] for line in (tmp_path / "some.log").read_text().splitlines()]
    assert events[0] == "started" and "client_logged_in" in events and events[-1] == "stopped"
    assert out == ""


def test_a_daemon_has_a_log_file(postgres: Postgres, tmp_path: Path) -> None:
    process, port = serve(tmp_path, postgres, stdout=subprocess.PIPE)
    assert process.wait(20) == 0
    pid = int((tmp_path / "pid").read_text())
    try:
        served(port)
    finally:
        os.kill(pid, signal.SIGTERM)
    log = tmp_path / "twistd.log"
    assert wait_until(lambda: '"stopped"' in log.read_text(), 20)
    process.communicate()


def test_logs_that_twistd_offers_and_we_do_not(postgres: Postgres, tmp_path: Path) -> None:
    process, _ = serve(tmp_path, postgres, "-n", "--syslog", stdout=subprocess.PIPE)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 1 and "--logfile" in said
