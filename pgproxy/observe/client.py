"""A client's lines in the log: they say who it is, and cost nothing while there are none."""

from __future__ import annotations

from typing import Any

from structlog.typing import FilteringBoundLogger


class ClientLog:
    """What of a logger's is used for one client; `about` goes into each line."""

    __slots__ = ("_about", "_log")

    def __init__(self, log: FilteringBoundLogger, **about: Any) -> None:
        self._log = log
        self._about = about

    def know(self, **about: Any) -> None:
        """Have this go into each line as well."""
        self._about |= about

    def info(self, event: str, **more: Any) -> None:
        """Write a line."""
        self._log.info(event, **self._about, **more)

    def warning(self, event: str, **more: Any) -> None:
        """Write a warning."""
        self._log.warning(event, **self._about, **more)

    def error(self, event: str, **more: Any) -> None:
        """Write an error."""
        self._log.error(event, **self._about, **more)
