"""
The terminal while it is ours: its other screen, keys without Enter, and all of it given back.

Given back also on SIGTERM and SIGHUP, and on Ctrl-Z for as long as somebody else has it.
"""

from __future__ import annotations

import os
import select
import signal
import termios
import time
import tty
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

_OTHER_SCREEN = b"\x1b[?1049h\x1b[?25l"
_BACK = b"\x1b[?25h\x1b[?1049l"
_HOME, _TO_THE_END_OF_LINE, _TO_THE_END = b"\x1b[H", b"\x1b[K\r\n", b"\x1b[K\x1b[J"
_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Quit(Exception):
    """Somebody has had enough, or has gone with the terminal."""


class Screen:
    """A terminal, as a context manager; `keys` is the descriptor of its keyboard, None: there is none."""

    def __init__(self, output: int, keys: int | None) -> None:
        self._output = output
        self._keys = keys
        self._modes: list[Any] | None = None
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        self._before: dict[int, Any] = {}
        self._wakeup_before = -1

    def __enter__(self) -> Screen:
        self._wakeup_before = signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        for one in (*_ENDING, signal.SIGTSTP, signal.SIGWINCH):
            self._before[one] = signal.signal(one, _end if one in _ENDING else _nothing)
        self._take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A second signal must not come between.
        for one in (*_ENDING, signal.SIGINT):
            self._before.setdefault(one, signal.getsignal(one))
            signal.signal(one, signal.SIG_IGN)
        self._give_back()
        signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._woken)
        os.close(self._waker)

    @property
    def size(self) -> os.terminal_size:
        """How wide and how high it is now."""
        try:
            size = os.get_terminal_size(self._output)
        except OSError:
            size = os.terminal_size((0, 0))
        return size if size.columns and size.lines else os.terminal_size((80, 24))

    def show(self, lines: bytes) -> None:
        """Show lines in place of those that are there."""
        try:
            self._write(_HOME + lines.replace(b"\n", _TO_THE_END_OF_LINE) + _TO_THE_END)
        except OSError:
            # The terminal has gone.
            raise Quit from None

    def wait(self, until: float, readable: int | None = None) -> bool:
        """
        Wait until a time (time.monotonic()), or until a descriptor can be read; say whether it can be.

        Returns earlier where the terminal has another size. Raises `Quit` for q.
        """
        waiting = [self._woken, *(one for one in (self._keys, readable) if one is not None)]
        while (left := until - time.monotonic()) > 0:
            ready, _, _ = select.select(waiting, [], [], left)
            if self._keys in ready:
                self._read_keys()
            if self._woken in ready and self._heed() and readable is None:
                return False
            if readable in ready:
                return True
        return False

    def _read_keys(self) -> None:
        assert self._keys is not None
        said = b""
        with suppress(OSError):
            said = os.read(self._keys, 100)
        if not said or b"q" in said.lower():
            # Nothing: the terminal has gone.
            raise Quit

    def _heed(self) -> bool:
        """Do what signals have asked for; say whether it is to be drawn anew."""
        heard = os.read(self._woken, 100)
        if signal.SIGTSTP in heard:
            self._give_back()
            os.kill(os.getpid(), signal.SIGSTOP)
            self._take()
        return signal.SIGTSTP in heard or signal.SIGWINCH in heard

    def _take(self) -> None:
        if self._keys is not None:
            self._modes = termios.tcgetattr(self._keys)
            tty.setcbreak(self._keys)
        self._write(_OTHER_SCREEN)

    def _give_back(self) -> None:
        # The terminal may have gone.
        with suppress(OSError):
            self._write(_BACK)
        if self._keys is not None and self._modes is not None:
            with suppress(termios.error):
                termios.tcsetattr(self._keys, termios.TCSADRAIN, self._modes)

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._output, data) :]


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Only wake up who waits."""


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
