"""
How often hosts are asked: seldom while all is well, every 100 ms from the first sign of trouble.

Alert ends some time after the last sign; where there has been no writer for long, the asking becomes slower
again, but stays quicker than while all is well.
"""

from __future__ import annotations

ALERT = 0.1
"""Seconds between two looks from a sign of trouble on."""
ALERT_LASTS = 30.0
"""Seconds after the last sign."""
WEARY = 0.5
"""Seconds between two looks where there has been no writer for `WEARY_AFTER`."""
WEARY_AFTER = 300.0
"""Seconds."""
HESITATION = 0.25
"""Seconds without an answer that are a sign of trouble."""


class Pace:
    """The pace of one target's watcher. `calm` is the seconds between two looks while all is well."""

    def __init__(self, calm: float) -> None:
        self.calm = calm
        self._alert_until: float | None = None
        self._without_writer_since: float | None = None

    def alarm(self, now: float) -> bool:
        """Take a sign of trouble; say whether that is news, so that the next look is due at once."""
        news = not self.is_alert(now)
        self._alert_until = now + ALERT_LASTS
        return news

    def has_writer(self, there: bool, now: float) -> None:
        """Enter whether there is a writer."""
        if there:
            self._without_writer_since = None
        elif self._without_writer_since is None:
            self._without_writer_since = now

    def is_alert(self, now: float) -> bool:
        """Say whether there is or was trouble a moment ago."""
        return self._alert_until is not None and now < self._alert_until

    def interval(self, now: float) -> float:
        """Give the seconds until the next look."""
        if self._without_writer_since is not None:
            weary = now - self._without_writer_since >= WEARY_AFTER
            return min(self.calm, WEARY if weary else ALERT)
        return min(self.calm, ALERT) if self.is_alert(now) else self.calm
