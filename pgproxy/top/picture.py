"""
What the console's tables come to: totals, pools, targets, pins, statements, and rates since the look before.

Counters that have become less since then (a worker that has ended, another process) say nothing of the time
between: what is made of them is None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen

Rows = Sequence[Mapping[str, Any]]

TABLES = (
    *("version", "state", "lists", "pools", "stats_totals"),
    *("targets", "pins", "workers", "statements"),
)
"""What the console is asked to show; not SHOW QUEUE, which costs the proxy most where most clients wait."""
MOST_STATEMENTS = 20
"""Of the statements; the console keeps up to 500."""


@frozen
class Look:
    """What the console has shown."""

    at: float
    """Seconds, by a clock that nobody sets."""
    tables: Mapping[str, Rows]
    """By what stands behind SHOW."""


@frozen
class Clients:
    """How many there are."""

    all: int
    logging_in: int
    waiting: int
    longest_wait: float
    """Seconds."""


@frozen
class Servers:
    """How many there are, by what they do."""

    all: int
    used: int
    """Linked to a client."""
    pinned: int
    """Of them: kept for what a client has left in them, whether it is at work or not."""
    in_transaction: int
    """Of them: in a transaction whose client does nothing."""
    idle: int
    opening: int
    others: int
    """Being cleaned, asked whether they are there, cancelled or closed."""


@frozen
class Rates:
    """So many a second; of bytes from and to clients."""

    transactions: float
    queries: float
    received: float
    sent: float
    logins: float


@frozen
class Pool:
    """One pool."""

    database: str
    user: str
    target: str
    mode: str
    clients: int
    waiting: int
    longest_wait: float
    used: int
    pinned: int
    in_transaction: int
    idle: int
    others: int
    most: int
    """The most servers that it may have; 0: no limit."""
    paused: bool


@frozen
class Host:
    """One host of a target."""

    target: str
    host: str
    port: int
    role: str
    state: str
    lag: float | None
    servers: int
    most: int
    waiting: int
    trouble: str | None


@frozen
class Pins:
    """The clients that keep their servers for one reason."""

    reason: str
    clients: int
    longest: float
    """Seconds."""
    digest: str
    """The statement that has pinned the longest."""


@frozen
class Statement:
    """One digest."""

    database: str
    digest: str
    load: float | None
    """Seconds in the database for each second since the look before: how many servers it has kept busy."""
    calls: int
    seconds: float
    mean_ms: float
    max_ms: float
    rows: int
    errors: int


@frozen
class Process:
    """All processes that carry clients."""

    workers: int
    cpu: float | None
    """Processors kept busy since the look before."""
    memory: int
    """Bytes."""


@frozen
class Picture:
    """All of it."""

    version: str
    state: str
    """active, paused or shutting_down."""
    seconds: float | None
    """Since the look before."""
    clients: Clients
    servers: Servers
    process: Process
    rates: Rates | None
    databases: dict[str, Rates | None]
    pools: list[Pool]
    targets: list[Host]
    pins: list[Pins]
    statements: list[Statement]


def picture(now: Look, before: Look | None) -> Picture:
    """Make a picture of a look, and of the one before it."""
    seconds = now.at - before.at if before is not None and now.at > before.at else None
    earlier = before if seconds is not None else None
    pools = _pools(now.tables["pools"])
    rates = _rates(now, earlier, seconds or 0.0)
    return Picture(
        version=str(now.tables["version"][0]["version"]) if now.tables["version"] else "",
        state=_state(now.tables["state"]),
        seconds=round(seconds, 3) if seconds is not None else None,
        clients=_clients(now.tables["lists"], pools),
        servers=_servers(now, pools),
        process=_process(now, earlier, seconds or 0.0),
        rates=_sum(rates) if seconds is not None else None,
        databases=rates,
        pools=pools,
        targets=[_host(row) for row in now.tables["targets"]],
        pins=_pins(now.tables["pins"]),
        statements=_statements(now, earlier, seconds or 0.0),
    )


def is_leaving(look: Look) -> bool:
    """Say whether what was looked at is about to end: another process may have taken over."""
    return _state(look.tables["state"]) == "shutting_down"


def _state(rows: Rows) -> str:
    said = {row["key"] for row in rows if row["value"] == "yes"}
    return next((state for state in ("shutting_down", "paused") if state in said), "active")


def _clients(lists: Rows, pools: Sequence[Pool]) -> Clients:
    items = {row["list"]: row["items"] for row in lists}
    logging_in = items.get("login_clients", 0)
    return Clients(
        all=items.get("used_clients", 0) + logging_in,
        logging_in=logging_in,
        waiting=sum(pool.waiting for pool in pools),
        longest_wait=max((pool.longest_wait for pool in pools), default=0.0),
    )


def _servers(now: Look, pools: Sequence[Pool]) -> Servers:
    opening = sum(row["sv_login"] for row in now.tables["pools"])
    used, idle = sum(pool.used for pool in pools), sum(pool.idle for pool in pools)
    others = sum(pool.others for pool in pools) - opening
    return Servers(
        all=used + idle + opening + others,
        used=used,
        pinned=len({row["client"] for row in now.tables["pins"]}),
        in_transaction=sum(pool.in_transaction for pool in pools),
        idle=idle,
        opening=opening,
        others=others,
    )


def _pools(rows: Rows) -> list[Pool]:
    found = [
        Pool(
            database=row["database"],
            user=row["user"],
            target=row["target"],
            mode=row["pool_mode"],
            clients=row["cl_active"] + row["cl_waiting"],
            waiting=row["cl_waiting"],
            longest_wait=round(row["maxwait"] + row["maxwait_us"] / 1e6, 3),
            used=row["sv_active"],
            pinned=row["sv_pinned"],
            in_transaction=row["sv_in_transaction"],
            idle=row["sv_idle"],
            others=row["sv_login"] + row["sv_tested"] + row["sv_being_canceled"] + row["sv_closing"],
            most=row["pool_size"],
            paused=bool(row["paused"]),
        )
        for row in rows
    ]
    return sorted(
        found,
        key=lambda one: (-one.longest_wait, -one.waiting, -one.used, -one.clients, one.database, one.user),
    )


def _host(row: Mapping[str, Any]) -> Host:
    return Host(
        target=row["target"],
        host=row["host"],
        port=row["port"],
        role=row["role"],
        state=row["state"],
        lag=row["lag"],
        servers=row["servers"],
        most=row["max_servers"],
        waiting=row["waiting"],
        trouble=row["trouble"],
    )


def _pins(rows: Rows) -> list[Pins]:
    by_reason: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_reason.setdefault(row["reason"], []).append(row)
    found = []
    for reason, several in by_reason.items():
        longest = max(several, key=lambda row: float(row["seconds"]))
        found.append(Pins(reason, len(several), longest["seconds"], longest["digest"]))
    return sorted(found, key=lambda one: (-one.clients, -one.longest, one.reason))


def _grown(after: float, earlier: float | None, seconds: float) -> float | None:
    """Give by how much a counter has grown in a second."""
    if earlier is None or after < earlier or seconds <= 0:
        return None
    return round((after - earlier) / seconds, 3)


_RATES = ("xact_count", "query_count", "bytes_received", "bytes_sent", "client_login_count")


def _rates(now: Look, before: Look | None, seconds: float) -> dict[str, Rates | None]:
    if before is None:
        return {row["database"]: None for row in now.tables["stats_totals"]}
    earlier = {row["database"]: row for row in before.tables["stats_totals"]}
    found: dict[str, Rates | None] = {}
    for row in now.tables["stats_totals"]:
        start = earlier.get(row["database"], {})
        figures = [_grown(row[name], start.get(name, 0), seconds) for name in _RATES]
        known = [figure for figure in figures if figure is not None]
        found[row["database"]] = Rates(*known) if len(known) == len(figures) else None
    return found


def _sum(rates: Mapping[str, Rates | None]) -> Rates | None:
    known = [one for one in rates.values() if one is not None]
    if len(known) < len(rates):
        return None

    def total(of: Callable[[Rates], float]) -> float:
        return round(sum(map(of, known)), 3)

    return Rates(
        transactions=total(lambda one: one.transactions),
        queries=total(lambda one: one.queries),
        received=total(lambda one: one.received),
        sent=total(lambda one: one.sent),
        logins=total(lambda one: one.logins),
    )


def _process(now: Look, before: Look | None, seconds: float) -> Process:
    rows = now.tables["workers"]
    used = {(row["worker"], row["pid"]): row["cpu_seconds"] for row in rows}
    cpu = None
    if before is not None:
        earlier = {(row["worker"], row["pid"]): row["cpu_seconds"] for row in before.tables["workers"]}
        grown = [_grown(used[one], earlier.get(one, 0.0), seconds) or 0.0 for one in used]
        cpu = round(sum(grown), 3)
    return Process(len(rows), cpu, sum(row["memory"] for row in rows))


def _statements(now: Look, before: Look | None, seconds: float) -> list[Statement]:
    earlier: dict[tuple[str, str], float] = {}
    if before is not None:
        earlier = {(row["database"], row["digest"]): row["seconds"] for row in before.tables["statements"]}
    found = []
    for row in now.tables["statements"]:
        start = earlier.get((row["database"], row["digest"]), 0.0) if before is not None else None
        found.append(
            Statement(
                database=row["database"],
                digest=row["digest"],
                load=_grown(row["seconds"], start, seconds),
                calls=row["calls"],
                seconds=row["seconds"],
                mean_ms=row["mean_ms"],
                max_ms=row["max_ms"],
                rows=row["rows"],
                errors=row["errors"],
            )
        )
    return sorted(found, key=lambda one: (-(one.load or 0.0), -one.seconds))[:MOST_STATEMENTS]
