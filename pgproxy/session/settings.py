"""
What a client has set, what a server has, and the statements between them.

The law:

1. Values come from the server, in its own spelling (`question.py`), and go back as literals that mean the
   same whatever `standard_conforming_strings` and `client_encoding` are.
2. Whoever the session acts as (SET ROLE, SET SESSION AUTHORIZATION) is undone before and redone after
   everything else: only the user who logged in has the right to all of it.
3. What can fail although it once worked is `guarded`: the client's own message waits for its success. What
   another client has set is undone first, by itself.

Documentation: PostgreSQL manual, "SET", "RESET", "set_config".
"""

from __future__ import annotations

import re
from functools import lru_cache

from attrs import frozen

from pgproxy.session.values import Interned, Values

ROLE = b"role"
SESSION_AUTHORIZATION = b"session_authorization"

_NEVER_FAIL = frozenset(
    b"application_name search_path DateStyle IntervalStyle TimeZone client_encoding client_min_messages "
    b"extra_float_digits bytea_output standard_conforming_strings escape_string_warning backslash_quote "
    b"statement_timeout lock_timeout idle_in_transaction_session_timeout idle_session_timeout "
    b"default_transaction_isolation default_transaction_read_only default_transaction_deferrable "
    b"work_mem maintenance_work_mem hash_mem_multiplier row_security jit synchronous_commit "
    b"constraint_exclusion random_page_cost seq_page_cost enable_seqscan enable_indexscan "
    b"enable_bitmapscan "
    b"enable_hashjoin enable_mergejoin enable_nestloop plan_cache_mode join_collapse_limit "
    b"from_collapse_limit max_parallel_workers_per_gather default_statistics_target quote_all_identifiers "
    b"check_function_bodies xmloption xmlbinary array_nulls transform_null_equals".split()
)
"""
Settings that anybody may set at any time, to what a server of this kind has taken before. All others wait:
what a superuser set, what names an object, what is refused at times (temp_buffers), what an extension has.
"""

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
IDENTITY = frozenset({ROLE, SESSION_AUTHORIZATION})
"""Whom the session acts as."""
_KEPT = 1000
"""Answers of what is asked again and again."""
_RESET_IDENTITY = (b"SET SESSION AUTHORIZATION DEFAULT", b"RESET ROLE")


@frozen(cache_hash=True)
class Setting:
    """One setting of a session."""

    statement: bytes
    """What sets it."""
    guarded: bool
    """Whether that may fail although it has been so before."""
    custom: bool = False
    """Whether it is one of the application's own, `my.tenant`."""


Settings = Values[Setting]

_settings: Interned[Setting] = Interned()
NOTHING_SET: Settings = _settings.none


def settings_of(pairs: dict[bytes, Setting]) -> Settings:
    """Give the one `Settings` with these."""
    return _settings.of(pairs)


@lru_cache(_KEPT)
def meaning(settings: Settings) -> Settings:
    """Give those that the analysis of a statement depends on."""
    return settings_of({name: one for name, one in settings.items() if name in _GIVE_MEANING})


def setting(name: bytes, value: bytes, context: bytes) -> Setting:
    """
    Say how `name` is set to `value`, which is in UTF-8.

    `context` is PostgreSQL's word for who may set it, `custom` where it is nobody's but the application's.
    """
    acting = name in IDENTITY
    custom = context == b"custom"
    guarded = not custom and name not in _NEVER_FAIL
    if not _PLAIN.fullmatch(value):
        hexed = b"E'\\\\x" + value.hex().encode() + b"'::pg_catalog.bytea"
        text = b"pg_catalog.convert_from(" + hexed + b", 'UTF8')"
    elif name in _LISTS_OF_NAMES:
        text = _literal(value)
    elif name == ROLE:
        return Setting(b"SET ROLE " + (b"NONE" if value == b"none" else _identifier(value)), guarded)
    elif acting:
        return Setting(b"SET SESSION AUTHORIZATION " + _literal(value), guarded)
    else:
        return Setting(b"SET " + _path(name) + b" TO " + _literal(value), guarded, custom)
    function = b"SELECT pg_catalog.set_config(" + _literal(name) + b", " + text + b", false)"
    return Setting(function, guarded, custom)


def beginning_with(initial: Settings, own: Settings) -> Settings:
    """
    Give the settings of a client that has set `own` where sessions begin with `initial`.

    A custom setting that is empty has been reset: PostgreSQL does not tell these apart either.
    """
    if initial is NOTHING_SET:
        return own
    begins = {name.lower() for name in initial}
    kept = {
        name: one
        for name, one in own.items()
        if not (one.custom and name.lower() in begins and one == setting(name, b"", b"custom"))
    }
    is_own = {name.lower() for name in kept}
    return settings_of({name: one for name, one in initial.items() if name.lower() not in is_own} | kept)


@frozen
class Difference:
    """What brings a session from some settings to others: the statements of each Query."""

    resets: tuple[bytes, ...] = ()
    """What goes first, in a Query of its own: it undoes what another client has set."""
    sets: tuple[tuple[bytes, ...], ...] = ()
    """Behind it; each custom setting for itself, as its failure must not undo others."""
    guarded: bool = False
    """Whether something of it may fail."""

    @property
    def queries(self) -> list[tuple[bytes, ...]]:
        """All of them in order."""
        return [self.resets, *self.sets] if self.resets else list(self.sets)


_NONE = Difference()


def difference(have: Settings, want: Settings, doubtful: bool = False) -> Difference:
    """
    Say what brings a session from `have` to `want`.

    With `doubtful` the session may have more set than `have` says: all of it is reset.
    """
    if have is want and not doubtful:
        return _NONE
    had, wanted = have.pairs, want.pairs
    resets: list[bytes] = []
    together: list[bytes] = []
    alone: list[tuple[bytes, ...]] = []
    guarded = False
    if doubtful or not IDENTITY.isdisjoint(had):
        resets += _RESET_IDENTITY
    if doubtful:
        resets.append(b"RESET ALL")
        had = {}
    for name, one in had.items():
        if name not in wanted and name not in IDENTITY:
            resets.append(_reset(name))
            guarded = guarded or one.guarded
    for name, one in wanted.items():
        if name in IDENTITY:
            continue
        there = had.get(name)
        if there is None or there.statement != one.statement:
            if one.custom:
                alone.append((one.statement,))
            else:
                together.append(one.statement)
            guarded = guarded or one.guarded
    last: tuple[bytes, ...] = ()
    if not IDENTITY.isdisjoint(wanted):
        last = tuple(wanted[name].statement for name in (SESSION_AUTHORIZATION, ROLE) if name in wanted)
    sets = tuple(query for query in (tuple(together), *alone, last) if query)
    return Difference(tuple(resets), sets, guarded or bool(last))


@lru_cache(_KEPT)
def _reset(name: bytes) -> bytes:
    return b"RESET " + _path(name)


def _path(name: bytes) -> bytes:
    return b".".join(map(_identifier, name.split(b".")))


def _identifier(name: bytes) -> bytes:
    return b'"' + name.replace(b'"', b'""') + b'"'


def _literal(value: bytes) -> bytes:
    return b"E'" + value.replace(b"\\", b"\\\\").replace(b"'", b"''") + b"'"
