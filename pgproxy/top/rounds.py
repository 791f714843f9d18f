"""The going round from one look to the next: a picture on the screen, one picture, or JSON."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import select
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from attrs import asdict

from pgproxy.top.asking import Asking, Lost, NeedsPassword, Refused, Wait, conninfo
from pgproxy.top.layout import pause
from pgproxy.top.picture import Look, Picture, is_leaving, picture
from pgproxy.top.screen import Quit, Screen

if TYPE_CHECKING:
    from pgproxy.top.drawing import Caption, Paper


class Failed(Exception):
    """It can't go on; the text says why."""


def go(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for. Raises `Failed`."""
    try:
        if arguments.json or arguments.once:
            with _asking(arguments, _select) as console:
                (_json if arguments.json else _once)(console, arguments)
        else:
            _live(arguments)
    except (Quit, KeyboardInterrupt):
        return
    except BrokenPipeError:
        # Whoever has read it has had enough; Python would complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (Lost, Refused) as error:
        raise Failed(str(error)) from None


def _select(descriptor: int, until: float) -> bool:
    """Wait for a descriptor where there is no screen."""
    left = until - time.monotonic()
    return left > 0 and bool(select.select([descriptor], [], [], left)[0])


@contextmanager
def _asking(arguments: argparse.Namespace, wait: Wait) -> Iterator[Asking]:
    """Connect; the first time whatever goes wrong is the end."""
    console = Asking(_conninfo(arguments), wait)
    try:
        try:
            console.connect()
        except NeedsPassword:
            if not sys.stdin.isatty():
                raise
            console = Asking(_conninfo(arguments, getpass.getpass("Password: ")), wait)
            console.connect()
        yield console
    finally:
        console.close()


def _conninfo(arguments: argparse.Namespace, password: str | None = None) -> str:
    return conninfo(arguments.dbname, arguments.host, arguments.port, arguments.username, password)


# The ways to show it.


def _once(console: Asking, arguments: argparse.Namespace) -> None:
    from pgproxy.top.drawing import draw

    before = console.look()
    time.sleep(arguments.interval)
    seen = picture(console.look(), before)
    paper = _paper(height=None)
    print(_encoded(draw(seen, _caption(console, arguments, ""), paper), paper).decode(paper.encoding))


def _json(console: Asking, arguments: argparse.Namespace) -> None:
    before: Look | None = None
    failures = 0
    if arguments.once:
        before = console.look()
        time.sleep(arguments.interval)
        _write(console, asdict(picture(console.look(), before)))
        return
    while True:
        try:
            look = console.look()
        except Lost as error:
            before, failures = None, failures + 1
            _write(console, {"lost": str(error), "again_in": pause(failures)})
            time.sleep(pause(failures))
            continue
        _write(console, asdict(picture(look, before)))
        before, failures = _next(console, look), 0
        time.sleep(arguments.interval)


def _write(console: Asking, what: dict[str, object]) -> None:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    stamped = {"time": now, "proxy": console.where, **what}
    # All else that a terminal might obey is escaped by JSON itself.
    print(json.dumps(stamped).replace("\x7f", "\\u007f"), flush=True)


def _next(console: Asking, look: Look) -> Look | None:
    """Go on to the process that has taken over, if one has; give the look that rates are from."""
    return None if is_leaving(look) and console.renew() else look


def _live(arguments: argparse.Namespace) -> None:
    from pgproxy.top.drawing import draw

    screens: list[Screen] = []

    def wait(descriptor: int, until: float) -> bool:
        return screens[0].wait(until, descriptor) if screens else _select(descriptor, until)

    keys = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
    with _asking(arguments, wait) as console, Screen(sys.stdout.fileno(), keys) as screen:
        screens.append(screen)
        before: Look | None = None
        seen: Picture | None = None
        failures = 0
        while True:
            alarm = ""
            try:
                look = console.look()
                seen = picture(look, before)
                before, failures = _next(console, look), 0
            except Lost as error:
                before, failures = None, failures + 1
                alarm = f"Lost, tries again every {pause(failures):g} s: {error}"
            until = time.monotonic() + (pause(failures) or arguments.interval)
            while True:
                paper = _paper(height=screen.size.lines, width=screen.size.columns)
                caption = _caption(console, arguments, alarm)
                screen.show(_encoded(draw(seen, caption, paper), paper))
                screen.wait(until)
                if time.monotonic() >= until:
                    break


def _caption(console: Asking, arguments: argparse.Namespace, alarm: str) -> Caption:
    from pgproxy.top.drawing import Caption

    often = "" if arguments.once else f"q quits  every {arguments.interval:g} s  "
    return Caption(console.where, f"{often}{datetime.now():%H:%M:%S}", alarm)


def _paper(height: int | None, width: int | None = None) -> Paper:
    from pgproxy.top.drawing import Paper

    return Paper(
        width=width or shutil.get_terminal_size().columns,
        height=height,
        encoding=sys.stdout.encoding or "ascii",
        colours=sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb"),
        plain=bool(os.environ.get("NO_COLOR")),
    )


def _encoded(text: str, paper: Paper) -> bytes:
    return text.encode(paper.encoding, "replace")
