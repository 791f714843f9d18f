"""
What is served over HTTP: pages by path, for who may read them.

The law:

1. Without a token only loopback addresses are listened on (the configuration sees to that), and only requests
   for a loopback host are answered: a web page that has its own name resolve to 127.0.0.1 gets nothing.
2. With a token nothing is answered without it: as `Authorization: Bearer`, or as the password of HTTP Basic,
   which browsers ask for.
3. Streams, which last, are for pages of ours only: not for those of another site that is open in the browser.
4. Only GET and HEAD, no bodies, one request to a connection, `MOST` connections. A request is there as a
   whole within `PATIENCE` seconds, however its pieces come, and who does not take what a connection ends with
   is cut off: nobody keeps the place of others for longer than that.
"""

from __future__ import annotations

import binascii
import hmac
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from attrs import frozen
from structlog.typing import FilteringBoundLogger
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web import http, resource, server

from pgproxy.config import Address

MOST = 100
"""Connections at a time."""
PATIENCE = 30.0
"""Seconds."""
_NOTHING = "default-src 'none'; frame-ancestors 'none'"
"""The policy of what is no page of a browser's."""
_ALWAYS = {
    b"X-Content-Type-Options": b"nosniff",
    b"Cache-Control": b"no-store",
    b"Referrer-Policy": b"no-referrer",
    b"Cross-Origin-Resource-Policy": b"same-origin",
    b"Content-Security-Policy": _NOTHING.encode(),
}


@frozen
class Page:
    """One answer."""

    content_type: str
    body: bytes
    policy: str = _NOTHING
    """Its Content-Security-Policy."""


Pages = Mapping[bytes, Callable[[], Awaitable[Page]]]
"""What is served, by path."""
Streams = Mapping[bytes, Callable[[Any], bool]]
"""What goes on being served, by path: takes a request as its own, or says that there are too many."""


class Root(resource.Resource):
    """All pages and streams; `token` gives what requests have to bear, empty where they need not."""

    isLeaf = True

    def __init__(
        self, pages: Pages, streams: Streams, token: Callable[[], bytes], log: FilteringBoundLogger
    ) -> None:
        super().__init__()
        self._pages = pages
        self._streams = streams
        self._token = token
        self._log = log

    def render(self, request: Any) -> Any:
        """Answer a request."""
        for name, value in _ALWAYS.items():
            request.setHeader(name, value)
        if request.method not in (b"GET", b"HEAD"):
            request.setHeader(b"Allow", b"GET, HEAD")
            return _say(request, http.NOT_ALLOWED, "Only GET and HEAD are served here.")
        token = self._token()
        if token and not _bears(request.getHeader(b"authorization"), token):
            ways = [b'Basic realm="pgproxy", charset="UTF-8"', b'Bearer realm="pgproxy"']
            request.responseHeaders.setRawHeaders(b"WWW-Authenticate", ways)
            return _say(request, http.UNAUTHORIZED, "The token of pgproxy's http.token_file is needed.")
        if not token and not _is_loopback(request.getHeader(b"host")):
            return _say(request, http.FORBIDDEN, "Without a token only requests for this machine are served.")
        if request.path in self._streams and request.method == b"GET":
            return self._stream(request)
        page = self._pages.get(request.path)
        if page is None:
            known = ", ".join(sorted(path.decode() for path in self._pages))
            return _say(request, http.NOT_FOUND, f"There is nothing here; there are {known}.")
        made = Deferred.fromCoroutine(_made(page))
        gone = request.notifyFinish()
        gone.addErrback(lambda _reason: made.cancel())
        made.addCallbacks(_send, self._failed, callbackArgs=(request,), errbackArgs=(request,))
        return server.NOT_DONE_YET

    def _stream(self, request: Any) -> Any:
        if request.getHeader(b"sec-fetch-site") not in (None, b"same-origin", b"none"):
            return _say(request, http.FORBIDDEN, "This is for pgproxy's own page.")
        if not self._streams[request.path](request):
            request.setHeader(b"Retry-After", b"10")
            return _say(request, http.SERVICE_UNAVAILABLE, "Too many are looking already.")
        return server.NOT_DONE_YET

    def _failed(self, failure: Failure, request: Any) -> None:
        if request._disconnected:
            return
        self._log.error("defect", failure=failure.getTraceback())
        request.write(_say(request, http.INTERNAL_SERVER_ERROR, "A defect in pgproxy; its log says more."))
        request.finish()


