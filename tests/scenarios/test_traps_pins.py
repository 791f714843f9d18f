"""
A client is pinned for what a server holds for it, with the reason, and unpinned when that's gone.

While it's pinned, others wait for its server (or, with two servers, get the other one) and see nothing of it.
"""

from __future__ import annotations

import pytest

from tests.fix_twin import Log, Proxied, Theatre, Twin, answered
from tests.programs import Free, Leave, Part, Pinned, Player, Program, Unpinned, bound, compare, program
from tests.raw import FLUSH, SYNC, bind, execute, message, parse

MAKE = "create temp table t (a int)"
TEMP = Pinned("temporary_object")
HELD = Pinned("held_cursor")
LOCK = Pinned("advisory_lock")
LISTEN = Pinned("listen")
ME = "locktype = 'advisory' and pid = pg_backend_pid()"
LOCKS = f"select classid, objid, mode from pg_locks where {ME} order by 1, 2, 3"


def temporary(name: str, make: str | bytes, look: str, drop: str | bytes) -> Program:
    """Something temporary is made, is there for its owner alone, and is dropped."""
    return program(
        f"temporary: {name}",
        ("a", "select 1", "1"),
        ("a", make),
        TEMP,
        ("a", look),
        ("a", "begin; rollback"),
        ("a", look),
        ("a", drop),
        Unpinned(),
        ("b", look),
        ("a", look),
    )


TEMPORARY = [
    temporary("a table", "create temp table t (a int)", "select * from t", "drop table t"),
    temporary(
        "a table in the extended protocol",
        bound("create temporary table t ()"),
        "table t",
        bound("drop table t"),
    ),
    temporary("a table AS", "create local temp table t as select 1 a", "table t", "drop table t"),
    temporary("SELECT INTO", "select 7 a into temp t", "table t", "discard temp"),
    temporary("a view", "create temp view t as select 1 a", "table t", "drop view t"),
    temporary("a sequence", "create temp sequence t", "select is_called from t", "drop sequence t"),
    temporary("by its schema", "create table pg_temp.t (a int)", "table t", "drop table pg_temp.t"),
    temporary(
        "a function",
        "create function pg_temp.f() returns int language sql as 'select 1'",
        "select count(*) from pg_proc where proname = 'f'",
        "drop function pg_temp.f()",
    ),
    temporary(
        "a type",
        "create type pg_temp.t as enum ('x')",
        "select count(*) from pg_type where typname = 't'",
        "discard all",
    ),
    temporary(
        "among others", "select 1; create temp table t (); select 2", "table t", "drop table t; select 3"
    ),
    temporary(
        "in a block",
        "do $$ begin execute 'create te' || 'mp table t (a int)'; end $$",
        "table t",
        "do $$ begin drop table t; end $$",
    ),
    temporary(
        "in a transaction",
        "begin; create temp table t (a int); commit",
        "table t",
        "begin; drop table t; commit",
    ),
    program(
        "temporary: by search_path, and a view over it",
        ("a", "set search_path = pg_temp, public"),
        ("b", "select 1", "1"),
        ("a", "create table t as select 1 a"),
        TEMP,
        ("a", "create view v as select * from t"),
        ("a", "table v", "1"),
        ("a", "drop table t cascade"),
        Unpinned(),
        ("b", "table v", "!42P01"),
    ),
    program(
        "temporary: in a function, of which the query's text tells nothing",
        ("a", f"create function f() returns void language plpgsql as $$ begin {MAKE}; end $$"),
        ("b", "select 1"),
        ("a", "select f()"),
        TEMP,
        ("a", "table t", ""),
        ("a", "drop table t"),
        Unpinned(),
        ("b", "table t", "!42P01"),
    ),
    program(
        "temporary: dropped in a transaction that is rolled back",
        ("a", "create temp table t as select 1 a"),
        TEMP,
        ("a", "begin; drop table t"),
        ("a", "rollback"),
        ("a", "table t", "1"),
        ("a", "begin; savepoint s; drop table t; rollback to s; commit"),
        ("a", "table t", "1"),
        ("a", "drop table t; select 1/0", "!22012"),
        ("a", "table t", "1"),
        ("a", "drop table t"),
        Unpinned(),
    ),
    program(
        "temporary: two of them",
        ("a", "create temp table t (a int); create temp table u (a int)"),
        TEMP,
        ("a", "drop table t"),
        ("a", "table u", ""),
        ("a", "drop table u"),
        Unpinned(),
        ("b", "table u", "!42P01"),
    ),
    program(
        "temporary: gone by itself",
        ("a", "begin; create temp table t (a int) on commit drop; insert into t values (1)"),
        ("a", "table t", "1"),
        ("a", "commit"),
        ("b", "table t", "!42P01"),
        ("a", "table t", "!42P01"),
        ("a", "begin; create temp table t (a int); rollback"),
        ("b", "table t", "!42P01"),
        ("a", "create temp table t (a int); drop table t"),
        ("b", "table t", "!42P01"),
        ("a", "create temp table t (a int); select 1/0", "!22012"),
        ("b", "table t", "!42P01"),
        ("a", "create temp table t (a int) on commit drop"),
        ("b", "table t", "!42P01"),
        ("a", "select 'create temp table'; create table temp (temp int); drop table temp"),
        ("b", "select 1", "1"),
    ),
    program(
        "temporary: two clients with a table of the same name",
        ("a", "create temp table t as select 'a' x"),
        TEMP,
        ("b", "create temp table t as select 'b' x"),
        TEMP,
        ("a", "table t", "a"),
        ("b", "table t", "b"),
        ("a", "drop table t"),
        Unpinned(),
        ("b", "table t", "b"),
        ("a", "table t", "!42P01"),
        servers=(2,),
    ),
]

