"""What is different for a database, or for a user: these go before [proxy]."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from pgproxy.config.kinds import Kind, Name, Statements, Switch, option
from pgproxy.config.ranges import IDLE_TIMES, POOL_MODES, POOL_SIZES, SERVERS, TIMES, PoolMode


def _before(kind: Kind, wider: str) -> dict[str, Any]:
    """Describe an option that, where it is set, holds instead of wider ones."""
    return option(kind, f"Goes before {wider}.")


_IN_PROXY = "the one in [proxy]"
_IN_BOTH = "the database's and the one in [proxy]"
_MOST_SERVERS = option(SERVERS, "The most servers of all its pools together. 0: no limit.")
_LEAST_SERVERS = option(
    SERVERS, "So many of the target's servers are kept free for its pools: others don't get them."
)

_ENHANCED = option(
    Switch(),
    "Whether the log has a line (`statement`) for each batch of statements, with their digests and what it "
    "took, of clients that log in from then on. It ends a day after the configuration was loaded.",
)


@frozen(kw_only=True)
class Database:
    """
    A database that clients may ask for; `[databases."*"]` is for all that have no table of their own.

    Without any such table, every name is taken to the only target as it is.
    """

    target: str = field(
        default="",
        metadata=option(
            Name(optional=True), "The target that has it; may be left out where there is one only."
        ),
    )
    name: str = field(
        default="",
        metadata=option(Name(optional=True), "Its name there; empty for the name that the client asked for."),
    )
    init_query: str | None = field(
        default=None, metadata=option(Statements(), "Goes before the target's; empty for none.")
    )
    pool_mode: PoolMode | None = field(default=None, metadata=_before(POOL_MODES, _IN_PROXY))
    pool_size: int | None = field(default=None, metadata=_before(POOL_SIZES, _IN_PROXY))
    min_pool_size: int | None = field(default=None, metadata=_before(SERVERS, _IN_PROXY))
    max_server_connections: int = field(default=0, metadata=_MOST_SERVERS)
    min_server_connections: int = field(default=0, metadata=_LEAST_SERVERS)
    enhanced_logging: bool = field(default=False, metadata=_ENHANCED)
    idle_client_timeout: float | None = field(default=None, metadata=_before(IDLE_TIMES, _IN_PROXY))
    idle_transaction_timeout: float | None = field(default=None, metadata=_before(TIMES, _IN_PROXY))
    transaction_timeout: float | None = field(default=None, metadata=_before(TIMES, _IN_PROXY))
    query_timeout: float | None = field(default=None, metadata=_before(TIMES, _IN_PROXY))
    statement_statistics: bool | None = field(default=None, metadata=_before(Switch(), _IN_PROXY))


@frozen(kw_only=True)
class User:
    """What is different for a user."""

    pool_mode: PoolMode | None = field(default=None, metadata=_before(POOL_MODES, _IN_BOTH))
    pool_size: int | None = field(default=None, metadata=_before(POOL_SIZES, _IN_BOTH))
    min_pool_size: int | None = field(default=None, metadata=_before(SERVERS, _IN_BOTH))
    max_server_connections: int = field(default=0, metadata=_MOST_SERVERS)
    min_server_connections: int = field(default=0, metadata=_LEAST_SERVERS)
    enhanced_logging: bool = field(default=False, metadata=_ENHANCED)
    idle_client_timeout: float | None = field(default=None, metadata=_before(IDLE_TIMES, _IN_BOTH))
    idle_transaction_timeout: float | None = field(default=None, metadata=_before(TIMES, _IN_BOTH))
    transaction_timeout: float | None = field(default=None, metadata=_before(TIMES, _IN_BOTH))
    query_timeout: float | None = field(default=None, metadata=_before(TIMES, _IN_BOTH))
    statement_statistics: bool | None = field(default=None, metadata=_before(Switch(), _IN_BOTH))
