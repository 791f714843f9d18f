"""What one of several workers is told by the others, and tells them; with one process there is nobody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import Deferred

from pgproxy.pool.states import Parameters
from pgproxy.session.reported import Reported

if TYPE_CHECKING:
    from pgproxy.link.target import TargetPools


class Elsewhere(Protocol):
    """The other workers, and the supervisor that keeps what is common to all."""

    clients: int
    """How many clients the others have."""
    look_ups: int
    """How many look-ups this worker may have under way."""

    @property
    def budgets(self) -> Mapping[tuple[str, str, int], float]:
        """A worker's even part of the servers that all may have, by a target's name, host and port."""

    def clients_changed(self, most: int) -> None:
        """Take the word that a client has come or gone; `most` is how many there may be everywhere."""

    def cancel(self, pid: int, secret: bytes) -> Deferred[bool]:
        """Have the one cancel that has a client with this key; fires when that has reached the server."""

    def changed(self, target: TargetPools) -> None:
        """Take the word that something may have happened to a target's servers or queues."""

    def left(self, target: TargetPools) -> None:
        """Take the word that a target has no pools any more, and is not used again."""

    def learned(self, target: TargetPools, capacity: int) -> None:
        """Take the word how many servers a target allows."""

    def server_opened(self, target: TargetPools, pid: int, secret: bytes) -> None:
        """Take the key of a server, for the case that we are not there any more to cancel it."""

    def server_ended(self, target: TargetPools, pid: int) -> None:
        """Take the word that a server has ended."""

    def welcomes(self, database: str, user: str) -> Mapping[Parameters, Reported]:
        """Give how servers of a pool greet, as all have been told."""

    def welcome(self, database: str, user: str, parameters: Parameters, greeting: Reported) -> None:
        """Take the word how a server has greeted."""

    def make_way(self, target: str, databases: tuple[bytes, ...]) -> None:
        """Have the others' idle servers leave these databases."""

    def defaults_changed(self, target: str) -> None:
        """Have the others open new servers from now on."""