CURSORS = [
    program(
        "held cursor: CLOSE",
        ("a", "begin; declare c cursor with hold for select generate_series(1, 3); commit"),
        HELD,
        ("a", "fetch 2 from c", "1;2"),
        ("a", "select name, is_holdable from pg_cursors", "c|t"),
        ("a", bound("fetch 1 from c"), "3"),
        ("a", "close c"),
        Unpinned(),
        ("b", "fetch 1 from c", "!34000"),
        ("a", "fetch 1 from c", "!34000"),
    ),
    program(
        "held cursor: several, and CLOSE ALL",
        (
            "a",
            "declare c cursor with hold for select 1; declare d binary scroll cursor with hold for select 2",
        ),
        HELD,
        ("a", "close c"),
        ("a", "begin; fetch d; rollback"),
        ("a", "move backward all from d"),
        ("a", "close all"),
        Unpinned(),
        ("b", "select count(*) from pg_cursors where is_holdable", "0"),
        ("a", bound("declare c cursor with hold for select 1")),
        HELD,
        ("a", "discard all"),
        Unpinned(),
        ("b", "select count(*) from pg_cursors where is_holdable", "0"),
    ),
    program(
        "cursors that end with their transaction",
        ("a", "begin; declare c cursor for select 1; fetch c"),
        ("a", "commit"),
        ("b", "fetch c", "!34000"),
        ("a", "fetch c", "!34000"),
        ("a", "begin; declare c cursor with hold for select 1; rollback"),
        ("b", "fetch c", "!34000"),
        ("a", "begin; declare c cursor with hold for select 1; close c; commit"),
        ("b", "fetch c", "!34000"),
        ("a", "declare c cursor for select 1", "!25P01"),
        ("a", "select 'with hold'"),
        ("b", "fetch c", "!34000"),
    ),
]


def lock(
    name: str, take: str | bytes, *release: Part | tuple[str, str | bytes] | tuple[str, str | bytes, str]
) -> Program:
    """An advisory lock is taken, and released in steps of which the last releases it."""
    return program(
        f"advisory lock: {name}",
        ("b", "select 1", "1"),
        ("a", take),
        LOCK,
        ("a", LOCKS),
        *release,
        Unpinned(),
        ("b", LOCKS, ""),
        ("a", LOCKS, ""),
    )


def unlock(arguments: str, function: str = "pg_advisory_unlock") -> tuple[str, str]:
    return ("a", f"select {function}({arguments})")


