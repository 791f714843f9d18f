"""Who has which server: modes, hand-over, and that nothing of one client is ever another's."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack
from struct import pack
from types import SimpleNamespace

import psycopg
import pytest

from pgproxy.demo.postgres import Postgres
from pgproxy.demo.process import wait_until
from tests.fix_pgproxy import WORKERS, Pgproxy, PgproxyFactory
from tests.raw import (
    SYNC,
    TERMINATE,
    Raw,
    Refused,
    bind,
    client,
    describe,
    execute,
    extended,
    message,
    startup,
)


@pytest.fixture
def transaction(pgproxy_of_module: PgproxyFactory, postgres: Postgres) -> Pgproxy:
    return pgproxy_of_module(server=postgres, pool_mode="transaction", pool_size=1, auth="trust")


@pytest.fixture
def session(pgproxy_of_module: PgproxyFactory, postgres: Postgres) -> Pgproxy:
    return pgproxy_of_module(server=postgres, pool_mode="session", pool_size=1, auth="trust")


def app(proxy: Pgproxy) -> Raw:
    raw = Raw(proxy.port)
    raw.log_in(user="boss", database="app")
    return raw


def app_when_there_is_room(proxy: Pgproxy) -> Raw:
    """Log in as soon as it is known that others have gone."""
    came: list[Raw] = []

    def comes_in() -> bool:
        raw = Raw(proxy.port)
        try:
            raw.log_in(user="boss", database="app")
        except Refused:
            raw.socket.close()
            return False
        came.append(raw)
        return True

    assert wait_until(comes_in, 20)
    return came[0]


def test_many_clients_share_one_server(transaction: Pgproxy) -> None:
    clients = [app(transaction) for _ in range(30)]
    pids = {raw.value("select pg_backend_pid()") for raw in clients for _ in range(3)}
    assert len(pids) == 1 or WORKERS > 1
    for raw in clients:
        raw.socket.close()


def test_a_transaction_keeps_its_server(pgproxy_of_module: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy_of_module(server=postgres, pool_mode="transaction", pool_size=2, auth="trust")
    with app(proxy) as one, app(proxy) as other:
        one.query("begin")
        own = one.value("select pg_backend_pid()")
        assert other.value("select pg_backend_pid()") != own
        assert one.value("select pg_backend_pid()") == own
        one.query("commit")


@pytest.mark.parametrize(
    ("said", "answered"),
    [
        ([message("Q", b"select %d\0")], "TDCZ"),
        ([message("Q", b"begin\0"), message("Q", b"select %d\0"), message("Q", b"commit\0")], "CZTDCZCZ"),
        ([message("Q", b"select %d; select 2\0")], "TDCTDCZ"),
        ([message("P", b"\0select %d\0\0\0"), bind(), describe(), execute(), SYNC], "12TDCZ"),
        ([message("P", b"one\0select %d\0\0\0"), bind("one"), describe(), execute(), SYNC], "12TDCZ"),
        ([message("P", b"\0select %d\0\0\0"), bind(), describe(), execute()], "12TDC"),
        ([message("Q", b"select 1 / 0\0"), message("Q", b"select %d\0")], "EZTDCZ"),
        ([message("Q", b"set work_mem to '1MB'\0"), message("Q", b"select %d\0")], "CZTDCZ"),
    ],
)
@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_who_waits_is_answered_as_who_does_not(
    transaction: Pgproxy, said: list[bytes], answered: str, pieces: int
) -> None:
    """In one piece, in two, or dripping: what was held is sent once and in order, its answers are its own."""
    with ExitStack() as stack:
        clients = [stack.enter_context(client(transaction.port)) for _ in range(4)]
        holder = stack.enter_context(client(transaction.port))
        holder.query("begin")
        for number, waiting in enumerate(clients, start=10):
            text = b"".join(said).replace(b"%d", b"%d" % number)
            size = -(-len(text) // pieces)
            for at in range(0, len(text), size):
                waiting.send(text[at : at + size])
                if pieces > 1:
                    time.sleep(0.003)
        holder.query("commit")
        if not answered.endswith("Z"):
            for waiting in clients:
                waiting.send(SYNC)
        for number, waiting in enumerate(clients, start=10):
            heard: list[tuple[str, bytes]] = []
            while len([tag for tag, _ in heard if tag == "Z"]) < max(1, answered.count("Z")):
                heard += waiting.until("Z")
            assert "".join(tag for tag, _ in heard) == answered + ("" if answered.endswith("Z") else "Z")
            values = [body[6:] for tag, body in heard if tag == "D"]
            assert values[0] == b"%d" % number


@pytest.mark.one_process("between workers it is the claims that decide, not who came first")
def test_who_waits_is_served_in_turn(transaction: Pgproxy) -> None:
    with app(transaction) as first, app(transaction) as second, app(transaction) as third:
        now = message("Q", b"select extract(epoch from clock_timestamp())\0")
        first.query("begin")
        second.send(now)
        time.sleep(0.2)
        third.send(now)
        time.sleep(0.2)
        first.query("commit")
        earlier, later = (float(dict(raw.until("Z"))["D"][6:]) for raw in (second, third))
        assert earlier < later


LEFT_BEHIND = {
    "a setting": ("set work_mem = '77MB'", "show work_mem", "4MB"),
    "a setting among others": ("select 1; set work_mem = '77MB'; select 2", "show work_mem", "4MB"),
    "a setting by function": ("select set_config('work_mem', '77MB', false)", "show work_mem", "4MB"),
    "a setting in a block": (
        "do $$ begin perform set_config('work_mem', '77MB', false); end $$",
        "show work_mem",
        "4MB",
    ),
    "a setting of one's own": (
        "set my.tenant = '7'",
        "select coalesce(nullif(current_setting('my.tenant', true), ''), 'none')",
        "none",
    ),
    "a role": ("set role app", "select current_user", "boss"),
    "a session user": ("set session authorization app", "select session_user", "boss"),
    "a temporary table": (
        "create temp table tt ()",
        "select count(*) from pg_class where relname = 'tt'",
        "0",
    ),
    "a prepared statement": ("prepare p as select 1", "select count(*) from pg_prepared_statements", "0"),
    "a cursor": (
        "begin; declare c cursor with hold for select 1; commit",
        "select count(*) from pg_cursors",
        "0",
    ),
    "an advisory lock": (
        "select pg_advisory_lock(7), pg_advisory_lock(7)",
        "select count(*) from pg_locks where locktype = 'advisory'",
        "0",
    ),
    "a channel": ("listen news", "select count(*) from pg_listening_channels()", "0"),
    "an open transaction": (
        "begin; create table left_open ()",
        "select count(*) from pg_class where relname = 'left_open'",
        "0",
    ),
    "a failed transaction": ("begin; select 1/0", "select 1", "1"),
}


PINS = [LEFT_BEHIND[what][0] for what in ("a temporary table", "a prepared statement", "a cursor")]
PINS += [LEFT_BEHIND[what][0] for what in ("an advisory lock", "a channel", "a failed transaction")]


@pytest.mark.parametrize(("leave", "look", "clean"), LEFT_BEHIND.values(), ids=LEFT_BEHIND.keys())
@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_nothing_is_left_behind(
    pgproxy_of_module: PgproxyFactory, postgres: Postgres, mode: str, leave: str, look: str, clean: str
) -> None:
    """Neither while the one who left it is there, if others can have the server then, nor afterwards."""
    proxy = pgproxy_of_module(
        server=postgres,
        pool_mode=mode,
        pool_size=1,
        auth="trust",
        proxy={"session_audit": 1.0, "connection_borrow_timeout": 1},
    )
    with app(proxy) as one:
        one.query(leave)
        pid = one.value("select pg_backend_pid()") if not leave.endswith("1/0") else None
        if mode == "transaction" and not leave.startswith("begin; create table"):
            with app(proxy) as other:
                if leave in PINS:
                    other.send(message("Q", look.encode() + b"\0"))
                    assert other.error()["C"] == "08000"
                else:
                    assert other.value(look) == clean
    with app(proxy) as later:
        assert later.value(look) == clean
        if pid is not None and WORKERS == 1:
            assert later.value("select pg_backend_pid()") == pid


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_sequences_value_is_not_left_behind(
    pgproxy_of_module: PgproxyFactory, postgres: Postgres, mode: str
) -> None:
    proxy = pgproxy_of_module(server=postgres, pool_mode=mode, pool_size=1, auth="trust")

    def nothing_seen(raw: Raw) -> None:
        for look in ("select currval('seq')", "select lastval()"):
            raw.send(message("Q", look.encode() + b"\0"))
            assert raw.error()["C"] == "55000"
            raw.until("Z")

    with app(proxy) as one:
        one.query("create sequence if not exists seq")
        assert one.value("select nextval('seq')") is not None
        pid = one.value("select pg_backend_pid()")
        if mode == "transaction":
            with app(proxy) as other:
                nothing_seen(other)
    with app(proxy) as later:
        nothing_seen(later)
        assert later.value("select pg_backend_pid()") == pid or WORKERS > 1


def test_what_is_known_is_not_asked(transaction: Pgproxy, postgres: Postgres) -> None:
    """And a function that somebody replaces past the proxy is another from the next call on."""
    create = "create or replace function shown(a int) returns int language sql as 'select {} a'"
    with postgres.admin("app") as direct, app(transaction) as one, app(transaction) as other:

        def last_is(says: str, last: str) -> bool:
            """Say something twice; say whether its server is asked this last."""
            for _ in range(2):
                pid = int(one.value("select pg_backend_pid()") or 0)
                one.query(says)
            asked = "select query from pg_stat_activity where pid = %s"
            return wait_until(lambda: direct.execute(asked, [pid]).fetchall()[0][0].endswith(last), 10)

        direct.execute("create extension if not exists pg_trgm")
        direct.execute(create.format("").encode())
        for says in ("select similarity('a', 'b')", "set work_mem = '9MB'", "reset work_mem", "discard all"):
            assert last_is(says, says)
        assert last_is("select shown(1)", "(ARRAY[E'shown'::pg_catalog.text]::pg_catalog.name[])")
        direct.execute(create.format("set_config(''work_mem'', ''9MB'', false);select").encode())
        assert one.value("select shown(1)") == "1"
        assert other.value("show work_mem") == "4MB"
        assert one.value("show work_mem") == "9MB"


def test_a_library_that_was_loaded_goes_with_its_server(transaction: Pgproxy) -> None:
    with app(transaction) as one:
        before = one.value("select pg_backend_pid()")
        one.query("load 'plpgsql'")
    with app(transaction) as other:
        assert other.value("select pg_backend_pid()") != before


def test_session_mode_takes_nothing_away(session: Pgproxy, postgres: Postgres) -> None:
    with app(session) as raw:
        raw.query("listen news; create temp table kept (a int); set work_mem = '9MB'; prepare p as select 42")
        raw.send(extended("select 1"), SYNC)
        raw.until("Z")
        assert raw.value("show work_mem") == "9MB"
        assert raw.value("execute p") == "42"
        assert raw.value("select count(*) from kept") == "0"
        with postgres.admin("app") as direct:
            direct.execute("notify news, 'it''s'")
        assert raw.message()[1].endswith(b"news\0it's\0")


def test_session_mode_gives_the_servers_own_pid(session: Pgproxy) -> None:
    with app(session) as raw:
        assert int.from_bytes(raw.key[:4], "big") == int(raw.value("select pg_backend_pid()") or 0)


def test_replication_connections(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(server=postgres, pool_mode="transaction", pool_size=1, auth="trust")
    for kind in ("database", "true"):
        with Raw(proxy.port) as raw:
            raw.send(startup(user="boss", database="app", replication=kind))
            raw.until("Z")
            raw.send(message("Q", b"IDENTIFY_SYSTEM\0"))
            assert raw.tags() == "TDCZ"
    with app(proxy) as after:
        assert after.value("select 1") == "1"


def test_streaming(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(server=postgres, pool_mode="transaction", pool_size=1, auth="trust")
    with Raw(proxy.port) as raw:
        raw.send(startup(user="boss", database="app", replication="database"))
        raw.until("Z")
        raw.send(message("Q", b"IDENTIFY_SYSTEM\0"))
        row = dict(raw.until("Z"))["D"]
        place = row.split(b"/")[0][-8:].decode(errors="ignore")
        assert place
        raw.send(message("Q", b"START_REPLICATION PHYSICAL 0/1000000\0"))
        assert raw.message()[0] in "WE"
    with app(proxy) as after:
        assert after.value("select 1") == "1"


def test_mode_by_database_and_by_user(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(
        server=postgres,
        pool_mode="transaction",
        pool_size=2,
        auth="trust",
        extra="""
