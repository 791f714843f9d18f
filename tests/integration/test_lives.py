"""How long clients live: each limit, who has which, who is never ended."""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg
import pytest

from pgproxy.demo.postgres import Postgres
from tests.fix_pgproxy import Pgproxy, PgproxyFactory, Toml
from tests.raw import Raw, Refused, bind, execute, message, parse, startup

SHORT = 1.0
LONGER = 2.5
"""Seconds after which a client that is held to `SHORT` would be gone for certain."""
MODES = ("transaction", "session")

SLEEP = "select pg_sleep(600) /* lives */"

Start = Callable[..., Pgproxy]


@pytest.fixture
def start(pgproxy: PgproxyFactory, postgres: Postgres) -> Start:
    """Start pgproxy with these limits of clients' lives."""

    def start(mode: str = "transaction", extra: str = "", size: int = 1, **limits: Toml) -> Pgproxy:
        return pgproxy(
            server=postgres, pool_mode=mode, pool_size=size, auth="trust", proxy=limits, extra=extra
        )

    return start


def app(proxy: Pgproxy, user: str = "boss", database: str = "app", **settings: str) -> Raw:
    raw = Raw(proxy.port)
    raw.log_in(user=user, database=database, **settings)
    return raw


def ended(raw: Raw) -> tuple[str, str, str, str]:
    """See that a client is ended with an error; give what that says."""
    fields = raw.error()
    assert raw.ended()
    return fields["S"], fields["C"], fields["M"], fields["H"]


IDLE = ("FATAL", "57P05", "terminating connection due to idle-session timeout")
IDLE_TRANSACTION = ("FATAL", "25P03", "terminating connection due to idle-in-transaction timeout")
TRANSACTION = ("FATAL", "25P04", "terminating connection due to transaction timeout")
QUERY = ("FATAL", "57014", "canceling statement due to statement timeout")

ENDS = {
    "idle": ("idle_client_timeout", ["set work_mem = '77MB'"], "", IDLE),
    "idle and pinned": ("idle_client_timeout", ["create temp table tt ()"], "", IDLE),
    "idle since login": ("idle_client_timeout", [], "", IDLE),
    "in a transaction": (
        "idle_transaction_timeout",
        ["begin", "create temp table tt ()"],
        "",
        IDLE_TRANSACTION,
    ),
    "in a failed one": ("idle_transaction_timeout", ["begin", "select 1/0"], "", IDLE_TRANSACTION),
    "pinned and in one": (
        "idle_transaction_timeout",
        ["create temp table tt ()", "begin", "select pg_advisory_lock(7)"],
        "",
        IDLE_TRANSACTION,
    ),
    "a transaction": ("transaction_timeout", ["begin", "create temp table tt ()"], "", TRANSACTION),
    "its statement": ("transaction_timeout", ["begin", "create temp table tt ()"], SLEEP, TRANSACTION),
    "a statement alone": ("transaction_timeout", [], SLEEP, TRANSACTION),
    "a query": ("query_timeout", ["set work_mem = '77MB'"], SLEEP, QUERY),
    "a query in a transaction": ("query_timeout", ["begin", "create temp table tt ()"], SLEEP, QUERY),
}


@pytest.mark.parametrize(("option", "before", "then", "how"), ENDS.values(), ids=ENDS.keys())
@pytest.mark.parametrize("mode", MODES)
def test_a_life_ends(
    start: Start,
    postgres: Postgres,
    mode: str,
    option: str,
    before: list[str],
    then: str,
    how: tuple[str, str, str],
) -> None:
    proxy = start(mode, **{option: SHORT})
    with app(proxy) as raw:
        for statement in before:
            raw.query(statement)
        if then:
            raw.send(message("Q", then.encode() + b"\0"))
        assert ended(raw) == (*how, f"pgproxy's {option} is {SHORT:g} s.")
    assert proxy.await_event("client_closed", reason=option)["user"] == "boss"
    # The next client has the only server, with nothing of the first one's in it or under way.
    with app(proxy) as later:
        assert later.value("show work_mem") == "4MB"
        assert later.value("select count(*) from pg_class where relname = 'tt'") == "0"
        assert later.value("select count(*) from pg_locks where locktype = 'advisory'") == "0"
    assert postgres.execute(
        "select count(*) from pg_stat_activity where state = 'active' and query like '%/* lives */'"
        " and pid <> pg_backend_pid()"
    ) == [(0,)]