LOCKING = [
    lock("one", "select pg_advisory_lock(7)", unlock("7")),
    lock(
        "stacked",
        "select pg_advisory_lock(7), pg_advisory_lock(7)",
        unlock("7"),
        ("a", LOCKS, "0|7|ExclusiveLock"),
        unlock("7"),
    ),
    lock(
        "of two keys",
        "select pg_advisory_lock(7, 8)",
        unlock("7"),
        unlock("7, 9"),
        ("a", LOCKS),
        unlock("7, 8"),
    ),
    lock(
        "shared", "select pg_advisory_lock_shared(7)", unlock("7"), unlock("7", "pg_advisory_unlock_shared")
    ),
    lock(
        "both",
        "select pg_advisory_lock_shared(7), pg_advisory_lock(7)",
        unlock("7"),
        ("a", LOCKS),
        unlock("7", "pg_advisory_unlock_shared"),
    ),
    lock(
        "qualified", 'select pg_catalog . "pg_advisory_lock"(7)', unlock("7", "pg_catalog.pg_advisory_unlock")
    ),
    lock(
        "computed",
        "select pg_advisory_lock(hashtext('x'))",
        unlock("1 + 1"),
        ("a", LOCKS),
        unlock("hashtext('x')"),
    ),
    lock(
        "with parameters",
        bound("select pg_advisory_lock($1)", "7"),
        ("a", bound("select pg_advisory_unlock($1)", "7"), "t"),
    ),
    lock("a try", "select pg_try_advisory_lock(7)", unlock("7")),
    lock(
        "a shared try of two keys",
        "select PG_TRY_ADVISORY_LOCK_SHARED(7, 8)",
        unlock("7, 8", "pg_advisory_unlock_shared"),
    ),
    lock(
        "many",
        "select pg_advisory_lock(n) from generate_series(1, 5) n",
        unlock("3"),
        unlock("n) from generate_series(1, 5) n where (n <> 3"),
    ),
    lock(
        "in a block",
        "do $$ begin perform pg_advisory_lock(7); end $$",
        ("a", "do $$ begin perform pg_advisory_unlock(7); end $$"),
    ),
    lock(
        "all",
        "select pg_advisory_lock(7), pg_advisory_lock_shared(8, 9)",
        ("a", "select pg_advisory_unlock_all()"),
    ),
    lock(
        "DISCARD ALL", "select pg_advisory_lock(7)", ("a", "discard temp"), ("a", LOCKS), ("a", "discard all")
    ),
    lock(
        "not undone by ROLLBACK",
        "begin; select pg_advisory_lock(7); rollback",
        ("a", "begin; select pg_advisory_unlock(7); rollback"),
    ),
    lock("not undone by an error", "select pg_advisory_lock(7); select 1/0", unlock("7)/0, (8"), unlock("7")),
    lock(
        "in a WHERE",
        "select 1 where pg_advisory_lock(7)::text = ''",
        unlock("7) where pg_advisory_unlock(7) and (true"),
    ),
    program(
        "advisory lock: in a function, of which the query's text tells nothing",
        ("a", "create function f() returns void language sql as 'select pg_advisory_lock(7)'"),
        ("a", "create function g() returns bool language sql as 'select pg_advisory_unlock(7)'"),
        ("a", "select f()"),
        LOCK,
        ("a", LOCKS, "0|7|ExclusiveLock"),
        ("a", "select g()", "t"),
        Unpinned(),
        ("b", LOCKS, ""),
    ),
    program(
        "advisory lock: a try that failed",
        ("b", "select pg_advisory_lock(7)"),
        LOCK,
        ("a", "select pg_try_advisory_lock(7)", "f"),
        ("a", bound("select pg_try_advisory_lock_shared($1)", "7"), "f"),
        ("c", "select pg_try_advisory_lock(7)", "f"),
        ("c", "select pg_advisory_unlock(7)", "f"),
        ("a", LOCKS, ""),
        ("b", "select pg_advisory_unlock(7)", "t"),
        Unpinned(),
        servers=(2,),
    ),
    program(
        "advisory lock: of a transaction",
        ("a", "begin; select pg_advisory_xact_lock(7), pg_advisory_xact_lock_shared(8, 9)"),
        ("a", LOCKS),
        ("a", "commit"),
        ("b", LOCKS, ""),
        ("a", "select pg_try_advisory_xact_lock(7), pg_try_advisory_xact_lock_shared(8)", "t|t"),
        ("b", LOCKS, ""),
        ("a", bound("select pg_advisory_xact_lock($1)", "7")),
        ("b", LOCKS, ""),
        ("a", "select pg_advisory_unlock(7)", "f"),
        ("b", LOCKS, ""),
        ("a", "select pg_advisory_lock(7); select pg_advisory_unlock(7)"),
        ("b", "select 'pg_advisory_lock(1)'"),
        ("a", LOCKS, ""),
    ),
]

