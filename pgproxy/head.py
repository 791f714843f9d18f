"""
What the head of all processes does: the one that there is, or the supervisor of several.

It logs what holds for all of them, heeds signals, and says what a reload does and doesn't do.
"""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import Any

from structlog.typing import FilteringBoundLogger
from twisted.internet.error import ReactorNotRunning

from pgproxy.config import Config
from pgproxy.observe.sink import Sink

COUNT = 300.0
"""Seconds between two lines of log with the figures of pins."""


def reopen(sink: Sink, log: FilteringBoundLogger) -> None:
    """Open the log file anew."""
    try:
        sink.reopen()
    except OSError as error:
        log.error("cannot_reopen_log", why=str(error))


def refuse_reload(log: FilteringBoundLogger, why: str) -> None:
    """Say that the configuration stays as it is."""
    log.error("reload_refused", why=why, in_force="the configuration read before")


def warn_of_restart(log: FilteringBoundLogger, before: Config, after: Config) -> None:
    """Say what a reload does not change."""
    for option in ("listen", "listen_read_only", "workers"):
        if getattr(before.proxy, option) != getattr(after.proxy, option):
            log.warning("reload_needs_restart", option=f"proxy.{option}")
    for option in ("listen", "page"):
        if getattr(before.http, option) != getattr(after.http, option):
            log.warning("reload_needs_restart", option=f"http.{option}")
    if before.aws is None and after.aws is not None:
        log.warning("reload_needs_restart", option="aws")


def outlive_sigusr1(reactor: Any, log: FilteringBoundLogger) -> None:
    """
    Only log a SIGUSR1, which would end the process.

    It is PgBouncer's PAUSE, so somebody's scripts may send it.
    """

    def told() -> None:
        remedy = "say PAUSE on the console; SIGHUP opens the log anew"
        log.warning("signal_ignored", signal="SIGUSR1", remedy=remedy)

    signal.signal(signal.SIGUSR1, lambda *_: reactor.callFromThread(told))


def stop(reactor: Any) -> None:
    """Stop the reactor, if nobody has: a SIGTERM may have come in the same turn, which is no defect."""
    with suppress(ReactorNotRunning):
        reactor.stop()


def cannot_listen(log: FilteringBoundLogger, address: str, why: str) -> None:
    """Say that clients can't be let in there; there is no start then."""
    log.critical(
        "cannot_listen",
        address=address,
        why=why,
        remedy="choose another address in proxy.listen (or --listen), or stop what listens there",
    )


def log_filters(log: FilteringBoundLogger, config: Config) -> None:
    """Put on record what the owner has excluded from pinning."""
    filters = config.proxy.session_pinning_filters
    if filters:
        log.warning("pinning_filters_in_force", filters=sorted(filters))
