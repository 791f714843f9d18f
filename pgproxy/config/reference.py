"""Writes docs/configuration.md from the options themselves."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Any

import attrs

from pgproxy.config.access import AuthQuery, ProxyTls
from pgproxy.config.aws import Aws, AwsCloudWatch, AwsIam
from pgproxy.config.discovery import Discovery
from pgproxy.config.http import Http
from pgproxy.config.kinds import Kind, Size, size
from pgproxy.config.narrower import Database, User
from pgproxy.config.proxy import Proxy
from pgproxy.config.target import Target

_SECTIONS: tuple[tuple[str, type[Any]], ...] = (
    ("[proxy]", Proxy),
    ("[proxy.tls]", ProxyTls),
    ("[proxy.auth_query]", AuthQuery),
    ("[targets.NAME]", Target),
    ("[targets.NAME.discovery]", Discovery),
    ("[databases.NAME]", Database),
    ("[users.NAME]", User),
    ("[http]", Http),
    ("[aws]", Aws),
    ("[aws.iam]", AwsIam),
    ("[aws.cloudwatch]", AwsCloudWatch),
)

_HEAD = """\
<!-- Written by `python -m pgproxy.config > docs/configuration.md`: change pgproxy/config/. -->

# Configuration

`twistd -n pgproxy --config /etc/pgproxy/pgproxy.toml` reads a TOML file;
`pgproxy check FILE` says what is wrong with one.
[etc/pgproxy.toml](../etc/pgproxy.toml) shows every option with its default,
[etc/pgproxy-minimal.toml](../etc/pgproxy-minimal.toml) the few that are needed.

A file with anything wrong in it is refused as a whole, with every problem, its path and what would be right:
pgproxy does not start, and at a reload (SIGHUP) goes on with the configuration that it has.
Paths of files are taken from the directory of the TOML file. Times are in seconds.
"""


def markdown() -> str:
    """Write the whole document."""
    return "\n".join([_HEAD, *(part for title, cls in _SECTIONS for part in _section(title, cls))])


def _section(title: str, cls: type[Any]) -> Iterator[str]:
    yield f"## `{title}`\n\n{inspect.getdoc(cls)}\n"
    for field in attrs.fields(cls):
        if "kind" in field.metadata:
            kind: Kind = field.metadata["kind"]
            takes = (
                f"a table of {field.metadata['entries']}, each = {kind.words}"
                if field.metadata["entries"]
                else kind.words
            )
            yield f"### `{field.name}`\n\n{field.metadata['doc']}\n"
            yield f"- takes: {takes}\n- default: {_default(field)}\n"


def _default(field: attrs.Attribute[Any]) -> str:
    if field.default is attrs.NOTHING:
        return "none, it has to be given"
    if field.default is None or field.metadata["entries"] or field.default in ("", ()):
        return "none"
    return f"`{_literal(field.default, field.metadata['kind'])}`"


def _literal(value: object, kind: Kind) -> str:
    """Write a default as TOML."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() if isinstance(kind, Size):
            return json.dumps(size(value))
        case int() | float():
            return f"{value:g}"
        case frozenset():
            return json.dumps(sorted(value))
        case tuple():
            return ", ".join(json.dumps(str(one)) for one in value)
        case _:
            return json.dumps(value)
