"""The endpoints of one process: the addresses that it listens on, read-write and read-only ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pgproxy.config import Proxy
from pgproxy.link.keepalive import Keepalive
from pgproxy.link.listener import StreamPort, inherit, listen, listen_on
from pgproxy.succession.inherited import READ_ONLY, Inherited

Make = Callable[[str], Any]
"""Gives the protocol of a connection from a host."""


class Endpoints:
    """What clients come in by: `client` makes those of read-write endpoints, `reading_client` the others."""

    def __init__(self, reactor: Any, client: Make, reading_client: Make) -> None:
        self._reactor = reactor
        self._client = client
        self._reading_client = reading_client
        self._ports: list[StreamPort] = []

    def open(self, proxy: Proxy, inherited: Inherited, keepalive: Keepalive) -> None:
        """
        Listen on all addresses of a configuration, on sockets that were inherited where there are some.

        Raises twisted.internet.error.CannotListenError.
        """
        inherited.keep((*proxy.listen, *proxy.listen_read_only))
        addresses = [(address, self._client) for address in proxy.listen]
        addresses += [(address, self._reading_client) for address in proxy.listen_read_only]
        for address, make in addresses:
            there = inherited.at(address)
            for one in there:
                inherit(one, keepalive)
                self._ports.append(listen_on(self._reactor, one.fileno(), make))
                one.close()
            if not there:
                self._ports.append(listen(self._reactor, address.host, address.port, make, keepalive))

    def listen_on(self, descriptor: int, read_only: bool) -> StreamPort:
        """Listen on somebody's socket that listens already; it is ours only once it is given to `take`."""
        return listen_on(self._reactor, descriptor, self._reading_client if read_only else self._client)

    def take(self, ports: Iterable[StreamPort]) -> None:
        """Have these be closed with ours."""
        self._ports += ports

    def configure(self, keepalive: Keepalive) -> None:
        """Set when the peers of new connections are taken for gone."""
        for port in self._ports:
            inherit(port.socket, keepalive)

    @property
    def addresses(self) -> list[str]:
        """Where we listen."""
        return [f"{port.getHost().host}:{port.getHost().port}" for port in self._ports]

    @property
    def descriptors(self) -> dict[int, str]:
        """The sockets' descriptors, with `READ_ONLY` for those of read-only endpoints."""
        return {port.fileno(): READ_ONLY if port.make == self._reading_client else "" for port in self._ports}

    async def close(self) -> None:
        """Listen no more."""
        while self._ports:
            await self._ports.pop().stopListening()
