"""The life of a server: only the moves of the table are made."""

import pytest

from pgproxy.pool.states import CLOSED, MOVES, OPENING, IllegalMove, Server, ServerState
from tests.unit.sessions import new_session


@pytest.mark.parametrize("before", list(ServerState))
@pytest.mark.parametrize("after", list(ServerState))
def test_every_pair(before: ServerState, after: ServerState) -> None:
    server = Server(1, (), new_session(), state=before)
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
