"""
Logs: one structured event a line; for people on a terminal, JSON otherwise.

What Twisted logs takes the same way, so that there is one stream and one form.
"""

from __future__ import annotations

from typing import Any, TextIO, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger
from twisted.logger import LogLevel, formatEvent

from pgproxy.observe.sink import Sink

_MOST = 2000
"""Characters of one value."""


def _bounded(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Keep what peers have sent from filling the log, or from breaking its lines."""
    for key, value in event.items():
        if isinstance(value, str) and key != "failure" and not (value.isprintable() and len(value) <= _MOST):
            event[key] = "".join(c if c.isprintable() else "?" for c in value[:_MOST])
    return event


def _what_first(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Put when, how bad and what before the rest, for who reads JSON by eye."""
    first = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    return {**first, **event}


def make_logger(sink: Sink) -> FilteringBoundLogger:
    """Give a logger that writes to `sink`."""

    def count_lost(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        """Say how many events are missing before this one."""
        if sink.lost:
            event["lost_before"] = sink.lost
        return event

    form: list[Processor]
    if sink.terminal:
        form = [structlog.dev.ConsoleRenderer(colors=True, exception_formatter=structlog.dev.plain_traceback)]
    else:
        form = [structlog.processors.JSONRenderer()]
    # Not PrintLogger: it writes to whatever sys.stdout is at the time, and twistd makes that its own log.
    logger: FilteringBoundLogger = structlog.wrap_logger(
        structlog.WriteLogger(cast(TextIO, sink)),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            count_lost,
            _bounded,
            _what_first,
            *form,
        ],
        wrapper_class=structlog.make_filtering_bound_logger("info"),
    )
    return logger


class TwistedObserver:
    """Hands Twisted's own events to our logger: failures whole, its chatter not at all."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        self._log = log

    def __call__(self, event: dict[str, Any]) -> None:
        """Take one event of twisted.logger."""
        failure = event.get("log_failure") or event.get("failure")
        if failure is not None or event.get("isError"):
            trace = failure.getTraceback() if failure is not None else formatEvent(event)
            self._log.critical("defect", failure=trace)
            return
        level = event.get("log_level", LogLevel.info)
        if level >= LogLevel.warn:
            self._log.warning("twisted", text=formatEvent(event), source=str(event.get("log_namespace")))
