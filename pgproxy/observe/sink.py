"""
Where the log goes: standard output or a file, written at once.

A line that can't be written (nobody reads the pipe any more, the disk is full) is dropped and counted, and
said once on standard error. Whoever logs goes on: a proxy works without its log, too.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

_MODE = 0o640


class Sink:
    """A file descriptor, or a file by its path, which `reopen` opens anew after it was moved away."""

    def __init__(self, number: int, path: Path | None = None) -> None:
        self._number = number
        self._path = path
        self._cut = False
        """Whether the last line is there in part."""
        self._said = False
        self.lost = 0
        """Lines that could not be written since the last one that could."""

    @classmethod
    def standard_output(cls) -> Sink:
        """Give the one of the process."""
        try:
            return cls(sys.stdout.fileno())
        except (AttributeError, io.UnsupportedOperation):
            return cls(1)

    @classmethod
    def file(cls, path: Path) -> Sink:
        """Give one that appends to a file. Raises OSError."""
        return cls(_open(path), path)

    @property
    def path(self) -> Path | None:
        """The file's, if it is one."""
        return self._path

    @property
    def terminal(self) -> bool:
        """Whether people read it as it comes."""
        return os.isatty(self._number)

    def write(self, text: str) -> None:
        """Write whole lines."""
        data = text.encode("utf-8", "replace")
        if self._cut:
            data = b"\n" + data
        try:
            while data:
                data = data[os.write(self._number, data) :]
                self._cut = bool(data)
        except OSError as error:
            self.lost += 1
            self._say(error)
        else:
            self.lost = 0

    def flush(self) -> None:
        """Nothing waits."""

    def reopen(self) -> None:
        """Open the file anew, if it is one; where that fails the old one stays. Raises OSError."""
        if self._path is not None:
            new = _open(self._path)
            os.close(self._number)
            self._number, self._cut = new, False

    def _say(self, error: OSError) -> None:
        if not self._said:
            self._said = True
            try:
                os.write(2, f"pgproxy cannot write its log: {error.strerror}; it goes on\n".encode())
            except OSError:
                pass


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)