[databases.stays]
name = "app"
pool_mode = "session"
[databases."*"]
[users.app]
pool_mode = "session"
""",
    )
    for database, user, keeps in (
        ("app", "boss", False),
        ("stays", "boss", True),
        ("app", "app", True),
    ):
        with Raw(proxy.port) as raw:
            raw.log_in(user=user, database=database)
            key = int.from_bytes(raw.key[:4], "big")
            assert (key == int(raw.value("select pg_backend_pid()") or 0)) is keeps


def test_a_wait_ends_with_an_error_that_drivers_know(
    pgproxy_of_module: PgproxyFactory, postgres: Postgres
) -> None:
    proxy = pgproxy_of_module(
        server=postgres,
        pool_mode="transaction",
        pool_size=1,
        auth="trust",
        proxy={"connection_borrow_timeout": 1},
    )
    with app(proxy) as holds, app(proxy) as waits:
        holds.query("begin")
        waits.send(message("Q", b"select 1\0"))
        fields = waits.error()
        assert fields["C"] == "08000"
        assert fields["M"] == "Timed-out waiting to acquire database connection."
        assert ("1 in use" if WORKERS == 1 else "has 1 of at most 1 servers") in fields["D"]
        holds.query("commit")
        assert holds.value("select 1") == "1"


def test_a_client_that_leaves_the_queue_is_not_served(transaction: Pgproxy) -> None:
    with app(transaction) as holds:
        holds.query("drop table if exists q; create table q (a int)")
        holds.query("begin")
        waits = app(transaction)
        waits.send(message("Q", b"insert into q values (1)\0"))
        time.sleep(0.2)
        waits.socket.close()
        time.sleep(0.2)
        holds.query("commit")
        assert holds.value("select count(*) from q") == "0"


def test_too_many_clients(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(
        server=postgres,
        pool_mode="transaction",
        pool_size=1,
        auth="trust",
        proxy={"max_client_connections": 3, "admin_users": ["other"]},
    )
    some = [app(proxy) for _ in range(3)]
    with client(proxy.port, user="other", database="app") as admin:
        assert admin.value("select 1") == "1"
    # Workers count together, but not at once.
    time.sleep(0.3 if WORKERS > 1 else 0)
    with Raw(proxy.port) as raw:
        raw.send(startup(user="boss", database="app"))
        fields = raw.error()
        assert fields["C"] == "53300" and fields["M"] == "sorry, too many clients already"
    some[0].socket.close()
    with app_when_there_is_room(proxy) as again:
        assert again.value("select 1") == "1"
    for raw in some[1:]:
        raw.socket.close()


@pytest.mark.one_process("workers hear of each other's clients later than a flood comes")
def test_a_flood_of_clients_is_told(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    """So many that there is no room for waiting until they have said who they are."""
    proxy = pgproxy(server=postgres, auth="trust", proxy={"max_client_connections": 3})
    with ExitStack() as flood:
        silent = [flood.enter_context(Raw(proxy.port)) for _ in range(120)]
        for raw in silent[103:]:
            fields = raw.error()
            assert fields["C"] == "53300" and fields["M"] == "sorry, too many clients already"
            assert raw.ended()
    with app_when_there_is_room(proxy) as again:
        assert again.value("select 1") == "1"


@pytest.mark.one_process("workers hear of each other's clients later than these come back")
def test_who_has_said_goodbye_is_not_counted(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    """An application with as many connections as there may be, started again."""
    proxy = pgproxy(server=postgres, auth="trust", proxy={"max_client_connections": 60})
    clients = [app(proxy) for _ in range(60)]
    for _ in range(5):
        for raw in clients:
            raw.send(TERMINATE)
            raw.socket.close()
        clients = [Raw(proxy.port) for _ in range(60)]
        for raw in clients:
            raw.send(startup(user="boss", database="app"))
        for raw in clients:
            assert raw.message()[0] == "R" and raw.tags()[-1] == "Z"
    for raw in clients:
        raw.socket.close()


def test_a_login_that_takes_too_long(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(
        server=postgres, pool_mode="transaction", pool_size=1, auth="trust", proxy={"login_timeout": 1}
    )
    with Raw(proxy.port) as raw:
        assert raw.error()["C"] == "57014"
        assert raw.ended()
    with Raw(proxy.port) as raw:
        raw.send(startup(user="boss")[:-3])
        assert raw.error()["C"] == "57014"


def test_a_server_that_is_not_there(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    waits = {"connection_borrow_timeout": 1}
    proxy = pgproxy(server=SimpleNamespace(port=1), proxy=waits, pool_size=1, auth="trust")
    with Raw(proxy.port) as raw:
        raw.send(startup(user="boss", database="app"))
        fields = raw.error()
        assert fields["C"] == "08000" and "127.0.0.1:1" in fields["D"]


def test_clients_that_churn(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    """Sees several servers, so that clients that are accidentally kept on one cannot pass."""
    proxy = pgproxy(server=postgres, pool_mode="transaction", pool_size=3, auth="trust")
    pids: set[int] = set()
    wrong: list[object] = []

    def work(number: int) -> None:
        with psycopg.connect(proxy.dsn(user="boss", dbname="app"), prepare_threshold=None) as connection:
            for turn in range(30):
                token = f"{number}-{turn}"
                with connection.transaction():
                    row = connection.execute("select %s::text, pg_backend_pid()", (token,)).fetchone()
                    assert row is not None
                    if row[0] != token:
                        wrong.append(row)
                    pids.add(row[1])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert 2 <= len(pids) and (len(pids) <= 3 or WORKERS > 1)


@pytest.mark.parametrize("how", ["closes", "resets", "says goodbye"])
def test_who_has_gone_while_it_is_not_read(transaction: Pgproxy, how: str) -> None:
    """More is there than is held for a client, and its end: that is seen before anything is done for it."""
    with app(transaction) as holds:
        holds.query("drop table if exists ghost; create table ghost (a text)")
        holds.query("begin")
        waits = app(transaction)
        insert = message("Q", b"insert into ghost values ('" + b"x" * 150_000 + b"')\0")
        waits.send(message("Q", b"insert into ghost values ('first')\0") + insert)
        time.sleep(0.3)
        if how == "says goodbye":
            waits.send(TERMINATE)
        if how == "resets":
            waits.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))
        waits.socket.close()
        time.sleep(0.3)
        holds.query("commit")
        with app(transaction) as other:
            due = "2" if how == "says goodbye" else "0"
            end = time.monotonic() + 10
            # With several workers this one may be served before who has waited for longer in another.
            while other.value("select count(*) from ghost") != due and time.monotonic() < end:
                time.sleep(0.05)
            assert other.value("select count(*) from ghost") == due
        assert holds.value("select 1") == "1"


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_client_that_says_much_before_it_has_its_first_server(
    pgproxy_of_module: PgproxyFactory, postgres: Postgres, mode: str
) -> None:
    proxy = pgproxy_of_module(server=postgres, pool_mode=mode, pool_size=1, auth="trust")
    with app(proxy) as holds, Raw(proxy.port) as eager:
        holds.query("begin")
        eager.send(startup(user="boss", database="app", application_name="eager"))
        assert eager.message() == ("R", bytes(4))
        eager.send(message("Q", b"select length('" + b"x" * 400_000 + b"')\0"))
        time.sleep(0.3)
        holds.query("commit")
        holds.send(TERMINATE)
        eager.until("Z")
        assert dict(eager.until("Z"))["D"].endswith(b"400000")
