"""What options of several tables may be: where a database or a user says otherwise, in the same range."""

from __future__ import annotations

from typing import Literal

from pgproxy.config.kinds import Choice, Seconds, Whole

PoolMode = Literal["session", "transaction"]
Timeout = Literal["idle_client_timeout", "idle_transaction_timeout", "transaction_timeout", "query_timeout"]
"""The limits of a client's life after login."""

POOL_MODES = Choice(("session", "transaction"))
POOL_SIZES = Whole(1, 10_000)
SERVERS = Whole(0, 10_000)
A_DAY = 86_400
"""In seconds."""
IDLE_TIMES = Seconds(28_800)
TIMES = Seconds(A_DAY)
