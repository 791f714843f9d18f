"""Begins to serve over HTTP, where the configuration says so; where it doesn't, nothing of it is imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from structlog.typing import FilteringBoundLogger

from pgproxy.link.front import Materials


def serve_http(
    reactor: Any,
    materials: Callable[[], Materials],
    figures: Callable[[], dict[str, Any]],
    log: FilteringBoundLogger,
    shared: bool,
) -> list[Any]:
    """Listen for HTTP, where that is wanted; gives the ports. `shared` is as in `http.serve`."""
    addresses = materials().config.http.listen
    if not addresses:
        return []
    from pgproxy.observe.http import Page, Root, serve
    from pgproxy.observe.metrics import page

    async def metrics() -> Page:
        return page(figures(), materials().config)

    root = Root({b"/metrics": metrics}, lambda: materials().http_token, log)
    try:
        return serve(reactor, addresses, root, shared)
    except OSError as error:
        log.critical(
            "cannot_listen",
            address=str(error.filename),
            why=str(error.strerror or error),
            remedy="choose another address in http.listen, or stop what listens there",
        )
        raise SystemExit(1) from error


async def serve_no_more(ports: list[Any]) -> None:
    """Listen no more."""
    while ports:
        await ports.pop().stopListening()
