"""The life of a server: only the moves of the table are made."""

import pytest

from pgproxy.pool.lane import Lane
from pgproxy.pool.pools import Pools
from pgproxy.pool.rules import Rules
from pgproxy.pool.states import CLOSED, MOVES, OPENING, IllegalMove, Server, ServerState
from tests.unit.sessions import new_session


def lane() -> Lane[str]:
    pools: Pools[str] = Pools("main", Rules(), lambda: 0.5)
    return pools.add_pool("app", "alice", new_session).lane(())


@pytest.mark.parametrize("before", list(ServerState))
@pytest.mark.parametrize("after", list(ServerState))
def test_every_pair(before: ServerState, after: ServerState) -> None:
    server = Server(1, lane(), new_session(), 0.0, state=before)
    if after in MOVES[before]:
        server.move(after)
        assert server.state is after
    else:
        with pytest.raises(IllegalMove, match=f"server 1: {before.name} -> {after.name}"):
            server.move(after)
        assert server.state is before


def test_every_state_is_reached_and_closed_is_the_end() -> None:
    reached = {OPENING}
    while more := {after for before in reached for after in MOVES[before]} - reached:
        reached |= more
    assert reached == set(ServerState)
    assert not MOVES[CLOSED]
