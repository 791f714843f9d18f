"""The page's files, as the HTTP server (observe/http.py) serves them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files as files_of

from pgproxy.observe.http import Page

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
_SCRIPT, _STYLE = "text/javascript; charset=utf-8", "text/css; charset=utf-8"
_FILES = {
    b"/": ("index.html", "text/html; charset=utf-8"),
    b"/page.css": ("page.css", _STYLE),
    b"/page.js": ("page.js", _SCRIPT),
    b"/icon.svg": ("icon.svg", "image/svg+xml"),
    b"/uplot.css": ("uplot/uPlot.min.css", _STYLE),
    b"/uplot.js": ("uplot/uPlot.iife.min.js", _SCRIPT),
}


def files() -> dict[bytes, Callable[[], Awaitable[Page]]]:
    """Read them; gives them by path."""
    static = files_of("pgproxy.page") / "static"
    return {
        path: _serving(Page(kind, static.joinpath(name).read_bytes(), _POLICY))
        for path, (name, kind) in _FILES.items()
    }


def _serving(page: Page) -> Callable[[], Awaitable[Page]]:
    async def serve() -> Page:
        return page

    return serve