async def _made(page: Callable[[], Awaitable[Page]]) -> Page:
    return await page()


def _send(page: Page, request: Any) -> None:
    request.setHeader(b"Content-Type", page.content_type.encode())
    request.setHeader(b"Content-Security-Policy", page.policy.encode())
    request.setHeader(b"Content-Length", b"%d" % len(page.body))
    if request.method == b"GET":
        request.write(page.body)
    request.finish()


def _say(request: Any, code: int, text: str) -> bytes:
    request.setResponseCode(code)
    request.setHeader(b"Content-Type", b"text/plain; charset=utf-8")
    return f"{text}\n".encode()


def _bears(header: bytes | None, token: bytes) -> bool:
    scheme, _, given = (header or b"").partition(b" ")
    given = given.strip()
    if scheme.lower() == b"basic":
        try:
            given = binascii.a2b_base64(given, strict_mode=True).partition(b":")[2]
        except binascii.Error:
            return False
    elif scheme.lower() != b"bearer":
        return False
    return hmac.compare_digest(given, token)


def _is_loopback(host: bytes | None) -> bool:
    """Say whether a Host header names this machine as such."""
    name = (host or b"").decode("latin-1")
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"


class _Request(server.Request):
    """A request without a body: one that has one is cut off, before anything is kept of it."""

    def gotLength(self, length: int | None) -> None:
        """Take the word how much follows the head; None where that is not said."""
        super().gotLength(0)
        if length != 0:
            self.channel.loseConnection()


class _Channel(http.HTTPChannel):
    """A connection that lasts only with requests that come whole and soon, and answers that are taken."""

    _cut_off: Any = None

    def checkPersistence(self, request: Any, version: bytes) -> bool:
        """Take one request: many that come at once would all be answered before others have their turn."""
        request.responseHeaders.setRawHeaders(b"connection", [b"close"])
        return False

    def resetTimeout(self) -> None:
        """Give no more time for a piece of a request than for the whole."""

    def timeoutConnection(self) -> None:
        """End it, as no request has come in time."""
        self.loseConnection()

    def loseConnection(self) -> None:
        """End it when what was written has been taken, or `abortTimeout` seconds from now."""
        if self._cut_off is None:
            transport: Any = self.transport
            self._cut_off = self.callLater(self.abortTimeout, transport.abortConnection)
        super().loseConnection()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Clear up."""
        if self._cut_off is not None and self._cut_off.active():
            self._cut_off.cancel()
        super().connectionLost(reason)


class Site(server.Site):
    """At most `MOST` connections."""

    noisy = False
    # HTTP/1.1 only, without the wrapper that may change to another.
    protocol = _Channel  # type: ignore[assignment]

    def __init__(self, root: Root) -> None:
        super().__init__(root, requestFactory=_Request, timeout=PATIENCE)
        self.displayTracebacks = False
        self._channels: set[Any] = set()

    def buildProtocol(self, addr: Any) -> Any:
        """Take a connection in, if there are not too many."""
        if len(self._channels) >= MOST:
            return None
        channel: Any = super().buildProtocol(addr)
        self._channels.add(channel)
        lost = channel.connectionLost

        def connection_lost(reason: Failure) -> None:
            self._channels.discard(channel)
            lost(reason)

        channel.connectionLost = connection_lost
        return channel

    def end(self) -> None:
        """End all connections, when what was written is sent: another process is asked from now on."""
        for channel in list(self._channels):
            channel.loseConnection()

    def log(self, request: Any) -> None:
        """Log no requests: they come every few seconds."""


def serve(reactor: Any, addresses: tuple[Address, ...], site: Site, shared: bool) -> list[Any]:
    """
    Listen; gives the ports. Raises OSError, with the address for its file name.

    With `shared` another process may listen there that is about to leave.
    """
    return [_listen(reactor, address, site, shared) for address in addresses]


def _listen(reactor: Any, address: Address, site: Site, shared: bool) -> Any:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    where = (address.host, address.port)
    try:
        if not shared:
            with socket.socket(family, socket.SOCK_STREAM) as alone:
                # Whether somebody else is there: with SO_REUSEPORT it could not be told.
                alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                alone.bind(where)
        with socket.socket(family, socket.SOCK_STREAM) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            one.bind(where)
            one.listen(MOST)
            one.setblocking(False)
            return reactor.adoptStreamPort(one.fileno(), family, site)
    except OSError as error:
        error.filename = str(address)
        raise
