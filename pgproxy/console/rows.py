"""The rows of the console's tables, as far as one process knows them: in the order of `columns`."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from pgproxy.config import Config
from pgproxy.config.model import EVERY_OTHER
from pgproxy.console.tables import Value
from pgproxy.link.client import ClientConnection
from pgproxy.link.front import Front
from pgproxy.link.lender import ServerLender
from pgproxy.link.splice import Splice
from pgproxy.link.target import TargetPools
from pgproxy.observe.figures import resident
from pgproxy.pool.budget import NO_LIMIT
from pgproxy.pool.explain import Hold
from pgproxy.pool.pool import Pool
from pgproxy.pool.retry import Retry
from pgproxy.pool.states import CHECKING, CLOSING, IDLE, LINKED, OPENING, RELEASING, Server
from pgproxy.session.pins import words
from pgproxy.targets.facts import Address
from pgproxy.targets.judge import Judge

Rows = list[list[Value]]

PLACES = 1_000_000_000
"""An id is the number in a worker's log, and so many times the worker's number."""
_INT4_MOST = 2**31 - 1
_STATES = {
    OPENING: "login",
    IDLE: "idle",
    LINKED: "active",
    RELEASING: "tested",
    CHECKING: "tested",
    CLOSING: "closing",
}


def moment(seconds: float) -> str:
    """Write a time of the reactor's clock as PgBouncer does."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def at_most_int4(number: int) -> int:
    """Give a number that int4 has; what has no limit has none here, either."""
    return 0 if number >= NO_LIMIT else min(number, _INT4_MOST)


