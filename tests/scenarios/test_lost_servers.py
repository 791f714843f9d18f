"""
Clients of transaction mode whose server is lost: they are told what they have lost, and stay.

The server is a PostgreSQL of these tests' own: one of its processes is killed or terminated, or all of it is
stopped, killed and started again on the same port.
"""

from __future__ import annotations

import asyncio  # noqa: TID251 - asyncpg runs on it
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import asyncpg
import pg8000.dbapi
import psycopg
import pytest
from psycopg import errors as pg
from psycopg.pq import TransactionStatus

from pgproxy.demo.binaries import Binaries
from pgproxy.demo.postgres import Postgres
from pgproxy.demo.process import Account, children, wait_until
from pgproxy.wire import messages
from pgproxy.wire.messages import read_error_fields
from tests.activity import running
from tests.fix_pgproxy import Pgproxy, PgproxyFactory, starting
from tests.fix_postgres import PASSWORDS, started
from tests.raw import (
    FLUSH,
    SYNC,
    TERMINATE,
    Raw,
    bind,
    client,
    close_statement,
    describe,
    execute,
    extended,
    message,
    parse,
)

WAIT = 20.0


@pytest.fixture(scope="module")
def server(binaries: Binaries, account: Account | None) -> Iterator[Postgres]:
    """One that tests may stop and kill."""
    with started(binaries, account) as server:
        # A backend is killed soon, and with it all end: what is not on the disk by then is lost.
        server.execute("set synchronous_commit = local", "grant other to app")
        yield server


