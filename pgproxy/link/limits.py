"""What a configuration means for the pools: their limits, and the rules of their targets."""

from __future__ import annotations

from typing import Any

from pgproxy.config import Config
from pgproxy.config.model import EVERY_OTHER
from pgproxy.link.lender import Limits
from pgproxy.link.look_ups import AT_ONCE
from pgproxy.pool.budget import NO_LIMIT, Budget
from pgproxy.pool.pools import Pools
from pgproxy.pool.rules import Rules


def rules_of(config: Config, name: str) -> Rules:
    """Give the rules of a target."""
    proxy, target = config.proxy, config.targets[name]
    percent = target.max_connections_percent
    idle_percent = target.max_idle_connections_percent
    return Rules(
        budget=Budget(
            percent=percent,
            most=target.max_server_connections or NO_LIMIT,
            idle_percent=percent // 2 if idle_percent is None else idle_percent,
            for_look_ups=AT_ONCE * _kinds_of_look_ups(config),
            for_admins=target.admin_connections if proxy.admin_users else 0,
        ),
        borrow_timeout=proxy.connection_borrow_timeout,
        opening_at_once=target.max_connecting_servers,
        lifetime=proxy.server_lifetime,
        idle_timeout=proxy.server_idle_timeout,
        check_after=proxy.server_check_delay,
    )


def _kinds_of_look_ups(config: Config) -> int:
    """Count who asks servers past the pools: auth_query, and who shows them tokens of clients."""
    shows_tokens = config.aws is not None and "rds-db" in config.aws.iam.verifiers
    return (config.proxy.auth_query is not None) + shows_tokens


def limits_of(config: Config, database: str, user: str) -> Limits:
    """Give the limits of a pool."""
    proxy = config.proxy
    most = config.pool_size(database, user)
    return Limits(
        most=most,
        least=min(most, config.min_pool_size(database, user)),
        most_waiting=proxy.max_waiting_clients,
        admin=user in proxy.admin_users,
        connect_timeout=proxy.connect_timeout,
        cancel_timeout=proxy.cancel_timeout,
        prepared_statements=proxy.max_prepared_statements,
        session_mode=config.pool_mode(database, user) == "session",
    )


def keep_minimums(pools: Pools[Any], config: Config, target: str) -> None:
    """Have kept free what databases and users are to have at least, also before their first client."""
    for name in config.databases:
        entry = config.database(name)
        if name != EVERY_OTHER and entry is not None and entry.target == target:
            pools.set_database(name, entry.max_server_connections, entry.min_server_connections)
    for name, user in config.users.items():
        pools.set_user(name, user.max_server_connections, user.min_server_connections)
