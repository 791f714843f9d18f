"""
Gets a document by HTTP, with bounds: Twisted's Agent over our own connections.

Those have the name looked up in a thread, and the standard library's TLS: nothing more has to be installed.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionClosed, ConnectionLost
from twisted.internet.interfaces import IProtocol, IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, ResponseDone, ResponseFailed
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from pgproxy import __version__
from pgproxy.link.connect import CannotConnect, connect
from pgproxy.link.keepalive import Keepalive
from pgproxy.link.threads import Threads
from pgproxy.link.transport import Stream


class NoDocument(Exception):
    """A document was not to be had; the text says why."""


def tls_context(ca: Path | None) -> ssl.SSLContext:
    """Give what checks a certificate and its name, against the system's authorities or a file of them."""
    context = ssl.create_default_context(cafile=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


async def get(reactor: Any, threads: Threads, url: str, tls: ssl.SSLContext | None, most: int) -> bytes:
    """
    Give the document at a URL, `most` bytes long at most; redirections are not followed.

    Raises `NoDocument`. The caller sets the time limit: cancelling ends the connection.
    """
    # Headers count, too: the half of it is far more than they need.
    places = _Places(reactor, threads, tls, 2 * most)
    agent = Agent.usingEndpointFactory(reactor, places)
    headers = Headers({"User-Agent": [f"pgproxy/{__version__}"], "Accept": ["application/json"]})
    try:
        response = await agent.request(b"GET", url.encode("ascii"), headers)
        if response.code != 200:
            raise NoDocument(f"it answered {response.code}")
        body = _Body(most)
        response.deliverBody(body)
        return await body.whole
    except CannotConnect as error:
        raise NoDocument(str(error)) from error
    except ResponseFailed as error:
        reasons = ", ".join(reason.getErrorMessage() for reason in error.reasons)
        raise NoDocument(f"the answer ended too early: {reasons}") from error
    except ConnectionClosed as error:
        raise NoDocument(f"the connection has ended: {error}") from error
    except OSError as error:
        raise NoDocument(error.strerror or str(error)) from error


class _Body(Protocol):
    def __init__(self, most: int) -> None:
        self._most = most
        self._parts: list[bytes] = []
        self._size = 0
        self.whole: Deferred[bytes] = Deferred(lambda _: self._abort())

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        self._parts.append(data)
        if self._size > self._most:
            self._parts.clear()
            self._end(Failure(NoDocument(f"the answer is longer than {self._most} bytes")))
            self._abort()

    def connectionLost(self, reason: Failure = Failure(ConnectionLost())) -> None:  # noqa: B008
        if reason.check(ResponseDone, PotentialDataLoss):
            self._end(b"".join(self._parts))
        else:
            self._end(Failure(NoDocument("the answer ended too early")))

    def _end(self, result: bytes | Failure) -> None:
        if not self.whole.called:
            self.whole.callback(result)

    def _abort(self) -> None:
        transport: Any = self.transport
        if transport is not None:
            transport.loseConnection()


@implementer(IAgentEndpointFactory)
class _Places:
    def __init__(self, reactor: Any, threads: Threads, tls: ssl.SSLContext | None, most: int) -> None:
        self._given = reactor, threads, most
        self._tls = tls

    def endpointForURI(self, uri: URI) -> _Place:
        host = uri.host.decode("ascii")
        return _Place(*self._given, host, uri.port, self._tls if uri.scheme == b"https" else None)


@implementer(IStreamClientEndpoint)
class _Place:
    def __init__(
        self,
        reactor: Any,
        threads: Threads,
        most: int,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._reactor = reactor
        self._threads = threads
        self._most = most
        self._host = host.strip("[]")
        self._port = port
        self._tls = tls

    def connect(self, protocolFactory: Any) -> Deferred[IProtocol]:
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: Any) -> IProtocol:
        sock = await connect(self._reactor, self._threads, self._host, self._port)
        carried = _Carried(factory.buildProtocol(None), self._most)
        carried.makeConnection(Stream(sock, carried, self._reactor, Keepalive()))
        if self._tls is not None:
            await carried.secured(self._tls, self._host)
        inner: IProtocol = carried.begin()
        return inner


class _Carried(Protocol):
    """Carries a protocol over a `Stream`, from where that is ready to be written to; bounds what comes in."""

    transport: Any

    def __init__(self, inner: Any, most: int) -> None:
        self._inner = inner
        self._left = most
        self._begun = False
        self._secured: Deferred[None] | None = None

    def secured(self, tls: ssl.SSLContext, host: str) -> Deferred[None]:
        """Agree on TLS."""
        self._secured = Deferred(lambda _: self.transport.abortConnection())
        self.transport.startTLS(tls, server_side=False, server_hostname=host)
        return self._secured

    def handshakeCompleted(self) -> None:
        """Take the `Stream`'s word that TLS is agreed on."""
        if self._secured is not None and not self._secured.called:
            self._secured.callback(None)

    def begin(self) -> Any:
        """Let the protocol begin, and give it."""
        self._begun = True
        self._inner.makeConnection(self.transport)
        return self._inner

    def dataReceived(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            self.transport.abortConnection()
        elif self._begun:
            self._inner.dataReceived(data)

    def connectionLost(self, reason: Failure = Failure(ConnectionLost())) -> None:  # noqa: B008
        if self._secured is not None and not self._secured.called:
            self._secured.errback(reason)
        if self._begun:
            self._inner.connectionLost(reason)


def host_of(url: str) -> str:
    """Give the host and port of a URL, for logs."""
    return urlsplit(url).netloc