@pytest.fixture(scope="module", params=["compiled", "python"])
def proxy(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, server: Postgres
) -> Iterator[Pgproxy]:
    """With and without the compiled twin."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "python":
            patch.setenv("PGPROXY_PURE", "1")
        for start in starting(request, tmp_path_factory):
            yield begin(start, server)


def begin(start: PgproxyFactory, server: Postgres, **options: float) -> Pgproxy:
    return start(
        server=server,
        pool_size=4,
        auth="trust",
        users=PASSWORDS,
        target={"tls": "disable"},
        proxy={"connection_borrow_timeout": 20, **options},
    )


def pid_of(raw: Raw) -> int:
    """Give the process id of the server that a client is linked to, or had last."""
    return int(raw.value("select pg_backend_pid()") or 0)


def gone(pid: int) -> bool:
    """Say whether a process has ended; its connections have, then."""
    return not Path(f"/proc/{pid}").exists()


def terminate(server: Postgres, pid: int) -> None:
    server.execute(f"select pg_terminate_backend({pid})")
    assert wait_until(lambda: gone(pid), WAIT)


def crash(server: Postgres, pid: int) -> None:
    """Kill a server process: PostgreSQL then ends all others, and recovers."""
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: gone(pid), WAIT)
    assert wait_until(lambda: works_directly(server), WAIT)


def works_directly(server: Postgres) -> bool:
    try:
        return server.execute("select 1") == [(1,)]
    except psycopg.OperationalError:
        return False


def short(heard: list[tuple[str, bytes]]) -> str:
    """Say what was heard: tags, with the SQLSTATE of an error and the status of a ReadyForQuery."""
    words = []
    for tag, payload in heard:
        if tag == "E":
            tag += read_error_fields(payload)["C"]
        elif tag == "Z":
            tag += payload.decode()
        elif tag == "C":
            tag += payload[:-1].decode()
        if tag not in "NS":
            words.append(tag)
    return " ".join(words)


def said(raw: Raw, text: str) -> str:
    return short(raw.query(text))


@pytest.fixture
def raw(proxy: Pgproxy) -> Iterator[Raw]:
    with client(proxy.port) as raw:
        yield raw


Ends = Callable[[Postgres, int], None]
WAYS: dict[str, tuple[Ends, str]] = {"terminated": (terminate, "57P01"), "killed": (crash, "08006")}
each_way = pytest.mark.parametrize(("end", "sqlstate"), WAYS.values(), ids=WAYS.keys())


# A statement under way.


@each_way
def test_a_query(server: Postgres, raw: Raw, end: Ends, sqlstate: str) -> None:
    raw.query("set work_mem = '7MB'")
    raw.send(message("Q", b"select pg_sleep(600) /* query */\0"))
    end(server, running(server, "query */"))
    fields = raw.error()
    assert (fields["S"], fields["V"], fields["C"]) == ("ERROR", "ERROR", sqlstate)
    assert "not known" in fields["D"] and "keeps this session" in fields["H"]
    assert short(raw.until("Z")) == "ZI"
    assert raw.value("show work_mem") == "7MB"


@each_way
def test_a_pipeline(server: Postgres, raw: Raw, end: Ends, sqlstate: str) -> None:
    raw.send(extended("select pg_sleep(600) /* pipeline */"), SYNC, extended("select 1"), SYNC, FLUSH)
    raw.send(message("Q", b"select 2\0"), parse("select 3"))
    end(server, running(server, "pipeline */"))
    heard = " ".join(short(raw.until("Z")) for _ in range(3))
    assert heard.removeprefix("1 2 T ") == f"E{sqlstate} ZI E{sqlstate} ZI E{sqlstate} ZI"
    assert raw.error()["C"] == sqlstate
    raw.send(bind(), execute(), SYNC, extended("select 4"), SYNC)
    assert short(raw.until("Z")) == "ZI"
    assert short(raw.until("Z")) == "1 2 T D CSELECT 1 ZI"


@each_way
def test_copy_in(server: Postgres, raw: Raw, end: Ends, sqlstate: str) -> None:
    server.execute("drop table if exists copied", "create table copied (a int)", "grant all on copied to app")
    raw.send(message("Q", b"copy pg_temp.t from stdin\0"))
    raw.until("Z")
    raw.send(
        message("Q", b"copy (select 1) to stdout; create temp table here (a int); copy here from stdin\0")
    )
    raw.until("G")
    raw.send(message("d", b"1\n"))
    end(server, running(server, "copy here"))
    assert raw.error()["C"] == sqlstate
    raw.send(message("d", b"2\n"), message("c"))
    assert short(raw.until("Z")) == "ZI"
    assert raw.value("select 1") == "1"


def test_a_message_half_sent(server: Postgres, raw: Raw) -> None:
    pid = int(raw.value("begin; select pg_backend_pid()") or 0)
    long = message("Q", b"select length('" + b"x" * 3_000_000 + b"')\0")
    raw.send(long[:1_000_000])
    time.sleep(0.2)
    terminate(server, pid)
    raw.send(long[1_000_000:], message("Q", b"rollback\0"))
    assert short(raw.until("Z")) == "E57P01 ZE"
    assert short(raw.until("Z")) == "CROLLBACK ZI"
    assert raw.value("select 1") == "1"


def test_nothing_is_run_twice(server: Postgres, raw: Raw) -> None:
    server.execute("drop table if exists counted")
    raw.query("create table if not exists tally (a int)")
    raw.query("truncate tally")
    raw.send(message("Q", b"insert into tally values (1); select pg_sleep(600) /* once */\0"))
    terminate(server, running(server, "once */"))
    raw.until("Z")
    time.sleep(0.3)
    assert raw.value("select count(*) from tally") == "0"


BATCHES = {
    "query": message("Q", b"select 'arrived'\0"),
    "batch": extended("select 'arrived'") + SYNC,
    "named": bind("named") + describe() + execute() + SYNC,
}


@pytest.mark.parametrize("said", BATCHES.values(), ids=BATCHES.keys())
@pytest.mark.parametrize("end", [terminate, crash], ids=["terminated", "crash"])
def test_a_server_that_had_ended_when_it_was_taken(
    proxy: Pgproxy, server: Postgres, raw: Raw, said: bytes, end: Ends
) -> None:
    """What is written to a server that has ended before is not lost: it never arrived there."""
    raw.send(parse("select 'arrived'", "named"), SYNC)
    raw.until("Z")
    pid = pid_of(raw)
    processes = [proxy.pid, *children(proxy.pid)]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        # When pgproxy looks again, it finds the client's message before the end of the server.
        raw.send(said)
        end(server, pid)
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)
    heard = raw.until("Z")
    assert short(heard).endswith("D CSELECT 1 ZI") and "E" not in [tag for tag, _ in heard]


# In a transaction.


@each_way
def test_idle_in_a_transaction(server: Postgres, raw: Raw, end: Ends, sqlstate: str) -> None:
    raw.query("begin")
    raw.query("set local work_mem = '8MB'; set statement_timeout = '1h'")
    end(server, pid_of(raw))
    time.sleep(0.2)
    fields_and_more = raw.query("insert into nothing values (1)")
    assert short(fields_and_more) == f"E{sqlstate} ZE"
    assert said(raw, "select 1") == "E25P02 ZE"
    assert said(raw, "savepoint a") == "E25P02 ZE"
    assert said(raw, "rollback to a") == "E3B001 ZE"
    raw.send(extended("select 1"), SYNC)
    assert short(raw.until("Z")) == "E25P02 ZE"
    assert said(raw, "rollback") == "CROLLBACK ZI"
    assert raw.value("show work_mem") == "4MB" and raw.value("show statement_timeout") == "0"


@each_way
def test_a_statement_in_a_transaction(server: Postgres, raw: Raw, end: Ends, sqlstate: str) -> None:
    raw.query("begin")
    raw.send(message("Q", b"select pg_sleep(600) /* within */\0"))
    end(server, running(server, "within */"))
    fields = raw.error()
    assert fields["C"] == sqlstate and "COMMIT" in fields["D"] and "ROLLBACK" in fields["H"]
    assert short(raw.until("Z")) == "ZE"
    assert said(raw, "commit") == "CROLLBACK ZI"
    assert raw.value("select 1") == "1"


def test_rollback_needs_no_error_and_commit_gets_one(server: Postgres, raw: Raw) -> None:
    for text, heard in (("rollback", "CROLLBACK ZI"), ("commit", "E57P01 ZI"), ("end", "E57P01 ZI")):
        raw.query("begin")
        terminate(server, pid_of(raw))
        time.sleep(0.1)
        assert said(raw, text) == heard
        assert raw.value("select 1") == "1"


def test_a_named_rollback_as_jdbc_has_it(server: Postgres, raw: Raw) -> None:
    raw.send(parse("ROLLBACK", "S_1"), parse("select 1", "S_2"), SYNC)
    assert raw.tags() == "11Z"
    raw.query("begin")
    terminate(server, pid_of(raw))
    time.sleep(0.1)
    raw.send(bind("S_1"), execute(), SYNC)
    assert short(raw.until("Z")) == "2 CROLLBACK ZI"
    raw.send(bind("S_1"), describe(), execute(), bind("S_2"), describe(), execute(), SYNC)
    assert short(raw.until("Z")) == "2 n CROLLBACK 2 T D CSELECT 1 ZI"
    raw.query("begin")
    terminate(server, pid_of(raw))
    time.sleep(0.1)
    raw.send(bind("S_2"), execute(), SYNC, close_statement("S_2"), SYNC, bind("S_1"), execute(), SYNC)
    assert [short(raw.until("Z")) for _ in range(3)] == ["E57P01 ZE", "3 ZE", "2 CROLLBACK ZI"]
    raw.send(parse("select 2", "S_2"), bind("S_2"), execute(), SYNC)
    assert short(raw.until("Z")) == "1 2 D CSELECT 1 ZI"


def test_a_batch_that_begins_with_rollback(server: Postgres, raw: Raw) -> None:
    raw.query("begin")
    terminate(server, pid_of(raw))
    time.sleep(0.1)
    assert said(raw, "ROLLBACK;\nSELECT 1;\nRESET ALL;") == "CROLLBACK T D CSELECT 1 CRESET ZI"


def test_settings_that_are_reported_are_told_as_they_are_again(server: Postgres, raw: Raw) -> None:
    raw.query("set application_name = 'before'")
    raw.query("begin; set application_name = 'within'")
    terminate(server, pid_of(raw))
    told = [payload for tag, payload in raw.query("rollback") if tag == "S"]
    assert told == [b"application_name\0before\0"]
    assert raw.value("show application_name") == "before"


def test_a_failed_transaction_needs_no_server(proxy: Pgproxy, server: Postgres) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(client(proxy.port)) for _ in range(8)]
        pids = []
        for raw in clients[:4]:
            raw.query("begin")
            pids.append(pid_of(raw))
        for pid in pids:
            terminate(server, pid)
        for raw in clients[4:]:
            assert said(raw, "begin") == "CBEGIN ZT"
        for raw in clients[:4]:
            assert said(raw, "select 1") == "E57P01 ZE" and said(raw, "rollback") == "CROLLBACK ZI"
        for raw in clients[4:]:
            assert said(raw, "commit") == "CCOMMIT ZI"


def test_who_does_not_read_its_answers_is_not_read(proxy: Pgproxy, server: Postgres, raw: Raw) -> None:
    """The answers are many times as long as the questions: they would fill the memory."""
    count = 120_000
    raw.query("begin")
    terminate(server, pid_of(raw))
    before = peak(proxy.pid)
    raw.send(message("Q", b"x\0") * count)
    assert wait_until(lambda: rests(proxy.pid), 60)
    raw.send(message("Q", b"rollback\0"))
    size, heard = 0, b""
    while not heard.endswith(messages.ready_for_query(b"I")):
        heard = heard[-6:] + raw.socket.recv(1 << 20)
        size += len(heard) - 6
    assert size > 24_000_000 and peak(proxy.pid) - before < size / 2
    assert raw.value("select 1") == "1"


def rests(pid: int) -> bool:
    """Say whether a process has nothing to do for a while."""
    before = Path(f"/proc/{pid}/stat").read_text().split()[13:15]
    time.sleep(0.5)
    return Path(f"/proc/{pid}/stat").read_text().split()[13:15] == before


def peak(pid: int) -> int:
    """Give the most memory in bytes that a process has had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


