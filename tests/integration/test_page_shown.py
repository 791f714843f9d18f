"""What the status page makes of what it is told, in Debian's Chromium: by a stand-in for pgproxy."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from twisted.internet.defer import Deferred

from pgproxy.console.columns import SHOWN
from pgproxy.observe.http import Page as Served
from pgproxy.page.history import NAMES
from pgproxy.page.resource import files
from pgproxy.page.shown import PARTS
from pgproxy.page.stream import event
from tests.browser import browser, missing

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "there is a browser")

_ABOUT = {"version": "0", "clients_max": 100, "workers": 1, "restarts": 0, "memory": 1 << 26, "failovers": 0}
_HOST = {"target": "main", "host": "10.0.0.1", "port": 5432, "role": "unknown", "state": "up", "servers": 1}


def row(part: str, **values: Any) -> dict[str, Any]:
    """Make a row of a table as the page gets it: with all columns, of values that are of no account."""
    columns = [column.name for column in SHOWN[part] if column.name in PARTS[part].columns]
    texts = {"database", "user", "target", "pool_mode", "reason", "digest", "host", "role", "state", "event"}
    return {name: values.get(name, "x" if name in texts else 0) for name in columns}


def tables(**parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Make what is told of tables: one host that answers, and nothing else but `parts`."""
    shown = {part: parts.get(part, []) for part in PARTS}
    shown["targets"] = parts.get("targets", [row("targets", **_HOST)])
    return {**{part: {"rows": rows, "left_off": 0} for part, rows in shown.items()}, "about": _ABOUT}