CHANNELS = [
    program(
        "listen: and hear oneself and others",
        ("a", "listen news"),
        LISTEN,
        ("a", "notify news, 'it''s'"),
        ("a", "select pg_notify('news', 'a\"b\\c'), pg_notify('deaf', '')"),
        ("a", "select * from pg_listening_channels()", "news"),
        ("a", "begin; notify news, 'undone'; rollback"),
        ("a", "unlisten other"),
        ("a", "unlisten news"),
        Unpinned(),
        ("a", "notify news, 'unheard'"),
        ("b", "select * from pg_listening_channels()", ""),
    ),
    program(
        "listen: and hear others",
        ("a", 'listen news; listen "Odd Name"'),
        LISTEN,
        ("b", "notify news, 'it''s'"),
        ("b", "select pg_notify('Odd Name', '2')"),
        ("b", bound("notify news, '3'")),
        ("a", "unlisten *; notify news, 'unheard'"),
        Unpinned(),
        ("b", "notify news, 'unheard'"),
        ("a", "select 1"),
        servers=(2,),
    ),
    program(
        "listen: in the extended protocol, in a block, in a transaction; DISCARD ALL",
        ("a", bound("listen news")),
        LISTEN,
        ("a", "discard all"),
        Unpinned(),
        ("b", "select * from pg_listening_channels()", ""),
        ("a", "do $$ begin execute 'listen ' || 'news'; end $$"),
        LISTEN,
        ("a", bound("unlisten *")),
        Unpinned(),
        ("a", "begin; listen news; commit"),
        LISTEN,
        ("a", "begin; unlisten news; rollback"),
        ("a", "select * from pg_listening_channels()", "news"),
        ("a", "unlisten news"),
        Unpinned(),
        ("a", "begin; listen news; rollback"),
        ("b", "select * from pg_listening_channels()", ""),
        ("a", "unlisten *; notify news"),
        ("b", "select 1", "1"),
    ),
]

SEQUENCE = "create sequence q start 10; create table s (id serial, x int)"
REST = [
    program(
        "a seed",
        ("a", "select setseed(0.5)"),
        Pinned("seed"),
        ("a", "select random(), random()"),
        ("a", "select random()"),
    ),
    program(
        "a seed that is SET",
        ("a", "set seed to 0.5"),
        Pinned("seed"),
        ("a", "select random(), random()"),
        ("a", bound("select random()")),
    ),
    program(
        "a library",
        ("a", "load 'plpgsql'"),
        Pinned("library_loaded"),
        ("a", "select 1", "1"),
        Leave("a"),
        ("b", "select 1", "1"),
        servers=(1,),
    ),
    program(
        "a sequence's value in its transaction",
        ("a", SEQUENCE),
        ("a", "begin; select nextval('q')", "10"),
        ("a", "select currval('q'), lastval()", "10|10"),
        ("a", "commit"),
        ("b", "select nextval('q')", "11"),
        ("b", "insert into s (x) values (1) returning id", "1"),
        ("a", "select setval('q', 20)", "20"),
        may_pin="sequence",
        servers=(2,),
    ),
    program(
        "a sequence's value, after its transaction",
        ("a", SEQUENCE),
        ("b", "select lastval()", "!55000"),
        ("a", "select nextval('q')", "10"),
        ("a", "select currval('q')", "10"),
        ("a", "select lastval()", "10"),
        ("b", "select currval('q')", "!55000"),
        ("b", "insert into s (x) values (1)"),
        ("b", bound("select lastval()"), "1"),
        ("b", "select currval(pg_get_serial_sequence('s', 'id'))", "1"),
        ("a", "select lastval()", "10"),
        ("a", "discard sequences"),
        ("a", "select lastval()", "!55000"),
        may_pin="sequence",
        servers=(2,),
    ),
    program(
        "a sequence's value is nobody else's",
        ("a", SEQUENCE),
        ("a", "select nextval('q'); discard sequences"),
        ("b", "select lastval()", "!55000"),
        ("a", "select nextval('q')"),
        ("a", "discard all"),
        ("b", "select currval('q')", "!55000"),
        may_pin="sequence",
    ),
    program(
        "several reasons, one after the other gone",
        (
            "a",
            "create temp table t (a int); select pg_advisory_lock(7); listen news; "
            "declare c cursor with hold for select 1",
        ),
        TEMP,
        ("a", "unlisten *"),
        ("a", "select pg_advisory_unlock_all()"),
        ("a", "close c"),
        ("a", "drop table t"),
        Free(),
        ("b", f"{LOCKS}; select * from pg_listening_channels(); table t", "!42P01"),
        may_pin="advisory_lock listen held_cursor",
    ),
    program(
        "DISCARD ALL takes away everything",
        ("a", parse("select 1", "s") + SYNC),
        (
            "a",
            "set work_mem = '7MB'; set role app; create temp table t (a int); "
            "select pg_advisory_lock(7); listen news",
        ),
        TEMP,
        ("a", "discard all"),
        Free(),
        ("b", "show work_mem; show role", "4MB;none"),
        ("a", "show work_mem; show role; select * from pg_listening_channels()", "4MB;none"),
        ("a", LOCKS, ""),
        ("a", bind("s") + execute() + SYNC, "!26000"),
        may_pin="advisory_lock listen",
    ),
    program(
        "settings of a pinned client, when it's unpinned",
        ("a", "set work_mem = '5MB'; create temp table t (a int)"),
        TEMP,
        ("a", "set work_mem = '6MB'; set role app"),
        ("a", parse("select 'mine'", "s") + FLUSH),
        ("a", SYNC),
        ("a", "drop table t"),
        Unpinned(),
        ("b", "show work_mem; show role", "4MB;none"),
        ("a", "show work_mem; show role", "6MB;app"),
        ("a", bind("s") + execute() + SYNC, "mine"),
    ),
    program(
        "a client that goes, politely and not, takes it all with it",
        *(
            part
            for abruptly in (False, True)
            for part in (
                ("a", "set role app; create temp table t (a int); select pg_advisory_lock(7); listen news"),
                Leave("a", abruptly=abruptly),
                ("b", f"show role; {LOCKS}; select * from pg_listening_channels()", "none"),
                ("b", "notify news; table t", "!42P01"),
            )
        ),
        servers=(1,),
        may_pin="temporary_object advisory_lock listen",
    ),
]