# What kept the server.


def test_a_temporary_table(server: Postgres, raw: Raw) -> None:
    raw.query("create temp table t (a int)")
    raw.query("set work_mem = '9MB'")
    terminate(server, pid_of(raw))
    time.sleep(0.1)
    fields = read_error_fields(raw.query("select * from t")[0][1])
    assert fields["C"] == "57P01" and "temporary_object" in fields["D"]
    assert said(raw, "select * from t") == "E42P01 ZI"
    assert raw.value("show work_mem") == "9MB"


def test_a_lock_and_a_rolled_back_transaction(server: Postgres, raw: Raw) -> None:
    raw.query("select pg_advisory_lock(7)")
    raw.query("begin")
    terminate(server, pid_of(raw))
    time.sleep(0.1)
    assert said(raw, "rollback") == "CROLLBACK ZI"
    assert "advisory_lock" in read_error_fields(raw.query("select 1")[0][1])["D"]
    assert raw.value("select pg_try_advisory_lock(7)") == "t"
    raw.query("select pg_advisory_unlock(7)")


@each_way
def test_who_listens_is_ended(server: Postgres, raw: Raw, end: Ends, sqlstate: str) -> None:
    raw.query("listen channel")
    end(server, pid_of(raw))
    fields = raw.error()
    assert (fields["S"], fields["C"]) == ("FATAL", sqlstate) and "listening" in fields["H"]
    assert raw.ended()


