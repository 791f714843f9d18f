"""A client that waits for a server is told so, when it is logged in and before: by a NOTICE, once."""

from __future__ import annotations

import asyncio  # noqa: TID251 - asyncpg runs on it
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import asyncpg
import pg8000.native
import psycopg
import pytest

from pgproxy.demo.binaries import Binaries
from pgproxy.demo.postgres import Postgres
from pgproxy.wire.messages import read_error_fields
from tests.fix_pgproxy import WORKERS, Pgproxy, PgproxyFactory
from tests.fix_postgres import PASSWORDS
from tests.raw import TIMEOUT, Raw, message, startup

PASSWORD = PASSWORDS["app"]


def start(
    pgproxy: PgproxyFactory, postgres: Postgres, mode: str, notice: float = 0.3, timeout: float = 120
) -> Pgproxy:
    limits = {"connection_borrow_notice": notice, "connection_borrow_timeout": timeout}
    return pgproxy(server=postgres, pool_mode=mode, pool_size=1, auth="trust", proxy=limits)


@contextmanager
def held(proxy: Pgproxy) -> Iterator[Callable[[], None]]:
    """Have the only server in use; what is given lets go of it."""
    with Raw(proxy.port) as holder:
        holder.log_in()
        holder.query("begin")
        yield holder.socket.close


def test_who_is_logged_in(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = start(pgproxy, postgres, "transaction")
    noticed: list[dict[str, str | None]] = []
    came = threading.Event()

    def notice(told: psycopg.errors.Diagnostic) -> None:
        names = ("severity", "sqlstate", "message_primary", "message_detail", "message_hint")
        noticed.append({name: getattr(told, name) for name in names})
        came.set()

    with proxy.connect(autocommit=True) as waiting, ThreadPoolExecutor(1) as thread:
        waiting.add_notice_handler(notice)
        for times in (1, 2):
            with held(proxy) as let_go:
                answer = thread.submit(lambda: waiting.execute("select 7").fetchone())
                assert came.wait(TIMEOUT)
                with pytest.raises(TimeoutError):
                    answer.result(1)
                let_go()
                assert answer.result(TIMEOUT) == (7,)
            assert len(noticed) == times
            came.clear()
    here = (
        "1 in use (1 idle in a transaction)",
        "Clients sit in transactions and do nothing: find them, or ",
    )
    elsewhere = ("0 in use, 1 in other workers", "The pool is too small for what its clients do at a time ")
    for told in noticed:
        detail, hint = told.pop("message_detail"), told.pop("message_hint")
        assert detail is not None and hint is not None
        assert any(
            detail.endswith(f"Pool app/app has 1 of at most 1 servers: {holds}; waiting clients: 1.")
            and hint.startswith(advice)
            for holds, advice in ([here] if WORKERS == 1 else [here, elsewhere])
        )
        assert told == {
            "severity": "NOTICE",
            "sqlstate": "00000",
            "message_primary": "waiting for a server connection",
        }


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_who_is_not_logged_in_yet(pgproxy: PgproxyFactory, postgres: Postgres, mode: str) -> None:
    proxy = start(pgproxy, postgres, mode)
    with held(proxy) as let_go, Raw(proxy.port) as waiting:
        # How a server greets with these parameters is not known yet.
        waiting.send(startup(user="app", database="app", application_name=mode))
        assert waiting.tags("N") == "RN"
        let_go()
        seen = waiting.tags()
        assert seen.strip("S") == "KZ"
        assert waiting.value("show application_name") == mode


def test_who_was_idle_before(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    """It was looked at seldom, as its limits are long; now it is told before its wait is over."""
    proxy = start(pgproxy, postgres, "transaction", timeout=4)
    with Raw(proxy.port) as waiting:
        waiting.log_in()
        time.sleep(1)
        with held(proxy) as let_go:
            waiting.send(message("Q", b"select 7\0"))
            assert waiting.tags("N") == "N"
            let_go()
            assert waiting.tags() == "TDCZ"


def test_off(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = start(pgproxy, postgres, "session", notice=0)
    with held(proxy) as let_go, Raw(proxy.port) as waiting:
        waiting.send(startup(user="app", database="app"))
        waiting.socket.settimeout(2)
        assert waiting.tags("R") == "R"
        with pytest.raises(TimeoutError):
            waiting.message()
        let_go()
        assert waiting.tags().strip("S") == "KZ"


def test_who_waits_in_vain(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = start(pgproxy, postgres, "session", timeout=2)
    with held(proxy), Raw(proxy.port) as waiting:
        waiting.send(startup(user="app", database="app"))
        *_, notice, error = waiting.until("E")
        assert (notice[0], read_error_fields(error[1])["C"]) == ("N", "08000")
        assert waiting.ended()


def by_psycopg(proxy: Pgproxy) -> object:
    with proxy.connect() as connection:
        return connection.execute("select 7").fetchone()


def by_asyncpg(proxy: Pgproxy) -> object:
    async def ask() -> object:
        connection = await asyncpg.connect(
            host="127.0.0.1", port=proxy.port, user="app", password=PASSWORD, database="app", ssl=False
        )
        try:
            return tuple(await connection.fetchrow("select 7"))
        finally:
            await connection.close()

    return asyncio.run(ask())


def by_pg8000(proxy: Pgproxy) -> object:
    connection = pg8000.native.Connection(
        "app", host="127.0.0.1", port=proxy.port, password=PASSWORD, database="app"
    )
    try:
        return tuple(connection.run("select 7")[0])
    finally:
        connection.close()


@pytest.mark.parametrize("ask", [by_psycopg, by_asyncpg, by_pg8000])
def test_drivers_take_it_while_they_log_in(
    pgproxy: PgproxyFactory, postgres: Postgres, ask: Callable[[Pgproxy], object]
) -> None:
    proxy = start(pgproxy, postgres, "session")
    with held(proxy) as let_go, ThreadPoolExecutor(1) as thread:
        answer = thread.submit(ask, proxy)
        with pytest.raises(TimeoutError):
            answer.result(2)
        let_go()
        assert answer.result(TIMEOUT) == (7,)


def test_psql_shows_it(pgproxy: PgproxyFactory, postgres: Postgres, binaries: Binaries) -> None:
    psql = shutil.which("psql", path=str(binaries.bindir)) or shutil.which("psql")
    if psql is None:
        pytest.skip("no psql here")
    proxy = start(pgproxy, postgres, "session")
    with held(proxy) as let_go:
        running = subprocess.Popen(
            [psql, "-XAtc", "select 7", proxy.dsn()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert running.stderr is not None
        notice, detail, hint = (running.stderr.readline() for _ in range(3))
        assert notice == "NOTICE:  waiting for a server connection\n"
        assert "Pool app/app has 1 of at most 1 servers: " in detail
        assert hint.startswith("HINT:  ")
        if WORKERS == 1:
            assert "1 in use" in detail and "Clients sit in transactions" in hint
        let_go()
        assert running.communicate(timeout=TIMEOUT) == ("7\n", "")
    assert running.returncode == 0