def test_psycopg_names_the_errors(start: Start) -> None:
    proxy = start(idle_client_timeout=SHORT, idle_transaction_timeout=SHORT, query_timeout=SHORT)
    with proxy.connect() as connection:
        with pytest.raises(psycopg.errors.QueryCanceled, match="statement timeout"):
            connection.execute("select pg_sleep(600)")
    connection = proxy.connect()
    connection.execute("select 1")
    proxy.await_event("client_closed", reason="idle_transaction_timeout")
    with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
        connection.execute("select 1")
    connection.close()
    connection = proxy.connect()
    proxy.await_event("client_closed", reason="idle_client_timeout")
    with pytest.raises(psycopg.errors.IdleSessionTimeout):
        connection.execute("select 1")
    connection.close()


OWN = """
[databases.app]
[databases.quick]
name = "app"
idle_client_timeout = 1
[users.boss]
[users.app]
idle_client_timeout = 0
[users.other]
idle_client_timeout = 1
"""


@pytest.mark.parametrize(
    ("database", "user", "short"),
    [
        ("app", "boss", False),
        ("quick", "boss", True),
        ("quick", "app", False),
        ("app", "app", False),
        ("app", "other", True),
    ],
)
def test_by_database_and_user(start: Start, database: str, user: str, short: bool) -> None:
    proxy = start(extra=OWN)
    with app(proxy, user, database) as raw, app(proxy, "other", "app") as measure:
        raw.value("select 1")
        measure.value("select 1")
        if short:
            assert ended(raw)[:3] == IDLE
        else:
            assert ended(measure)[:3] == IDLE
            time.sleep(LONGER)
            assert raw.value("select 1") == "1"


def test_who_is_here_has_the_new_limits_after_a_reload(start: Start) -> None:
    proxy = start(idle_client_timeout=1800)
    with app(proxy) as raw:
        assert raw.value("select 1") == "1"
        config = (proxy.directory / "pgproxy.toml").read_text()
        proxy.write_config(config.replace("idle_client_timeout = 1800", f"idle_client_timeout = {SHORT}"))
        proxy.reload()
        assert ended(raw)[1] == "57P05"
    proxy.write_config(config.replace("idle_client_timeout = 1800", "idle_client_timeout = 0"))
    proxy.reload()
    while [event["event"] for event in proxy.log()].count("reloaded") < 2:
        time.sleep(0.02)
    with app(proxy) as raw:
        time.sleep(LONGER)
        assert raw.value("select 1") == "1"


# Who is never ended.

ALL_SHORT: dict[str, Toml] = {"idle_client_timeout": SHORT, "idle_transaction_timeout": SHORT}


@pytest.mark.parametrize("mode", MODES)
def test_who_waits_for_an_answer_is_not_idle(start: Start, mode: str) -> None:
    proxy = start(mode, **ALL_SHORT)
    with app(proxy) as raw:
        assert raw.value(f"select pg_sleep({LONGER})") == ""
        # One batch, of which the Sync is missing.
        raw.send(parse("select 1"), bind(), execute(), message("H"))
        assert raw.tags("C") == "12DC"
        time.sleep(LONGER)
        raw.send(message("S"))
        assert raw.tags() == "Z"


@pytest.mark.parametrize("mode", MODES)
def test_work_that_is_short_is_not_ended(start: Start, mode: str) -> None:
    """Many transactions and queries, each far below the limits, all of them far above."""
    proxy = start(mode, **dict.fromkeys(ALL_SHORT, 3), transaction_timeout=3, query_timeout=3)
    other = start(mode, transaction_timeout=3)
    end = time.monotonic() + 6
    with app(proxy) as chained, app(other) as piped:
        chained.query("begin")
        while time.monotonic() < end:
            assert chained.value("select pg_sleep(0.1)") == ""
            chained.query("commit and chain")
            piped.send(message("Q", b"select pg_sleep(0.1)\0") * 2)
            assert piped.tags() + piped.tags() == "TDCZ" * 2