class Stage:
    """Serves the page's files, and as its events what it is told to."""

    def __init__(self) -> None:
        told: queue.Queue[bytes | None] = queue.Queue()
        served = {path.decode(): _page(make) for path, make in files().items()}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page = served.get(self.path)
                self.send_response(200)
                if page is not None:
                    self.send_header("Content-Type", page.content_type)
                    self.send_header("Content-Security-Policy", page.policy)
                    self.end_headers()
                    self.wfile.write(page.body)
                    return
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                self.wfile.write(b"retry: 50\n\n")
                while (events := told.get()) is not None:
                    self.wfile.write(events)

            def log_message(self, format: str, *values: Any) -> None:
                pass

        self._told = told
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def tell(self, name: str, what: Any) -> None:
        """Send an event."""
        self._told.put(event(name, json.dumps(what)))

    def begin(self, **now: float) -> None:
        """Say how it is: of points the last two, all zero but for what is said."""
        points = [[1e9 + second, *(now.get(name, 0) for name in NAMES[1:])] for second in range(2)]
        self.tell("history", {"names": NAMES, "columns": list(zip(*points, strict=True))})

    def hang_up(self) -> None:
        """End the stream."""
        self._told.put(None)

    def close(self) -> None:
        """End all."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _page(make: Any) -> Served:
    found: list[Served] = []
    Deferred.fromCoroutine(make()).addCallback(found.append)
    return found[0]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as one:
        yield one


@pytest.fixture
def stage() -> Iterator[Stage]:
    one = Stage()
    yield one
    one.hang_up()
    one.close()


@pytest.fixture
def page(chromium: Browser, stage: Stage) -> Iterator[Page]:
    one = chromium.new_page(viewport={"width": 1240, "height": 900})
    one.set_default_timeout(30_000)
    wrong: list[str] = []
    one.on("console", lambda message: wrong.append(message.text) if message.type != "log" else None)
    one.on("pageerror", lambda error: wrong.append(str(error)))
    one.goto(stage.address)
    yield one
    one.close()
    assert [text for text in wrong if "ERR_" not in text] == []


def verdict(page: Page) -> tuple[str, str | None]:
    return page.inner_text("#verdict"), page.get_attribute("#verdict", "data-level")


def test_nothing_is_well_before_that_is_known_nor_when_nobody_says_so(page: Page, stage: Stage) -> None:
    stage.begin(clients=3)
    page.wait_for_selector("#clients:text-is('3')")
    assert verdict(page) == ("Looking …", "unknown")
    stage.tell("tables", tables())
    page.wait_for_selector("#verdict[data-level=good]")
    assert verdict(page)[0] == "All is well: nobody waits."
    stage.hang_up()
    page.wait_for_selector("#verdict[data-level=lost]")
    assert verdict(page)[0].startswith("pgproxy has said nothing since ")
    # And again, when it is heard of; what holds is of before until it is told.
    stage.begin(clients=4)
    page.wait_for_selector("#clients:text-is('4')")
    assert verdict(page) == ("Looking …", "unknown")
    stage.tell("tables", tables(targets=[row("targets", **{**_HOST, "state": "unreachable"})]))
    page.wait_for_selector("#verdict[data-level=bad]")
    assert "10.0.0.1:5432 cannot be reached" in verdict(page)[0]


def test_what_is_read_out_is_what_has_changed(page: Page, stage: Stage) -> None:
    stage.begin(waiting=1)
    for seconds in (2, 3):
        pool = row("pools", cl_waiting=1, maxwait=seconds)
        stage.tell("tables", tables(pools=[pool]))
        page.wait_for_selector(f"#verdict:has-text('longest for {seconds}.0 s')")
    assert "longest for 2.0 s" in page.inner_text("[role=status]")


def test_who_reads_is_not_disturbed(page: Page, stage: Stage) -> None:
    """Each telling used to make all rows anew: the scroll bar jumped back, and what was selected was gone."""
    changes = [row("history", time="2026-01-01 10:00:00 UTC", event="found") for _ in range(30)]
    pins = [row("pins", digest="select the_one()", seconds=10)]
    stage.begin()
    stage.tell("tables", tables(history=changes, pins=pins))
    page.wait_for_selector("#pins .digest")
    page.focus("#history ul")
    page.evaluate("document.querySelector('#history ul').scrollTop = 200")
    page.evaluate("getSelection().selectAllChildren(document.querySelector('#pins .digest'))")
    pins[0]["seconds"] = 12
    stage.tell("tables", tables(history=changes, pins=pins))
    page.wait_for_selector("#pins td:text-is('12 s')")
    assert page.evaluate("document.querySelector('#history ul').scrollTop") == 200
    assert page.evaluate("document.activeElement.tagName") == "UL"
    assert page.evaluate("String(getSelection())") == "select the_one()"
    # What has another form is another.
    stage.tell("tables", tables())
    page.wait_for_selector("#pins:has-text('No client is pinned')")
    assert page.locator("#pins table").count() == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0.0004, "0.40 ms"), (0.99999, "1.0 s"), (9.97, "10 s"), (59.8, "1 min 0 s"), (90, "1 min 30 s")),
        *((119.7, "2 min 0 s"), (3599.8, "1 h 0 min"), (86399.9, "1 d 0 h")),
    ],
)
def test_times_are_such_as_there_are(page: Page, stage: Stage, seconds: float, text: str) -> None:
    stage.begin()
    stage.tell("tables", tables(pins=[row("pins", seconds=seconds)]))
    page.wait_for_selector("#pins td.number")
    assert page.inner_text("#pins td.number >> nth=1") == text


def test_names_are_text_in_which_nothing_is_hidden(page: Page, stage: Stage) -> None:
    name = "<b>\u202egro\x1b[31m\u2066\U000e0041</b>"
    stage.begin()
    pools = [row("pools", database=name, user="\udcff", target=name, pool_size=4, sv_active=1, sv_idle=2)]
    statements = [row("statements", database=name, digest=name, seconds=1.0)]
    stage.tell("tables", tables(pools=pools, statements=statements, pins=[row("pins", digest=name)]))
    page.wait_for_selector("#pools td")
    shown = "<b>\\u{202e}gro\\u{1b}[31m\\u{2066}\\u{e0041}</b>"
    assert page.inner_text("#pools td.name span").startswith(f"{shown} / \\u{{dcff}}")
    for part in ("pins", "statements"):
        assert page.inner_text(f"#{part} .digest") == shown
    assert page.locator("b").count() == page.locator(".legend b").count()


def test_what_is_drawn_is_said_in_words(page: Page, stage: Stage) -> None:
    stage.begin(clients=7, servers_used=2)
    pool = row("pools", pool_size=9, sv_active=4, sv_pinned=1, sv_in_transaction=2, sv_idle=3, sv_closing=1)
    stage.tell("tables", tables(pools=[pool]))
    page.wait_for_selector("#pools .bar")
    assert page.get_attribute("#pools .bar", "aria-label") == (
        "1 working, 2 in an open transaction, idle, 1 pinned, 1 opening or being cleaned, 3 free"
    )
    assert page.get_attribute("[data-chart=clients] [role=img]", "aria-label") == "connected: 7 to 7"
    assert page.locator("[data-span][aria-pressed]").count() == 3
