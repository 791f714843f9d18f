"""Begins to serve over HTTP, where the configuration says so; where it doesn't, nothing of it is imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from structlog.typing import FilteringBoundLogger
from twisted.internet.error import CannotListenError

from pgproxy.link.front import Materials


def serve_http(
    reactor: Any,
    materials: Callable[[], Materials],
    figures: Callable[[], dict[str, Any]],
    log: FilteringBoundLogger,
) -> list[Any]:
    """Listen for HTTP, where that is wanted; gives the ports."""
    addresses = materials().config.http.listen
    if not addresses:
        return []
    from pgproxy.observe.http import Page, Root, serve
    from pgproxy.observe.metrics import page

    async def metrics() -> Page:
        return page(figures(), materials().config)

    root = Root({b"/metrics": metrics}, lambda: materials().http_token, log)
    try:
        return serve(reactor, addresses, root)
    except CannotListenError as error:
        log.critical(
            "cannot_listen",
            address=f"{error.interface}:{error.port}",
            why=str(error.socketError),
            remedy="choose another address in http.listen, or stop what listens there",
        )
        raise SystemExit(1) from error
