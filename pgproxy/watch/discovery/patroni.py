"""
The members of a Patroni cluster, asked of Patroni's REST API.

The law:

1. The URLs are asked in turn, beginning with the one that answered last. The next one is asked as soon as one
   has no answer, or has been silent for `PATIENCE`; who was asked before may still answer.
2. The first answer that can be read counts.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from pgproxy.link.threads import Threads
from pgproxy.watch.discovery.found import DiscoveryFailed, Found, FoundHost, found, moved, quoted
from pgproxy.watch.discovery.http import NoDocument, get, host_of
from pgproxy.watch.discovery.members import LARGEST, members

PATIENCE = 0.5
"""Seconds."""
_REMEDY = "look whether Patroni runs there, and at the URL"


class Patroni:
    """
    Asks one of several URLs, each without its /cluster.

    `addresses` are those that go before Patroni's, by member or by host.
    """

    def __init__(
        self,
        reactor: Any,
        threads: Threads,
        urls: Sequence[str],
        tls: ssl.SSLContext | None,
        expires: float,
        addresses: Mapping[str, tuple[str, int]],
    ) -> None:
        self._reactor = reactor
        self._threads = threads
        self._urls = list(urls)
        self._tls = tls
        self._expires = expires
        self._addresses = addresses

    def __str__(self) -> str:
        return "Patroni at " + ", ".join(sorted(map(host_of, self._urls)))

    async def ask(self) -> Found:
        """Ask for the members. Raises `DiscoveryFailed`."""
        url, hosts = await _Race(self._reactor, self._urls, self._members).won
        self._urls.remove(url)
        self._urls.insert(0, url)
        return found(f"Patroni at {host_of(url)}", moved(hosts, self._addresses), self._expires)

    async def _members(self, url: str) -> list[FoundHost]:
        try:
            body = await get(self._reactor, self._threads, f"{url}/cluster", self._tls, LARGEST)
        except NoDocument as error:
            raise DiscoveryFailed(f"Patroni at {host_of(url)}: {quoted(str(error))}", _REMEDY) from error
        return members(body)


class _Race:
    """Asks of several URLs, each a while after the one before."""

    def __init__(self, reactor: Any, urls: Sequence[str], ask: Any) -> None:
        self._reactor = reactor
        self._ask = ask
        self._left = list(urls)
        self._running: dict[str, Deferred[list[FoundHost]]] = {}
        self._failures: list[DiscoveryFailed] = []
        self._timer: Any = None
        self.won: Deferred[tuple[str, list[FoundHost]]] = Deferred(self._cancelled)
        self._next()

    def _next(self) -> None:
        if self._left and not self.won.called:
            url = self._left.pop(0)
            self._timer = self._reactor.callLater(PATIENCE, self._next)
            asked = self._running[url] = Deferred.fromCoroutine(self._ask(url))
            asked.addCallbacks(self._answered, self._failed, callbackArgs=(url,), errbackArgs=(url,))

    def _answered(self, hosts: list[FoundHost], url: str) -> None:
        self._running.pop(url, None)
        self._end((url, hosts))

    def _failed(self, failure: Failure, url: str) -> None:
        self._running.pop(url, None)
        if self.won.called or failure.check(CancelledError):
            return
        error = failure.value
        if not isinstance(error, DiscoveryFailed):
            self._end(failure)
            return
        self._failures.append(error)
        self._stop_timer()
        self._next()
        if not self._running:
            what = "; ".join(one.what for one in self._failures)
            self._end(Failure(DiscoveryFailed(what, self._failures[0].remedy)))

    def _cancelled(self, _won: Deferred[Any]) -> None:
        silent = [f"Patroni at {host_of(url)} does not answer" for url in self._running]
        what = "; ".join([*(one.what for one in self._failures), *silent])
        self._end(Failure(DiscoveryFailed(what, _REMEDY)))

    def _end(self, result: Any) -> None:
        self._stop_timer()
        if not self.won.called:
            self.won.callback(result)
        running, self._running = self._running, {}
        for asked in running.values():
            asked.cancel()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
