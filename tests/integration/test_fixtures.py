"""The servers, certificates and processes that the other integration tests build upon."""

import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psycopg
import pytest

from pgproxy.demo.ports import free_port, is_listening
from pgproxy.demo.postgres import Postgres
from pgproxy.demo.process import DemoError, wait_until
from tests.fix_docker import DockerPostgres
from tests.fix_pgproxy import PgproxyFactory
from tests.fix_postgres import PASSWORDS, PostgresFactory
from tests.fix_tls import Tls, TlsPostgres
from tests.tls_front import TlsFront, server_context


@pytest.mark.parametrize("user", PASSWORDS)
def test_every_user_logs_in_with_the_password(postgres: Postgres, user: str) -> None:
    with postgres.connect(user=user, password=PASSWORDS[user], dbname="app") as connection:
        assert connection.execute("select current_user").fetchone() == (user,)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        postgres.connect(user=user, password="wrong", dbname="app")


def test_the_secrets_are_stored_as_the_names_say(postgres: Postgres) -> None:
    rows = postgres.execute(
        "select rolname, left(rolpassword, 3) from pg_authid where rolpassword is not null"
    )
    assert dict(rows) == {"app": "SCR", "md5user": "md5", "cleartext": "SCR", "other": "SCR", "boss": "SCR"}


def test_the_superuser_comes_in_through_the_socket_alone(postgres: Postgres) -> None:
    assert postgres.execute("show listen_addresses", "select current_user") == [("postgres",)]
    with pytest.raises(psycopg.OperationalError):
        postgres.connect(user="postgres", dbname="postgres")


def test_a_url_holds_any_name(postgres: Postgres) -> None:
    with psycopg.connect(
        postgres.dsn("app", PASSWORDS["app"], "app", application_name="a b&c")
    ) as connection:
        assert connection.execute("show application_name").fetchone() == ("a b&c",)


def test_settings_hold_and_change_with_a_reload(postgres_factory: PostgresFactory) -> None:
    server = postgres_factory(max_connections=7, work_mem="3MB")
    assert server.execute("show max_connections") == [("7",)]
    server.settings["work_mem"] = "5MB"
    server.reload()
    assert wait_until(lambda: server.execute("show work_mem") == [("5MB",)], 30)


def test_a_wrong_setting_is_said_with_the_log(postgres_factory: PostgresFactory) -> None:
    with pytest.raises(DemoError, match="unrecognized configuration parameter"):
        postgres_factory(no_such_setting=1)


def test_it_restarts_on_its_port_with_its_data(postgres_factory: PostgresFactory) -> None:
    server = postgres_factory()
    server.execute("create table kept (x int)")
    port = server.port
    server.restart()
    server.kill()
    with pytest.raises(DemoError, match="not running"):
        server.reload()
    server.start()
    assert server.port == port
    assert server.execute("select count(*) from kept") == [(0,)]


def test_a_paused_one_answers_nothing_until_it_goes_on(postgres_factory: PostgresFactory) -> None:
    server = postgres_factory()
    with server.admin() as connection:
        server.pause()
        connection.pgconn.send_query(b"select 1")
        connection.pgconn.flush()
        time.sleep(0.2)
        connection.pgconn.consume_input()
        assert connection.pgconn.is_busy()
        server.unpause()
        result = connection.pgconn.get_result()
        assert result is not None and result.get_value(0, 0) == b"1"
        while connection.pgconn.get_result() is not None:
            pass


def test_nothing_is_left_after_it(postgres_factory: PostgresFactory) -> None:
    server = postgres_factory()
    server.close()
    assert not server.data.exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))


_HOLDER = """
import sys, time
from pgproxy.demo.binaries import find_binaries
from pgproxy.demo.postgres import Postgres
from pgproxy.demo.process import server_account
account = server_account()
with Postgres(find_binaries(account), account) as server:
    print(server.pid, server._scratch, flush=True)
    time.sleep(60)
"""


def test_it_does_not_outlive_its_maker(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _HOLDER], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        pid, scratch = holder.stdout.readline().split()
        assert Path("/proc", pid).exists()
        holder.send_signal(signal.SIGKILL)
    try:
        assert wait_until(lambda: not Path("/proc", pid).exists(), 30)
    finally:
        subprocess.run(["rm", "-r", scratch], check=True)


@pytest.mark.parametrize("mode", ["disable", "require", "verify-ca", "verify-full"])
def test_tls_to_postgresql(tls_postgres: TlsPostgres, tls: Tls, mode: str) -> None:
    with tls_postgres.connect(
        user="app", password=PASSWORDS["app"], dbname="app", sslmode=mode, sslrootcert=str(tls.ca)
    ) as connection:
        assert connection.pgconn.ssl_in_use == (mode != "disable")
        assert connection.execute("select length(repeat('x', 3000000))").fetchone() == (3000000,)
        assert len(connection.execute("select repeat('x', 3000000)").fetchone()[0]) == 3000000  # type: ignore[index]


def test_another_ca_is_refused(tls_postgres: TlsPostgres, tls: Tls) -> None:
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        tls_postgres.connect(user="app", sslmode="verify-ca", sslrootcert=str(tls.other_ca))


