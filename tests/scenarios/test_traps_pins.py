"""Channels, seeds, libraries, sequences, several reasons at a time; a reason is told, and others wait."""

from __future__ import annotations

from contextlib import ExitStack
from struct import pack

import pytest

from tests.answers import Player
from tests.fix_twin import Theatre, Twin
from tests.programs import (
    Free,
    Leave,
    Pinned,
    Program,
    Unpinned,
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
    execute,
    message,
    parse,
)
from tests.stages import Log, Proxied, answered

TEMP = Pinned("temporary_object")
LISTEN = Pinned("listen")
ME = "locktype = 'advisory' and pid = pg_backend_pid()"
LOCKS = f"select classid, objid, mode from pg_locks where {ME} order by 1, 2, 3"


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
        Free(),
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
        user="chief",
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
        # In a pool that is as new as this, nobody has used sequences before who might be taken for `a`. Where
        # somebody has, and nobody has asked for currval() in this worker yet, `a` may be told 55000.
        user="clerk",
        servers=(2,),
    ),
    program(
        "a sequence's value, asked for by the first client of a pool ever to do so",
        ("a", f"begin; {SEQUENCE}"),
        ("b", "begin; select 1"),
        ("a", "commit"),
        ("b", "commit"),
        # With another server idle, nobody gets the one that somebody may come back to.
        ("a", "select nextval('q')", "10"),
        ("b", "begin; select 1"),
        ("a", "select currval('q')", "10"),
        ("b", "commit"),
        ("a", "select lastval()", "10"),
        may_pin="sequence",
        user="newcomer",
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
        user="chief",
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
        ("a", "set work_mem = '6MB'; set role app; drop table t", "!42501"),
        ("a", "set work_mem = '6MB'; set role app"),
        ("a", "drop table t", "!42501"),
        ("a", parse("select 'mine'", "s") + FLUSH),
        ("a", SYNC),
        ("a", "begin; reset role; drop table t; set role app; commit"),
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

PROGRAMS = [*CHANNELS, *REST]

ONE = parse("select 1") + bind() + execute()
LASTVAL = parse("select lastval()") + bind() + execute()
NAMED = bind("a") + execute() + bind("b") + execute() + SYNC


@each(PROGRAMS)
def test_directly(twin: Twin, program: Program) -> None:
    """PostgreSQL itself answers as the program wants, and twice the same."""
    compare(program, twin.directly(program), twin.directly(program, "twin"))


@each_way(PROGRAMS)
def test_through_pgproxy(theatre: Theatre, program: Program, servers: int) -> None:
    theatre.compare(program, servers)


PINNING = {
    "temporary_object": "create temp table t (a int)",
    "held_cursor": "declare c cursor with hold for select 1",
    "advisory_lock": "select pg_advisory_lock(424242)",
    "listen": "listen news",
    "library_loaded": "load 'plpgsql'",
    "seed": "select setseed(0.424242)",
}


@pytest.mark.parametrize(
    ("user", "steps"),
    [
        ("asks_in_a_batch", [ONE + LASTVAL + SYNC]),
        ("asks_behind_a_flush", [parse("select 1") + FLUSH, LASTVAL + SYNC]),
        ("asks_in_a_pipeline", [parse("select 1", "a") + parse("select lastval()", "b") + SYNC, NAMED]),
        ("asks_with_a_rollback", ["begin; select 1/0", "rollback; select lastval()"]),
        ("asks_behind_a_rollback", ["begin; select 1/0", "select lastval()", "rollback", "select lastval()"]),
        (
            "asks_at_once",
            [message("Q", b"begin; select 1/0\0") + message("Q", b"rollback; select lastval()\0")],
        ),
        ("asks_by_a_call", [message("F", pack("!IhhH", 2559, 0, 0, 0))]),
    ],
)
@pytest.mark.parametrize(
    "left", ["select nextval('q')", "select hidden()", "do $$ begin perform nextval('q'); end $$"]
)
def test_nobody_is_told_what_others_have_left(
    twin: Twin, theatre: Theatre, user: str, steps: list[str | bytes], left: str
) -> None:
    """Each with a pool of its own, in which nobody has asked before."""
    twin.clean("proxied")
    user = f"{user}_{len(left)}"
    twin.execute("proxied", f"create role {user} login superuser")
    twin.execute("proxied", "create sequence q start 4242")
    twin.execute(
        "proxied", "create function hidden() returns bigint language sql as $$ select nextval('q') $$"
    )
    login = {"user": user, "database": "proxied"}
    port = theatre.proxy(1).port
    with Player(port, login) as other, Player(port, login) as client:
        other.query(left)
        answers = [
            client.perform(step if isinstance(step, bytes) else message("Q", step.encode() + b"\0"))
            for step in steps
        ]
        assert "4242" not in str(answers)
        assert "!55000" in answers[-1].said
    with Player(port, login) as again:
        assert again.perform(message("Q", b"select lastval()\0")).said == "!55000"
    twin.execute("proxied", f"drop role {user}")


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


def test_no_limit_takes_the_server_of_who_is_pinned(twin: Twin, theatre: Theatre) -> None:
    """Neither its lifetime, nor that nobody says anything, nor others who wait for it, here or elsewhere."""
    twin.clean("proxied")
    twin.execute("proxied", "create sequence q")
    proxy = theatre.start(1, connection_borrow_timeout=4, server_lifetime=1, server_idle_timeout=1)
    texts = {**PINNING, "sequence": "select currval('q')"}
    pids: dict[str, str | None] = {}
    with ExitStack() as exits:
        clients: dict[str, Player] = {}
        waiting = []
        for reason, text in texts.items():
            twin.execute("proxied", f"create role keep_{reason} login superuser")
            login = {"user": f"keep_{reason}", "database": "proxied"}
            clients[reason] = exits.enter_context(Player(proxy.port, login))
            if reason == "sequence":
                clients[reason].query("select nextval('q')")
            clients[reason].query(text)
            pids[reason] = clients[reason].value("select pg_backend_pid()")
            waiting += [exits.enter_context(Player(proxy.port, login)) for _ in range(2)]
        for observer in waiting:
            observer.send(message("Q", b"select 1\0"))
        for observer in waiting:
            assert observer.error()["C"] == "08000"
        for reason, client in clients.items():
            assert client.value("select pg_backend_pid()") == pids[reason], reason
        assert clients["sequence"].value("select currval('q')") == "1"
    theatre.stop(proxy)
    for reason in texts:
        twin.execute("proxied", f"drop role keep_{reason}")


def test_a_pinned_client_hears_of_news_while_it_is_idle(theatre: Theatre) -> None:
    theatre.twin.clean("proxied")
    stage = Proxied(theatre.twin, theatre.proxy(1))
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
