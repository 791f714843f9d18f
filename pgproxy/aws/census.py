"""What CloudWatch is told of who is here now, beside what is counted for everybody (`observe.figures`)."""

from __future__ import annotations

from typing import Any

from pgproxy.link.front import Front


def census(front: Front, received: int) -> dict[str, Any]:
    """Count clients and servers, with TLS and by target; `received` is how many clients have ever come."""
    targets: dict[str, dict[str, int]] = {}
    for target in front.targets.targets:
        known = targets.setdefault(target.name, {"servers": 0, "borrowed": 0, "tls": 0, "most": 0})
        for server in target.pools.servers:
            known["servers"] += 1
            known["borrowed"] += server.state.name == "LINKED"
        known["tls"] += sum(lender.servers_with_tls for lender in target.lenders)
        # With several workers the budget is the supervisor's.
        known["most"] += target.pools.target.most if front.elsewhere is None else 0
    return {
        "received": received,
        "clients_with_tls": sum(client.transport.tls is not None for client in front.clients),
        "pinned_clients": front.pins.clients,
        "targets_now": targets,
    }
