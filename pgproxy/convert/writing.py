"""Writes a draft as TOML, the notes above it."""

from __future__ import annotations

import json
from collections.abc import Iterator

from pgproxy.config.problems import dotted
from pgproxy.convert.draft import Draft, Table


def as_toml(draft: Draft, source: str) -> str:
    """Write the file."""
    return "\n".join([*_head(draft, source), *_tables(draft)]) + "\n"


def _head(draft: Draft, source: str) -> Iterator[str]:
    yield f"# Converted from {plainly(source)} by pgproxy convert; docs/configuration.md tells more."
    if draft.notes:
        yield "#"
        yield "# What does not mean the same, or has no counterpart:"
        yield from (f"# - {plainly(note)}" for note in draft.notes)


def _tables(draft: Draft) -> Iterator[str]:
    yield from _table("proxy", draft.proxy)
    if draft.tls:
        yield from _table("proxy.tls", draft.tls)
    if draft.auth_query:
        yield from _table("proxy.auth_query", draft.auth_query)
    for group in ("targets", "databases", "users"):
        for name, table in getattr(draft, group).items():
            yield from _table(f"{group}.{_key(name)}", table)


def _table(header: str, table: Table) -> Iterator[str]:
    yield ""
    yield f"[{header}]"
    for name, value in table.items():
        yield f"{name} = {_value(value)}"


def _key(name: str) -> str:
    return _escaped(dotted(name)) if name else '""'


def _value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return f"{value:.6f}".rstrip("0").rstrip(".")
        case str():
            return _escaped(json.dumps(value, ensure_ascii=False))
        case list() | tuple():
            return "[" + ", ".join(map(_value, value)) + "]" if len(value) != 1 else _value(value[0])
    raise TypeError(value)


def _escaped(text: str) -> str:
    """JSON's strings are TOML's, but for one character."""
    return text.replace("\x7f", "\\u007f")


def plainly(text: str) -> str:
    """Keep what stands in somebody's file from ending a comment, or moving a terminal's cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:500]
