"""A console's user keeps nobody from their turn, however much it says at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import structlog
from twisted.internet.task import Clock

from pgproxy.config import Config
from pgproxy.config.proxy import Proxy
from pgproxy.console.company import Reply, Request
from pgproxy.console.desk import Desk
from pgproxy.console.door import Door, Visitor
from pgproxy.console.talk import Talk
from pgproxy.observe.client import ClientLog
from pgproxy.wire import tags
from pgproxy.wire.messages import TERMINATE, MessageReader, message
from pgproxy.wire.startup import StartupMessage

MANY = 250
STARTUP = StartupMessage("alice", "pgproxy", (), 0, ())


class Nobody:
    """A company of nobody else, with many rows."""

    config = Config(proxy=Proxy(stats_users=frozenset({"alice"})))

    async def everybody(self, request: Request) -> list[Reply]:
        return [{"rows": [[number, "app", *[None] * 7] for number in range(MANY)]}]

    async def head(self, request: Request) -> Reply:
        return {}


class Turns(Clock):
    """A reactor of which each second is a turn: what is asked for in one is done in the next."""

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> Any:
        return super().callLater(delay + 1, callable, *args, **kw)


class Room:
    """A visitor, and what it has heard."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.ended: list[str] = []
        self._heard = bytearray()
        log = structlog.testing.CapturingLogger()
        desk = Desk(Nobody(), self.turns, log)
        self.visitor: Visitor = Door(lambda: Nobody.config, desk).enter(
            STARTUP, self._heard.extend, lambda: 0, self.ended.append, ClientLog(log)
        )

    def heard(self) -> str:
        """Give the tags of the messages since the last time."""
        reader, found = MessageReader(1 << 20), ""
        reader.feed(bytes(self._heard))
        while (came := reader.next()) is not None:
            found += chr(came[0])
        self._heard.clear()
        return found


def test_commands_have_a_turn_each() -> None:
    room = Room()
    room.visitor.received(message(tags.QUERY, b"show version;" * 3 + b"\0"))
    assert room.heard() == ""
    for answer in ("TDC", "TDC", "TDCZ", ""):
        room.turns.advance(1)
        assert room.heard() == answer


def test_a_long_table_takes_many_turns() -> None:
    room = Room()
    room.visitor.received(message(tags.QUERY, b"show pins; show version\0"))
    turns = [room.heard()]
    while not turns[-1].endswith("Z"):
        room.turns.advance(1)
        turns.append(room.heard())
    assert "".join(turns) == "T" + "D" * MANY + "C" + "TDC" + "Z"
    assert max(map(len, turns)) < MANY


def test_a_long_table_is_not_told_to_who_has_gone() -> None:
    room = Room()
    room.visitor.received(message(tags.QUERY, b"show pins\0"))
    room.turns.advance(1)
    assert room.heard()
    room.visitor.lost()
    room.turns.advance(1)
    assert (room.heard(), room.turns.getDelayedCalls()) == ("", [])


def test_messages_that_are_answered_at_once_do_not_take_all_the_time() -> None:
    room = Room()
    room.visitor.received(message(tags.QUERY, b"begin\0") * MANY)
    turns = [room.heard()]
    while turns[-1]:
        room.turns.advance(1)
        turns.append(room.heard())
    assert "".join(turns) == "CZ" * MANY
    assert max(map(len, turns)) < MANY


def test_who_goes_in_between_is_asked_nothing_more() -> None:
    room = Room()
    room.visitor.received(message(tags.QUERY, b"begin\0") * MANY)
    room.heard()
    room.visitor.lost()
    room.turns.advance(1)
    assert (room.heard(), room.turns.getDelayedCalls()) == ("", [])


def test_a_cancel_between_two_turns_ends_nothing() -> None:
    room = Room()
    room.visitor.received(message(tags.QUERY, b"begin\0") * MANY + TERMINATE)
    room.visitor.cancel()
    for _ in range(MANY):
        room.turns.advance(1)
    assert (room.heard(), room.ended) == ("CZ" * MANY, ["terminated"])


def test_a_cancel_ends_the_query() -> None:
    room = Room()
    room.visitor.received(message(tags.QUERY, b"show version;" * 3 + b"\0"))
    room.turns.advance(1)
    room.visitor.cancel()
    room.turns.advance(1)
    assert room.heard() == "TDCEZ"


def test_who_cannot_go_on_for_a_defect_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_broken(_talk: Talk, _outcome: object) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr(Talk, "done", is_broken)
    room = Room()
    room.visitor.received(message(tags.QUERY, b"show version\0"))
    room.turns.advance(1)
    assert (room.heard(), room.ended) == ("E", ["defect"])
