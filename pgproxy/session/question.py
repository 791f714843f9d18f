"""
The one question to a server at the end of a transaction: what has been left in the session?

Each row of the answer is (kind, name, value, context):

    s  a setting of source `session`, its value in hex where it is not plain ASCII (context ends in /hex)
    r  whom the session acts as: role, session_authorization
    p  a prepared statement; value says whether SQL made it
    u  a cursor WITH HOLD    l  a channel    a  an advisory lock    t  a temporary object
    f  a function: its source, and what it is (functions.py)
    n  the newest function of the database: the highest number (oid) of any
    w  something of the database may change the session although no text shows it (hidden.py)

Everything is qualified and every operator is pg_catalog's: no search_path may change what it means. It reads
in its own READ COMMITTED transaction, so that no default of the client's (serializable, deferrable) holds it
up. Custom settings (`my.tenant`) are in no view: those whose names are known are looked up one by one.

Documentation: PostgreSQL manual, "pg_settings", "pg_prepared_statements", "pg_cursors", "pg_locks".
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from struct import error as StructError

from attrs import Factory, frozen

from pgproxy.session.functions import MOST_ALIKE, MOST_SOURCE, Row
from pgproxy.session.hidden import HIDDEN
from pgproxy.session.pins import PinReason
from pgproxy.session.settings import ROLE, SESSION_AUTHORIZATION, Setting, setting
from pgproxy.session.suspicion import LOOK
from pgproxy.wire import messages, tags
from pgproxy.wire.skim import Malformed

ANSWER_LIMIT = 4 * 1024 * 1024
"""Bytes of an answer that are read."""

_HEX = b"/hex"
_OWN = b"{transaction_isolation,transaction_read_only,transaction_deferrable,seed,is_superuser}"

_SPELL = (
    b"CASE WHEN %(v)s OPERATOR(pg_catalog.~) '^[ -}~]*$' THEN %(v)s"
    b" ELSE pg_catalog.encode(pg_catalog.convert_to(%(v)s, 'UTF8'), 'hex') END,"
    b" %(c)s OPERATOR(pg_catalog.||)"
    b" CASE WHEN %(v)s OPERATOR(pg_catalog.~) '^[ -}~]*$' THEN '' ELSE '/hex' END"
)


def _spell(value: bytes, context: bytes) -> bytes:
    return _SPELL.replace(b"%(v)s", value).replace(b"%(c)s", context)


START = b"SET TRANSACTION ISOLATION LEVEL READ COMMITTED READ ONLY NOT DEFERRABLE; "
"""
Before a question of ours, in the same Query and so in the same transaction: no default of the client's holds
it up, and where it fails nothing is left of it.
"""

_SESSION = b"".join(
    (
        START,
        b"SELECT 's', name, ",
        _spell(b"setting", b"context"),
        b" FROM pg_catalog.pg_show_all_settings() WHERE source OPERATOR(pg_catalog.=) 'session'"
        # Not by a regular expression: to plan one takes half as long as all the settings.
        b" AND setting IS NOT NULL"
        b" AND name OPERATOR(pg_catalog.<>) ALL ('" + _OWN + b"'::pg_catalog.text[])",
        b" UNION ALL SELECT 'r', 'role', ",
        _spell(b"pg_catalog.current_setting('role')", b"''"),
        b" UNION ALL SELECT 'r', 'session_authorization', ",
        _spell(b"(SESSION_USER)::pg_catalog.text", b"''"),
        b" UNION ALL SELECT 'p', name, from_sql::pg_catalog.text, '' FROM pg_catalog.pg_prepared_statement()"
        b" UNION ALL SELECT 'u', name, '', '' FROM pg_catalog.pg_cursor() WHERE is_holdable"
        b" UNION ALL SELECT 'l', c, '', '' FROM pg_catalog.pg_listening_channels() AS c"
        b" UNION ALL SELECT 'a', '', '', '' FROM pg_catalog.pg_lock_status()"
        b" WHERE locktype OPERATOR(pg_catalog.=) 'advisory'"
        b" AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()"
        b" UNION ALL SELECT 't', '', '', '' FROM pg_catalog.pg_depend"
        b" WHERE refclassid OPERATOR(pg_catalog.=) 2615"
        b" AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()",
    )
)

_CUSTOM = (
    b" UNION ALL SELECT 's', n, "
    + _spell(b"pg_catalog.current_setting(n, true)", b"'custom'")
    + b" FROM (%s) AS names (n) WHERE pg_catalog.current_setting(n, true) IS NOT NULL"
)

_IN_FUNCTIONS = (
    b"SELECT DISTINCT m[1] FROM pg_catalog.pg_proc, LATERAL pg_catalog.regexp_matches(prosrc,"
    b" '([[:alpha:]_][[:alnum:]_$]*(?:[.][[:alpha:]_][[:alnum:]_$]*)+)', 'g') AS m"
    b" WHERE oid OPERATOR(pg_catalog.>=) 16384 AND prolang OPERATOR(pg_catalog.>) 13"
    b" AND prosrc OPERATOR(pg_catalog.~*) E'set_config|\\\\mset\\\\M'"
)
"""Dotted names in the source of functions that set something; 12 and 13 are the internal and C languages."""


_FUNCTIONS = (
    b" UNION ALL SELECT 'f', f.name,"
    b" CASE WHEN f.size OPERATOR(pg_catalog.<=) %source THEN f.source ELSE '' END, f.what"
    b" FROM (SELECT f.*, pg_catalog.row_number() OVER (PARTITION BY f.name) AS number,"
    b" pg_catalog.sum(pg_catalog.octet_length(f.source)) OVER (ROWS UNBOUNDED PRECEDING) AS size"
    b" FROM (SELECT p.proname::pg_catalog.text AS name,"
    b" CASE WHEN e.extname IS NULL AND pg_catalog.octet_length(p.prosrc) OPERATOR(pg_catalog.<=) %look"
    b" AND p.prosrc OPERATOR(pg_catalog.!~) E'[^\\u0001-\\u007f]' AND pg_catalog.strpos("
    b"pg_catalog.concat(p.proargdefaults), 'FUNCEXPR') OPERATOR(pg_catalog.=) 0 AND pg_catalog.strpos("
    b"pg_catalog.concat(p.proargdefaults), 'OPEXPR') OPERATOR(pg_catalog.=) 0"
    b" THEN p.prosrc ELSE '' END AS source,"
    b" pg_catalog.concat_ws(' ', l.lanname, pg_catalog.concat(p.oid, ':', p.xmin), e.extname) AS what"
    b" FROM pg_catalog.pg_proc AS p"
    b" JOIN pg_catalog.pg_language AS l ON l.oid OPERATOR(pg_catalog.=) p.prolang"
    b" LEFT JOIN pg_catalog.pg_depend AS d ON d.classid OPERATOR(pg_catalog.=) 1255"
    b" AND d.objid OPERATOR(pg_catalog.=) p.oid AND d.refclassid OPERATOR(pg_catalog.=) 3079"
    b" AND d.deptype OPERATOR(pg_catalog.=) 'e'"
    b" LEFT JOIN pg_catalog.pg_extension AS e ON e.oid OPERATOR(pg_catalog.=) d.refobjid"
    b" WHERE p.proname OPERATOR(pg_catalog.=) ANY (ARRAY[%s]::pg_catalog.name[])) AS f) AS f"
    b" WHERE f.number OPERATOR(pg_catalog.<=) %alike"
)
_FUNCTIONS = _FUNCTIONS.replace(b"%source", b"%d" % MOST_SOURCE).replace(b"%look", b"%d" % LOOK)
_FUNCTIONS = _FUNCTIONS.replace(b"%alike", b"%d" % (MOST_ALIKE + 1))
"""
All functions of these names, but no more than show that they are too many. The source is given as far as it
is read, and where no argument's default calls anything. 1255 is pg_proc, 3079 pg_extension.
"""

_VERSIONS = (
    b"SELECT 'v', p.proname, '', pg_catalog.concat(p.oid, ':', p.xmin) FROM pg_catalog.pg_proc AS p"
    b" WHERE p.proname OPERATOR(pg_catalog.=) ANY (ARRAY[%s]::pg_catalog.name[])"
)


_NEWEST = (
    b" UNION ALL SELECT 'n', '', (SELECT pg_catalog.max(oid) FROM pg_catalog.pg_proc)::pg_catalog.text, ''"
)


def question(
    names: Iterable[bytes],
    functions: bool,
    hidden: bool = False,
    calls: Iterable[bytes] = (),
    newest: bool = False,
) -> bytes:
    """
    Build the question, a Query of two statements.

    `names` are custom settings to look up; with `functions`, those that any function's source names, too.
    With `hidden` it is also asked what statements of the database do in hiding. `calls` are functions of
    which it is asked what they are; with `newest` also which function is the newest.
    """
    text = _SESSION
    listed = [b"(" + literal(name) + b")" for name in names]
    if listed:
        text += _CUSTOM.replace(b"%s", b"VALUES " + b", ".join(listed))
    if functions:
        text += _CUSTOM.replace(b"%s", _IN_FUNCTIONS)
    called = b", ".join(map(literal, calls))
    if called:
        text += _FUNCTIONS.replace(b"%s", called)
    if newest:
        text += _NEWEST
    if hidden:
        text += b" UNION ALL SELECT 'w', '', " + HIDDEN + b"::pg_catalog.text, ''"
    return messages.message(tags.QUERY, text + b"\0")


def versions_question(calls: Iterable[bytes]) -> bytes:
    """Build the question whether functions are the same still."""
    text = START + _VERSIONS.replace(b"%s", b", ".join(map(literal, calls)))
    return messages.message(tags.QUERY, text + b"\0")


def read_versions(replies: list[tuple[int, bytes]]) -> list[tuple[bytes, bytes]]:
    """Read the replies to it: names and versions. Raises `NoAnswer` or `Malformed`."""
    rows = map(read_row, rows_of(replies))
    return [(name, version) for _kind, name, _source, version in rows]


def literal(text: bytes) -> bytes:
    """Write a text that means the same whatever the settings are."""
    return b"E'" + text.replace(b"\\", b"\\\\").replace(b"'", b"''") + b"'::pg_catalog.text"


@frozen
class Answer:
    """What a server says that its session holds."""

    settings: dict[bytes, Setting]
    statements: frozenset[bytes]
    """Prepared by protocol messages."""
    reasons: frozenset[PinReason]
    hidden: bool | None
    """Whether statements may change the session although no text shows it; None where that was not asked."""
    functions: list[Row] = Factory(list)
    """What was asked about them."""
    newest: bytes = b""
    """The number of the newest, where that was asked."""


class NoAnswer(Exception):
    """The server did not answer, or not in a way that can be read; the text says why."""


_REASONS = {
    b"u": PinReason.HELD_CURSOR,
    b"l": PinReason.LISTEN,
    b"a": PinReason.ADVISORY_LOCK,
    b"t": PinReason.TEMPORARY_OBJECT,
}
_count = Struct(">H").unpack_from
_length = Struct(">i").unpack_from


def read_answer(replies: list[tuple[int, bytes]], user: bytes, role: bytes) -> Answer:
    """
    Read the replies to the question, tag and payload of each.

    `user` is who logged in to the server, `role` what the session began with, `none` where it was nothing.

    Raises `NoAnswer`.
    """
    settings: dict[bytes, Setting] = {}
    folded: set[bytes] = set()
    statements: set[bytes] = set()
    reasons: set[PinReason] = set()
    hidden: bool | None = None
    functions: list[Row] = []
    newest = b""
    for payload in rows_of(replies):
        kind, name, value, context = read_row(payload)
        if kind == b"s" or kind == b"r":
            if context.endswith(_HEX):
                value = _from_hex(value)
                context = context[: -len(_HEX)]
            unset = (name == ROLE and value == role) or (name == SESSION_AUTHORIZATION and value == user)
            if not unset and name.lower() not in folded:
                folded.add(name.lower())
                settings[name] = setting(name, value, context)
        elif kind == b"p":
            if value == b"true":
                reasons.add(PinReason.SQL_STATEMENT)
            else:
                statements.add(name)
        elif kind == b"n":
            newest = value
        elif kind == b"f":
            functions.append((name, value, context))
        elif kind == b"w":
            hidden = value == b"true"
        elif kind in _REASONS:
            reasons.add(_REASONS[kind])
    return Answer(settings, frozenset(statements), frozenset(reasons), hidden, functions, newest)


def _from_hex(value: bytes) -> bytes:
    try:
        return bytes.fromhex(value.decode("ascii"))
    except ValueError as error:
        raise NoAnswer("a value in hex that is none") from error


def rows_of(replies: list[tuple[int, bytes]]) -> list[bytes]:
    """Give the payloads of all rows. Raises `NoAnswer` where they are not all there are."""
    rows = []
    done = b""
    for tag, payload in replies:
        if tag == tags.ERROR_RESPONSE:
            fields = messages.read_error_fields(payload)
            raise NoAnswer(f"{fields.get('C', '')} {fields.get('M', '')}")
        if tag == tags.DATA_ROW:
            rows.append(payload)
        elif tag == tags.COMMAND_COMPLETE:
            done = payload
    if not done.startswith(b"SELECT "):
        raise NoAnswer("the answer has no end")
    return rows


def read_row(payload: bytes, columns: int = 4) -> list[bytes]:
    """Read a DataRow of so many texts. Raises `Malformed`."""
    try:
        if _count(payload)[0] != columns:
            raise Malformed(f"a row of the answer has not {columns} columns")
        texts = []
        position = 2
        for _ in range(columns):
            size = max(_length(payload, position)[0], 0)
            position += 4
            if position + size > len(payload):
                raise Malformed("a row of the answer is too short")
            texts.append(payload[position : position + size])
            position += size
    except StructError as error:
        raise Malformed("a row of the answer is too short") from error
    return texts
