"""COMMIT keeps a setting, ROLLBACK and ROLLBACK TO undo it, SET LOCAL ends with its transaction."""

from __future__ import annotations

from tests.fix_twin import Theatre, Twin
from tests.programs import (
    Program,
    bound,
    compare,
    each,
    each_way,
    program,
)

MEM = "show work_mem"
TENANT = "select nullif(current_setting('my.tenant', true), '')"


TRANSACTIONS = [
    program(
        "kept by COMMIT, undone by ROLLBACK",
        ("a", "begin"),
        ("a", "set work_mem = '77MB'"),
        ("a", "commit"),
        ("b", MEM, "4MB"),
        ("a", MEM, "77MB"),
        ("a", "begin; set work_mem = '88MB'; select set_config('my.tenant', '7', false)"),
        ("a", f"{MEM}; {TENANT}", "88MB;7"),
        ("a", "rollback"),
        ("b", MEM, "4MB"),
        ("a", f"{MEM}; {TENANT}", "77MB;NULL"),
    ),
    program(
        "RESET is undone, too",
        ("a", "set work_mem = '77MB'; set my.tenant = '7'"),
        ("a", "begin; reset all"),
        ("a", MEM, "4MB"),
        ("a", "rollback"),
        ("b", MEM, "4MB"),
        ("a", f"{MEM}; {TENANT}", "77MB;7"),
        ("a", "begin; reset work_mem; commit"),
        ("b", MEM, "4MB"),
        ("a", f"{MEM}; {TENANT}", "4MB;7"),
    ),
    program(
        "undone by ROLLBACK TO",
        ("a", "begin; set work_mem = '5MB'; savepoint s; set work_mem = '6MB'; set my.tenant = '7'"),
        ("a", "rollback to s"),
        ("a", MEM, "5MB"),
        ("a", "savepoint t; set statement_timeout = '55s'; release t; commit"),
        ("b", f"{MEM}; {TENANT}; show statement_timeout", "4MB;NULL;0"),
        ("a", f"{MEM}; {TENANT}; show statement_timeout", "5MB;NULL;55s"),
    ),
    program(
        "undone by an error",
        ("a", "begin; set work_mem = '5MB'; select 1/0", "!22012"),
        ("a", "commit"),
        ("b", MEM, "4MB"),
        ("a", MEM, "4MB"),
        ("a", "set work_mem = '5MB'; select 1/0", "!22012"),
        ("a", MEM, "4MB"),
        ("a", "begin; set work_mem = '5MB'; commit; set work_mem = '6MB'; select 1/0", "!22012"),
        ("b", MEM, "4MB"),
        ("a", MEM, "5MB"),
        ("a", "set work_mem = 'much'", "!22023"),
        ("a", "set nosuch = 1", "!42704"),
        ("a", MEM, "5MB"),
    ),
    program(
        "SET LOCAL never outlives its transaction, and never pins",
        ("a", "begin; set local work_mem = '77MB'; set local my.tenant = '7'"),
        ("a", f"{MEM}; {TENANT}", "77MB;7"),
        ("a", "commit"),
        ("b", f"{MEM}; {TENANT}", "4MB;NULL"),
        ("a", f"{MEM}; {TENANT}", "4MB;NULL"),
        ("a", bound("select set_config('my.tenant', '7', true), current_setting('my.tenant')")),
        ("b", TENANT, "NULL"),
        ("a", TENANT, "NULL"),
        ("a", "set local work_mem = '77MB'"),
        ("a", MEM, "4MB"),
    ),
    program(
        "SET LOCAL over a SET, before and after",
        ("a", "set work_mem = '5MB'"),
        ("a", "begin; set local work_mem = '6MB'"),
        ("a", "commit"),
        ("b", MEM, "4MB"),
        ("a", MEM, "5MB"),
        ("a", "begin; set work_mem = '7MB'; set local work_mem = '8MB'"),
        ("a", MEM, "8MB"),
        ("a", "commit"),
        ("b", MEM, "4MB"),
        ("a", MEM, "7MB"),
        ("a", "begin; set local work_mem = '8MB'; set work_mem = '9MB'; commit"),
        ("b", MEM, "4MB"),
        ("a", MEM, "9MB"),
        ("a", "begin; set local work_mem = '8MB'; savepoint s; set work_mem = '10MB'; rollback to s; commit"),
        ("a", MEM, "9MB"),
    ),
    program(
        "a transaction's own characteristics",
        ("a", "begin isolation level serializable read only; set transaction deferrable"),
        ("a", "show transaction_isolation; show transaction_read_only", "serializable;on"),
        ("a", "commit and chain"),
        ("a", "show transaction_isolation", "serializable"),
        ("a", "rollback"),
        ("a", "show transaction_isolation", "read committed"),
        ("a", "set session characteristics as transaction isolation level repeatable read, read only"),
        ("b", "show transaction_isolation; create table w (a int)", "read committed"),
        ("a", "show transaction_isolation", "repeatable read"),
        ("a", "insert into w values (1)", "!25006"),
        ("b", "insert into w values (1)"),
        ("a", "set default_transaction_read_only = off"),
        ("a", "insert into w values (1)"),
        ("a", "set transaction isolation level serializable"),
        ("a", "show transaction_isolation", "repeatable read"),
    ),
    program(
        "kept by PREPARE TRANSACTION",
        ("a", "begin; set work_mem = '5MB'; create table two (a int); prepare transaction 'traps'"),
        ("b", MEM, "4MB"),
        ("b", "rollback prepared 'traps'"),
        ("a", MEM, "5MB"),
    ),
    program(
        "two clients in transactions at a time",
        ("a", "begin; set work_mem = '5MB'"),
        ("b", "begin; set work_mem = '6MB'"),
        ("a", "commit"),
        ("b", "rollback"),
        ("b", MEM, "4MB"),
        ("a", MEM, "5MB"),
        servers=(2,),
    ),
]

PROGRAMS = TRANSACTIONS


@each(PROGRAMS)
def test_directly(twin: Twin, program: Program) -> None:
    """PostgreSQL itself answers as the program wants, and twice the same."""
    compare(program, twin.directly(program), twin.directly(program, "twin"))


@each_way(PROGRAMS)
def test_through_pgproxy(theatre: Theatre, program: Program, servers: int) -> None:
    theatre.compare(program, servers)
