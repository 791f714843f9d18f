"""What a client that waits in vain is told."""

from __future__ import annotations

import pytest

from pgproxy.pool.explain import Hold, who_holds_what
from tests.unit.pool.test_pools import DOWN, WRONG_PASSWORD, idle, open_one, opened, pool, pools

WORKING, IN_TRANSACTION, PINNED, SESSION = Hold


def test_who_holds_what() -> None:
    of = pools(10)
    some = pool(of, most=5)
    lane = some.lane(())
    for number in range(4):
        open_one(lane, f"a{number}")
    of.borrow(lane, "b", 0)
    of.borrow(lane, "c", 0)
    detail, hint = who_holds_what(some, [WORKING, IN_TRANSACTION, PINNED, SESSION], 1.25)
    assert detail == (
        "Waited 1.2 s. Pool app/alice has 5 of at most 5 servers: 4 in use "
        "(1 idle in a transaction, 1 pinned, 1 kept for a session), 1 connecting; waiting clients: 2."
    )
    assert "pool_size" in hint


@pytest.mark.parametrize(
    ("holds", "word"),
    [
        ([IN_TRANSACTION, WORKING], "idle_transaction_timeout"),
        ([PINNED, WORKING], "client_pinned"),
        ([WORKING, WORKING], "pool_size"),
    ],
)
def test_what_can_be_done(holds: list[Hold], word: str) -> None:
    some = pool(pools(10), most=2)
    for number in range(2):
        open_one(some.lane(()), f"a{number}")
    assert word in who_holds_what(some, holds, 1)[1]


def test_another_limit_than_the_pools_own() -> None:
    of = pools(1)
    open_one(pool(of, "other/bob").lane(()), "a")
    some = pool(of)
    of.borrow(some.lane(()), "b", 0)
    detail, hint = who_holds_what(some, [], 1)
    assert "Target main has 1 of at most 1." in detail
    assert "target main" in hint


def test_a_target_that_is_down() -> None:
    of = pools(10)
    some = pool(of)
    server = opened(of.borrow(some.lane(()), "a", 0))
    of.failed(server, DOWN, 0)
    detail, hint = who_holds_what(some, [], 1)
    assert 'cannot connect to the server of database "db".' in detail
    assert "server_open_failed" in hint


def test_a_failure_is_no_excuse_where_there_are_servers() -> None:
    of = pools(10)
    some = pool(of)
    (server,) = idle(some.lane(()), 1)
    some.lane(()).take(server.session.settings, None)
    of.failed(opened(of.borrow(some.lane(()), "b", 0)), WRONG_PASSWORD, 0)
    detail, hint = who_holds_what(some, [IN_TRANSACTION], 1)
    assert "The last attempt to open a server failed" in detail
    assert "idle_transaction_timeout" in hint
