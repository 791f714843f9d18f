"""
Which setting a statement sets or resets, where that is all it does and the same each time.

That leaves out DateStyle, of which a value may change one half only, default_text_search_config, which is
looked up in the search_path of that moment, and SET SESSION AUTHORIZATION, which sets the role as well.

Documentation: PostgreSQL manual, "SET", "RESET", "DISCARD"; src/backend/parser/gram.y, VariableSetStmt.
"""

from __future__ import annotations

from collections.abc import Sequence

from pgproxy.session.commands import ALL_DISCARDED, RESET, SET
from pgproxy.session.lexer import ESCAPED, NUMBER, QUOTED, STRING, WORD, Token, inside
from pgproxy.session.settings import ROLE, SESSION_AUTHORIZATION
from pgproxy.session.verdict import ALL_SETTINGS, EVERYTHING

_NOT_ALONE = frozenset({b"datestyle", b"default_text_search_config", SESSION_AUTHORIZATION})
_NO_NAMES = frozenset({ALL_SETTINGS, EVERYTHING, b"all"})
_TAGS = {b"set": SET, b"reset": RESET, b"discard": ALL_DISCARDED}
_NAMES = frozenset({WORD, QUOTED})
_VALUES = frozenset({WORD, QUOTED, STRING, ESCAPED, NUMBER})
_BETWEEN_VALUES = frozenset({b",", b"+", b"-"})


def assigned(statement: Sequence[Token]) -> bytes | None:
    """
    Give the name of the setting, in lower case.

    It is `EVERYTHING` for DISCARD ALL, `ALL_SETTINGS` for RESET ALL, None for all else.
    """
    words = [token[1] if token[0] == WORD else b"" for token in statement]
    match words:
        case [b"discard", b"all"]:
            return EVERYTHING
        case [b"reset", b"all"]:
            return ALL_SETTINGS
        case [b"reset", b"time", b"zone"]:
            return b"timezone"
        case [b"reset", *_]:
            return _not_custom(_alone(statement[1:]))
        case [b"set", b"session", *_] if statement[2:] and _is_name(statement[2]):
            return _set(statement[2:], words[2:])
        case [b"set", *_]:
            return _set(statement[1:], words[1:])
        case [b"select", b"set_config", *_]:
            return _set_config(statement)
    return None


def telling_tag(statement: Sequence[Token]) -> bytes:
    """Give the command tag that tells that one of these is done; nothing for others, SELECT among them."""
    return _TAGS.get(statement[0][1], b"")


def value_of(statement: Sequence[Token]) -> bytes | None:
    """Give what a statement sets a setting to, if that is one string or one whole number."""
    if statement[0][1] == b"select":
        return inside(statement[5])
    token = statement[-1]
    kind, value = token[:2]
    if len(statement) < 4 or statement[-2][1] not in (b"to", b"=") or not _is_value(token):
        return None
    if kind == STRING and value.startswith(b"'"):
        return inside(token)
    # A number with zeros in front is written without them.
    return value if kind == NUMBER and value.isdigit() and (value == b"0" or value[:1] != b"0") else None


def _set(rest: Sequence[Token], words: Sequence[bytes]) -> bytes | None:
    match words:
        case [b"role", _] if _is_value(rest[1]):
            return ROLE
        case [b"time", b"zone", _] if _is_value(rest[2]):
            return b"timezone"
        case [b"names", _] if rest[1][0] == STRING:
            return b"client_encoding"
    for at, token in enumerate(rest):
        if token[1] in (b"to", b"=") and token[0] != QUOTED:
            values = rest[at + 1 :]
            if not values or not all(map(_is_value, values)):
                return None
            return _not_custom(_alone(rest[:at])) if words[at + 1 :] == [b"default"] else _alone(rest[:at])
    return None


def _not_custom(name: bytes | None) -> bytes | None:
    """
    Give the name of what is reset, unless it is a custom setting.

    What that is then depends on what the session began with, and on which extensions are loaded.
    """
    return name if name is not None and b"." not in name else None


def _set_config(statement: Sequence[Token]) -> bytes | None:
    """Read `SELECT set_config('my.tenant', 'x', false)`."""
    marks = [token[1] for token in statement if token[0] != STRING]
    if marks != [b"select", b"set_config", b"(", b",", b",", b"false", b")"] or len(statement) != 9:
        return None
    name, value = statement[3], statement[5]
    if not all(token[0] == STRING and token[1][:1] == b"'" and _is_value(token) for token in (name, value)):
        return None
    return _known_name(inside(name))


def _is_name(token: Token) -> bool:
    return token[0] == QUOTED or (token[0] == WORD and token[1] != b"to")


def _is_value(token: Token) -> bool:
    if token[0] == STRING and b"\\" in token[1]:
        # What it means depends on standard_conforming_strings.
        return False
    return token[0] in _VALUES or token[1] in _BETWEEN_VALUES


def _alone(path: Sequence[Token]) -> bytes | None:
    """Read the name of a setting that depends on no other: `work_mem`, `my.tenant`."""
    names, dots = path[::2], path[1::2]
    if len(path) % 2 == 0 or any(name[0] not in _NAMES or b'"' in name[1] for name in names):
        return None
    if any(dot[1] != b"." for dot in dots):
        return None
    return _known_name(b".".join(name[1] for name in names))


def _known_name(said: bytes) -> bytes | None:
    name = said.lower()
    return name if name not in _NOT_ALONE | _NO_NAMES else None
