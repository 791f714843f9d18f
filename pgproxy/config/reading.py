"""Reads a configuration, from a TOML file or from a command line, and finds all that is wrong with it."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
from cattrs import BaseValidationError, Converter, ForbiddenExtraKeysError
from cattrs.cols import is_mapping, mapping_structure_factory
from cattrs.errors import AttributeValidationNote, IterableValidationNote
from cattrs.gen import make_dict_structure_fn, override

from pgproxy.config.checks import check
from pgproxy.config.kinds import Address, Kind, Name, OneAddress, Unfit, UserNames
from pgproxy.config.model import Config
from pgproxy.config.problems import ConfigError, Problem, Report, dotted, shown

_Hook = Callable[[Any, Any], Any]
"""As cattrs wants it: takes the value and the type that is to come of it."""

_OPTIONS = {
    "proxy.listen": "--listen",
    "proxy.pool_mode": "--pool-mode",
    "proxy.pool_size": "--pool-size",
    "proxy.auth": "--auth",
    "proxy.users_file": "--users",
    "proxy.allow_remote_trust": "--allow-remote-trust",
    "targets.main.server": "--server",
}


def load(path: Path | str) -> Config:
    """Read a configuration file and check what it says. Raises `ConfigError`."""
    path = Path(path)
    source = str(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([Problem(source, "", f"cannot be read: {error.strerror or error}")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(source, "", f"byte {error.start} is not UTF-8")]) from error
    except ValueError as error:
        raise ConfigError([Problem(source, "", f"is not TOML: {error}")]) from error
    return build(values, path.absolute().parent, source, lambda path: path)


def from_options(
    *,
    listen: str | None = None,
    server: str | None = None,
    pool_mode: str | None = None,
    pool_size: str | int | None = None,
    auth: str | None = None,
    users_file: str | None = None,
    allow_remote_trust: bool = False,
) -> Config:
    """
    Build a configuration of one target without a file; None leaves an option at its default.

    Raises `ConfigError`, whose problems have the command line's options for paths.
    """
    if isinstance(pool_size, str) and pool_size.isascii() and pool_size.isdigit():
        pool_size = int(pool_size[:9])
    given = {
        "listen": listen,
        "pool_mode": pool_mode,
        "pool_size": pool_size,
        "auth": auth,
        "users_file": users_file,
        "allow_remote_trust": allow_remote_trust,
    }
    values = {
        "proxy": {key: value for key, value in given.items() if value is not None},
        "targets": {"main": {"server": (server if server is not None else "127.0.0.1:5432").split(",")}},
    }
    return build(values, Path.cwd(), "", _on_the_command_line)


def _on_the_command_line(path: str) -> str:
    return _OPTIONS.get(path) or f"{path} (in a file, --config)"


def build(values: Mapping[str, Any], directory: Path, source: str, name: Callable[[str], str]) -> Config:
    """
    Build a configuration from TOML's tables and check it as a whole. Raises `ConfigError`.

    Paths are taken from `directory`; `source` and `name` are what problems call the file and its options.
    """
    report = Report(source, name)
    try:
        config = _converter(directory).structure(values, Config)
    except BaseValidationError as group:
        _take_apart(group, (), report)
        raise ConfigError(report.problems) from None
    check(config, report)
    if report.problems:
        raise ConfigError(report.problems)
    return config


def _converter(directory: Path) -> Converter:
    converter = Converter(detailed_validation=True)

    def reader(kind: Kind) -> _Hook:
        def read(value: Any, _type: Any) -> Any:
            try:
                return kind.read(value, directory)
            except Unfit as error:
                error.right = f"it takes {kind.words}"
                raise

        return read

    def for_class(cls: type[Any]) -> _Hook:
        # Tables are left to cattrs, which finds its way by their types.
        options = [one for one in attrs.fields(cls) if "kind" in one.metadata and not one.metadata["entries"]]
        hooks: dict[str, Any] = {
            one.name: override(struct_hook=reader(one.metadata["kind"])) for one in options
        }
        return _table(make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True, **hooks))

    converter.register_structure_hook(str, reader(Name()))
    converter.register_structure_hook_func(lambda cls: cls == frozenset[str], reader(UserNames()))
    converter.register_structure_hook_factory(
        is_mapping, lambda cls: _table(mapping_structure_factory(cls, converter))
    )
    converter.register_structure_hook_factory(attrs.has, for_class)
    converter.register_structure_hook(Address, reader(OneAddress()))
    return converter


def _table(structure: _Hook) -> _Hook:
    """Let only a table through: cattrs takes whatever has the methods of one."""

    def checked(value: Any, type_: Any) -> Any:
        if not isinstance(value, dict):
            raise Unfit(f"{shown(value)} is not a table")
        return structure(value, type_)

    return checked


def _take_apart(group: BaseValidationError, keys: tuple[str, ...], report: Report) -> None:
    """Report each single thing that is wrong in a group, with the keys that lead to it."""
    for error in group.exceptions:
        path = (*keys, *_key(error))
        match error:
            case BaseValidationError():
                _take_apart(error, path, report)
            case ForbiddenExtraKeysError():
                known = [one.name for one in attrs.fields(group.cl)]
                for key in sorted(error.extra_fields):
                    near = difflib.get_close_matches(key, known, n=1)
                    right = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
                    report.add(dotted(*path, key), "there is no such option", right)
            case KeyError():
                kind = attrs.fields_dict(group.cl)[path[-1]].metadata["kind"]
                report.add(dotted(*path), "is missing", f"it takes {kind.words}")
            case Unfit():
                report.add(dotted(*path), str(error), error.right)
            case _:
                raise error


def _key(error: Exception) -> tuple[str, ...]:
    """Give the key of the table under which cattrs found something wrong."""
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return (note.name,)
        if isinstance(note, IterableValidationNote):
            return (str(note.index),)
    return ()
