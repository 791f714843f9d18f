"""What one process has to count, as numbers in tables within tables, which add up over processes."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pgproxy.link.front import Front

Figures = dict[str, Any]


def figures_of(front: Front) -> Figures:
    """Give those of a process."""
    servers: Counter[str] = Counter()
    waiting = 0
    for target in front.targets.targets:
        for server in target.pools.servers:
            servers[server.state.name.lower()] += 1
        waiting += sum(pool.waiting for pool in target.pools.pools)
    pins = front.pins
    return {
        "clients": len(front.clients),
        "logging_in": front.logging_in,
        "waiting": waiting,
        "servers": dict(servers),
        "pins": pins.figures(),
        "audit_found": pins.audit_found,
        "questions_failed": pins.questions_failed,
    }
