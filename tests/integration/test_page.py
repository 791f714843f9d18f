"""The status page as it is served: to whom, with what around it, and what it tells of clients at work."""

from __future__ import annotations

import base64
import http.client
import os
import signal
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest

from pgproxy.demo.ports import free_port
from pgproxy.demo.process import wait_until
from pgproxy.page.history import NAMES
from pgproxy.page.watch import MOST
from tests.fix_pgproxy import Pgproxy, PgproxyFactory
from tests.sse import Events, Refused

FILES = {
    "/": "text/html",
    "/page.css": "text/css",
    "/page.js": "text/javascript",
    "/icon.svg": "image/svg+xml",
    "/uplot.css": "text/css",
    "/uplot.js": "text/javascript",
}


def get(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, Message, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        connection.close()


def serving(pgproxy: PgproxyFactory, options: str = "", **more: object) -> tuple[Pgproxy, int]:
    port = free_port()
    proxy = pgproxy(extra=f'[http]\nlisten = "127.0.0.1:{port}"\n{options}', **more)  # type: ignore[arg-type]
    proxy.await_event("started")
    return proxy, port


@pytest.fixture(scope="module")
def served(pgproxy_of_module: PgproxyFactory) -> Iterator[int]:
    _proxy, port = serving(pgproxy_of_module)
    yield port


def test_what_stands_around_each_file(served: int) -> None:
    for path, kind in FILES.items():
        status, headers, text = get(served, path)
        assert status == 200 and headers["Content-Type"].startswith(kind) and len(text) > 100
        policy = dict(one.split(" ", 1) for one in headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert get(served, path, "HEAD")[::2] == (200, "")
    assert get(served, "/nothing")[0] == 404 and get(served, "/", "POST")[0] == 405
    assert get(served, "/../page/resource.py")[0] == 404


def test_the_files_ask_for_nothing_else(served: int) -> None:
    for path in ("/", "/page.css", "/page.js"):
        text = get(served, path)[2]
        assert "//" not in text.replace("/*", "").replace("http://www.w3.org", "").replace("// ", ""), path
        assert " style=" not in text and "innerHTML" not in text and "onclick" not in text


def test_who_may_look_without_a_token(served: int) -> None:
    assert get(served, "/", Host="localhost")[0] == get(served, "/", Host="[::1]:80")[0] == 200
    for path in ("/", "/events", "/page.js"):
        assert get(served, path, Host="rebound.example")[0] == 403
    with pytest.raises(Refused, match="403"):
        Events(served, **{"Sec-Fetch-Site": "cross-site"})
    with Events(served, **{"Sec-Fetch-Site": "same-origin"}) as events:
        assert events.headers["X-Content-Type-Options"] == "nosniff"
        assert events.headers["Content-Type"].startswith("text/event-stream")


def test_so_many_may_look_at_a_time(served: int) -> None:
    some = [Events(served) for _ in range(MOST)]
    try:
        with pytest.raises(Refused, match="503"):
            Events(served)
        # What else is served does not suffer.
        assert get(served, "/metrics")[0] == 200
        some.pop().close()

        def again() -> bool:
            try:
                some.append(Events(served))
            except Refused:
                return False
            return True

        assert wait_until(again, 20)
    finally:
        for one in some:
            one.close()


def test_who_may_look_with_a_token(pgproxy: PgproxyFactory, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("very secret: token\n")
    proxy, port = serving(pgproxy, f'token_file = "{token}"\n')

    def basic(password: str, user: str = "me") -> str:
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    status, headers, _ = get(port, "/")
    assert status == 401
    assert [one.split()[0] for one in headers.get_all("WWW-Authenticate", [])] == ["Basic", "Bearer"]
    good = ["Bearer very secret: token", basic("very secret: token"), basic("very secret: token", "")]
    bad = [
        "",
        "Basic",
        "Basic !",
        basic("very secret"),
        basic(""),
        "Digest x",
        "Bearer",
        "Bearer very secret",
    ]
    for path in ("/", "/page.js", "/metrics"):
        assert {get(port, path, Authorization=one)[0] for one in good} == {200}
        assert {get(port, path, Authorization=one)[0] for one in bad} == {401}
    with pytest.raises(Refused, match="401"):
        Events(port, Authorization=basic("wrong"))
    with Events(port, Authorization=basic("very secret: token"), Host="proxy.example") as events:
        events.next("point")
    token.write_text("another\n")
    proxy.reload()
    assert wait_until(lambda: get(port, "/", Authorization=good[0])[0] == 401, 20)
    assert get(port, "/", Authorization=basic("another"))[0] == 200
    assert "very secret" not in proxy.text() and "dmVyeS" not in proxy.text()


@pytest.mark.parametrize("workers", [1, 3])
def test_what_it_tells(pgproxy: PgproxyFactory, workers: int) -> None:
    # With several workers what all of them have is told together.
    proxy, port = serving(pgproxy, proxy={"workers": workers}, pool_size=6)
    with Events(port) as events:
        names = events.next("history")["names"]
        assert names == list(NAMES)
        place = names.index
        # What is counted needs one to begin with.
        events.next("point")
        clients = [proxy.connect(autocommit=True) for _ in range(9)]
        for client in clients:
            client.execute("select 'a value' || 1")
        clients[0].execute("create temporary table t ()")
        clients[1].execute("listen l")
        events.until("point", lambda point: point[place("clients")] == 9 and point[place("pinned")] == 2)
        found = events.until(
            "tables",
            lambda tables: (
                len(tables["pins"]["rows"]) == 2
                and any(row["calls"] >= 9 for row in tables["statements"]["rows"])
            ),
        )
        assert {row["reason"] for row in found["pins"]["rows"]} == {"temporary_object", "listen"}
        (pool,) = found["pools"]["rows"]
        assert (pool["database"], pool["user"], pool["pool_size"]) == ("app", "app", 6)
        assert pool["sv_pinned"] == 2 and pool["cl_active"] == 9
        (host,) = found["targets"]["rows"]
        assert (host["target"], host["state"], host["role"]) == ("main", "up", "unknown")
        digests = {row["digest"]: row["calls"] for row in found["statements"]["rows"]}
        assert digests["select $1 || $2"] == 9
        assert "a value" not in str(found)
        about = found["about"]
        assert about["workers"] == workers and about["clients_max"] == 1000 and about["memory"] > 1 << 20
        for client in clients:
            client.close()
        events.until("point", lambda point: point[place("clients")] == 0 and point[place("pinned")] == 0)
        # Who comes later sees what has been.
        with Events(port) as later:
            history = later.next("history")
            assert 9 in history["columns"][place("clients")]
            assert max(one or 0 for one in history["columns"][place("transactions")]) > 0
            assert {len(column) for column in history["columns"]} == {len(history["columns"][0])}


def test_a_worker_that_hangs_stops_nobody(pgproxy: PgproxyFactory) -> None:
    proxy, port = serving(pgproxy, proxy={"workers": 2})
    clients = [proxy.connect() for _ in range(6)]
    with Events(port) as events:
        events.until("point", lambda point: point[NAMES.index("clients")] == 6)
        hung = proxy.await_event("started")["workers"][0]
        os.kill(hung, signal.SIGSTOP)
        try:
            # Its clients are still there, as far as it has told.
            for _ in range(3):
                assert events.next("point")[NAMES.index("clients")] == 6
        finally:
            os.kill(hung, signal.SIGCONT)
        clients.pop().close()
        events.until("point", lambda point: point[NAMES.index("clients")] == 5)
    for client in clients:
        client.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_streams_go_over_to_the_process_that_follows(pgproxy: PgproxyFactory, workers: int) -> None:
    proxy, port = serving(pgproxy, proxy={"workers": workers})
    with Events(port) as events:
        events.next("history")
        proxy.restart()
        with pytest.raises(EOFError):
            while True:
                events.next("point")
    (before,) = proxy.predecessors
    assert before.wait(20) == 0
    with Events(port) as events:
        events.next("point")
        proxy.begin_to_stop()
        with pytest.raises(EOFError):
            while True:
                events.next("point")


def test_it_can_be_turned_off(pgproxy: PgproxyFactory) -> None:
    _proxy, port = serving(pgproxy, "page = false\n")
    assert get(port, "/")[0] == get(port, "/events")[0] == get(port, "/page.js")[0] == 404
    assert get(port, "/metrics")[0] == 200