def test_channel_binding_is_there_where_tls_is_native(tls_postgres: TlsPostgres) -> None:
    parameters = {"user": "app", "password": PASSWORDS["app"], "dbname": "app", "channel_binding": "require"}
    if tls_postgres.native:
        tls_postgres.connect(**parameters).close()
    else:
        with pytest.raises(psycopg.OperationalError, match="channel binding"):
            tls_postgres.connect(**parameters)


@pytest.mark.parametrize("negotiation", ["postgres", "direct"])
def test_the_front_of_the_tests(postgres: Postgres, tls: Tls, negotiation: str) -> None:
    with TlsFront(postgres.port, server_context(tls.server.certificate, tls.server.key)) as front:
        with postgres.connect(
            port=front.port,
            user="app",
            password=PASSWORDS["app"],
            dbname="app",
            sslmode="verify-full",
            sslrootcert=str(tls.ca),
            sslnegotiation=negotiation,
        ) as connection:
            with connection.cursor() as cursor:
                cursor.execute("create temporary table t (x text)")
                with cursor.copy("copy t from stdin") as copy:
                    for _ in range(100):
                        copy.write(b"x" * 100_000 + b"\n")
                with cursor.copy("copy t to stdout") as copy:
                    assert sum(len(block) for block in copy) == 100 * 100_001


def test_the_front_ends_direct_tls_without_alpn(postgres: Postgres, tls: Tls) -> None:
    context = ssl.create_default_context(cafile=tls.ca)
    with TlsFront(postgres.port, server_context(tls.server.certificate, tls.server.key)) as front:
        with socket.create_connection(("127.0.0.1", front.port), 5) as plain:
            with context.wrap_socket(plain, server_hostname="localhost") as secured:
                assert secured.recv(1) == b""


def test_docker(docker_postgres: DockerPostgres) -> None:
    with docker_postgres.connect() as connection:
        assert connection.execute("select 1").fetchone() == (1,)


def test_pgproxy_runs_reloads_and_stops(pgproxy: PgproxyFactory) -> None:
    run = pgproxy(pool_mode="session", pool_size=1)
    with run.connect() as connection:
        assert connection.execute("select current_user, current_database()").fetchone() == ("app", "app")
    with psycopg.connect(run.dsn("md5user")) as connection:
        assert connection.execute("select current_user").fetchone() == ("md5user",)
    run.reload()
    assert run.stop() in (0, -signal.SIGTERM)
    assert run.log()
    assert not is_listening(run.port)


@pytest.mark.one_process("what workers say whose supervisor is gone is an error of another test")
def test_a_port_that_somebody_else_was_faster_to_take_is_none(
    pgproxy: PgproxyFactory, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        ports = iter([somebody.getsockname()[1], free_port()])
        monkeypatch.setattr("tests.fix_pgproxy.free_port", lambda: next(ports))
        assert pgproxy(auth="trust").connect().execute("select 1").fetchone() == (1,)


def test_a_pgproxy_that_crashed_fails_the_test(pgproxy: PgproxyFactory) -> None:
    run = pgproxy()
    run.process.kill()
    run.process.wait()
    with pytest.raises(pytest.fail.Exception, match="has crashed"):
        run.check()


def test_a_wrong_configuration_fails_the_test_with_its_log(pgproxy: PgproxyFactory) -> None:
    with pytest.raises(pytest.fail.Exception, match="no_such_option"):
        pgproxy(proxy={"no_such_option": 1})


def test_an_error_in_the_log_fails_the_test(pgproxy: PgproxyFactory) -> None:
    run = pgproxy()
    run.stop()
    with run.log_file.open("a") as log:
        log.write('{"event": "something broke", "level": "error"}\n')
    with pytest.raises(pytest.fail.Exception, match="something broke"):
        run.check()
    run.expect_errors()
    run.check()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demonstration_from_start_to_stop(tmp_path: Path, number: signal.Signals) -> None:
    port = free_port()
    command = [sys.executable, "-m", "pgproxy.demo", "--port", str(port), "--dir", str(tmp_path / "demo")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as demo:
        assert demo.stdout is not None
        said = []
        for line in demo.stdout:
            said.append(line)
            if "psql postgresql://" in line:
                with psycopg.connect(line.split()[1]) as connection:
                    assert connection.execute("select current_user").fetchone() == ("demo",)
            elif "http://" in line:
                with urllib.request.urlopen(line.split()[-1], timeout=20) as page:
                    assert b"<title>pgproxy</title>" in page.read()
                demo.send_signal(number)
        assert demo.wait(30) == 0, "".join(said)
    assert said[-1] == "Stopping pgproxy, then PostgreSQL.\n"
    data = next(Path(line.split("its data: ")[1].strip()) for line in said if "its data: " in line)
    if not data.is_relative_to(tmp_path):
        shutil.rmtree(data.parent)


def test_the_first_workers_are_those_that_were_forked_beforehand(
    pgproxy: PgproxyFactory, postgres: Postgres
) -> None:
    proxy = pgproxy(server=postgres, proxy={"workers": 2})
    for pid in proxy.await_event("started")["workers"]:
        assert b"tests.nursery" in Path(f"/proc/{pid}/cmdline").read_bytes()
    with proxy.connect() as connection:
        assert connection.execute("select 1").fetchone() == (1,)
