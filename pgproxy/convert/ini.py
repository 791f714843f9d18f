"""
Reads a file as PgBouncer does (libusual's cfparser): sections, `key = value`, comments, `%include`.

A value goes on to the end of its line; a comment has a line of its own. A key may be quoted as an SQL
identifier.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

MOST_INCLUDES = 10
"""How deep files may include each other: PgBouncer's own limit."""
MOST_BYTES = 16 * 1024 * 1024
"""Of one file."""
MOST_LINES = 500_000
"""Of all files together: an include that is repeated, in files that are, would never end."""

_SPACE = " \t\r\v\f"
_include = re.compile(r"%include[ \t]+(.*)")
_section = re.compile(r"\[([^\]]*)\](.*)")
_quoted = re.compile(r'"((?:[^"]|"")*)"[ \t]*=(.*)', re.DOTALL)
_plain = re.compile(r"([A-Za-z0-9_.*-]+)[ \t]*=(.*)", re.DOTALL)


class IniError(Exception):
    """A file that PgBouncer could not read, either; the text says where, what and what would be right."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}")


@frozen
class Entry:
    """One `key = value`."""

    where: str
    """FILE:LINE."""
    section: str
    key: str
    value: str


class Ini:
    """The entries of a file and of those it includes, in order."""

    def __init__(self, path: Path) -> None:
        self._lines = 0
        self._section = ""
        self.sections: list[str] = []
        """Those that were begun."""
        self.entries: tuple[Entry, ...] = tuple(self._read(path, 0))

    def of(self, section: str) -> dict[str, Entry]:
        """Give a section's entries; of several with the same key the last holds."""
        return {entry.key: entry for entry in self.entries if entry.section == section}

    def _read(self, path: Path, depth: int) -> Iterator[Entry]:
        for number, line in enumerate(_text(path).split("\n"), start=1):
            self._lines += 1
            where = f"{path}:{number}"
            if self._lines > MOST_LINES:
                raise IniError(where, f"all files together have more than {MOST_LINES} lines")
            line = line.strip(_SPACE)
            if not line or line[0] in "#;":
                continue
            included = _include.fullmatch(line)
            if included is not None:
                if depth == MOST_INCLUDES:
                    raise IniError(where, f"%include goes over {MOST_INCLUDES} files deep; is it a circle?")
                yield from self._read(_found(included[1], path), depth + 1)
                continue
            section = _section.fullmatch(line)
            if section is not None:
                if section[2].strip(_SPACE):
                    raise IniError(where, "there is something behind a section's name; give it its own line")
                self._section = section[1]
                self.sections.append(section[1])
                continue
            yield self._entry(line, where)

    def _entry(self, line: str, where: str) -> Entry:
        quoted = _quoted.fullmatch(line)
        plain = _plain.fullmatch(line)
        if quoted is not None:
            key, value = quoted[1].replace('""', '"'), quoted[2]
        elif plain is not None:
            key, value = plain[1], plain[2]
        else:
            # What stands there may be a password.
            raise IniError(where, 'this is no "key = value"; a name with other letters in it needs "quotes"')
        if not self._section:
            raise IniError(where, "this stands before the first [section]")
        return Entry(where, self._section, key, value.strip(_SPACE))


def _found(name: str, includer: Path) -> Path:
    """Give the file meant: PgBouncer looks in the directory it runs in; else beside the file that says it."""
    path = Path(name)
    beside = includer.parent / path
    return beside if not path.is_absolute() and not path.exists() and beside.exists() else path


def _text(path: Path) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            # Opening a pipe would wait for a writer.
            raise IniError(str(path), "is not a file")
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise IniError(str(path), f"cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise IniError("%include", "the name of the file has a NUL in it") from error
    if len(data) > MOST_BYTES:
        raise IniError(str(path), f"has more than {MOST_BYTES} bytes")
    number = data[: data.find(b"\0")].count(b"\n") + 1 if b"\0" in data else 0
    if number:
        raise IniError(f"{path}:{number}", "there is a NUL in this line")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = data[: error.start].count(b"\n") + 1
        raise IniError(f"{path}:{number}", "this line is not UTF-8; convert the file with iconv") from None
