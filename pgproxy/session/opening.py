"""
What a server is asked when it has been logged in to, and again when a client arrives: how new sessions begin.

One row: what ALTER ROLE and ALTER DATABASE have set for this user and database, whether something of the
database changes sessions in hiding (hidden.py), and the role. Directly, a new client would begin with today's
defaults; through us it may get a server that was opened with yesterday's.

Documentation: PostgreSQL manual, "pg_db_role_setting".
"""

from __future__ import annotations

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


@frozen
class Opening:
    """What new sessions begin with."""

    defaults: bytes
    hidden: bool
    """Whether statements may change the session although no text shows it, if that was asked."""
    role: bytes
    """As which role they act, `none` where it is the user's own."""


def opening_question(user: bytes, hidden: bool) -> bytes:
    """Build the question about sessions of `user`; with `hidden`, also about what is done in hiding."""
    defaults = _DEFAULTS.replace(b"%s", literal(user))
    text = (
        START
        + b"SELECT 'o', "
        + defaults
        + b", "
        + (HIDDEN if hidden else b"NULL")
        + b", pg_catalog.current_setting('role')"
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
            _kind, defaults, hidden, role = read_row(payload)
            opening = Opening(defaults, hidden == b"t", role)
    if opening is None:
        raise NoAnswer("the answer has no row")
    return opening
