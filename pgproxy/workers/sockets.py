"""
The sockets that workers listen on: for each address one for each worker, with SO_REUSEPORT.

The kernel spreads new connections over them by their addresses. The supervisor keeps all of them open and
accepts nothing: when a worker dies, what waits in its backlog waits for the next. Documentation: socket(7).
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from twisted.internet.abstract import isIPv6Address

from pgproxy.config import Address, Proxy
from pgproxy.link.keepalive import Keepalive
from pgproxy.link.listener import BACKLOG, inherit
from pgproxy.succession.inherited import READ_ONLY, Inherited

NOTHING = Inherited()


class Sockets:
    """All that the workers listen on."""

    def __init__(self) -> None:
        self.by_worker: list[list[socket.socket]] = []
        self.writing = 0
        """How many of each worker's, the first, are read-write endpoints."""

    def open(self, proxy: Proxy, workers: int, keepalive: Keepalive, inherited: Inherited) -> None:
        """Open them, or take those that were inherited. Raises OSError, its `filename` the address."""
        inherited.keep((*proxy.listen, *proxy.listen_read_only))
        writing = open_sockets(proxy.listen, workers, keepalive, inherited)
        reading = open_sockets(proxy.listen_read_only, workers, keepalive, inherited)
        self.writing = len(writing[0])
        self.by_worker = [one + other for one, other in zip(writing, reading, strict=True)]

    def configure(self, keepalive: Keepalive) -> None:
        """Set when the peers of new connections are taken for gone."""
        for own in self.by_worker:
            for one in own:
                inherit(one, keepalive)

    @property
    def addresses(self) -> list[str]:
        """Where they listen."""
        names = [one.getsockname() for one in self.by_worker[0]]
        return [f"{name[0]}:{name[1]}" for name in names]

    @property
    def descriptors(self) -> dict[int, str]:
        """Their descriptors, with `READ_ONLY` for those of read-only endpoints."""
        return {
            one.fileno(): READ_ONLY if place >= self.writing else ""
            for own in self.by_worker
            for place, one in enumerate(own)
        }

    def close(self) -> None:
        """Close ours; a worker that has one listens on."""
        for own in self.by_worker:
            for one in own:
                one.close()
        self.by_worker = []


def open_sockets(
    addresses: Iterable[Address], workers: int, keepalive: Keepalive, inherited: Inherited = NOTHING
) -> list[list[socket.socket]]:
    """
    Give for each worker its sockets, as many for each; their connections are set to `keepalive`.

    Those that were inherited are dealt out, so that each worker has one of each address and none is left:
    where there are too few of them workers share one. Raises OSError, its `filename` the address.
    """
    sockets: list[list[socket.socket]] = [[] for _ in range(workers)]
    opened: list[socket.socket] = []
    for address in addresses:
        there = inherited.at(address)
        if there:
            for turn in range(-(-len(there) // workers)):
                for number, own in enumerate(sockets):
                    own.append(there[(number + turn * workers) % len(there)])
            continue
        port = address.port
        try:
            # Without SO_REUSEPORT, to hear of another program that listens there; ours would share it.
            with _bound(address.host, port, reuse_port=False) as probe:
                port = probe.getsockname()[1]
            for own in sockets:
                opened.append(_bound(address.host, port, reuse_port=True))
                own.append(opened[-1])
        except OSError as error:
            error.filename = f"{address.host}:{address.port}"
            raise
    for own in sockets:
        for one in own:
            inherit(one, keepalive)
    for one in opened:
        one.listen(BACKLOG)
    return sockets


def _bound(host: str, port: int, reuse_port: bool) -> socket.socket:
    family = socket.AF_INET6 if isIPv6Address(host) else socket.AF_INET
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            one.bind(socket.getaddrinfo(host, port, family, flags=socket.AI_NUMERICHOST)[0][4])
        else:
            one.bind((host, port))
    except BaseException:
        one.close()
        raise
    return one
