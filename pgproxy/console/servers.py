"""The rows of the tables about servers, and about the pools that they are in."""

from __future__ import annotations

from collections import Counter

from pgproxy.console.process import Process, Rows
from pgproxy.console.tables import Value
from pgproxy.console.values import at_most_int4, ends, moment, replication, tls, whole_and_rest
from pgproxy.link.splice import Splice
from pgproxy.pool.explain import Hold
from pgproxy.pool.states import CHECKING, CLOSING, IDLE, LINKED, OPENING, RELEASING, Server

_STATES = {
    OPENING: "login",
    IDLE: "idle",
    LINKED: "active",
    RELEASING: "tested",
    CHECKING: "tested",
    CLOSING: "closing",
}


def servers(process: Process) -> Rows:
    """Give a row for each server."""
    clients, now, servers = process.by_splice(), process.now(), process.servers()
    rows = []
    for target, pool, lender in process.lenders():
        database, user = lender.names
        for server in servers.get(pool, ()):
            connection = lender.connection(server)
            borrower = lender.borrower(server)
            client = clients.get(borrower) if isinstance(borrower, Splice) else None
            identity = process.id_of(server.number)
            parameters = dict(server.parameters)
            nowhere: list[Value] = [*target.address, None, None]
            rows.append(
                [
                    "S",
                    user,
                    database,
                    replication(parameters),
                    _server_state(server, connection.cancels if connection is not None else 0),
                    *(ends(connection.transport) if connection is not None else nowhere),
                    moment(connection.since, now) if connection is not None else None,
                    None,
                    0,
                    0,
                    int(server.retiring is not None),
                    str(identity),
                    str(process.id_of(client.number)) if client is not None else "",
                    connection.pid if connection is not None else None,
                    tls(connection.transport) if connection is not None else "",
                    parameters.get("application_name", ""),
                    len(server.session.statements),
                    identity,
                    process.number,
                    target.name,
                    server.retiring.value if server.retiring is not None else "",
                ]
            )
    return rows


def pools(process: Process) -> Rows:
    """Give a row for each pool."""
    now, config, servers = process.now(), process.config(), process.servers()
    rows: Rows = []
    for target, pool, lender in process.lenders():
        database, user = lender.names
        states: Counter[str] = Counter()
        holds: Counter[Hold] = Counter()
        for server in servers.get(pool, ()):
            connection = lender.connection(server)
            states[_server_state(server, connection.cancels if connection is not None else 0)] += 1
            borrower = lender.borrower(server)
            if borrower is not None:
                holds[borrower.hold] += 1
        waited = pool.waited(now)
        rows.append(
            [
                database,
                user,
                max(0, lender.clients - pool.waiting) if pool is lender.pool else 0,
                pool.waiting,
                0,
                0,
                states["active"],
                0,
                states["being_canceled"],
                states["idle"],
                0,
                states["tested"],
                states["login"],
                *whole_and_rest(waited),
                config.pool_mode(database, user),
                "",
                target.name,
                at_most_int4(config.pool_size(database, user)),
                holds[Hold.PINNED],
                holds[Hold.IN_TRANSACTION],
                states["closing"],
                int(pool.paused),
            ]
        )
    return rows


def _server_state(server: Server, cancels: int) -> str:
    return "being_canceled" if cancels else _STATES.get(server.state, "")
