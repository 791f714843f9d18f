"""Every limit on clients and servers, with real servers: who is refused, in which words, and who gets in."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from bench.crowd import Crowd, Peer, Script
from pgproxy.demo.ports import free_port
from pgproxy.demo.postgres import Postgres
from pgproxy.demo.process import wait_until
from pgproxy.wire import messages
from tests.faults import Relay
from tests.fix_pgproxy import WORKERS, HasPort, Pgproxy, PgproxyFactory, share
from tests.raw import Raw, client, startup

SECONDS = 15
"""That something may take that is to happen soon."""
BORROW_TIMEOUT = 2
SECOND = """
[databases.second]
name = "app"
[databases.app]
"""


def start(pgproxy: PgproxyFactory, postgres: HasPort, extra: str = "", **limits: Any) -> Pgproxy:
    target = limits.pop("target", None)
    size, mode = limits.pop("pool_size", 3), limits.pop("pool_mode", "transaction")
    return pgproxy(
        server=postgres,
        auth="trust",
        pool_size=size,
        pool_mode=mode,
        proxy={"connection_borrow_timeout": BORROW_TIMEOUT, "connection_borrow_notice": 0, **limits},
        target=target,
        extra=extra,
    )


@contextmanager
def held(proxy: Pgproxy, number: int, user: str = "app", database: str = "app") -> Iterator[list[Raw]]:
    """Have clients sit in transactions, each with a server of its own."""
    with ExitStack() as stack:
        holders = [
            stack.enter_context(client(proxy.port, user=user, database=database)) for _ in range(number)
        ]
        for holder in holders:
            assert holder.value("begin; select 1") == "1"
        yield holders


def told(proxy: Pgproxy, user: str = "app", database: str = "app") -> dict[str, str]:
    """Give what a client is told that asks for a server in vain."""
    with Raw(proxy.port) as raw:
        raw.send(startup(user=user, database=database), messages.query("select 1"))
        return raw.error()


def serves(proxy: Pgproxy, user: str = "app", database: str = "app") -> bool:
    with Raw(proxy.port) as raw:
        raw.send(startup(user=user, database=database), messages.query("select 'served'"))
        while True:
            try:
                tag, payload = raw.message()
            except (EOFError, ConnectionError):
                return False
            if tag in "ED":
                return payload.endswith(b"served")


def closed(proxy: Pgproxy, reason: str) -> int:
    return sum(event["event"] == "server_closed" and event["reason"] == reason for event in proxy.log())


def opened(proxy: Pgproxy) -> int:
    return sum(event["event"] == "server_opened" for event in proxy.log())


# Storms are shed.


def test_max_connection_rate(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = start(pgproxy, postgres, max_connection_rate=3)
    text = f"Rate of connection to proxy exceeded {share(3)}."
    with ExitStack() as stack:
        raws = [stack.enter_context(Raw(proxy.port)) for _ in range(30)]
        for raw in raws:
            raw.send(startup(user="app", database="app"))
        refused = 0
        for raw in raws:
            tag, payload = raw.message()
            if tag == "E":
                fields = messages.read_error_fields(payload)
                assert (fields["C"], fields["M"]) == ("53300", text)
                assert "max_connection_rate" in fields["H"]
                assert raw.ended()
                refused += 1
            else:
                raw.until("Z")
                assert raw.value("select 'served'") == "served"
    assert 0 < refused < 30
    assert wait_until(lambda: serves(proxy), SECONDS)


@pytest.mark.one_process("each worker counts those that log in to it")
def test_max_logins(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = start(pgproxy, postgres, max_logins=2)
    with client(proxy.port) as before:
        with Raw(proxy.port), Raw(proxy.port):
            fields = told(proxy)
            assert (fields["C"], fields["M"]) == ("53300", "too many clients are logging in")
            assert "at most 2" in fields["H"] and "max_logins" in fields["H"]
            assert before.value("select 'served'") == "served"
        assert wait_until(lambda: serves(proxy), SECONDS)


@pytest.mark.one_process("each worker counts those that wait in it")
def test_max_waiting_clients(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = start(pgproxy, postgres, pool_size=1, max_waiting_clients=2, connection_borrow_timeout=60)
    with ExitStack() as stack:
        raws = [stack.enter_context(client(proxy.port)) for _ in range(4)]
        holder, *waiting, late = raws
        assert holder.value("begin; select 1") == "1"
        for raw in waiting:
            raw.send(messages.query("select 'served'"))

        # The log does not tell who waits, but the last one's refusal does; a client gets in as it did before.
        def is_refused() -> bool:
            with Raw(proxy.port) as other:
                other.send(startup(user="app", database="app"), messages.query("select 1"))
                other.socket.settimeout(1)
                try:
                    other.error()
                except TimeoutError:
                    return False
                return True

        assert wait_until(is_refused, SECONDS)
        late.send(messages.query("select 1"))
        fields = late.error()
        assert (fields["C"], fields["M"]) == ("53300", "too many clients wait for a database connection")
        assert "at most 2" in fields["H"] and "max_waiting_clients" in fields["H"]
        assert holder.value("commit; select 'served'") == "served"
        for raw in waiting:
            assert dict(raw.until("Z"))["D"].endswith(b"served")
        assert serves(proxy)


# The lives of servers.


def test_server_lifetime(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = start(pgproxy, postgres, pool_size=1, server_lifetime=1)
    with client(proxy.port) as raw:
        pid = raw.value("begin; select pg_backend_pid()")
        assert not wait_until(lambda: closed(proxy, "lifetime") > 0, 2.5), "nobody loses a server in use"
        assert raw.value("select pg_backend_pid()") == pid
        raw.query("commit")
        assert wait_until(lambda: closed(proxy, "lifetime") == 1, SECONDS)
        assert raw.value("select pg_backend_pid()") != pid


def test_idle_servers_go_but_for_the_minimum_which_is_kept_warm(
    pgproxy: PgproxyFactory, postgres: Postgres
) -> None:
    proxy = start(pgproxy, postgres, pool_size=4, min_pool_size=2, server_idle_timeout=1)
    with held(proxy, 4) as holders:
        pids = {int(holder.value("select pg_backend_pid()") or 0) for holder in holders}
    assert len(pids) == 4
    assert wait_until(lambda: closed(proxy, "idle_timeout") == 2, SECONDS)
    those = f"from pg_stat_activity where pid = any (array{sorted(pids)})"
    assert wait_until(lambda: postgres.execute(f"select count(*) {those}") == [(2,)], SECONDS)
    before = opened(proxy)
    postgres.execute(f"select pg_terminate_backend(pid) {those}")
    assert wait_until(lambda: opened(proxy) == before + 2, SECONDS), "nobody has asked for them"
    assert closed(proxy, "idle_timeout") == 2


def test_a_server_that_does_not_answer_is_found_before_a_client_gets_it(
    pgproxy: PgproxyFactory, postgres: Postgres
) -> None:
    proxy = start(pgproxy, postgres, pool_size=2, server_check_delay=1, cancel_timeout=1)
    with client(proxy.port) as raw:
        pid = int(raw.value("select pg_backend_pid()") or 0)
        os.kill(pid, signal.SIGSTOP)
        try:
            assert wait_until(lambda: closed(proxy, "check_failed") == 1, SECONDS)
            other = raw.value("select pg_backend_pid()")
            assert other is not None and int(other) != pid
        finally:
            os.kill(pid, signal.SIGCONT)


def test_servers_that_answer_are_kept(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    with Relay(postgres.port) as relay:
        questions: list[bytes] = []

        def fault(data: bytes) -> bytes:
            if data == messages.ready_for_query(b"I"):
                questions.append(data)
            return data

        relay.fault = fault
        proxy = start(pgproxy, relay, pool_size=1, server_check_delay=1)
        with client(proxy.port) as raw:
            pid = raw.value("select pg_backend_pid()")
            assert wait_until(lambda: len(questions) >= 2, SECONDS)
            assert raw.value("select pg_backend_pid()") == pid


@pytest.mark.one_process("the server is another worker's; tests/integration/test_workers.py has the like")
def test_who_does_not_wait_at_all(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = start(pgproxy, postgres, pool_size=1, connection_borrow_timeout=0)
    fields = told(proxy)
    assert (fields["C"], fields["M"]) == ("08000", "Timed-out waiting to acquire database connection.")
    # The server that was opened for it is there for the next one.
    assert wait_until(lambda: serves(proxy), SECONDS)
    with held(proxy, 1):
        assert told(proxy)["C"] == "08000"
    assert wait_until(lambda: serves(proxy), SECONDS)
    assert opened(proxy) == 1


class Counting(Relay):
    """Counts how many servers are being opened at a time, and makes each opening last."""

    def __init__(self, target: int) -> None:
        self.opening: dict[int, int] = {}
        self.most = 0
        self._lock = threading.Lock()
        super().__init__(target)
        self.fault = self._answer

    def _answer(self, data: bytes) -> bytes:
        # One thread for each connection: the first ReadyForQuery ends its login, the second its opening.
        me = threading.get_ident()
        with self._lock:
            self.opening.setdefault(me, 0)
            self.most = max(self.most, sum(ready < 2 for ready in self.opening.values()))
        threading.Event().wait(0.05)
        with self._lock:
            self.opening[me] += data.endswith(messages.ready_for_query(b"I"))
        return data


def test_a_burst_opens_a_few_servers_at_a_time(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    with Counting(postgres.port) as relay, Crowd(0) as crowd:
        proxy = start(
            pgproxy,
            relay,
            pool_size=12,
            connection_borrow_timeout=60,
            target={"max_connecting_servers": 3, "tls": "disable"},
        )
        crowd.port = proxy.port
        served = 0

        def once() -> Script[None]:
            nonlocal served
            peer = Peer(crowd)
            yield from peer.log_in("app", "app")
            answer = yield from peer.query("select 'served' from pg_sleep(0.05)")
            served += answer == "served"
            peer.leave()

        for _ in range(200):
            crowd.add(once())
        crowd.run(60)
        assert served == 200
        assert relay.most == 3
        # Between workers servers move by being opened anew.
        assert opened(proxy) == 12 or (WORKERS > 1 and opened(proxy) > 12)


# Caps, and what who waits in vain is told of them.


@pytest.mark.parametrize("what", ["user", "database", "target", "percent", "administrators"])
def test_caps(pgproxy: PgproxyFactory, postgres: Postgres, what: str) -> None:
    """Two servers are allowed, in use by another pool with which the one that waits shares only the cap."""
    user, database = "other", "second"
    extra, target, limits, name = SECOND, {}, {}, "Target main"
    allowed = 2
    if what == "user":
        extra, user, name = SECOND + "[users.app]\nmax_server_connections = 2\n", "app", "User app"
    elif what == "database":
        extra, database, name = SECOND + "max_server_connections = 2\n", "app", "Database app"
    elif what == "target":
        target = {"max_server_connections": 2}
    elif what == "percent":
        [[most]] = postgres.execute("select current_setting('max_connections')::int - 3")
        target = {"max_connections_percent": 3}
        allowed = most * 3 // 100
    else:
        target, limits = {"max_server_connections": 4}, {"admin_users": ["boss"]}
        name = "Target main (less what is for administrators)"
    proxy = start(pgproxy, postgres, extra, target=target, **limits)
    with held(proxy, allowed):
        fields = told(proxy, user, database)
        assert fields["C"] == "08000"
        assert f"Pool {database}/{user} has 0 of at most 3 servers" in fields["D"]
        assert fields["D"].endswith(f"{name} has {allowed} of at most {allowed}.")
        limit = f"The limit of {name[0].lower() + name[1:]}" if WORKERS == 1 else "A limit above the pool's"
        assert fields["H"] == f"{limit} is reached: raise it, or use fewer servers elsewhere."
        if what == "administrators":
            assert serves(proxy, "boss")
    assert wait_until(lambda: serves(proxy, user, database), SECONDS)


@pytest.mark.parametrize("what", ["database", "user", "pool"])
def test_minimums_are_kept_free(pgproxy: PgproxyFactory, postgres: Postgres, what: str) -> None:
    extra = {
        "database": SECOND + "min_server_connections = 2\n",
        "user": SECOND + "[users.app]\nmin_server_connections = 2\n",
        "pool": SECOND + "min_pool_size = 2\n",
    }[what]
    proxy = start(pgproxy, postgres, extra, pool_size=4, target={"max_server_connections": 4})
    # A pool's own minimum counts once it has been used.
    assert serves(proxy)
    with held(proxy, 2, "other", "second"):
        fields = told(proxy, "other", "second")
        assert fields["C"] == "08000"
        if what != "pool":
            assert "Target main has 3 of at most 4; the rest is kept free for minimums." in fields["D"]
        with held(proxy, 2):
            assert serves(proxy) is False


@pytest.mark.one_process("what clients of other workers do is not told")
def test_what_is_said_of_who_holds_what(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = start(pgproxy, postgres, pool_size=2)
    with held(proxy, 1), client(proxy.port) as listener:
        listener.query("listen news")
        fields = told(proxy)
        assert "2 in use (1 idle in a transaction, 1 pinned); waiting clients: 0." in fields["D"]
        assert "idle_transaction_timeout" in fields["H"]
    with client(proxy.port) as one, client(proxy.port) as other:
        one.query("listen news")
        other.query("listen news")
        fields = told(proxy)
        assert "2 in use (2 pinned)" in fields["D"]
        assert "client_pinned" in fields["H"]
    with client(proxy.port) as one, client(proxy.port) as other:
        for busy in (one, other):
            busy.send(messages.query("select pg_sleep(10)"))
        fields = told(proxy)
        assert "2 in use; waiting" in fields["D"]
        assert "pool_size" in fields["H"]


@pytest.mark.one_process("what clients of other workers do is not told")
def test_what_is_said_of_sessions(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = start(pgproxy, postgres, pool_size=1, pool_mode="session")
    with client(proxy.port):
        assert "1 in use (1 kept for a session)" in told(proxy)["D"]


def test_what_is_said_of_a_target_that_is_down(pgproxy: PgproxyFactory) -> None:
    class Nobody:
        port = free_port()

    fields = told(start(pgproxy, Nobody()))
    assert f"127.0.0.1:{Nobody.port}" in fields["D"]
    assert fields["H"].startswith("The target is down, or refuses us")
