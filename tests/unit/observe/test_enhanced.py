"""Enhanced logging: for whom, for how long, and what its lines say."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from pgproxy.config import Config, Database, User
from pgproxy.observe.enhanced import A_DAY, Enhancement, Recorder
from pgproxy.session.following import Following
from pgproxy.wire.skim import Skimmer
from tests.raw import bind, execute, message, parse


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **more: Any) -> None:
        self.lines.append((event, more))


CONFIG = Config(
    databases={"loud": Database(enhanced_logging=True), "*": Database()},
    users={"watched": User(enhanced_logging=True), "other": User()},
)


def begun(config: Config = CONFIG) -> tuple[Clock, Log, Enhancement]:
    clock, log = Clock(), Log()
    clock.advance(1000)
    return clock, log, Enhancement(config, clock.seconds, log)


def test_for_whom() -> None:
    _clock, _log, enhancement = begun()
    assert enhancement.chooses("loud", "other")
    assert enhancement.chooses("app", "watched")
    assert not enhancement.chooses("app", "other")
    everywhere = begun(Config(databases={"*": Database(enhanced_logging=True), "app": Database()}))[2]
    assert everywhere.chooses("anything", "x")
    assert not everywhere.chooses("app", "x")
    assert not begun(Config())[2].chooses("loud", "watched")


def test_it_ends_after_a_day_and_begins_with_a_reload() -> None:
    clock, log, enhancement = begun()
    clock.advance(A_DAY - 1)
    enhancement.look()
    assert enhancement.chooses("loud", "x") and log.lines == []
    clock.advance(1)
    assert not enhancement.chooses("loud", "x")
    enhancement.look()
    enhancement.look()
    assert [event for event, _more in log.lines] == ["enhanced_logging_over"]
    enhancement.configure(CONFIG)
    assert enhancement.chooses("loud", "x")


def test_nothing_is_over_where_nothing_was_on() -> None:
    clock, log, enhancement = begun(Config())
    clock.advance(2 * A_DAY)
    enhancement.look()
    assert log.lines == []


def said(recorder: Recorder, data: bytes, asked: int = 0) -> None:
    run, frames = Skimmer(Following.direction).feed(data)
    recorder.said(run, frames, asked)


def test_what_the_lines_say() -> None:
    clock, log, enhancement = begun()
    recorder = Recorder(enhancement, clock.seconds, log)
    recorder.server = lambda: 7
    said(recorder, message("Q", b"select 'secret', 1\0"))
    clock.advance(0.25)
    recorder.answered(1, True)
    assert log.lines == [
        ("statement", {"server": 7, "digests": ["select $1, $2"], "seconds": 0.25}),
    ]


def test_batches_of_prepared_statements() -> None:
    clock, log, enhancement = begun()
    recorder = Recorder(enhancement, clock.seconds, log)
    said(recorder, parse("select 1", "one") + message("S"))
    said(recorder, bind("one") + execute() + bind("one") + execute() + message("S"), 1)
    said(recorder, bind("unheard of") + execute() + message("S"), 2)
    recorder.answered(1, False)
    assert log.lines == []
    recorder.answered(2, False)
    recorder.answered(3, True)
    assert [more["digests"] for _event, more in log.lines] == [["select $1"] * 2, ["(prepared before)"]]


def test_lines_are_bounded() -> None:
    clock, log, enhancement = begun()
    recorder = Recorder(enhancement, clock.seconds, log)
    said(recorder, parse("select 1") + (bind() + execute()) * 25 + message("S"))
    recorder.answered(1, True)
    ((_event, more),) = log.lines
    assert (len(more["digests"]), more["more"]) == (10, 15)


def test_who_was_chosen_is_no_longer_when_the_day_is_over() -> None:
    clock, log, enhancement = begun()
    recorder = Recorder(enhancement, clock.seconds, log)
    said(recorder, message("Q", b"select 1\0"))
    clock.advance(A_DAY)
    recorder.answered(1, True)
    said(recorder, message("Q", b"select 2\0"))
    recorder.answered(2, True)
    assert log.lines == []
