"""
What a server is asked when it has been logged in to, and again when a client arrives: how new sessions begin.

One row: what ALTER ROLE and ALTER DATABASE have set for this user and database, whether something of the
database changes sessions in hiding (hidden.py), the role, how many connections the server allows, and whether
it is in recovery.
Directly, a new client would begin with today's defaults; through us it may get a server that was opened with
yesterday's.

Documentation: PostgreSQL manual, "pg_db_role_setting", "Connection Settings".
"""

from __future__ import annotations

from functools import lru_cache

from attrs import frozen

from pgproxy.session.hidden import HIDDEN
from pgproxy.session.question import START, NoAnswer, literal, read_row
from pgproxy.wire import messages, tags

_DEFAULTS = (
    b"(SELECT pg_catalog.coalesce(pg_catalog.string_agg(pg_catalog.concat_ws(' ', setdatabase, setrole,"
    b" setconfig), ';' ORDER BY setdatabase, setrole), '') FROM pg_catalog.pg_db_role_setting"
    b" WHERE setdatabase OPERATOR(pg_catalog.=) ANY (ARRAY[0, (SELECT oid FROM pg_catalog.pg_database"
    b" WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database())]::pg_catalog.oid[])"
    b" AND setrole OPERATOR(pg_catalog.=) ANY (ARRAY[0, (SELECT oid FROM pg_catalog.pg_roles"
    b" WHERE rolname OPERATOR(pg_catalog.=) %s)]::pg_catalog.oid[]))"
).replace(b"pg_catalog.coalesce", b"COALESCE")

_CAPACITY = b"""\
(SELECT pg_catalog.sum(CASE name WHEN 'max_connections' THEN setting::pg_catalog.int4 \
ELSE OPERATOR(pg_catalog.-) setting::pg_catalog.int4 END) FROM pg_catalog.pg_settings \
WHERE name OPERATOR(pg_catalog.=) ANY (ARRAY['max_connections', 'superuser_reserved_connections', \
'reserved_connections', 'rds.rds_superuser_reserved_connections']))"""
"""What PostgreSQL has for those who are no superusers. The last two are of PostgreSQL 16 and of RDS."""
_KEPT = 100
"""Questions that are kept; each user has two."""
_LONGEST_NUMBER = 9
"""Digits."""


@frozen
class Opening:
    """What new sessions begin with."""

    defaults: bytes
    hidden: bool
    """Whether statements may change the session although no text shows it, if that was asked."""
    role: bytes
    """As which role they act, `none` where it is the user's own."""
    capacity: int | None = None
    """How many connections the server allows those who are no superusers, if that was asked."""
    in_recovery: bool = False
    """Whether the server is one, if that was asked."""


@lru_cache(_KEPT)
def opening_question(user: bytes, at_first: bool) -> bytes:
    """Build the question about sessions of `user`; `at_first` the server is asked more about itself."""
    defaults = _DEFAULTS.replace(b"%s", literal(user))
    text = (
        START
        + b"SELECT 'o', "
        + defaults
        + b", "
        + (HIDDEN if at_first else b"NULL")
        + b", pg_catalog.current_setting('role'), "
        + (_CAPACITY if at_first else b"NULL")
        + (b", pg_catalog.pg_is_in_recovery()" if at_first else b", NULL")
    )
    return messages.message(tags.QUERY, text + b"\0")


def read_opening(replies: list[tuple[int, bytes]]) -> Opening:
    """Read the replies, tag and payload of each. Raises `NoAnswer`."""
    opening: Opening | None = None
    for tag, payload in replies:
        if tag == tags.ERROR_RESPONSE:
            fields = messages.read_error_fields(payload)
            raise NoAnswer(f"{fields.get('C', '')} {fields.get('M', '')}")
        if tag == tags.DATA_ROW:
            _kind, defaults, hidden, role, capacity, recovery = read_row(payload, columns=6)
            opening = Opening(defaults, hidden == b"t", role, _number(capacity), recovery == b"t")
    if opening is None:
        raise NoAnswer("the answer has no row")
    return opening


def _number(text: bytes) -> int | None:
    return int(text) if text.isdigit() and len(text) <= _LONGEST_NUMBER else None
