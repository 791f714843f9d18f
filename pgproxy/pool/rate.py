"""How many may come in a second."""

from __future__ import annotations


class Rate:
    """A bucket that holds what may come at once, and fills up within a second."""

    def __init__(self) -> None:
        self._left = 0.0
        self._at: float | None = None

    def take(self, per_second: int, now: float) -> bool:
        """Let one in, if that does not exceed the rate."""
        since = now - self._at if self._at is not None else 1.0
        self._at = now
        self._left = min(float(per_second), self._left + since * per_second)
        if self._left < 1:
            return False
        self._left -= 1
        return True
