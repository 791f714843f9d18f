"""
What a client has set, what a server has, and the statements between them.

The law:

1. Values come from the server, in its own spelling (`question.py`), and go back as literals that mean the
   same whatever `standard_conforming_strings` and `client_encoding` are.
2. Whoever the session acts as (SET ROLE, SET SESSION AUTHORIZATION) is undone before and redone after
   everything else: only the user who logged in has the right to all of it.
3. What can fail although it once worked (roles, what a superuser set, what names an object of the database)
   is `guarded`: the client's own message waits for its success.

Documentation: PostgreSQL manual, "SET", "RESET", "set_config".
"""

from __future__ import annotations

import re

from attrs import frozen

from pgproxy.session.values import Interned, Values

ROLE = b"role"
SESSION_AUTHORIZATION = b"session_authorization"

_NAMES_OBJECTS = frozenset(
    {
        b"default_tablespace",
        b"temp_tablespaces",
        b"default_text_search_config",
        b"default_table_access_method",
    }
)
"""Settings whose value is looked up in the catalogue each time they are set."""

_LISTS_OF_NAMES = frozenset(
    {
        b"search_path",
        b"temp_tablespaces",
        b"session_preload_libraries",
        b"local_preload_libraries",
        b"shared_preload_libraries",
        b"unix_socket_directories",
    }
)
"""Where SET takes a literal for one name of the list, and only set_config() for the whole list."""

_GIVE_MEANING = frozenset(
    b"DateStyle IntervalStyle TimeZone client_encoding search_path standard_conforming_strings "
    b"backslash_quote transform_null_equals array_nulls xmloption xmlbinary "
    b"role session_authorization".split()
)
"""Settings under which the analysis of a text, its constants included, comes out differently."""

_PLAIN = re.compile(rb"[ -~]*")
_RESET_IDENTITY = (b"SET SESSION AUTHORIZATION DEFAULT", b"RESET ROLE")


@frozen
class Setting:
    """One setting of a session."""

    statement: bytes
    """What sets it."""
    guarded: bool
    """Whether that may fail although it has been so before."""


Settings = Values[Setting]

_settings: Interned[Setting] = Interned()
NOTHING_SET: Settings = _settings.none


def settings_of(pairs: dict[bytes, Setting]) -> Settings:
    """Give the one `Settings` with these."""
    return _settings.of(pairs)


def meaning(settings: Settings) -> Settings:
    """Give those that the analysis of a statement depends on."""
    return settings_of({name: one for name, one in settings.items() if name in _GIVE_MEANING})


def setting(name: bytes, value: bytes, user_may_set: bool) -> Setting:
    """Say how `name` is set to `value`, which is in UTF-8."""
    guarded = not user_may_set or name in _NAMES_OBJECTS
    if name == ROLE:
        return Setting(b"SET ROLE " + _identifier(value), True)
    if name == SESSION_AUTHORIZATION:
        return Setting(b"SET SESSION AUTHORIZATION " + _literal(value), True)
    if not _PLAIN.fullmatch(value):
        text = b"pg_catalog.convert_from('\\x" + value.hex().encode() + b"'::pg_catalog.bytea, 'UTF8')"
        text = text.replace(b"'\\x", b"E'\\\\x")
    elif name in _LISTS_OF_NAMES:
        text = _literal(value)
    else:
        return Setting(b"SET " + _path(name) + b" TO " + _literal(value), guarded)
    return Setting(b"SELECT pg_catalog.set_config(" + _literal(name) + b", " + text + b", false)", guarded)


def difference(have: Settings, want: Settings, doubtful: bool = False) -> tuple[list[bytes], bool]:
    """
    Give the statements that bring a session from `have` to `want`, and whether they are guarded.

    With `doubtful` the session may have more set than `have` says: all of it is reset.
    """
    if have is want and not doubtful:
        return [], False
    statements: list[bytes] = []
    guarded = False
    acting = ROLE in have or SESSION_AUTHORIZATION in have
    if acting or doubtful:
        statements += _RESET_IDENTITY
        guarded = acting
    if doubtful:
        statements.append(b"RESET ALL")
        have = NOTHING_SET
    for name, one in have.items():
        if name not in want and name not in (ROLE, SESSION_AUTHORIZATION):
            statements.append(b"RESET " + _path(name))
            guarded = guarded or one.guarded
    for name, one in want.items():
        if name not in (ROLE, SESSION_AUTHORIZATION) and have.get(name) != one:
            statements.append(one.statement)
            guarded = guarded or one.guarded
    for name in (SESSION_AUTHORIZATION, ROLE):
        if name in want:
            statements.append(want[name].statement)
            guarded = True
    return statements, guarded


def _path(name: bytes) -> bytes:
    return b".".join(map(_identifier, name.split(b".")))


def _identifier(name: bytes) -> bytes:
    return b'"' + name.replace(b'"', b'""') + b'"'


def _literal(value: bytes) -> bytes:
    return b"E'" + value.replace(b"\\", b"\\\\").replace(b"'", b"''") + b"'"
