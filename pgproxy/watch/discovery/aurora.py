"""
The instances of an Aurora cluster, as one of them knows them: `aurora_replica_status()`.

A reader may know them wrongly for a while after a failover. Documentation: Amazon Aurora User Guide, "Aurora
PostgreSQL functions reference"; the condition is that of AWS's own driver (aws-advanced-python-wrapper).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence

from pgproxy.watch.discovery.found import (
    DiscoveryFailed,
    Found,
    FoundHost,
    Role,
    as_seconds,
    found,
    moved,
    quoted,
)

Ask = Callable[[str], Awaitable[Sequence[Sequence[object]]]]
"""Runs a query on a host of the cluster that answers, the writer rather than a reader, and gives its rows; a
value is None, a text as PostgreSQL writes it, or what that means in Python."""

INSTANCES = """\
SELECT server_id, session_id OPERATOR(pg_catalog.=) 'MASTER_SESSION_ID', replica_lag_in_msec \
FROM aurora_replica_status() \
WHERE session_id OPERATOR(pg_catalog.=) 'MASTER_SESSION_ID' OR last_update_timestamp IS NULL \
OR last_update_timestamp OPERATOR(pg_catalog.>) (pg_catalog.now() OPERATOR(pg_catalog.-) interval '300 s')"""
"""Those of which something was heard in the last 5 minutes: one that was deleted stays in the list."""

_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,62}")
_MILLISECOND = 0.001
_REMEDY = (
    "look whether the target is Aurora PostgreSQL, and whether the user may call aurora_replica_status()"
)


class Aurora:
    """
    Asks the cluster itself.

    `pattern` is an instance's host name and port with ? for its identifier; `addresses` are those that go
    before it, by identifier or by name.
    """

    def __init__(
        self,
        ask: Ask,
        pattern: tuple[str, int],
        expires: float,
        addresses: Mapping[str, tuple[str, int]],
    ) -> None:
        self._ask = ask
        self._pattern = pattern
        self._expires = expires
        self._addresses = addresses

    def __str__(self) -> str:
        return "aurora_replica_status()"

    async def ask(self) -> Found:
        """Ask one of the hosts. Raises `DiscoveryFailed`."""
        try:
            rows = await self._ask(INSTANCES)
        except DiscoveryFailed:
            raise
        except Exception as error:
            raise DiscoveryFailed(f"{self} failed: {quoted(str(error))}", _REMEDY) from error
        return found(str(self), moved(instances(rows, self._pattern), self._addresses), self._expires)


def instances(rows: Sequence[Sequence[object]], pattern: tuple[str, int]) -> list[FoundHost]:
    """
    Read the rows of `INSTANCES`. Raises `DiscoveryFailed` where one is not what it should be.

    Where two say that they are the writer, none is taken for it.
    """
    hosts = []
    writers = sum(len(row) == 3 and _is_true(row[1]) for row in rows)
    for row in rows:
        if len(row) != 3 or not isinstance(row[0], str) or not _IDENTIFIER.fullmatch(row[0]):
            raise DiscoveryFailed(f"aurora_replica_status() gave {quoted(tuple(row))}", _REMEDY)
        name = pattern[0].replace("?", row[0])
        if _is_true(row[1]):
            role: Role | None = "writer" if writers == 1 else None
            lag = None
        else:
            role, lag = "reader", as_seconds(_number(row[2]), _MILLISECOND)
        hosts.append(FoundHost(row[0], name, pattern[1], role, lag, tls_name=name))
    return hosts


def _is_true(value: object) -> bool:
    return value is True or value == "t"


def _number(value: object) -> object:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return None
