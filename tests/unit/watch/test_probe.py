"""One host is asked: one question at a time, over one connection, and never for longer than host_timeout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from pgproxy.link.server import Account, OpenFailed
from pgproxy.pool.states import CloseReason
from pgproxy.pool.trouble import Cause, Stage, trouble
from pgproxy.targets.facts import NEWS_AT_ONCE, QUESTION, SHORT_QUESTION, Answer, Trouble
from pgproxy.watch.probe import Probe
from pgproxy.wire import messages, tags

TIMEOUT = 3.0
LOG: Any = structlog.wrap_logger(
    structlog.testing.CapturingLogger(), processors=[lambda _log, _name, event: str(event)]
)
ROW = [b"t", b"0/100", b"", b"1", b"7", b"100"]
ACCOUNT = Account("watcher", "postgres", None)  # type: ignore[arg-type]


class Connection:
    """To the host, as far as a probe sees it."""

    def __init__(self, *arguments: Any) -> None:
        self.lost: Callable[[Connection, CloseReason], None] = arguments[5]
        self.closed = False
        self.replies: Callable[[list[tuple[int, bytes]]], None] | None = None
        self.asked: list[bytes] = []

    def close(self, _linger: float) -> None:
        assert not self.closed
        self.closed = True


class Question:
    """What is asked over one."""

    def __init__(self, connection: Connection, replies: Callable[[list[tuple[int, bytes]]], None]) -> None:
        assert not connection.closed
        assert connection.replies is None, "one question at a time"
        self._connection = connection
        connection.replies = replies

    def ask(self, question: bytes) -> None:
        self._connection.asked.append(question)


class Scene:
    """A probe, and the host that it asks."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.openings: list[tuple[Connection, Deferred[Connection]]] = []
        self.account: Account | None = ACCOUNT
        self.answers: list[Answer] = []
        self.failures: list[Trouble] = []
        self.probe = Probe(
            "host",  # type: ignore[arg-type]
            lambda: self.account,
            TIMEOUT,
            self.answers.append,
            lambda why, _words: self.failures.append(why),
            self.clock,
            None,  # type: ignore[arg-type]
            LOG,
        )

    async def open(self, _reactor: object, _threads: object, connection: Any, _timeout: float) -> Connection:
        waits: Deferred[Connection] = Deferred()
        self.openings.append((connection, waits))
        try:
            return await waits
        except CancelledError as error:
            raise no(Stage.CONNECT, Cause.TIMEOUT) from error

    @property
    def connection(self) -> Connection:
        return self.openings[-1][0]

    def connect(self) -> None:
        connection, waits = self.openings[-1]
        waits.callback(connection)

    def reply(self, *rows: list[bytes], error: bytes = b"") -> None:
        replies = self.connection.replies
        assert replies is not None
        self.connection.replies = None
        said = [(int(tags.DATA_ROW), data_row(row)) for row in rows]
        if error:
            said.append((int(tags.ERROR_RESPONSE), error))
        replies(said)


def no(stage: Stage, cause: Cause) -> OpenFailed:
    """Build why an opening failed."""
    return OpenFailed(trouble(stage, cause, "host", "why", "postgres"))


def data_row(row: list[bytes]) -> bytes:
    columns = b"".join(len(one).to_bytes(4, "big") + one for one in row)
    return len(row).to_bytes(2, "big") + columns


ERROR = b"SERROR\0C42883\0Mno such function\0\0"


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return stand_in(monkeypatch)


def stand_in(patch: pytest.MonkeyPatch) -> Scene:
    made = Scene()
    patch.setattr("pgproxy.watch.probe.ServerConnection", Connection)
    patch.setattr("pgproxy.watch.probe.Question", Question)
    patch.setattr("pgproxy.watch.probe.open_server", made.open)
    return made


def test_a_connection_is_opened_and_kept(scene: Scene) -> None:
    scene.probe.look()
    scene.connect()
    scene.reply(ROW)
    scene.probe.look()
    scene.reply(ROW)
    assert len(scene.openings) == 1 and len(scene.answers) == 2 and not scene.failures
    assert scene.connection.asked == [messages.query(QUESTION)] * 2


def test_nobody_to_ask_as_is_no_trouble(scene: Scene) -> None:
    scene.account = None
    scene.probe.look()
    assert not scene.openings and not scene.failures


def test_a_silent_host_is_told_soon_and_given_up_in_time(scene: Scene) -> None:
    scene.probe.look()
    scene.connect()
    scene.clock.advance(0.2)
    scene.probe.look()
    assert not scene.failures
    scene.clock.advance(0.1)
    scene.probe.look()
    assert scene.failures == [Trouble.SILENT] and not scene.connection.closed
    first = scene.connection
    scene.clock.advance(TIMEOUT)
    scene.probe.look()
    assert first.closed
    scene.probe.look()
    assert len(scene.openings) == 2


def test_an_opening_that_hangs_is_given_up_in_time(scene: Scene) -> None:
    scene.probe.look()
    scene.clock.advance(TIMEOUT)
    scene.probe.look()
    assert scene.failures == [Trouble.SILENT]
    scene.probe.look()
    assert len(scene.openings) == 2


