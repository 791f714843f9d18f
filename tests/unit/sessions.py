"""Sessions of servers that are nowhere."""

from __future__ import annotations

from pgproxy.session.server import Habits, ServerSession
from pgproxy.session.statements import ServerStatements


def new_session(user: bytes = b"app", limit: int = 100) -> ServerSession:
    return ServerSession(user, ServerStatements(b"ours_", limit), Habits())
