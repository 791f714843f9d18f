"""The status page in Debian's Chromium: a chart moves, pins show, a failover appears; narrow, and dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pgproxy.demo.ports import free_port
from tests.browser import browser, missing
from tests.cluster import Cluster
from tests.failover import kill, place, proxy_before
from tests.fix_pgproxy import Pgproxy, PgproxyFactory

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "there is a browser")

_DARK = (14, 19, 24)
_TOKEN = "a token of the test's"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as one:
        yield one


@pytest.fixture
def served(pgproxy: PgproxyFactory, cluster: Cluster, tmp_path: Path) -> tuple[Pgproxy, str]:
    port = free_port()
    (tmp_path / "token").write_text(f"{_TOKEN}\n")
    extra = f'[http]\nlisten = "127.0.0.1:{port}"\ntoken_file = "{tmp_path}/token"\n'
    run = proxy_before(pgproxy, cluster, extra=extra)
    run.await_event("started")
    return run, f"http://127.0.0.1:{port}/"


def look(chromium: Browser, address: str, width: int, scheme: str) -> tuple[Page, list[str]]:
    """Open the page; what the browser complains of comes in the list."""
    page = chromium.new_page(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,  # type: ignore[arg-type]
        # As somebody types who is asked.
        http_credentials={"username": "me", "password": _TOKEN},
    )
    page.set_default_timeout(30_000)
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type != "log" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: wrong.append(request.url) if address not in request.url else None)
    page.goto(address)
    return page, wrong


def colour(page: Page, of: str) -> tuple[int, ...]:
    text = page.evaluate(f"getComputedStyle(document.querySelector('{of}')).backgroundColor")
    return tuple(int(number) for number in text[text.index("(") + 1 : -1].split(","))


_DRAWN_ANEW = "before => document.querySelector('[data-chart=clients] canvas').toDataURL() !== before"


def drawn(page: Page) -> str:
    """Give the chart of the clients as it is drawn now."""
    return str(page.evaluate("document.querySelector('[data-chart=clients] canvas').toDataURL()"))


@pytest.mark.long
def test_what_happens_is_seen(chromium: Browser, served: tuple[Pgproxy, str], cluster: Cluster) -> None:
    run, address = served
    wide, wrong = look(chromium, address, 1240, "light")
    before, after = place(cluster.writer), cluster.synchronous
    assert after is not None

    # All is well, and the chart moves.
    wide.wait_for_selector("#verdict[data-level=good]")
    wide.wait_for_selector("[data-chart=clients]:not([data-points='0']):not([data-points='1'])")
    wide.wait_for_function(_DRAWN_ANEW, arg=drawn(wide))
    assert wide.inner_text("#clients") == "0"

    # Clients come: one is pinned, and what its name and statement are is text, whatever it is.
    evil = "<img src=x onerror=alert(1)>"
    parameters = {"user": "toil", "dbname": "toil", "password": "", "autocommit": True}
    with run.connect(**parameters) as client, run.connect(**parameters) as other:
        client.execute(f'create temporary table "{evil}" ()')
        other.execute("select pg_backend_pid()")
        wide.wait_for_selector("#clients:text-is('2')")
        wide.wait_for_selector("#pins :text('temporary table')")
        assert evil in wide.inner_text("#pins") and wide.locator("#pins img").count() == 0
        wide.wait_for_selector("#pools .bar [data-part=pinned]")
        wide.wait_for_selector("#statements :text('pg_backend_pid')")

        # Narrow and dark: nothing is wider than the window.
        narrow, wrong_there = look(chromium, address, 400, "dark")
        narrow.wait_for_selector("#pins :text('temporary table')")
        narrow.wait_for_selector("#statements td")
        wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert narrow.evaluate(wider) == wide.evaluate(wider) == 0
        assert narrow.evaluate("document.querySelector('#statements table').scrollWidth") <= 400
        assert colour(narrow, "body") == _DARK and min(colour(wide, "body")) > 230
        # The charts' ink follows the scheme, also when it changes.
        lit = drawn(narrow)
        narrow.emulate_media(color_scheme="light")
        narrow.wait_for_function("getComputedStyle(document.body).backgroundColor !== 'rgb(14, 19, 24)'")
        # They are drawn when the page has heard of it, which is a moment later.
        narrow.wait_for_function(_DRAWN_ANEW, arg=lit)

    # The writer dies.
    wide.wait_for_selector(f"#targets tr:has-text('{before}') [data-role=writer]")
    kill(cluster)
    wide.wait_for_selector(f"#history li[data-event=became_writer]:has-text('{place(after)}')")
    wide.wait_for_selector(f"#targets tr:has-text('{place(after)}') [data-role=writer]")
    wide.wait_for_selector("#verdict:not([data-level=good])")
    assert before in wide.inner_text("#verdict")

    # pgproxy goes, and the page says so.
    run.stop()
    wide.wait_for_selector("#link[data-state=off]")
    for page, complaints in ((wide, wrong), (narrow, wrong_there)):
        # That nobody answers any more is the one thing to complain of.
        assert [one for one in complaints if "ERR_" not in one] == []
        page.close()
