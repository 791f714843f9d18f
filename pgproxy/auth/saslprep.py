"""
Prepares a password for SCRAM as PostgreSQL does, so that both ends derive the same key from it.

Documentation: RFC 4013 (SASLprep), RFC 3454 (stringprep). PostgreSQL differs in three ways, all kept here: an
ASCII password is taken as it is, the prohibited letters are looked for before normalization, and a password
that cannot be prepared is used as its raw bytes.
"""

from __future__ import annotations

import stringprep
import unicodedata
from collections.abc import Callable

_PROHIBITED: tuple[Callable[[str], bool], ...] = (
    stringprep.in_table_a1,
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def saslprep(password: str) -> bytes:
    """Give the bytes that SCRAM's Hi() works on; what was not UTF-8 is expected as surrogate escapes."""
    raw = password.encode("utf-8", "surrogateescape")
    if password.isascii():
        return raw
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw
    mapped = "".join(map(_map, password))
    if not mapped or not _permitted(mapped):
        return raw
    return unicodedata.normalize("NFKC", mapped).encode()


def _map(letter: str) -> str:
    # U+200B is in both tables; that it becomes a space is PostgreSQL's order.
    if stringprep.in_table_c12(letter):
        return " "
    return "" if stringprep.in_table_b1(letter) else letter


def _permitted(text: str) -> bool:
    if any(listed(letter) for letter in text for listed in _PROHIBITED):
        return False
    # RFC 3454, section 6: right-to-left text stands alone, and begins and ends as such.
    if not any(map(stringprep.in_table_d1, text)):
        return True
    return (
        not any(map(stringprep.in_table_d2, text))
        and stringprep.in_table_d1(text[0])
        and stringprep.in_table_d1(text[-1])
    )
