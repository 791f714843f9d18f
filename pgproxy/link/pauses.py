"""Whose servers are lent to nobody for a while, and why: paused by an administrator, or for a switchover."""

from __future__ import annotations

from pgproxy.pool.states import CloseReason


class Pauses:
    """What is paused. A pool may be so for several reasons, and is until none of them is left."""

    def __init__(self) -> None:
        self.databases: dict[str, CloseReason] = {}
        """The databases that an administrator has paused; "" for all of them."""
        self._drained: dict[str, float] = {}
        """The targets that are drained for a switchover, and until when that is waited for."""

    def why(self, database: str, target: str, is_writers: bool) -> CloseReason | None:
        """Say why a pool, of the target's writer or of a reader, is to lend no servers, if so."""
        drained = CloseReason.SWITCHOVER if is_writers and target in self._drained else None
        return self.databases.get(database) or self.databases.get("") or drained

    def resume(self, database: str) -> None:
        """End what an administrator has paused; with "" all of it."""
        if database:
            self.databases.pop(database, None)
        else:
            self.databases.clear()

    def drain(self, target: str, until: float) -> None:
        """Begin a switchover."""
        self._drained[target] = until

    def undrain(self, target: str) -> bool:
        """End it; say whether there was one."""
        return self._drained.pop(target, None) is not None

    def overdue(self, now: float) -> list[str]:
        """Give the targets for whose switchover nobody waits any longer."""
        return [target for target, until in self._drained.items() if now >= until]
