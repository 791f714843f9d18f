"""Another value for one option of a configuration that is in force, checked as in the file."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from pgproxy.config.checks import check
from pgproxy.config.kinds import Unfit
from pgproxy.config.model import Config
from pgproxy.config.problems import ConfigError, Problem, Report

_FIXED = frozenset(
    {
        "proxy.listen",
        "proxy.workers",
        "proxy.auth",
        "proxy.allow_remote_trust",
        "proxy.users_file",
        "proxy.certificate_names",
        "proxy.admin_users",
        "proxy.stats_users",
    }
)
"""What is opened at the start, and who may come in and do what: that is the file's to say."""
_FIXED_TABLES = ("proxy.tls.", "proxy.auth_query.", "http.")
_FIXED_IN_TARGETS = frozenset({"server", "tls", "ca", "certificate", "key"})


def changeable(path: str) -> bool:
    """Say whether an option can be changed without the file."""
    if path in _FIXED or path.startswith(_FIXED_TABLES):
        return False
    return not (path.startswith("targets.") and path.rpartition(".")[2] in _FIXED_IN_TARGETS)


def adjusted(config: Config, path: str, value: str) -> Config:
    """
    Give the configuration with another value for an option.

    `path` is as in the file; options of [proxy] need not name their table. `value` is as in the file, or a
    text without its quotes. Raises `ConfigError`.
    """
    keys = path.split(".") if "." in path else ["proxy", path]
    full = ".".join(keys)
    changed: Config = _changed(config, keys, value, path)
    if not changeable(full):
        right = "change it in the file, and have that read anew (RELOAD) or restart"
        raise _wrong(full, "cannot be changed while pgproxy runs", right)
    report = Report("", lambda path: path)
    check(changed, report)
    if report.problems:
        raise ConfigError(report.problems)
    return changed


def _changed(table: Any, keys: list[str], value: str, path: str) -> Any:
    """Give a table with another value somewhere below."""
    key, rest = keys[0], keys[1:]
    if isinstance(table, Mapping):
        if key not in table:
            raise _wrong(path, f'there is no "{key}" in the configuration', _near(key, table))
        return {**table, key: _changed(table[key], rest, value, path)}
    field = attrs.fields_dict(type(table)).get(key) if attrs.has(type(table)) else None
    if field is None or bool(rest) is ("kind" in field.metadata):
        known = [one.name for one in attrs.fields(type(table))] if attrs.has(type(table)) else []
        raise _wrong(path, "there is no such option", _near(key, known))
    if rest:
        return attrs.evolve(table, **{key: _changed(getattr(table, key), rest, value, path)})
    kind = field.metadata["kind"]
    try:
        return attrs.evolve(table, **{key: kind.read(_meant(value), Path.cwd())})
    except Unfit as error:
        raise _wrong(path, str(error), f"it takes {kind.words}") from error


def _meant(value: str) -> object:
    """Give what a value means in TOML; what is none is a text."""
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value


def _near(key: str, known: Any) -> str:
    near = difflib.get_close_matches(key, list(known), n=1)
    return f"did you mean {near[0]}?" if near else "SHOW CONFIG lists them"


def _wrong(path: str, what: str, right: str) -> ConfigError:
    return ConfigError([Problem("", path, what, right)])
