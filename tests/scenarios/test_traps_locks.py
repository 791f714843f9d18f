"""Session advisory locks pin their client for as long as the server holds one: it is asked, not guessed."""

from __future__ import annotations

from tests.fix_twin import Theatre, Twin
from tests.programs import (
    Part,
    Pinned,
    Program,
    Unpinned,
    bound,
    compare,
    each,
    each_way,
    program,
)

LOCK = Pinned("advisory_lock")
ME = "locktype = 'advisory' and pid = pg_backend_pid()"
LOCKS = f"select classid, objid, mode from pg_locks where {ME} order by 1, 2, 3"


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

PROGRAMS = LOCKING


@each(PROGRAMS)
def test_directly(twin: Twin, program: Program) -> None:
    """PostgreSQL itself answers as the program wants, and twice the same."""
    compare(program, twin.directly(program), twin.directly(program, "twin"))


@each_way(PROGRAMS)
def test_through_pgproxy(theatre: Theatre, program: Program, servers: int) -> None:
    theatre.compare(program, servers)
