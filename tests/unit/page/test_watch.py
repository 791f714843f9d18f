"""Streams over real sockets, with a clock of ours: how many, who does not read, how they end."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock, deferLater

from pgproxy.config import Config
from pgproxy.console.columns import SHOWN
from pgproxy.console.commands import Command, Show
from pgproxy.console.tables import Table
from pgproxy.console.talk import Done
from pgproxy.observe.http import Root, Site
from pgproxy.page.stream import LIFE, PATIENCE
from pgproxy.page.watch import MOST, Watch
from tests.unit.housed import in_house

_LIMIT = 20.0


class Desk:
    """Gives pins with a digest of so many characters."""

    def __init__(self) -> None:
        self.size = 10
        self.asked: list[str] = []

    async def perform(self, command: Command, user: str) -> Done:
        assert isinstance(command, Show)
        self.asked.append(command.what)
        row: list[Any] = [0] * len(SHOWN[command.what])
        if command.what == "pins":
            row[4] = "x" * self.size
        return Done("SHOW", Table(SHOWN[command.what], (row,)))


class Log:
    """Keeps the names of events."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def error(self, event: str, **_more: Any) -> None:
        self.events.append(event)


class House:
    """A watch, and the HTTP server it is in."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.clock = Clock()
        self.clock.advance(1e9)
        self.desk, self.log = Desk(), Log()
        self.fails = False
        self.looks = 0
        desk: Any = self.desk
        log: Any = self.log
        self.watch = Watch(self.clock, self.figures, desk, Config, log, self.clock.seconds)
        self.site = Site(Root({}, {b"/events": self.watch.add}, lambda: b"", log))
        self.port = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        self.watch.start()
        self.sockets: list[socket.socket] = []

    async def figures(self) -> dict[str, Any]:
        self.looks += 1
        if self.fails:
            raise RuntimeError("a defect")
        return {"clients": 5}

    @property
    def streams(self) -> int:
        return len(self.watch._streams)

    async def until(self, come: Callable[[], bool]) -> None:
        limit = self.reactor.seconds() + _LIMIT
        while not come():
            assert self.reactor.seconds() < limit
            await deferLater(self.reactor, 0.005)

    async def ask(self, *headers: str, buffer: int | None = None) -> socket.socket:
        one = socket.socket()
        if buffer is not None:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        one.connect(("127.0.0.1", self.port.getHost().port))
        one.sendall("\r\n".join(["GET /events HTTP/1.1", "Host: localhost", *headers, "", ""]).encode())
        one.setblocking(False)
        self.sockets.append(one)
        return one

    async def hear(self, one: socket.socket, text: bytes) -> bytes:
        heard = b""

        def come() -> bool:
            nonlocal heard
            try:
                piece = one.recv(1 << 20)
            except BlockingIOError:
                return False
            assert piece or text == b"", heard[-300:]
            heard += piece
            return text in heard if text else not piece

        await self.until(come)
        return heard

    async def close(self) -> None:
        self.watch.stop()
        self.site.end()
        for one in self.sockets:
            one.close()
        await self.port.stopListening()
        await self.until(lambda: not self.site._channels)


housed = in_house(House)


@housed
async def test_a_point_each_second_and_tables_each_other(house: House) -> None:
    # While nobody looks there is a point for each ten seconds.
    for seconds in range(1, 31):
        house.clock.advance(1)
        assert house.looks == seconds // 10
    assert not house.desk.asked
    one = await house.ask()
    heard = await house.hear(one, b"event: history")
    assert b"text/event-stream" in heard and b"retry: " in heard
    house.clock.advance(1)
    heard = await house.hear(one, b'"version"')
    assert b"event: point" in heard and b"event: tables" in heard
    assert set(house.desk.asked) == {"pools", "pins", "targets", "history", "statements"}
    house.desk.asked.clear()
    house.clock.advance(1)
    await house.hear(one, b"event: point")
    assert not house.desk.asked
    house.clock.advance(1)
    await house.hear(one, b"event: tables")
    assert set(house.desk.asked) == {"pools", "pins", "targets", "history"}
    # One that comes later is told all there is at once.
    heard = await house.hear(await house.ask(), b'"version"')
    data = heard.partition(b"event: history\ndata: ")[2].partition(b"\n")[0]
    assert [len(column) for column in json.loads(data)["columns"]] == [6] * 13


@housed
async def test_there_are_so_many_and_no_more(house: House) -> None:
    some = [await house.ask() for _ in range(MOST)]
    await house.until(lambda: house.streams == MOST)
    assert b"503 " in await house.hear(await house.ask(), b"Too many are looking already")
    some[0].close()
    await house.until(lambda: house.streams == MOST - 1)
    await house.hear(await house.ask(), b"event: history")


@housed
async def test_pages_of_other_sites_have_none(house: House) -> None:
    heard = await house.hear(await house.ask("Sec-Fetch-Site: cross-site"), b"own page")
    assert b"403 " in heard and house.streams == 0


@housed
async def test_nothing_is_kept_for_who_does_not_read(house: House) -> None:
    house.desk.size = 1 << 20
    await house.ask(buffer=4096)
    await house.until(lambda: house.streams == 1)
    (channel,) = house.site._channels
    transport = channel.transport
    looks = 0
    while house.streams:
        house.clock.advance(1)
        looks += 1
        await deferLater(house.reactor, 0.01)
        # What was written last, and the 64 KiB before that at which a transport says that it is enough.
        assert len(transport.dataBuffer) + transport._tempDataLen <= (1 << 20) + (1 << 17)
        assert looks < 60
    assert looks > PATIENCE and not transport.connected


@housed
async def test_who_reads_again_is_told_all(house: House) -> None:
    house.desk.size = 1 << 23
    slow = await house.ask(buffer=1 << 16)
    await house.until(lambda: house.streams == 1)
    (stream,) = house.watch._streams

    def missed() -> bool:
        house.clock.advance(1)
        return stream.behind

    await house.until(missed)
    house.desk.size = 1
    house.clock.advance(1)
    house.clock.advance(1)

    def reads() -> bool:
        try:
            slow.recv(1 << 20)
        except BlockingIOError:
            pass
        return stream._reads

    await house.until(reads)
    house.clock.advance(1)
    await house.hear(slow, b"event: history")
    assert not stream.behind and house.streams == 1


@housed
async def test_a_stream_ends_when_it_has_lasted(house: House) -> None:
    one = await house.ask()
    await house.hear(one, b"event: history")
    house.clock.advance(LIFE)
    assert (await house.hear(one, b"0\r\n\r\n")) and house.streams == 0


@housed
async def test_all_end_with_the_service(house: House) -> None:
    some = [await house.ask() for _ in range(3)]
    await house.until(lambda: house.streams == 3)
    house.watch.stop()
    house.site.end()
    for one in some:
        assert (await house.hear(one, b"")).endswith(b"0\r\n\r\n")
    assert house.streams == 0 and not house.clock.getDelayedCalls()


@housed
async def test_a_defect_is_logged_and_it_goes_on(house: House) -> None:
    one = await house.ask()
    await house.hear(one, b"event: history")
    house.fails = True
    house.clock.advance(1)
    assert house.log.events == ["defect"]
    house.fails = False
    house.clock.advance(1)
    await house.hear(one, b"event: point")