PROGRAMS = [*TEMPORARY, *CURSORS, *LOCKING, *CHANNELS, *REST]
EACH = pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)


@EACH
def test_directly(twin: Twin, program: Program) -> None:
    """PostgreSQL itself answers as the program wants, and twice the same."""
    compare(program, twin.directly(program), twin.directly(program, "twin"))


@pytest.mark.parametrize("servers", [1, 2])
@EACH
def test_through_pgproxy(theatre: Theatre, program: Program, servers: int) -> None:
    if servers in program.servers:
        theatre.compare(program, servers)


PINNING = {
    "temporary_object": "create temp table t (a int)",
    "held_cursor": "declare c cursor with hold for select 1",
    "advisory_lock": "select pg_advisory_lock(424242)",
    "listen": "listen news",
    "library_loaded": "load 'plpgsql'",
    "seed": "select setseed(0.424242)",
}


def test_who_is_pinned_makes_others_wait(twin: Twin, theatre: Theatre) -> None:
    """Each reason with a user, so a pool of one server, of its own."""
    proxy = theatre.start(1, connection_borrow_timeout=1)
    users = {reason: f"pin_{reason}" for reason in PINNING}
    for user in users.values():
        twin.execute("proxied", f"create role {user} login superuser")
    log = Log(proxy)
    clients: list[Player] = []
    waiting = []
    for reason, text in PINNING.items():
        login = {"user": users[reason], "database": "proxied"}
        clients.append(Player(proxy.port, login))
        clients[-1].query(text)
        log.await_event("client_pinned", lambda event, reason=reason: event["reasons"] == [reason])
        waiting.append(Player(proxy.port, login))
    for observer in waiting:
        observer.send(message("Q", b"select 1\0"))
    for observer in waiting:
        assert observer.error()["C"] == "08000"
    digests = {event["reasons"][0]: event["digest"] for event in log.events("client_pinned")}
    assert digests.keys() == PINNING.keys()
    assert "pg_advisory_lock" in digests["advisory_lock"]
    assert not any("424242" in digest for digest in digests.values())
    for client in clients + waiting:
        client.leave()
    for user in users.values():
        with Player(proxy.port, {"user": user, "database": "proxied"}) as after:
            assert after.value("select 1") == "1"
    theatre.stop(proxy)
    for user in users.values():
        twin.execute("proxied", f"drop role {user}")


def test_a_pinned_client_hears_of_news_while_it_is_idle(theatre: Theatre) -> None:
    theatre.twin.clean("proxied")
    stage = Proxied(theatre.twin, theatre.proxy(1), churns=False)
    with Player(stage.port, {"user": "boss", "database": "proxied"}) as listener:
        listener.query("listen news")
        stage.mark(Pinned("listen"))
        stage.admin("notify news, 'it''s'")
        tag, payload = listener.message()
        assert tag == "A" and payload.endswith(b"news\0it's\0")
        listener.query("unlisten *")
        stage.mark(Unpinned())
        stage.admin("notify news, 'unheard'")
        assert listener.value("select 1") == "1"
        assert not answered(listener)
    stage.close()


def test_who_dies_while_listening_leaves_nothing(theatre: Theatre) -> None:
    theatre.twin.clean("proxied")
    proxy = theatre.proxy(1)
    login = {"user": "boss", "database": "proxied"}
    listener = Player(proxy.port, login)
    listener.query("listen news; listen more")
    listener.leave(abruptly=True)
    with Player(proxy.port, login) as after:
        assert after.perform(message("Q", b"notify news, 'x'; notify more\0")).said == ""
        assert after.value("select count(*) from pg_listening_channels()") == "0"
        assert after.notifications == []
