"""What drivers say by themselves, above all their reset batches, leaves a client unpinned."""

from __future__ import annotations

import asyncio  # noqa: TID251 - asyncpg runs on it

import asyncpg
import psycopg
import pytest

from tests.fix_twin import Theatre, Twin
from tests.programs import (
    Free,
    Program,
    bound,
    compare,
    each,
    each_way,
    program,
)
from tests.raw import (
    FLUSH,
    SYNC,
    bind,
    close_statement,
    describe,
    describe_statement,
    execute,
    parse,
)
from tests.stages import Log, served

ASYNCPG = "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;"
NPGSQL = (
    "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; SELECT pg_advisory_unlock_all(); "
    "DISCARD SEQUENCES; DISCARD TEMP;"
)
TENANT = "select nullif(current_setting('my.tenant', true), '')"
RESETS = {
    "asyncpg": ASYNCPG,
    "npgsql": "DISCARD ALL",
    "npgsql, with prepared statements": NPGSQL,
    "npgsql, behind a transaction left open": f"ROLLBACK; {NPGSQL}",
    "pgx": "select pg_advisory_unlock_all(); close all; unlisten *; reset all; deallocate all",
    "psycopg's": "ROLLBACK; RESET ALL; SET SESSION AUTHORIZATION DEFAULT",
    "node-postgres": "RESET ALL; DISCARD TEMP; UNLISTEN *",
}


def reset(name: str, batch: str) -> Program:
    """A batch comes after nothing, and after settings; in one query and statement by statement."""
    one_by_one: list[tuple[str, str | bytes]] = [
        ("a", bound(statement)) for statement in batch.rstrip(";").split(";")
    ]
    return program(
        f"reset: {name}",
        ("a", "select 1"),
        ("a", batch),
        ("b", "select 1", "1"),
        ("a", batch),
        ("b", "select 1", "1"),
        ("a", "set work_mem = '7MB'; set timezone = 'CET'; set my.tenant = 7"),
        ("b", "show work_mem", "4MB"),
        ("a", batch),
        ("b", "show work_mem; show timezone", "4MB;UTC"),
        ("a", f"show work_mem; show timezone; {TENANT}", "4MB;UTC;NULL"),
        *one_by_one,
        ("b", "select 1", "1"),
        ("a", "begin; select pg_advisory_xact_lock(7); set local work_mem = '6MB'; commit"),
        ("a", batch),
        ("b", "select 1", "1"),
    )


def after_a_pin(name: str, batch: str) -> Program:
    """A batch ends the pins that it's for."""
    return program(
        f"reset of a pinned client: {name}",
        (
            "a",
            "select pg_advisory_lock(7), pg_advisory_lock(7); listen news; "
            "declare c cursor with hold for select 1; set work_mem = '7MB'",
        ),
        ("a", batch),
        Free(),
        ("b", "show work_mem; select * from pg_listening_channels()", "4MB"),
        ("a", "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()", "0"),
        ("a", "fetch c", "!34000"),
        ("b", "fetch c", "!34000"),
        may_pin="advisory_lock listen held_cursor",
        servers=(1,),
    )


def jdbc(text: str, *values: str, name: str = "") -> bytes:
    """Send a statement as pgjdbc does, outside and inside a transaction."""
    return parse(text, name) + bind(name, values=values) + describe() + execute()


def oneshot(*texts: str) -> bytes:
    """Send statements as pgjdbc does those that give no rows."""
    return b"".join(parse(text) + bind() + execute(limit=1) for text in texts) + SYNC


CONVERSATIONS = [
    program(
        "pgjdbc",
        ("a", oneshot("SET extra_float_digits = 3")),
        ("a", oneshot("SET application_name = 'PostgreSQL JDBC Driver'")),
        ("b", "show extra_float_digits; show application_name", "1;"),
        ("a", bound("SHOW TRANSACTION ISOLATION LEVEL"), "read committed"),
        ("a", "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE"),
        ("b", "select 1", "1"),
        ("a", parse("BEGIN", "S_1") + bind("S_1") + execute() + jdbc("select $1::int", "7") + SYNC, "7"),
        ("a", jdbc("select $1::int + 1", "7", name="S_2") + SYNC, "8"),
        ("a", parse("COMMIT", "S_3") + bind("S_3") + execute(limit=1) + SYNC),
        ("b", "select 1", "1"),
        ("a", bind("S_1") + execute() + bind("S_2", values=["8"]) + execute() + SYNC, "9"),
        ("a", bind("S_2", "C_4", values=["8"]) + describe("C_4") + execute("C_4", 1) + SYNC, "9"),
        ("a", bind("S_3") + execute(limit=1) + SYNC),
        ("b", "select 1", "1"),
        ("a", close_statement("S_2") + jdbc("show application_name") + SYNC, "PostgreSQL JDBC Driver"),
        ("b", "show application_name", ""),
        ("a", bind("S_2") + SYNC, "!26000"),
    ),
    program(
        "SQLAlchemy over psycopg 2",
        ("a", "BEGIN"),
        ("a", "select pg_catalog.version() is not null; select current_schema()"),
        ("a", "show standard_conforming_strings"),
        ("a", "ROLLBACK"),
        ("b", "select 1", "1"),
        ("a", "BEGIN; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"),
        ("a", "ROLLBACK"),
        ("b", "show transaction_isolation", "read committed"),
        ("a", "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL AUTOCOMMIT", "!42601"),
        ("a", "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ"),
        ("a", "BEGIN ISOLATION LEVEL READ COMMITTED; SAVEPOINT sa_savepoint_1"),
        ("a", "ROLLBACK TO SAVEPOINT sa_savepoint_1; ROLLBACK"),
        ("b", "show transaction_isolation", "read committed"),
        ("a", "show transaction_isolation", "repeatable read"),
        ("a", "ROLLBACK"),
        ("b", "select 1", "1"),
    ),
    program(
        "asyncpg's statements, and its introspection of a type",
        ("a", parse("select $1::int[]", "__asyncpg_1__") + describe_statement("__asyncpg_1__") + FLUSH),
        ("a", SYNC),
        ("b", parse("select 'b'", "__asyncpg_1__") + SYNC),
        ("a", bind("__asyncpg_1__", values=["{1}"]) + execute() + SYNC, "{1}"),
        ("a", "SET jit = 'off'; select set_config('jit', 'on', false)", "on"),
        ("b", bind("__asyncpg_1__") + execute() + SYNC, "b"),
        ("a", close_statement("__asyncpg_1__") + SYNC),
        ("a", ASYNCPG),
        ("b", "show jit", "on"),
        ("b", "DEALLOCATE ALL"),
        ("a", "select 1", "1"),
    ),
    program(
        "Rails, Django, libpq's applications",
        ("a", "SET client_min_messages TO 'warning'; SET standard_conforming_strings = on"),
        ("a", "SET SESSION timezone TO 'UTC'; SET intervalstyle = iso_8601; SET client_encoding TO 'utf8'"),
        ("b", "show client_min_messages; show intervalstyle", "notice;postgres"),
        ("a", "SELECT set_config('TimeZone', 'CET', false); SET DATESTYLE TO ISO; SET NAMES 'utf8'"),
        ("b", "show timezone", "UTC"),
        ("a", "show timezone; show client_min_messages", "CET;warning"),
        ("a", "SET search_path TO public; SELECT pg_catalog.set_config('search_path', '', false)"),
        ("b", "show search_path", '"$user", public'),
        ("a", "show search_path", ""),
    ),
]

