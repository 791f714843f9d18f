"""Hosts that the configuration names by IP address: nothing has to be asked."""

from __future__ import annotations

from collections.abc import Sequence

from pgproxy.watch.discovery.found import Found, FoundHost

NEVER = float("inf")


class Fixed:
    """A list of hosts and their ports."""

    def __init__(self, addresses: Sequence[tuple[str, int]]) -> None:
        self._found = Found(tuple(FoundHost(shown(*one), *one, tls_name=one[0]) for one in addresses), NEVER)

    def __str__(self) -> str:
        return "the configuration"

    async def look(self, fresh: bool = False) -> Found:
        """Give the hosts, always the same."""
        return self._found

    def stop(self) -> None:
        """Nothing is under way."""


def shown(address: str, port: int) -> str:
    """Write an address and a port as a name for logs."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
