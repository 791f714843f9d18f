"""Servers that idle in a pool never stand in a client's way; new defaults reach new clients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.answers import Answer, Player
from tests.fix_twin import Theatre, Twin
from tests.programs import bound, compare, program
from tests.raw import message

STORY = (
    ('create database "Idle Two"', "CREATE DATABASE"),
    ("create database idle_copy template \"Idle Two\" encoding 'UTF8'", "CREATE DATABASE"),
    ('CREATE DATABASE Idle_Three WITH OWNER=app TEMPLATE = "Idle Two"', "CREATE DATABASE"),
    ('alter database "Idle Two" rename to idle_four', "ALTER DATABASE"),
    ("alter database idle_four set tablespace pg_default", "ALTER DATABASE"),
    ('/* x */ DROP -- y\n DATABASE IF EXISTS"idle_four"', "DROP DATABASE"),
    ("select 1", "SELECT 1"),
    ('drop database "idle_copy";', "DROP DATABASE"),
    ("create database idle_copy", "CREATE DATABASE"),
    ("Drop Database idle_COPY with (force)", "DROP DATABASE"),
    ("drop database idle_three", "DROP DATABASE"),
)
"""What is done to databases, and its tag. Each one is used by two clients before each step."""


@pytest.fixture
def databases(twin: Twin) -> Iterator[set[str]]:
    """Which databases there are; none at first, and at the end."""
    there: set[str] = set()
    yield there
    for name in ("Idle Two", "idle_copy", "idle_three", "idle_four", "idle"):
        twin.execute("direct", f'drop database if exists "{name}" with (force)')


@pytest.fixture(params=["directly", "through pgproxy"])
def port(request: pytest.FixtureRequest, twin: Twin, theatre: Theatre) -> int:
    """The direct connection shows what's right."""
    return twin.port if request.param == "directly" else theatre.proxy(2).port


def player(port: int, database: str, user: str = "boss") -> Player:
    return Player(port, {"user": user, "database": database})


def use(port: int, database: str) -> None:
    """Leave servers behind in the pools of two users."""
    for user in ("boss", "app"):
        with player(port, database, user) as client:
            assert client.value("select current_database()") == database
            client.leave()


def tags(answer: Answer) -> list[object]:
    return [value for tag, value in answer.replies if tag in "CE"]


def simple(text: str) -> bytes:
    return message("Q", text.encode() + b"\0")


def names(twin: Twin) -> set[str]:
    return {row[0] for row in twin.server.execute("select datname from pg_database where datname ~* '^idle'")}


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
def test_idle_servers_are_out_of_the_way(port: int, twin: Twin, databases: set[str], extended: bool) -> None:
    gone: set[str] = set()
    with player(port, "direct") as client:
        for text, tag in STORY:
            for name in databases:
                use(port, name)
            for name in gone - databases:
                assert player(port, name).login.said == "!3D000"
            assert tags(client.perform(bound(text) if extended else simple(text))) == [tag]
            gone |= databases
            databases.clear()
            databases |= names(twin)
    assert not databases


def test_a_database_in_use_is_not_dropped(theatre: Theatre, databases: set[str]) -> None:
    """PostgreSQL takes five seconds to say so."""
    port = theatre.proxy(2).port
    with player(port, "direct") as client:
        client.query("create database idle")
        with player(port, "idle") as user:
            user.query("begin")
            assert client.perform(simple("drop database idle")).said == "!55006"
            assert user.value("select 1") == "1"
            user.query("commit")


def test_one_is_dropped_by_who_is_past_pgproxy(twin: Twin, theatre: Theatre, databases: set[str]) -> None:
    """With force: the pool's idle servers die, and nobody is told an error for that."""
    port = theatre.proxy(2).port
    for _ in range(2):
        twin.execute("direct", "create database idle")
        use(port, "idle")
        twin.execute("direct", "drop database idle with (force)")


def test_nothing_is_closed_without_need(theatre: Theatre) -> None:
    """A command that fails, or names another database, leaves the pool as it is."""
    proxy = theatre.proxy(1)
    with player(proxy.port, "proxied") as other, player(proxy.port, "twin") as client:
        before = client.value("select pg_backend_pid()")
        assert tags(other.perform(simple("drop database if exists nosuch"))) == ["DROP DATABASE"]
        assert other.perform(simple("begin; drop database nosuch")).said == "!25001"
        other.query("rollback")
        assert client.value("select pg_backend_pid()") == before


CHANGES = {
    "a role's": "alter role other set work_mem = '6MB'",
    "a role's in a database": "alter role other in database {} set work_mem = '6MB'",
    "a database's": "alter database {} set work_mem = '6MB'",
    "everybody's": "alter role all set work_mem = '6MB'",
}


@pytest.mark.parametrize("through", ["pgproxy", "another connection"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_defaults_reach_new_clients(theatre: Theatre, twin: Twin, change: str, through: str) -> None:
    """... whether or not there are idle servers from before; clients from before keep what they have set."""
    twin.clean("proxied")
    proxy = theatre.proxy(1)
    text = change.format("proxied")
    undo = text.replace("set work_mem = '6MB'", "reset work_mem")

    def alter(text: str) -> None:
        if through == "pgproxy":
            with player(proxy.port, "proxied") as boss:
                assert "!" not in boss.perform(simple(text)).said
        else:
            twin.execute("direct", text)

    with player(proxy.port, "proxied", "other") as before:
        try:
            assert before.value("show work_mem") == "4MB"
            before.query("set timezone = 'CET'")
            alter(text)
            with player(proxy.port, "proxied", "other") as after:
                assert after.value("show work_mem") == "6MB"
                after.query("set work_mem = '7MB'")
                assert before.value("show timezone") == "CET"
                after.query("reset work_mem")
                assert before.value("show timezone") == "CET"
                assert after.value("show work_mem") == "6MB"
        finally:
            alter(undo)
        with player(proxy.port, "proxied", "other") as last:
            assert last.value("show work_mem") == "4MB"


def test_a_role_that_is_altered(theatre: Theatre, twin: Twin) -> None:
    """What a session can't do any more takes effect on it at once, as directly."""
    made = program(
        "a role's rights",
        ("a", "create role traps login; create table t as select 1 a; grant select on t to traps"),
        ("a", "set session authorization traps"),
        ("a", "table t", "1"),
        ("b", "revoke select on t from traps"),
        ("a", "table t", "!42501"),
        ("a", "reset session authorization"),
        ("b", "drop role traps"),
    )
    compare(made, twin.directly(made), theatre.through(made, 1))