# What has no UNLISTEN or CLOSE ALL in it isn't meant to end these.
ENDING = {
    name: batch for name, batch in RESETS.items() if "CLOSE ALL" in batch.upper() or batch == "DISCARD ALL"
}
PROGRAMS = [
    *(reset(name, batch) for name, batch in RESETS.items()),
    *(after_a_pin(name, batch) for name, batch in ENDING.items()),
    *CONVERSATIONS,
]


@each(PROGRAMS)
def test_directly(twin: Twin, program: Program) -> None:
    """PostgreSQL itself answers as the program wants, and twice the same."""
    compare(program, twin.directly(program), twin.directly(program, "twin"))


@each_way(PROGRAMS)
def test_through_pgproxy(theatre: Theatre, program: Program, servers: int) -> None:
    theatre.compare(program, servers)


def test_asyncpgs_pool(theatre: Theatre) -> None:
    proxy = theatre.proxy(1)
    log = Log(proxy)

    async def work() -> None:
        pool = await asyncpg.create_pool(
            host="127.0.0.1",
            port=proxy.port,
            user="boss",
            database="proxied",
            min_size=3,
            max_size=3,
            ssl=False,
        )
        for turn in range(4):
            async with pool.acquire() as one, pool.acquire() as two:
                await one.execute("set work_mem = '7MB'")
                assert await two.fetchval("show work_mem") == "4MB"
                assert await one.fetchval("show work_mem") == "7MB"
                assert await one.fetchval("select $1::int[]", [turn]) == [turn]
                assert await two.fetchval("select $1::text", str(turn)) == str(turn)
                async with one.transaction():
                    await one.execute("select pg_advisory_xact_lock(7)")
                    assert [row[0] async for row in one.cursor("select generate_series(1, 3)")] == [1, 2, 3]
            async with pool.acquire() as again:
                assert await again.fetchval("show work_mem") == "4MB"
        await pool.close()

    asyncio.run(work())
    served(proxy)
    assert not log.events("client_pinned") and not log.events("audit_found")


@pytest.mark.parametrize("threshold", [0, 1, None])
def test_psycopg(theatre: Theatre, threshold: int | None) -> None:
    proxy = theatre.proxy(1)
    log = Log(proxy)
    login = {"host": "127.0.0.1", "port": proxy.port, "user": "boss", "dbname": "proxied"}
    with (
        psycopg.connect(**login, prepare_threshold=threshold) as one,  # type: ignore[arg-type]
        psycopg.connect(**login, prepare_threshold=threshold) as two,  # type: ignore[arg-type]
    ):
        for turn in range(4):
            for connection in (one, two):
                with connection.transaction():
                    found = connection.execute("select %s::int, %s::text", (turn, "it's")).fetchone()
                    assert found == (turn, "it's")
                with pytest.raises(psycopg.errors.DivisionByZero):
                    connection.execute("select 1 / %s::int", (0,))
                connection.rollback()
        one.execute("select set_config('my.tenant', %s, false)", ("seven",))
        one.commit()
        found = two.execute("select nullif(current_setting('my.tenant', true), '')").fetchone()
        assert found == (None,)
        two.rollback()
        assert one.execute("select current_setting('my.tenant')").fetchone() == ("seven",)
        one.rollback()
        with two.pipeline():
            cursors = [two.execute("select %s::int", (number,)) for number in range(20)]
        assert [cursor.fetchone() for cursor in cursors] == [(number,) for number in range(20)]
        two.commit()
        served(proxy)
    assert not log.events("client_pinned") and not log.events("audit_found")