@pytest.mark.parametrize(
    ("stage", "cause", "expected"),
    [
        (Stage.CONNECT, Cause.UNREACHABLE, Trouble.UNREACHABLE),
        (Stage.LOOK_UP, Cause.NAME_UNKNOWN, Trouble.UNREACHABLE),
        (Stage.LOGIN, Cause.LOST, Trouble.LOST),
        (Stage.LOGIN, Cause.NO_SECRET, Trouble.REFUSED),
    ],
)
def test_what_cannot_be_opened(scene: Scene, stage: Stage, cause: Cause, expected: Trouble) -> None:
    scene.probe.look()
    scene.openings[-1][1].errback(no(stage, cause))
    assert scene.failures == [expected]


def test_a_connection_that_ends(scene: Scene) -> None:
    scene.probe.look()
    scene.connect()
    scene.connection.lost(scene.connection, CloseReason.LOST)
    assert scene.failures == [Trouble.LOST]
    scene.probe.look()
    assert len(scene.openings) == 2


def test_who_does_not_know_the_functions_is_asked_less(scene: Scene) -> None:
    scene.probe.look()
    scene.connect()
    scene.reply(error=ERROR)
    assert scene.connection.asked[-1] == messages.query(SHORT_QUESTION)
    scene.reply([b"f", b"", b"", b"", b"", b""])
    assert scene.answers == [Answer(False)] and not scene.probe.waits_well
    scene.probe.look(urgent=True)
    scene.reply(error=ERROR)
    assert scene.failures == [Trouble.REFUSED]


def test_in_a_hurry_a_host_is_to_wait_with_its_answer(scene: Scene) -> None:
    scene.probe.look()
    scene.connect()
    scene.reply(ROW)
    scene.probe.look(urgent=True)
    assert scene.connection.asked[-1] == messages.query(NEWS_AT_ONCE)


def test_something_else_is_asked_behind_the_question(scene: Scene) -> None:
    scene.probe.look()
    scene.connect()
    found: list[Any] = []
    scene.probe.ask("select 1").addBoth(found.append)
    assert len(scene.connection.asked) == 1
    scene.reply(ROW)
    scene.reply([b"1"], [b"2"])
    assert found == [[["1"], ["2"]]]


def test_who_waits_for_something_else_is_told_that_there_is_nothing(scene: Scene) -> None:
    found: list[Any] = []
    scene.probe.ask("select 1").addErrback(lambda failure: found.append(failure.value))
    scene.probe.look()
    scene.openings[-1][1].errback(no(Stage.CONNECT, Cause.UNREACHABLE))
    assert len(found) == 1


STEPS = st.lists(
    st.sampled_from(
        ["look", "urgent", "connect", "refuse", "reply", "error", "ask", "lose", "short", "long", "stop"]
    ),
    max_size=40,
)


@given(STEPS)
def test_whatever_happens_nobody_waits_for_ever(steps: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        scene = stand_in(patch)
        waiting: list[Deferred[Any]] = []
        for step in steps:
            opening = scene.openings[-1][1] if scene.openings else None
            under_way = opening is not None and not opening.called
            asked = bool(scene.openings) and scene.connection.replies is not None
            alive = opening is not None and opening.called and not scene.connection.closed
            match step:
                case "look" | "urgent":
                    scene.probe.look(step == "urgent")
                case "connect" if under_way:
                    scene.connect()
                case "refuse" if under_way and opening is not None:
                    opening.errback(no(Stage.CONNECT, Cause.UNREACHABLE))
                case "reply" if asked and alive:
                    scene.reply(ROW)
                case "error" if asked and alive:
                    scene.reply(error=ERROR)
                case "ask":
                    one = scene.probe.ask("select 1")
                    one.addErrback(lambda _failure: None)
                    waiting.append(one)
                case "lose" if alive and scene.probe._connection is not None:
                    scene.connection.lost(scene.connection, CloseReason.LOST)
                    scene.connection.closed = True
                case "short" | "long":
                    scene.clock.advance(0.3 if step == "short" else TIMEOUT)
                case "stop":
                    break
            kept = [one for one, opened in scene.openings if opened.called and not one.closed]
            assert len(kept) <= 1
        scene.probe.stop()
        assert all(one.called for one in waiting)


@pytest.mark.parametrize(("sqlstate", "then"), [(b"40001", QUESTION), (b"42883", SHORT_QUESTION)])
def test_what_was_wrong_once_is_asked_again(scene: Scene, sqlstate: bytes, then: str) -> None:
    scene.probe.look()
    scene.connect()
    scene.reply(error=b"SERROR\0C" + sqlstate + b"\0Mno\0\0")
    assert scene.connection.asked[-1] == messages.query(SHORT_QUESTION)
    scene.reply([b"t", b"", b"", b"", b"", b""])
    scene.probe.look()
    assert scene.connection.asked[-1] == messages.query(then)
