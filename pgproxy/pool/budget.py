"""
What may be spent: the limits on servers, each with its count.

A target has a limit, and within it each database, each user and each pool. Documentation: PostgreSQL manual,
"Connection Settings" (max_connections and what is reserved of it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, frozen

from pgproxy.twin import quicken

if TYPE_CHECKING:
    from pgproxy.pool.retry import Retry

NO_LIMIT = 1_000_000_000
_UNTIL_KNOWN = 1
"""Servers of a target that has not said yet how many it allows: the first one tells."""


@frozen
class Budget:
    """What a target's owner lets us have of it, in servers where not said otherwise."""

    percent: int = 100
    """Of what the target allows."""
    most: int = NO_LIMIT
    """Whatever the target allows."""
    idle_percent: int = 100
    """Of what the target allows: more don't stay idle for long."""
    for_look_ups: int = 0
    """Connections that others of this process open to it."""
    for_admins: int = 0
    """Of what we may have: for administrators only."""

    def allows(self, capacity: int | None) -> int:
        """Say how many servers there may be; `capacity` is what the target itself allows, if known."""
        if capacity is None:
            return _UNTIL_KNOWN
        # However little it is: without a single server nobody could work at all.
        share = capacity * self.percent // 100 - self.for_look_ups
        return max(1, min(self.most, share))

    def allows_idle(self, capacity: int | None) -> int:
        """Say how many servers may stay idle for long."""
        return NO_LIMIT if capacity is None else capacity * self.idle_percent // 100


@quicken
@define(eq=False)
class Account:
    """What somebody may have, and has."""

    name: str
    """As it is shown: `target main`, `database app`, `user alice`, `pool app/alice`."""
    most: int = NO_LIMIT
    least: int = 0
    """So many are kept free of others' servers."""
    count: int = 0
    """Servers, from the decision to open one until its connection has ended."""
    opening: int = 0
    closing: int = 0
    promised: int = 0
    """Servers of others that are being closed for those who wait here."""
    kept: int = 0
    """Places that somebody who comes first will need, during one look at who may open one."""
    retry: Retry | None = None
    """Why none can be opened now, if so, and when that is tried again."""

    def add(self, other: Account) -> None:
        """Count another's servers here, too."""
        self.count += other.count
        self.opening += other.opening
        self.closing += other.closing

    def take_off(self, other: Account) -> None:
        """Count another's servers here no more."""
        self.count -= other.count
        self.opening -= other.opening
        self.closing -= other.closing

    @property
    def working(self) -> int:
        """How many servers are logged in."""
        return self.count - self.opening - self.closing

    @property
    def owing(self) -> int:
        """How many are still missing from the least."""
        return max(0, self.least - self.count)

    @property
    def needy(self) -> bool:
        """Whether the least needs every server there is."""
        return 0 < self.least and self.count - self.closing <= self.least

    @property
    def full(self) -> bool:
        """Whether there is no place left."""
        return self.count + self.kept >= self.most

    @property
    def over(self) -> bool:
        """Whether there are more than there may be."""
        return self.count - self.closing > self.most

    @property
    def share(self) -> int:
        """How many servers there will be when those that come and go have done so."""
        return self.count - self.closing + self.promised
