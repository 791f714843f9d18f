"""How the console writes values of one process: times, ends of connections, what has no limit."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from pgproxy.console.tables import Value
from pgproxy.pool.budget import NO_LIMIT

INT4_MOST = 2**31 - 1


def moment(seconds: float, now: float) -> str:
    """Write a time of the reactor's clock, by which it is `now`, as PgBouncer does."""
    return date(time.time() - (now - seconds))


def date(seconds: float) -> str:
    """Write seconds since 1970 as PgBouncer does."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def at_most_int4(number: int) -> int:
    """Give a number that int4 has; what has no limit has none here, either."""
    return 0 if number >= NO_LIMIT else min(number, INT4_MOST)


def whole_and_rest(seconds: float) -> tuple[int, int]:
    """Give whole seconds, and the microseconds beyond."""
    whole = int(seconds)
    return whole, int((seconds - whole) * 1_000_000)


def replication(parameters: dict[str, str]) -> str:
    """Say whether the parameters of a session make it a walsender, and of which kind."""
    value = parameters.get("replication", "")
    return "none" if not value else "logical" if value == "database" else "physical"


def ends(transport: Any) -> list[Value]:
    """Give host and port of the peer, and ours."""
    found: list[Value] = []
    for end in (transport.getPeer(), transport.getHost()):
        found += (str(getattr(end, "host", "unix")), getattr(end, "port", 0))
    return found


def tls(transport: Any) -> str:
    """Give TLS's version and cipher; nothing where there is none."""
    inner = transport.tls
    if inner is None:
        return ""
    cipher = inner.cipher()
    return f"{inner.version()}/{cipher[0]}" if cipher else str(inner.version())
