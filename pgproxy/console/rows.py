"""The rows of the console's tables, as far as one process knows them: in the order of `columns`."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from pgproxy.console.clients import clients, pins, queue
from pgproxy.console.databases import databases, users
from pgproxy.console.process import Process, Rows
from pgproxy.console.servers import pools, servers
from pgproxy.console.tables import Value
from pgproxy.console.targets import history, secrets, targets
from pgproxy.console.values import INT4_MOST
from pgproxy.observe.figures import resident
from pgproxy.pool.states import IDLE


def rows(process: Process, what: str) -> Iterable[list[Value]]:
    """Give the rows of a table, the long ones' made one after the other. Raises KeyError."""
    return _TABLES[what](process)


def _lists(process: Process) -> Rows:
    states: Counter[Any] = Counter(
        server.state for target in process.targets for server in target.pools.servers
    )
    waiting = sum(pool.waiting for _target, pool, _lender in process.lenders())
    logging_in = process.front.logging_in
    counts = {
        "databases": len(databases(process)),
        "users": len(users(process)),
        "peers": 0,
        "pools": len(process.front.targets.lenders),
        "peer_pools": 0,
        "free_clients": 0,
        "used_clients": len(process.front.clients) - logging_in,
        "login_clients": logging_in,
        "free_servers": states[IDLE],
        "used_servers": sum(states.values()) - states[IDLE],
        "dns_names": 0,
        "dns_zones": 0,
        "dns_queries": 0,
        "dns_pending": 0,
        "waiting_clients": waiting,
    }
    return [[name, number] for name, number in counts.items()]


def _mem(process: Process) -> Rows:
    memory = resident()
    counts = {
        "client": len(process.front.clients),
        "server": sum(len(target.pools.servers) for target in process.targets),
        "pool": len(process.front.targets.lenders),
    }
    made: Rows = [["process", 0, 1, 0, min(memory, INT4_MOST), process.number]]
    for name, number in counts.items():
        made.append([name, 0, number, 0, None, process.number])
    return made


def _workers(process: Process) -> Rows:
    return [
        [
            process.number,
            os.getpid(),
            "serving",
            None,
            len(process.front.clients),
            sum(len(target.pools.servers) for target in process.targets),
            sum(pool.waiting for _target, pool, _lender in process.lenders()),
            round(time.process_time(), 3),
            resident(),
        ]
    ]


_TABLES: dict[str, Callable[[Process], Iterable[list[Value]]]] = {
    "pools": pools,
    "clients": clients,
    "servers": servers,
    "databases": databases,
    "users": users,
    "lists": _lists,
    "mem": _mem,
    "pins": pins,
    "targets": targets,
    "history": history,
    "secrets": secrets,
    "queue": queue,
    "workers": _workers,
}
