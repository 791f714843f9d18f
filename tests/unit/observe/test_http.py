"""Connections that take their time, over real sockets, with a clock of ours: none keeps a place for long."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from structlog.testing import CapturingLogger
from twisted.internet.task import Clock, deferLater

from pgproxy.observe.http import PATIENCE, Page, Root, Site
from tests.unit.housed import in_house

_LIMIT = 20.0
_MUCH = 1 << 24


class House:
    """A site with two pages, a small one and a big one."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.clock = Clock()
        self.answered = 0
        log: Any = CapturingLogger()
        pages = {b"/": self.small, b"/much": self.much}
        self.site = Site(Root(pages, {}, lambda: b"", log))
        self.port = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        time: Any = self.clock
        # What is listened with keeps the site's own time; its channels are to have ours.
        self.site.reactor = time
        self.sockets: list[socket.socket] = []

    async def small(self) -> Page:
        self.answered += 1
        return Page("text/plain", b"small")

    async def much(self) -> Page:
        self.answered += 1
        return Page("text/plain", bytes(_MUCH))

    def call(self) -> socket.socket:
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.connect(("127.0.0.1", self.port.getHost().port))
        one.setblocking(False)
        self.sockets.append(one)
        return one

    async def until(self, come: Callable[[], bool]) -> None:
        limit = self.reactor.seconds() + _LIMIT
        while not come():
            assert self.reactor.seconds() < limit
            await deferLater(self.reactor, 0.005)

    async def hear(self, one: socket.socket, text: bytes) -> None:
        heard = b""

        def come() -> bool:
            nonlocal heard
            try:
                heard += one.recv(1 << 16)
            except BlockingIOError:
                pass
            return text in heard

        await self.until(come)

    @property
    def here(self) -> int:
        return len(self.site._channels)

    async def close(self) -> None:
        for one in self.sockets:
            one.close()
        await self.port.stopListening()
        await self.until(lambda: not self.here)


housed = in_house(House)


@housed
async def test_a_request_in_pieces_has_as_long_as_any(house: House) -> None:
    one = house.call()
    await house.until(lambda: house.here == 1)
    (channel,) = house.site._channels

    async def say(pieces: int) -> None:
        one.sendall(b"G")
        await house.until(lambda: not house.here or len(channel._buffer) == pieces)

    for second in range(int(PATIENCE)):
        assert house.here == 1
        await say(second + 1)
        house.clock.advance(1)
    await house.until(lambda: not house.here)


@housed
async def test_a_connection_ends_with_its_answer(house: House) -> None:
    one = house.call()
    one.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 5)
    await house.hear(one, b"small")
    await house.until(lambda: not house.here)
    assert house.answered == 1


@housed
async def test_who_does_not_take_the_answer_is_cut_off(house: House) -> None:
    house.call().sendall(b"GET /much HTTP/1.0\r\nHost: localhost\r\n\r\n")
    house.call().sendall(b"GET /much HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await house.until(lambda: house.answered == 2)
    assert house.here == 2
    for _ in range(2 * int(PATIENCE)):
        house.clock.advance(1)
        await deferLater(house.reactor, 0)
    await house.until(lambda: not house.here)
    assert not house.clock.getDelayedCalls()


@housed
async def test_the_end_waits_for_nobody(house: House) -> None:
    house.call().sendall(b"GET /much HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await house.until(lambda: house.answered == 1)
    house.site.end()
    await deferLater(house.reactor, 0.01)
    assert house.here == 1
    house.clock.advance(PATIENCE)
    await house.until(lambda: not house.here)
