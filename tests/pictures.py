"""
Makes the pictures of the status page: `python -m tests.pictures DIRECTORY`, `make pictures`.

A cluster of three hosts, pgproxy before it, applications at work for a minute and a half, and a failover
meanwhile: what the page shows of that is photographed in light, in dark, and 400 pixels wide.
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import ExitStack, suppress
from math import sin
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

import psycopg

from pgproxy.demo.binaries import find_binaries
from pgproxy.demo.ports import free_port
from pgproxy.demo.process import server_account
from tests.browser import browser, missing
from tests.cluster import Cluster, template
from tests.failover import kill, place
from tests.fix_pgproxy import Pgproxy, toml
from tests.fix_postgres import PASSWORDS

if TYPE_CHECKING:
    from playwright.sync_api import FloatRect, ViewportSize

SECONDS = 80.0
"""How long the applications work; the failover comes after half of it."""
_TABLES = """
    create table orders
        (id serial primary key, customer int, amount numeric, placed timestamptz default now());
    insert into orders (customer, amount) select n % 500, n % 97 from generate_series(1, 20000) n;
    create index on orders (customer);
    grant all on orders, orders_id_seq to app, other;
"""
_STATEMENTS = (
    "select id, amount from orders where customer = 42",
    "insert into orders (customer, amount) values (17, 99.50)",
    "update orders set amount = amount + 1 where id = 4711",
    "select customer, sum(amount) from orders group by customer order by 2 desc limit 10",
    "select count(*) from orders where placed > now() - interval '1 hour'",
)
_PINS = (
    "create temporary table basket (article int, pieces int)",
    "listen orders_changed",
    "select pg_advisory_lock(815)",
)
_EXTRA = """
[databases.shop]
name = "app"
target = "main"
pool_size = 6

[databases.reports]
name = "app"
target = "main"
pool_size = 4

[http]
listen = "127.0.0.1:{port}"
"""


_SIZES: tuple[tuple[str, Literal["light", "dark"], ViewportSize, FloatRect], ...] = (
    ("page-light", "light", {"width": 1240, "height": 900}, {"x": 0, "y": 0, "width": 1240, "height": 850}),
    (
        "page-below",
        "light",
        {"width": 1240, "height": 900},
        {"x": 0, "y": 840, "width": 1240, "height": 1420},
    ),
    ("page-dark", "dark", {"width": 1240, "height": 900}, {"x": 0, "y": 0, "width": 1240, "height": 850}),
    ("page-400", "light", {"width": 400, "height": 900}, {"x": 0, "y": 0, "width": 400, "height": 1340}),
)
"""What is photographed of the page, in pixels: its name, the scheme, the window, the part."""


class Applications:
    """Those who work: some always, more of them at times."""

    def __init__(self, run: Pgproxy) -> None:
        self._run = run
        self._over = threading.Event()
        self._began = time.monotonic()
        self._threads = [threading.Thread(target=self._shop, args=(number,)) for number in range(24)]
        self._threads += [threading.Thread(target=self._reports, args=(number,)) for number in range(3)]
        self._kept = [run.connect(dbname="shop", user="app", autocommit=True) for _ in range(60)]
        for client, pin in zip(self._kept, _PINS, strict=False):
            client.execute(pin)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Have all of them end."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        for client in self._kept:
            client.close()

    def pin(self) -> None:
        """Have those that have lost their pins pin again."""
        for client, pin in zip(self._kept, _PINS, strict=False):
            with suppress(psycopg.Error):
                client.execute("rollback")
            with suppress(psycopg.Error):
                client.execute(pin)

    def _shop(self, number: int) -> None:
        self._work(number, "shop", "app", 0.03, 0.006)

    def _reports(self, number: int) -> None:
        self._work(100 + number, "reports", "other", 0.3, 0.05)

    def _work(self, number: int, database: str, user: str, think: float, nap: float) -> None:
        random = Random(number)
        while not self._over.is_set():
            with suppress(psycopg.Error), self._run.connect(dbname=database, user=user) as client:
                while not self._over.is_set():
                    client.execute(random.choice(_STATEMENTS))
                    if random.random() < 0.3:
                        time.sleep(nap * random.random() * 6)
                    client.commit()
                    busy = 1.6 + sin((time.monotonic() - self._began) / 5)
                    time.sleep(think * random.random() * 8 / busy)
            time.sleep(0.2)


def main(directory: Path) -> None:
    """Make them."""
    wrong = missing()
    if wrong:
        raise SystemExit(wrong)
    account = server_account()
    with ExitStack() as stack:
        start = stack.enter_context(template(find_binaries(account), account, PASSWORDS))
        cluster = stack.enter_context(Cluster(start, account))
        cluster.writer.execute(_TABLES, dbname="app")
        files = Path(stack.enter_context(TemporaryDirectory()))
        port, http = free_port(), free_port()
        config = toml(
            proxy={"listen": f"127.0.0.1:{port}", "users_file": "users.txt", "auth": "scram-sha-256"},
            target={
                "server": [place(host) for host in cluster.hosts],
                "watch_user": "app",
                "watch_database": "app",
            },
            extra=_EXTRA.format(port=http),
        )
        run = Pgproxy(files, config, PASSWORDS, port)
        stack.callback(run.stop)
        run.await_start()
        applications = Applications(run)
        stack.callback(applications.stop)
        time.sleep(SECONDS / 2)
        kill(cluster)
        time.sleep(3)
        applications.pin()
        cluster.settle()
        time.sleep(SECONDS / 2)
        _photograph(f"http://127.0.0.1:{http}/", directory)


def _photograph(address: str, directory: Path) -> None:
    with browser() as one:
        for name, scheme, size, clip in _SIZES:
            page = one.new_page(viewport=size, color_scheme=scheme)
            page.goto(address)
            page.click('[data-span="60"]')
            page.wait_for_selector("#statements tr:nth-child(3)")
            page.wait_for_selector("#pools .bar")
            page.screenshot(path=directory / f"{name}.png", full_page=True, clip=clip)
            page.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs")
