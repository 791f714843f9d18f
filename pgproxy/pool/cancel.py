"""
The keys that clients cancel with: ours, never a server's secret.

A key finds the client, and through it the server that it is linked to at that moment, if any. Documentation:
PostgreSQL manual, "Canceling Requests in Progress"; protocol 3.0 has a process id and 4 bytes of secret.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from attrs import field, frozen

Client = TypeVar("Client")


@frozen
class CancelKey:
    """What BackendKeyData tells a client, and CancelRequest gives back."""

    pid: int
    secret: bytes = field(repr=False)


class CancelKeys(Generic[Client]):
    """Who has which key. `random_bytes` gives unguessable bytes."""

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._clients: dict[CancelKey, Client] = {}

    def issue(self, client: Client, pid: int | None) -> CancelKey:
        """Make a key for a client; `pid` is the server's own where the client keeps its server."""
        while True:
            random = self._random_bytes(8)
            number = pid if pid is not None else int.from_bytes(random[:4], "big") >> 1 or 1
            key = CancelKey(number, random[4:])
            if key not in self._clients:
                self._clients[key] = client
                return key

    def revoke(self, key: CancelKey) -> None:
        """Forget the key of a client that has gone."""
        self._clients.pop(key, None)

    def find(self, pid: int, secret: bytes) -> Client | None:
        """Give the client that has this key."""
        return self._clients.get(CancelKey(pid, secret))