def test_an_error_of_ones_own_ends_the_client_as_ever(server: Postgres, raw: Raw) -> None:
    raw.query("begin; set idle_in_transaction_session_timeout = 100")
    fields = raw.error()
    assert (fields["S"], fields["C"]) == ("FATAL", "25P03")
    assert raw.ended()


# A restart in place.


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_a_restart(proxy: Pgproxy, server: Postgres, how: str) -> None:
    with ExitStack() as stack:
        idle, setter, within, busy, caller = (stack.enter_context(client(proxy.port)) for _ in range(5))
        assert idle.value("select 1") == "1"
        assert said(setter, "set role other") == "CSET ZI"
        within.query("begin")
        busy.send(message("Q", b"select pg_sleep(600) /* restart */\0"))
        running(server, "restart */")
        if how == "kill":
            server.kill()
        else:
            server.stop()
        try:
            heard = short(busy.until("Z"))
            assert heard.removeprefix("T ") in ("E57P01 ZI", "E08006 ZI")
            caller.send(message("Q", b"select 'waited'\0"))
        finally:
            server.start()
        assert short(caller.until("Z")) == "T D CSELECT 1 ZI"
        assert idle.value("select 2") == "2"
        assert setter.value("select current_user") == "other"
        assert said(within, "select 1")[:1] == "E" and said(within, "rollback") == "CROLLBACK ZI"
        assert within.value("select 3") == "3" and busy.value("select 4") == "4"


