"""What one process has to count, as numbers in tables within tables, which add up over processes."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import Any

from pgproxy.link.front import Front
from pgproxy.link.target import TargetPools

Figures = dict[str, Any]
_LOGIN_REFUSED = frozenset({"28000", "28P01"})


def figures_of(front: Front, with_statements: bool = False) -> Figures:
    """Give those of a process; what statements cost only if asked for, as that is much."""
    servers: Counter[str] = Counter()
    pools: dict[str, dict[str, dict[str, int]]] = {}
    waiting = 0
    targets: dict[str, dict[str, int]] = {}
    for target in front.targets.targets:
        _add(targets.setdefault(target.name, {}), target)
        states: dict[object, Counter[str]] = {}
        for server in target.pools.servers:
            state = server.state.name.lower()
            servers[state] += 1
            states.setdefault(server.lane.pool, Counter())[state] += 1
        for pool, lender in target.pools_and_lenders:
            waiting += pool.waiting
            database, user = lender.names
            known = pools.setdefault(database, {}).setdefault(user, {})
            for name, number in states.get(pool, Counter()).items():
                known[f"servers_{name}"] = known.get(f"servers_{name}", 0) + number
            known["clients_waiting"] = known.get("clients_waiting", 0) + pool.waiting
            if pool is lender.pool:
                known["clients"] = known.get("clients", 0) + lender.clients
    accounts, pins = front.accounts, front.pins
    found: Figures = {
        "clients": len(front.clients),
        "logging_in": front.logging_in,
        "waiting": waiting,
        "servers": dict(servers),
        "pools": pools,
        "targets": targets,
        # Each worker watches for itself, and sees the same.
        "failovers": {
            name: {"most": max(0, judge.history.writers - 1)} for name, judge in front.judges().items()
        },
        "processes": 1,
        "cpu": round(time.process_time(), 3),
        "memory": resident(),
        "pins": pins.figures(),
        "pinned_clients": pins.clients,
        "audit_found": pins.audit_found,
        "questions_failed": pins.questions_failed,
        "databases": accounts.figures(front.clients, front.targets.lenders),
        "period": {**accounts.period, "processes": 1},
        "refused": dict(accounts.refused),
        "login_refused": sum(number for code, number in accounts.refused.items() if code in _LOGIN_REFUSED),
        "opened": dict(accounts.opened),
        "opened_in_tls": dict(accounts.opened_in_tls),
        "open_failed": _nested(accounts.open_failed),
        "closed": _nested(accounts.closed),
    }
    if with_statements:
        found["statements"] = accounts.statements.figures()
    return found


def _add(figures: dict[str, int], target: TargetPools) -> None:
    """Enter a target's servers, and whether the last attempt to open one has failed."""
    account = target.pools.target
    retries = [account.retry] + [
        retry for pool in target.pools.pools for lane in pool.lanes.values() for retry in lane.retries
    ]
    figures["servers"] = figures.get("servers", 0) + account.count
    figures["working"] = figures.get("working", 0) + account.working
    figures["failing"] = figures.get("failing", 0) + any(retry is not None for retry in retries)


def resident() -> int:
    """Say how many bytes of memory this process has; 0 where the system doesn't tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _nested(counts: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (first, second), number in counts.items():
        found.setdefault(first, {})[second] = number
    return found