@pytest.mark.parametrize("mode", MODES)
def test_copy_is_a_query_and_not_idle(start: Start, mode: str) -> None:
    proxy = start(mode, **ALL_SHORT)
    with app(proxy) as raw:
        raw.query("create temp table tt (a int)")
        raw.send(message("Q", b"copy tt from stdin\0"))
        raw.until("G")
        time.sleep(LONGER)
        raw.send(message("d", b"1\n"), message("c"))
        assert raw.tags() == "CZ"
    limited = start(mode, query_timeout=SHORT)
    with app(limited) as raw:
        raw.query("create temp table tt (a int)")
        raw.send(message("Q", b"copy tt from stdin\0"))
        assert ended(raw)[:3] == QUERY
    with app(limited) as later:
        assert later.value("select count(*) from pg_class where relname = 'tt'") == "0"


@pytest.mark.parametrize("mode", MODES)
def test_who_waits_for_a_server_is_not_idle_and_asks_for_nothing_yet(start: Start, mode: str) -> None:
    proxy = start(mode, query_timeout=SHORT, idle_client_timeout=SHORT)
    with app(proxy) as holder, Raw(proxy.port) as waiting:
        holder.query("begin")
        waiting.send(startup(user="boss", database="app"), message("Q", b"select 7\0"))
        time.sleep(LONGER)
        holder.query("commit")
        assert waiting.tags()[-2:] == "KZ" and waiting.tags() == "TDCZ"
        # In session mode this is what let the other one in.
        assert ended(holder)[:3] == IDLE
        assert ended(waiting)[:3] == IDLE


@pytest.mark.parametrize("mode", MODES)
def test_who_listens(start: Start, postgres: Postgres, mode: str) -> None:
    proxy = start(mode, size=2, **ALL_SHORT)
    with app(proxy) as raw, app(proxy) as measure:
        raw.query("listen lives")
        assert ended(measure)[:3] == IDLE
        time.sleep(LONGER)
        postgres.execute("notify lives, 'hello'", dbname="app")
        assert raw.message()[1].endswith(b"lives\0hello\0")
        raw.query("begin")
        assert ended(raw)[:3] == IDLE_TRANSACTION


def test_who_listens_no_longer(start: Start) -> None:
    proxy = start(**ALL_SHORT)
    with app(proxy) as raw:
        raw.query("listen lives")
        raw.query("unlisten lives")
        assert ended(raw)[:3] == IDLE


def test_a_walsender_has_no_limits(start: Start) -> None:
    proxy = start(**ALL_SHORT, size=2, query_timeout=SHORT, transaction_timeout=SHORT)
    with app(proxy, replication="database") as raw, app(proxy) as measure:
        raw.query("begin")
        assert ended(measure)[:3] == IDLE
        time.sleep(LONGER)
        assert raw.value("select pg_sleep(1)") == ""


# The end itself.


@pytest.mark.parametrize("mode", MODES)
def test_a_query_that_does_not_come_whole(start: Start, mode: str) -> None:
    proxy = start(mode, **ALL_SHORT)
    with app(proxy) as raw:
        raw.send(message("Q", b"select 1 " + b" " * 50_000 + b"\0")[:40_000])
        assert ended(raw)[:3] == IDLE
    with app(proxy) as later:
        assert later.value("select 1") == "1"


@pytest.mark.parametrize(
    "query", ["select repeat('x', 100) from generate_series(1, 1000000)", "select repeat('x', 100000000)"]
)
@pytest.mark.parametrize("mode", MODES)
def test_who_does_not_read_is_closed_all_the_same(start: Start, mode: str, query: str) -> None:
    """There is room for one client, and one server: both are free again although the first never reads."""
    proxy = start(mode, query_timeout=SHORT, max_client_connections=1)
    with app(proxy) as raw:
        raw.send(message("Q", query.encode() + b"\0"))
        proxy.await_event("client_closed", reason="query_timeout")
        until = time.monotonic() + 20
        while True:
            with Raw(proxy.port) as later:
                try:
                    later.log_in(user="boss", database="app")
                except Refused:
                    assert time.monotonic() < until
                    time.sleep(0.1)
                else:
                    assert later.value("select 1") == "1"
                    return
