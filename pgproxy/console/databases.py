"""The rows of the tables about databases and users: what is configured for each, and what is in use."""

from __future__ import annotations

from collections import Counter

from pgproxy.config import Config
from pgproxy.config.model import EVERY_OTHER
from pgproxy.console.process import Process, Rows
from pgproxy.console.tables import Value
from pgproxy.link.front import Front


def databases(process: Process) -> Rows:
    """Give a row for each database that is configured, or was asked for."""
    config = process.config()
    names = dict.fromkeys(config.databases)
    names.update(dict.fromkeys(lender.names[0] for lender in process.front.targets.lenders))
    servers, clients = _counts(process, 0)
    return [
        row
        for name in names
        if (row := _database_row(config, name, servers[name], clients[name], process.front)) is not None
    ]


def _database_row(config: Config, name: str, servers: int, clients: int, front: Front) -> list[Value] | None:
    entry = config.database(name)
    if entry is None:
        return None
    judge = front.judges().get(entry.target)
    first = config.targets[entry.target].server[0]
    host, port = (first.host, first.port)
    if judge is not None and judge.roles.writer is not None:
        host, port = judge.roles.writer.name, judge.roles.writer.port
    paused = name in front.targets.paused or "" in front.targets.paused
    return [
        name,
        host,
        port,
        entry.name if name != EVERY_OTHER else "",
        None,
        config.pool_size(name, ""),
        config.min_pool_size(name, ""),
        0,
        int(config.proxy.server_lifetime),
        config.pool_mode(name, ""),
        "",
        entry.max_server_connections,
        servers,
        0,
        clients,
        int(paused),
        int(name in front.disabled),
        0,
        entry.target,
    ]


def users(process: Process) -> Rows:
    """Give a row for each user that is configured, or has come."""
    config = process.config()
    names = dict.fromkeys([*config.users, *(lender.names[1] for lender in process.front.targets.lenders)])
    servers, clients = _counts(process, 1)
    rows: Rows = []
    for name in names:
        own = config.users.get(name)
        rows.append(
            [
                name,
                str(own.pool_size) if own is not None and own.pool_size is not None else None,
                None,
                own.pool_mode if own is not None else None,
                own.max_server_connections if own is not None else 0,
                servers[name],
                0,
                clients[name],
            ]
        )
    return rows


def _counts(process: Process, which: int) -> tuple[Counter[str], Counter[str]]:
    """Count servers and clients by database (0) or user (1)."""
    servers: Counter[str] = Counter()
    clients: Counter[str] = Counter()
    for _target, pool, lender in process.lenders():
        servers[lender.names[which]] += pool.account.count
    for lender in process.front.targets.lenders:
        clients[lender.names[which]] += lender.clients
    return servers, clients