# Limits, and the end.


def test_limits_hold_for_a_client_without_a_server(pgproxy: PgproxyFactory, server: Postgres) -> None:
    proxy = begin(pgproxy, server, idle_transaction_timeout=3, idle_client_timeout=5)
    with client(proxy.port) as within, client(proxy.port) as done, client(proxy.port) as talks:
        for raw in (within, done, talks):
            raw.query("begin")
            terminate(server, pid_of(raw))
        assert said(done, "rollback") == "CROLLBACK ZI"
        for _ in range(16):
            assert said(talks, "select 1").startswith("E")
            time.sleep(0.25)
        assert within.error()["C"] == "25P03" and within.ended()
        assert said(talks, "select 1") == "E25P02 ZE"
        assert done.error()["C"] == "57P05" and done.ended()


def test_a_stop(pgproxy: PgproxyFactory, server: Postgres) -> None:
    proxy = begin(pgproxy, server, drain_timeout=1)
    with client(proxy.port) as within, client(proxy.port) as pinned, client(proxy.port) as leaves:
        within.query("begin")
        pinned.query("create temp table t (a int)")
        leaves.query("begin")
        for raw in (within, pinned, leaves):
            terminate(server, pid_of(raw))
        leaves.send(TERMINATE)
        assert leaves.ended()
        proxy.begin_to_stop()
        assert pinned.error()["C"] == "57P01" and pinned.ended()
        assert within.error()["C"] == "57P01" and within.ended()
        proxy.stop()


# Drivers.


def test_psycopg(proxy: Pgproxy, server: Postgres) -> None:
    with proxy.connect(autocommit=True) as connection:
        connection.execute("create table if not exists kept (a int)")
        connection.execute("truncate kept")
        with pytest.raises(pg.AdminShutdown), connection.transaction():
            connection.execute("insert into kept values (1)")
            terminate(server, connection.execute("select pg_backend_pid()").fetchone()[0])  # type: ignore[index]
            connection.execute("insert into kept values (2)")
        assert connection.info.transaction_status is TransactionStatus.IDLE
        with pytest.raises(pg.AdminShutdown), connection.transaction():
            connection.execute("insert into kept values (3)")
            terminate(server, connection.execute("select pg_backend_pid()").fetchone()[0])  # type: ignore[index]
        assert connection.info.transaction_status is TransactionStatus.IDLE
        with connection.transaction():
            connection.execute("insert into kept values (4)")
        assert connection.execute("select a from kept").fetchall() == [(4,)]
        assert not connection.closed and not connection.broken


def test_psycopg_without_autocommit(proxy: Pgproxy, server: Postgres) -> None:
    with proxy.connect() as connection:
        for _ in range(2):
            terminate(server, connection.execute("select pg_backend_pid()").fetchone()[0])  # type: ignore[index]
            with pytest.raises(pg.AdminShutdown):
                connection.execute("select 1")
            with pytest.raises(pg.InFailedSqlTransaction):
                connection.execute("select 1")
            connection.rollback()
            assert connection.execute("select 2").fetchone() == (2,)
        connection.commit()


