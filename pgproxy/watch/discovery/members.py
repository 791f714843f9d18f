"""
Reads what Patroni says about its cluster: the members, their roles and tags.

Documentation: Patroni, "REST API", `GET /cluster`; "YAML configuration settings", tags. The lag that it gives
is in bytes, so it is no lag here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from pgproxy.watch.discovery.found import (
    MOST_HOSTS,
    DiscoveryFailed,
    FoundHost,
    Role,
    as_address,
    as_name,
    as_port,
    quoted,
)

LARGEST = 256 * 1024
"""Bytes; a member takes about 250."""
_ROLES: Mapping[str, Role] = {
    "leader": "writer",
    "master": "writer",
    # It leads, but follows another cluster: nothing can be written there.
    "standby_leader": "reader",
    "replica": "reader",
    "sync_standby": "reader",
    "quorum_standby": "reader",
}
_AT_WORK = frozenset({"running", "streaming", "in archive recovery"})
_REMEDY = "look whether that is Patroni's REST API"


def members(body: bytes) -> list[FoundHost]:
    """Read the answer to `GET /cluster`. Raises `DiscoveryFailed` where it is not what it should be."""
    if len(body) > LARGEST:
        raise DiscoveryFailed(f"Patroni's answer is longer than {LARGEST} bytes", _REMEDY)
    try:
        cluster = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DiscoveryFailed("Patroni's answer is not JSON", _REMEDY) from error
    listed = cluster.get("members") if isinstance(cluster, dict) else None
    if not isinstance(listed, list):
        raise DiscoveryFailed("Patroni's answer has no members", _REMEDY)
    if len(listed) > MOST_HOSTS:
        raise DiscoveryFailed(f"Patroni has more than {MOST_HOSTS} members", "split the cluster")
    return [host for one in listed if (host := _member(one)) is not None]


def _member(one: object) -> FoundHost | None:
    """Read a member; None for one that has no PostgreSQL yet."""
    if not isinstance(one, dict):
        raise DiscoveryFailed(f"Patroni gave {quoted(one)} for a member", _REMEDY)
    if "host" not in one:
        return None
    name, address = as_name(one.get("name")), as_address(one["host"])
    port = as_port(one.get("port", 5432))
    if name is None or address is None or port is None:
        what = f"Patroni gave a member {quoted(one.get('name'))} at {quoted(one['host'])}"
        raise DiscoveryFailed(f"{what}, port {quoted(one.get('port'))}", _REMEDY)
    said, state = one.get("role"), one.get("state")
    role = (
        _ROLES.get(said) if isinstance(said, str) and isinstance(state, str) and state in _AT_WORK else None
    )
    given = one.get("tags")
    tags = given if isinstance(given, dict) else {}
    return FoundHost(
        name,
        address,
        port,
        role,
        tls_name=address,
        may_lead=not _is_set(tags.get("nofailover")) and not _is_zero(tags.get("failover_priority")),
        may_read=not _is_set(tags.get("noloadbalance")),
    )


def _is_set(tag: object) -> bool:
    """Tell whether a tag is on: a truth value, or one in words as YAML and older versions have it."""
    return tag is True or (isinstance(tag, str) and tag.lower() in ("true", "yes", "on", "1"))


def _is_zero(priority: object) -> bool:
    """Tell whether a failover_priority says never: 0 or less."""
    return isinstance(priority, int) and not isinstance(priority, bool) and priority <= 0
