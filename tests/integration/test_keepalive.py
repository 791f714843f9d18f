"""The connections of both legs are probed as the configuration says."""

from __future__ import annotations

from pathlib import Path

from pgproxy.demo.postgres import Postgres
from pgproxy.demo.process import wait_until
from tests.fix_pgproxy import Pgproxy, PgproxyFactory

ESTABLISHED = "01"
KEEPALIVE_TIMER = "02"
HERTZ = 100
"""What /proc/net/tcp counts in, whatever the kernel does (USER_HZ)."""


def probed_after(local: int | None, remote: int | None) -> set[int]:
    """Give after how many hundreds of seconds the connections from or to a port are probed next."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        ports = [int(words[place].partition(":")[2], 16) for place in (1, 2)]
        timer, _, when = words[5].partition(":")
        if words[3] == ESTABLISHED and (ports[0] == local or ports[1] == remote) and timer == KEEPALIVE_TIMER:
            found.add(round(int(when, 16) / HERTZ / 100))
    return found


def configured(proxy: Pgproxy, text: str) -> bool:
    return wait_until(lambda: text in proxy.text(), 30)


def test_both_legs(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(proxy={"tcp_keepidle": 5000})
    with proxy.connect() as connection:
        connection.execute("select 1")
        connection.commit()
        # What was just sent has a timer of its own.
        assert wait_until(lambda: probed_after(local=proxy.port, remote=None) == {50}, 30)
        assert wait_until(lambda: 50 in probed_after(local=None, remote=postgres.port), 30)
        # Who comes after a reload is set to what holds then.
        config = proxy.directory / "pgproxy.toml"
        proxy.write_config(config.read_text().replace("idle = 5000", "idle = 3000"))
        proxy.reload()
        assert configured(proxy, '"reloaded"')
        with proxy.connect(application_name="another") as later:
            later.execute("select 1")
            later.commit()
            assert wait_until(lambda: probed_after(local=proxy.port, remote=None) == {50, 30}, 30)
            assert wait_until(lambda: 30 in probed_after(local=None, remote=postgres.port), 30)
