"""
What a server is asked when it has been logged in to, and again when a client arrives: how new sessions begin.

What ALTER ROLE and ALTER DATABASE have set for this user and database, a row for each; and at first, in one
row more: whether something of the database changes sessions in hiding (hidden.py), the role, how many
connections the server allows, whether it is in recovery, and which database this is. Directly, a new client
would begin with today's defaults; through us it may get a server that was opened with yesterday's.

Almost every login has it asked, so it is asked for no more than what decides, and of one table: a view of
roles or an aggregate would take the server several times as long. The user is looked up by name each time,
as another may have the name by now; a database that somebody is connected to stays what it is.

Documentation: PostgreSQL manual, "pg_db_role_setting", "Connection Settings".
"""

from __future__ import annotations

from functools import lru_cache

from attrs import frozen

from pgproxy.session.hidden import HIDDEN
from pgproxy.session.question import START, NoAnswer, literal, read_row, rows_of
from pgproxy.wire import messages, tags

_THIS_DATABASE = (
    b"(SELECT oid FROM pg_catalog.pg_database"
    b" WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database())"
)
_DEFAULTS = (
    b"SELECT 'd', setdatabase, setrole, setconfig FROM pg_catalog.pg_db_role_setting"
    b" WHERE setdatabase OPERATOR(pg_catalog.=) ANY (%d::pg_catalog.oid[])"
    b" AND (setrole OPERATOR(pg_catalog.=) 0 OR setrole OPERATOR(pg_catalog.=) pg_catalog.to_regrole(%u))"
)

_CAPACITY = b"""\
(SELECT pg_catalog.sum(CASE name WHEN 'max_connections' THEN setting::pg_catalog.int4 \
ELSE OPERATOR(pg_catalog.-) setting::pg_catalog.int4 END) FROM pg_catalog.pg_settings \
WHERE name OPERATOR(pg_catalog.=) ANY (ARRAY['max_connections', 'superuser_reserved_connections', \
'reserved_connections', 'rds.rds_superuser_reserved_connections']))"""
"""What PostgreSQL has for those who are no superusers. The last two are of PostgreSQL 16 and of RDS."""
_KEPT = 100
"""Questions that are kept."""
_LONGEST_NUMBER = 10
"""Digits."""
_OF_ITSELF = b"\0\x06"
"""How the row begins that is about the server: it has six columns."""


@frozen
class Opening:
    """What new sessions begin with."""

    defaults: bytes
    hidden: bool
    """Whether statements may change the session although no text shows it."""
    role: bytes
    """As which role they act, `none` where it is the user's own."""
    capacity: int | None
    """How many connections the server allows those who are no superusers, if it says so."""
    in_recovery: bool
    """Whether the server is."""
    database: bytes
    """The number of the database (its oid)."""


def opening_question(user: bytes) -> bytes:
    """Build the question about sessions of `user` to a server that has been logged in to."""
    about_itself = b", ".join(
        (
            b"SELECT 'o'",
            HIDDEN,
            b"pg_catalog.current_setting('role')",
            _CAPACITY,
            b"pg_catalog.pg_is_in_recovery()",
            _THIS_DATABASE,
        )
    )
    return _query(START + about_itself + b"; " + _defaults(user, b"ARRAY[0, " + _THIS_DATABASE + b"]"))


@lru_cache(_KEPT)
def defaults_question(user: bytes, database: bytes) -> bytes:
    """Build the question for the defaults alone; `database` is as in `Opening`."""
    return _query(START + _defaults(user, b"'{0,%d}'" % int(database)))


@lru_cache(_KEPT)
def hiding_question(user: bytes, database: bytes) -> bytes:
    """Build the same question behind another: whether something changes sessions in hiding."""
    return _query(START + b"SELECT 'h', " + HIDDEN + b"; " + _defaults(user, b"'{0,%d}'" % int(database)))


def _query(text: bytes) -> bytes:
    return messages.message(tags.QUERY, text + b"\0")


def _defaults(user: bytes, databases: bytes) -> bytes:
    name = b'"' + user.replace(b'"', b'""') + b'"'
    return _DEFAULTS.replace(b"%d", databases).replace(b"%u", literal(name))


def read_opening(replies: list[tuple[int, bytes]]) -> Opening:
    """Read the replies to `opening_question`, tag and payload of each. Raises `NoAnswer` or `Malformed`."""
    rows = rows_of(replies)
    if not rows or not rows[0].startswith(_OF_ITSELF):
        raise NoAnswer("the answer has no row")
    _kind, hidden, role, capacity, recovery, database = read_row(rows[0], columns=6)
    if _number(database) is None:
        raise NoAnswer("the answer has no database")
    return Opening(_in_order(rows[1:]), hidden == b"t", role, _number(capacity), recovery == b"t", database)


def read_defaults(replies: list[tuple[int, bytes]]) -> bytes:
    """Read the replies to `defaults_question`. Raises `NoAnswer`."""
    return _in_order(rows_of(replies))


def read_hiding(replies: list[tuple[int, bytes]]) -> tuple[bool, bytes]:
    """
    Read the replies to `hiding_question`: whether something does, and the defaults.

    Raises `NoAnswer` or `Malformed`.
    """
    rows = rows_of(replies)
    if not rows:
        raise NoAnswer("the answer has no row")
    _kind, hidden = read_row(rows[0], columns=2)
    return hidden == b"t", _in_order(rows[1:])


def _in_order(rows: list[bytes]) -> bytes:
    """Make one of the rows about defaults, which come in any order."""
    return b"".join(sorted(rows))


def _number(text: bytes) -> int | None:
    return int(text) if text.isdigit() and len(text) <= _LONGEST_NUMBER else None