class Looks:
    """
    One process's clients, servers and pools.

    `worker` is 0 where there is one process; `config` gives the configuration as the operator has written it.
    """

    def __init__(self, front: Front, worker: int, config: Callable[[], Config]) -> None:
        self._front = front
        self._config = config
        self._worker = worker
        self._made: dict[str, Callable[[], Rows]] = {
            "pools": self._pools,
            "clients": self._clients,
            "servers": self._servers,
            "databases": self._databases,
            "users": self._users,
            "lists": self._lists,
            "mem": self._mem,
            "pins": self._pins,
            "targets": self._targets,
            "history": self._history,
            "secrets": self._secrets,
            "queue": self._queue,
            "workers": self._workers,
        }

    def rows(self, what: str) -> Rows:
        """Give the rows of a table. Raises KeyError."""
        return self._made[what]()

    @property
    def _number(self) -> int:
        return self._worker or 1

    def id_of(self, number: int) -> int:
        """Give the id of what has this number in our log."""
        return self._worker * PLACES + number

    def number_of(self, identity: int) -> int | None:
        """Give the number of what has this id; None if it isn't ours."""
        worker, number = divmod(identity, PLACES)
        return number if worker == self._worker else None

    def _now(self) -> float:
        return float(self._front.reactor.seconds())

    @property
    def _targets_in_use(self) -> list[TargetPools]:
        return self._front.targets.targets

    def _lenders(self) -> Iterator[tuple[TargetPools, Pool[Any], ServerLender]]:
        for target in self._targets_in_use:
            for pool, lender in target.pools_and_lenders:
                yield target, pool, lender

    # Clients and servers.

    def _by_splice(self) -> dict[Splice, ClientConnection]:
        return {client.splice: client for client in self._front.clients if client.splice is not None}

    def _waiting_since(self) -> dict[Any, float]:
        return {
            client: waiter.since
            for _target, pool, _lender in self._lenders()
            for lane in pool.lanes.values()
            for client, waiter in lane.waiters.items()
        }

    def _clients(self) -> Rows:
        since, now = self._waiting_since(), self._now()
        servers = {
            server: self.id_of(server.record.number)
            for client in self._front.clients
            if client.splice is not None and (server := client.splice.server) is not None
        }
        rows = []
        for client in sorted(self._front.clients, key=lambda client: client.number):
            startup = client.startup
            if startup is None:
                continue
            began = since.get(client.splice)
            link = client.splice.server if client.splice is not None else None
            wait = max(0.0, now - began) if began is not None else 0.0
            identity = self.id_of(client.number)
            pins = client.pins.now if client.pins is not None else {}
            rows.append(
                [
                    "C",
                    startup.user,
                    startup.database,
                    _replication(dict(startup.parameters)),
                    _client_state(client, began is not None),
                    *_ends(client.transport),
                    moment(client.since),
                    moment(began) if began is not None else None,
                    *_whole_and_rest(wait),
                    0,
                    str(identity),
                    str(servers[link]) if link is not None else "",
                    None,
                    _tls(client.transport),
                    dict(startup.parameters).get("application_name", ""),
                    client.splice.talk.prepared if client.splice is not None else 0,
                    identity,
                    self._number,
                    ", ".join(words(frozenset(pins))),
                ]
            )
        return rows

    def _servers(self) -> Rows:
        clients = self._by_splice()
        rows = []
        for target, pool, lender in self._lenders():
            database, user = lender.names
            for server in sorted(target.pools.servers, key=lambda server: server.number):
                if server.lane.pool is not pool:
                    continue
                connection = lender.connection(server)
                borrower = lender.borrower(server)
                client = clients.get(borrower) if isinstance(borrower, Splice) else None
                identity = self.id_of(server.number)
                parameters = dict(server.parameters)
                ends: list[Value] = [*target.address, None, None]
                rows.append(
                    [
                        "S",
                        user,
                        database,
                        _replication(parameters),
                        _server_state(server, connection.cancels if connection is not None else 0),
                        *(_ends(connection.transport) if connection is not None else ends),
                        moment(connection.since) if connection is not None else None,
                        None,
                        0,
                        0,
                        int(server.retiring is not None),
                        str(identity),
                        str(self.id_of(client.number)) if client is not None else "",
                        connection.pid if connection is not None else None,
                        _tls(connection.transport) if connection is not None else "",
                        parameters.get("application_name", ""),
                        len(server.session.statements),
                        identity,
                        self._number,
                        target.name,
                        server.retiring.value if server.retiring is not None else "",
                    ]
                )
        return rows

    def _pins(self) -> Rows:
        now = self._now()
        rows: Rows = []
        for client in sorted(self._front.clients, key=lambda client: client.number):
            startup, splice = client.startup, client.splice
            if client.pins is None or startup is None or splice is None:
                continue
            for reason, (since, digest) in client.pins.now.items():
                rows.append(
                    [
                        self.id_of(client.number),
                        startup.database,
                        startup.user,
                        reason.value,
                        digest,
                        moment(since),
                        round(max(0.0, now - since), 3),
                        splice.server.pid if splice.server is not None else None,
                        self._number,
                    ]
                )
        return rows

    # Pools.

    def _pools(self) -> Rows:
        now, config = self._now(), self._config()
        rows: Rows = []
        for target, pool, lender in self._lenders():
            database, user = lender.names
            states: Counter[str] = Counter()
            holds: Counter[Hold] = Counter()
            for server in target.pools.servers:
                if server.lane.pool is pool:
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
                    *_whole_and_rest(waited),
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

    def _queue(self) -> Rows:
        now, clients = self._now(), self._by_splice()
        rows: Rows = []
        for _target, pool, lender in self._lenders():
            waiting = [
                (waiter.since, clients[splice])
                for lane in pool.lanes.values()
                for splice, waiter in lane.waiters.items()
                if isinstance(splice, Splice) and splice in clients
            ]
            for since, client in sorted(waiting, key=lambda one: one[0]):
                assert client.splice is not None
                detail, hint = lender.account(client.splice)
                waits_for = (
                    "RESUME" if pool.paused else f"a server of pool {lender.names[0]}/{lender.names[1]}"
                )
                rows.append(
                    [
                        self.id_of(client.number),
                        *lender.names,
                        waits_for,
                        moment(since),
                        round(max(0.0, now - since), 3),
                        detail,
                        hint,
                        self._number,
                    ]
                )
        return rows

    def _databases(self) -> Rows:
        config = self._config()
        names = dict.fromkeys(config.databases)
        names.update(dict.fromkeys(lender.names[0] for lender in self._front.targets.lenders))
        servers, clients = self._counts(0)
        return [
            row
            for name in names
            if (row := _database_row(config, name, servers[name], clients[name], self._front)) is not None
        ]

    def _users(self) -> Rows:
        config = self._config()
        names = dict.fromkeys([*config.users, *(lender.names[1] for lender in self._front.targets.lenders)])
        servers, clients = self._counts(1)
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

    def _counts(self, which: int) -> tuple[Counter[str], Counter[str]]:
        """Count servers and clients by database (0) or user (1)."""
        servers: Counter[str] = Counter()
        clients: Counter[str] = Counter()
        for _target, pool, lender in self._lenders():
            servers[lender.names[which]] += pool.account.count
        for lender in self._front.targets.lenders:
            clients[lender.names[which]] += lender.clients
        return servers, clients

    def _targets(self) -> Rows:
        rows: Rows = []
        judges = self._front.judges()
        for name, target in self._config().targets.items():
            judge = judges.get(name)
            addresses = [(one.name, one.port) for one in judge.hosts] if judge is not None else []
            for host, port in addresses or [(one.host, one.port) for one in target.server]:
                at = next((one for one in self._targets_in_use if one.where == (name, host, port)), None)
                rows.append([name, host, port, *_seen(judge, (host, port), at), *_held(at)])
        return rows

    def _history(self) -> Rows:
        return [
            [name, moment(entry.at), entry.change.value, str(entry.host), entry.why]
            for name, judge in self._front.judges().items()
            for entry in judge.history.entries()
        ]

    def _secrets(self) -> Rows:
        vault = self._front.vault
        return [
            [
                name,
                "Secrets Manager",
                moment(made) if made is not None else None,
                "known" if made is not None else "unread",
            ]
            for name, made in (vault.ages() if vault is not None else ())
        ]

    # All together.

    def _lists(self) -> Rows:
        servers: Counter[Any] = Counter(
            server.state for target in self._targets_in_use for server in target.pools.servers
        )
        waiting = sum(pool.waiting for _target, pool, _lender in self._lenders())
        logging_in = self._front.logging_in
        counts = {
            "databases": len(self._databases()),
            "users": len(self._users()),
            "peers": 0,
            "pools": len(self._front.targets.lenders),
            "peer_pools": 0,
            "free_clients": 0,
            "used_clients": len(self._front.clients) - logging_in,
            "login_clients": logging_in,
            "free_servers": servers[IDLE],
            "used_servers": sum(servers.values()) - servers[IDLE],
            "dns_names": 0,
            "dns_zones": 0,
            "dns_queries": 0,
            "dns_pending": 0,
            "waiting_clients": waiting,
        }
        return [[name, number] for name, number in counts.items()]

    def _mem(self) -> Rows:
        memory = resident()
        counts = {
            "client": len(self._front.clients),
            "server": sum(len(target.pools.servers) for target in self._targets_in_use),
            "pool": len(self._front.targets.lenders),
        }
        rows: Rows = [["process", 0, 1, 0, min(memory, _INT4_MOST), self._number]]
        for name, number in counts.items():
            rows.append([name, 0, number, 0, None, self._number])
        return rows

    def _workers(self) -> Rows:
        return [
            [
                self._number,
                os.getpid(),
                "serving",
                None,
                len(self._front.clients),
                sum(len(target.pools.servers) for target in self._targets_in_use),
                sum(pool.waiting for _target, pool, _lender in self._lenders()),
                round(time.process_time(), 3),
                resident(),
            ]
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


def _seen(judge: Judge | None, host: tuple[str, int], pools: TargetPools | None) -> list[Value]:
    """Give a host's role, state, lag, and since when; of one that nobody watches what its servers tell."""
    known = judge.hosts.get(Address(*host)) if judge is not None else None
    if judge is None or known is None:
        retry = _retry(pools)
        working = pools is not None and pools.pools.target.working
        return ["unknown", "up" if working else "down" if retry is not None else "unknown", None, None]
    roles, address = judge.roles, known.address
    role = "writer" if roles.writer == address else "reader" if address in roles.readers else "none"
    if known.trouble is not None:
        state = known.trouble.value
    else:
        state = "up" if known.answer is not None else "unknown"
    entries = [entry for entry in judge.history.entries() if entry.host == address]
    since = moment(entries[-1].at) if entries else None
    return [role, state, round(known.lag, 3) if known.answer is not None else None, since]


def _held(target: TargetPools | None) -> list[Value]:
    """Give a host's servers, how many there may be, who waits, and what went wrong the last time."""
    if target is None:
        return [0, 0, 0, None]
    account, retry = target.pools.target, _retry(target)
    waiting = sum(pool.waiting for pool in target.pools.pools)
    trouble = retry.trouble.complaint.text if retry is not None else None
    return [account.count, at_most_int4(account.most), waiting, trouble]


def _retry(target: TargetPools | None) -> Retry | None:
    if target is None:
        return None
    retries = (retry for pool in target.pools.pools for lane in pool.lanes.values() for retry in lane.retries)
    return target.pools.target.retry or next(retries, None)


def _client_state(client: ClientConnection, waits: bool) -> str:
    if client.visit is not None:
        return "active"
    if client.splice is None:
        return "login"
    if waits:
        return "waiting"
    return "active" if client.splice.server is not None else "idle"


def _server_state(server: Server, cancels: int) -> str:
    return "being_canceled" if cancels else _STATES.get(server.state, "")


def _replication(parameters: dict[str, str]) -> str:
    value = parameters.get("replication", "")
    return "none" if not value else "logical" if value == "database" else "physical"


def _ends(transport: Any) -> list[Value]:
    found: list[Value] = []
    for end in (transport.getPeer(), transport.getHost()):
        found += (str(getattr(end, "host", "unix")), getattr(end, "port", 0))
    return found


def _tls(transport: Any) -> str:
    tls = transport.tls
    if tls is None:
        return ""
    cipher = tls.cipher()
    return f"{tls.version()}/{cipher[0]}" if cipher else str(tls.version())


def _whole_and_rest(seconds: float) -> tuple[int, int]:
    """Give whole seconds, and the microseconds beyond."""
    whole = int(seconds)
    return whole, int((seconds - whole) * 1_000_000)
