"""What CloudWatch is told of who is here now, beside what is counted for everybody (`observe.figures`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pgproxy.link.front import Front
from pgproxy.link.splice import Borrower
from pgproxy.link.target import TargetPools
from pgproxy.pool.pool import Pool
from pgproxy.session.ledger import IDLE
from pgproxy.targets.facts import Address
from pgproxy.targets.judge import Judge

READ_WRITE, READ_ONLY = "READ_WRITE", "READ_ONLY"
"""What RDS Proxy calls the roles of a target."""
DEFAULT, READING = "default", "read-only"
"""The endpoints: the addresses of `listen`, and of `listen_read_only`."""
_NOTHING = {"servers": 0, "borrowed": 0, "in_transaction": 0, "pinned": 0, "tls": 0, "most": 0.0}


def census(front: Front, received: int) -> dict[str, Any]:
    """
    Count clients by endpoint, and servers by target and role; `received` is how many clients have ever come.

    Of what is everybody's, budgets and hosts, each worker gives its even part, or what it sees itself.
    """
    judges = front.judges()
    targets: dict[str, dict[str, dict[str, float]]] = {}
    of_pool: dict[Pool[Borrower], dict[str, float]] = {}
    for target in front.targets.targets:
        address = Address(*target.address) if target.where is not None else None
        known = _entry(targets, judges, target.name, address)
        for pool, _lender in target.pools_and_lenders:
            of_pool[pool] = known
        for server in target.pools.servers:
            known["servers"] += 1
            known["borrowed"] += server.state.name == "LINKED"
        known["tls"] += sum(lender.servers_with_tls for lender in target.lenders)
        if front.elsewhere is None:
            known["most"] += target.pools.target.most
        if target.name not in judges:
            known["up"] = max(known.get("up", 0.0), _up(target))
    if front.elsewhere is not None:
        for (name, host, port), servers in front.elsewhere.budgets.items():
            _entry(targets, judges, name, Address(host, port))["most"] += servers
    for name, judge in judges.items():
        for role, up in _seen(judge):
            _role(targets, name, role)["up"] = up
    return {
        "received": received,
        "endpoints": _clients(front, of_pool),
        "targets_now": targets,
    }


def _clients(front: Front, of_pool: Mapping[Pool[Borrower], dict[str, float]]) -> dict[str, Any]:
    """Count clients, and for each pool which of its servers they are in a transaction on, or pinned to."""
    names = [DEFAULT, READING] if front.config.proxy.listen_read_only else [DEFAULT]
    endpoints = {name: {"clients": 0, "tls": 0} for name in names}
    for client in front.clients:
        endpoint = endpoints.setdefault(READING if client.read_only else DEFAULT, {"clients": 0, "tls": 0})
        endpoint["clients"] += 1
        endpoint["tls"] += client.transport.tls is not None
        server = client.splice.server if client.splice is not None else None
        known = of_pool.get(server.record.lane.pool) if server is not None else None
        if known is not None and client.splice is not None:
            known["in_transaction"] += client.splice.talk.ledger.status != IDLE
            known["pinned"] += client.splice.talk.pinned
    return endpoints


def _entry(
    targets: dict[str, dict[str, dict[str, float]]],
    judges: Mapping[str, Judge],
    name: str,
    address: Address | None,
) -> dict[str, float]:
    roles = judges[name].roles if name in judges else None
    reading = roles is not None and address != roles.writer and address in roles.readers
    return _role(targets, name, READ_ONLY if reading else READ_WRITE)


def _role(targets: dict[str, dict[str, dict[str, float]]], name: str, role: str) -> dict[str, float]:
    return targets.setdefault(name, {}).setdefault(role, dict(_NOTHING))


def _up(target: TargetPools) -> float:
    """Say whether a host that nobody watches is there, by the last attempt to open a server."""
    account = target.pools.target
    failing = account.retry is not None or any(
        retry is not None
        for pool in target.pools.pools
        for lane in pool.lanes.values()
        for retry in lane.retries
    )
    return float(account.working > 0 or not failing)


def _seen(judge: Judge) -> list[tuple[str, float]]:
    """Say which part of the hosts of each role is there, where they are watched."""
    roles = judge.roles
    found = [(READ_WRITE, float(roles.up))]
    dead = roles.dead - {roles.writer, roles.lost}
    if roles.readers or dead:
        found.append((READ_ONLY, len(roles.readers) / (len(roles.readers) + len(dead))))
    return found
