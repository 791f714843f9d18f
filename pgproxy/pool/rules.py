"""What holds for all pools of a target."""

from __future__ import annotations

from attrs import field, frozen

from pgproxy.pool.budget import Budget


@frozen
class Rules:
    """What holds for all pools of a target; seconds where not said otherwise."""

    budget: Budget = field(factory=Budget)
    borrow_timeout: float = 120.0
    opening_at_once: int = 4
    """Servers."""
    lifetime: float = 0.0
    """Of a server, give or take a tenth; 0: without end. It has to be idle, too."""
    idle_timeout: float = 0.0
    """After which a server is closed that nobody has wanted; 0: never."""
    check_after: float = 0.0
    """After which an idle server is asked whether it is still there; 0: never."""
    long_idle: float = 300.0
    """After which an idle server counts for the budget's limit of idle ones."""