def test_psycopgs_pipeline(proxy: Pgproxy, server: Postgres) -> None:
    with proxy.connect(autocommit=True) as connection:
        with pytest.raises(pg.OperationalError), connection.pipeline():
            connection.execute("select pg_sleep(600) /* piped */")
            cursor = connection.execute("select 1")
            connection.pgconn.flush()
            terminate(server, running(server, "piped */"))
            cursor.fetchone()
        assert connection.execute("select 2").fetchone() == (2,)
        with pytest.raises(pg.OperationalError), connection.pipeline(), connection.transaction():
            connection.execute("select 1").fetchone()
            connection.execute("select pg_sleep(600) /* piped twice */")
            cursor = connection.execute("select 1")
            terminate(server, running(server, "piped twice */"))
            cursor.fetchone()
        assert connection.info.transaction_status is TransactionStatus.IDLE
        assert connection.execute("select 3").fetchone() == (3,)


def test_asyncpg(proxy: Pgproxy, server: Postgres) -> None:
    async def work() -> None:
        pool = await asyncpg.create_pool(proxy.dsn(), min_size=1, max_size=1)
        async with pool.acquire() as connection:
            inner = connection._con
            with pytest.raises(asyncpg.AdminShutdownError):
                async with connection.transaction():
                    terminate(server, await connection.fetchval("select pg_backend_pid()"))
                    await connection.fetchval("select 1")
            assert await connection.fetchval("select 2") == 2
            with pytest.raises(asyncpg.AdminShutdownError):
                async with connection.transaction():
                    terminate(server, await connection.fetchval("select pg_backend_pid()"))
            assert await connection.fetchval("select 3") == 3
            await connection.execute("begin")
            terminate(server, await connection.fetchval("select pg_backend_pid()"))
        async with pool.acquire() as connection:
            assert connection._con is inner
            assert await connection.fetchval("select 4") == 4
        await pool.close()

    asyncio.run(work())


def test_pg8000(proxy: Pgproxy, server: Postgres) -> None:
    connection = pg8000.dbapi.connect(
        "app", "127.0.0.1", "app", proxy.port, PASSWORDS["app"], ssl_context=False
    )
    cursor = connection.cursor()
    for _ in range(2):
        cursor.execute("select pg_backend_pid()")
        terminate(server, cursor.fetchone()[0])
        with pytest.raises(pg8000.dbapi.DatabaseError) as error:
            cursor.execute("select 1")
        assert error.value.args[0]["C"] == "57P01"
        connection.rollback()
        cursor.execute("select 2")
        assert cursor.fetchone() == [2]
    connection.commit()
    connection.close()


def test_psql(proxy: Pgproxy, server: Postgres, binaries: Binaries) -> None:
    script = "begin;\nselect pg_sleep(600) /* psql */;\nselect 1;\ncommit;\nselect 'still here';\n"
    with subprocess.Popen(
        [binaries.bindir / "psql", "-XAt", proxy.dsn()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as psql:
        assert psql.stdin is not None
        psql.stdin.write(script)
        psql.stdin.close()
        psql.stdin = None
        terminate(server, running(server, "psql */"))
        out, err = psql.communicate(timeout=WAIT)
    assert out.split("\n")[:3] == ["BEGIN", "ROLLBACK", "still here"], (out, err)
    assert "the connection to the database server was lost" in err and "aborted" in err


def test_pgbench(proxy: Pgproxy, server: Postgres, binaries: Binaries) -> None:
    """Its clients work on through a restart where they may try again."""
    tool: list[str | Path] = [
        binaries.bindir / "pgbench",
        "-h",
        "127.0.0.1",
        "-p",
        str(proxy.port),
        "-U",
        "app",
    ]
    subprocess.run([*tool, "-i", "-q", "app"], check=True, capture_output=True, timeout=60)
    with subprocess.Popen(
        [*tool, "-S", "-c", "4", "-T", "4", "-n", "app"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as bench:
        time.sleep(1)
        server.restart()
        out, _ = bench.communicate(timeout=60)
    # A client of pgbench's stops at such an error, but none of them loses its connection.
    assert "server closed the connection" not in out
