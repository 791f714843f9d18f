"""Startup parameters, options, and the defaults of roles and databases: what RESET goes back to."""

from __future__ import annotations

from tests.fix_twin import Theatre, Twin
from tests.programs import (
    Admin,
    Connect,
    Program,
    bound,
    compare,
    each,
    each_way,
    program,
)

MEM = "show work_mem"
TENANT = "select nullif(current_setting('my.tenant', true), '')"


BEGINNINGS = [
    program(
        "startup parameters, and RESET to them",
        Connect("a", {"options": "-c work_mem=7MB -c my.tenant=7", "search_path": "s1", "TimeZone": "CET"}),
        Connect("b", {"application_name": "b", "DateStyle": "SQL, DMY", "client_encoding": "LATIN1"}),
        ("a", f"{MEM}; {TENANT}; show search_path; show timezone", "7MB;7;s1;CET"),
        ("b", f"{MEM}; {TENANT}; show application_name; show datestyle", "4MB;NULL;b;SQL, DMY"),
        ("a", "set work_mem = '8MB'; set search_path = s2; set timezone = 'UTC'; set my.tenant = 8"),
        ("b", "set application_name = 'c'; set datestyle = 'ISO'"),
        ("a", "reset work_mem; reset search_path"),
        ("b", "reset all"),
        ("a", f"{MEM}; {TENANT}; show search_path; show timezone", "7MB;8;s1;UTC"),
        ("b", "show application_name; show datestyle; show client_encoding", "b;SQL, DMY;LATIN1"),
        ("a", "discard all"),
        ("b", MEM, "4MB"),
        ("a", f"{MEM}; {TENANT}; show search_path; show timezone", "7MB;7;s1;CET"),
    ),
    program(
        "options with blanks and backslashes, and switches",
        Connect("a", {"options": r"--my.tenant=a\ b\\c -c DateStyle=SQL,\ DMY --work-mem=7MB -e"}),
        ("b", f"{TENANT}; {MEM}", "NULL;4MB"),
        ("a", f"{TENANT}; {MEM}; show datestyle", r"a b\c;7MB;SQL, DMY"),
    ),
    program(
        "startup parameters that don't hold",
        Connect("a", {"options": "-c nosuch=1"}),
        Connect("b", {"work_mem": "much"}),
        Connect("c", {"options": "-c shared_buffers=1MB"}),
        ("d", "select 1", "1"),
    ),
    program(
        "ALTER ROLE ... SET and ALTER DATABASE ... SET, for those who come later",
        Admin("alter role other set work_mem = '6MB'"),
        Admin("alter role other in database @DATABASE@ set my.tenant = 6"),
        Connect("a", {"user": "other"}),
        Connect("b", {"user": "other", "options": "-c work_mem=9MB"}),
        ("a", f"{MEM}; {TENANT}", "6MB;6"),
        ("b", f"{MEM}; {TENANT}", "9MB;6"),
        ("a", "set work_mem = '7MB'; set my.tenant = 7"),
        ("b", "set work_mem = '8MB'"),
        ("a", "reset work_mem"),
        ("b", "reset all"),
        ("a", f"{MEM}; {TENANT}", "6MB;7"),
        ("b", f"{MEM}; {TENANT}", "9MB;6"),
        ("z", "alter role other set work_mem = '10MB'"),
        Connect("c", {"user": "other"}),
        ("c", MEM, "10MB"),
        ("c", "reset all"),
        ("c", f"{MEM}; {TENANT}", "10MB;6"),
        ("z", "alter role other reset all"),
        ("z", "alter role other in database @DATABASE@ reset all"),
        Connect("d", {"user": "other"}),
        ("d", f"{MEM}; {TENANT}", "4MB;NULL"),
        servers=(1,),
    ),
    program(
        "the same, said through the connection",
        ("a", "alter role other set work_mem = '6MB'"),
        Connect("b", {"user": "other"}),
        ("b", MEM, "6MB"),
        ("a", bound("alter role other set work_mem = '8MB'")),
        Connect("c", {"user": "other"}),
        ("c", MEM, "8MB"),
        ("a", "alter database @DATABASE@ set my.tenant = 7"),
        Connect("d", {"user": "other"}),
        ("d", TENANT, "7"),
        ("a", "alter database @DATABASE@ reset my.tenant"),
        ("a", "begin; alter role other reset work_mem; commit"),
        Connect("e", {"user": "other"}),
        ("e", f"{MEM}; {TENANT}", "4MB;NULL"),
        servers=(1,),
    ),
]

PROGRAMS = BEGINNINGS


@each(PROGRAMS)
def test_directly(twin: Twin, program: Program) -> None:
    """PostgreSQL itself answers as the program wants, and twice the same."""
    compare(program, twin.directly(program), twin.directly(program, "twin"))


@each_way(PROGRAMS)
def test_through_pgproxy(theatre: Theatre, program: Program, servers: int) -> None:
    theatre.compare(program, servers)
