"""When hosts are asked, and what is told of what they say; the probes do as a test says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from pgproxy.targets.facts import Address, Answer, Trouble
from pgproxy.targets.history import Change
from pgproxy.targets.judge import Roles
from pgproxy.targets.pace import ALERT, ALERT_LASTS
from pgproxy.watch.watcher import Watcher, Watching

A, B, C = (Address(f"10.0.0.{number}", 5432) for number in (1, 2, 3))
CALM = 1.0
LOG: Any = structlog.wrap_logger(
    structlog.testing.CapturingLogger(), processors=[lambda _log, _name, event: str(event)]
)


class Probe:
    """It counts how often it was told to look."""

    all: dict[Address, Probe]

    def __init__(
        self, host: Address, _account: object, _timeout: float, answered: Any, failed: Any, *_more: Any
    ) -> None:
        self.answered = answered
        self.failed = failed
        self.looks = 0
        self.urgent = 0
        self.stopped = False
        self.waits_well = False
        assert host not in self.all or self.all[host].stopped
        self.all[host] = self

    def look(self, urgent: bool = False) -> None:
        assert not self.stopped
        self.looks += 1
        self.urgent += urgent

    def stop(self) -> None:
        self.stopped = True


class Scene:
    """A watcher of three hosts."""

    def __init__(self) -> None:
        Probe.all = {}
        self.clock = Clock()
        self.told: list[Roles] = []
        self.hurries = 0
        self.watcher = Watcher(
            Watching(CALM, 3.0, 10.0),
            lambda address: address,  # type: ignore[arg-type, return-value]
            lambda: None,
            self.told.append,
            self.hurry,
            self.clock,
            None,  # type: ignore[arg-type]
            LOG,
        )

    def hurry(self) -> None:
        self.hurries += 1

    def say(self, host: Address, recovery: bool, timeline: int = 1) -> None:
        Probe.all[host].answered(Answer(recovery, 100, timeline, "s", 100))

    def fail(self, host: Address, why: Trouble = Trouble.LOST) -> None:
        Probe.all[host].failed(why, "it does not answer")

    def be_well(self) -> None:
        """A is the writer, B and C follow, and the excitement is over."""
        self.watcher.start((A, B, C))
        self.say(A, recovery=False)
        self.say(B, recovery=True)
        self.say(C, recovery=True)
        self.clock.pump([CALM / 2] * int(2 * ALERT_LASTS / CALM + 4))

    @property
    def writer(self) -> Address | None:
        return self.told[-1].writer

    @property
    def looks(self) -> int:
        return Probe.all[A].looks


@pytest.fixture
def scene() -> Iterator[Scene]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pgproxy.watch.watcher.Probe", Probe)
        yield Scene()


def test_nothing_is_told_before_all_have_been_asked(scene: Scene) -> None:
    scene.watcher.start((A, B, C))
    scene.say(A, recovery=False)
    scene.say(C, recovery=True)
    assert not scene.told
    # It is on a higher timeline: had A been told, clients would have been sent to an old writer.
    scene.say(B, recovery=False, timeline=2)
    assert [roles.writer for roles in scene.told] == [B]


def test_one_that_does_not_answer_has_been_asked(scene: Scene) -> None:
    scene.watcher.start((A, B))
    scene.say(A, recovery=False)
    scene.fail(B, Trouble.SILENT)
    assert [roles.writer for roles in scene.told] == [A]


def test_where_nobody_says_anything_that_is_told(scene: Scene) -> None:
    scene.watcher.start((A, B))
    scene.fail(A, Trouble.REFUSED)
    scene.fail(B, Trouble.UNREACHABLE)
    assert [(roles.writer, roles.blind) for roles in scene.told] == [(None, True)]


def test_later_a_new_writer_is_told_at_once(scene: Scene) -> None:
    scene.be_well()
    scene.watcher.set_hosts((A, B, C, Address("10.0.0.9", 5432)))
    scene.say(B, recovery=False, timeline=2)
    assert scene.writer == B


def test_looks_are_seldom_while_all_is_well_and_often_in_trouble(scene: Scene) -> None:
    scene.be_well()
    before = scene.looks
    scene.clock.pump([CALM / 4] * 20)
    assert scene.looks - before == 5
    scene.watcher.alarm()
    scene.clock.advance(0)
    assert scene.looks - before == 6 and scene.hurries
    scene.clock.pump([ALERT] * 10)
    assert scene.looks - before in range(15, 18)


def test_an_alarm_in_trouble_makes_no_more_looks(scene: Scene) -> None:
    scene.be_well()
    before = scene.looks
    for _ in range(100):
        scene.watcher.alarm()
    scene.clock.advance(0)
    assert scene.looks - before == 1


def test_it_is_urgent_only_while_there_is_no_writer(scene: Scene) -> None:
    scene.be_well()
    assert not Probe.all[B].urgent
    scene.fail(A)
    scene.clock.pump([0, ALERT])
    assert Probe.all[B].urgent
    scene.say(B, recovery=False, timeline=2)
    before = Probe.all[C].urgent
    scene.clock.pump([ALERT] * 5)
    assert Probe.all[C].urgent == before


def test_who_follows_knows_what_was_known(scene: Scene) -> None:
    scene.be_well()
    scene.say(B, recovery=False, timeline=2)
    before = scene.watcher
    before.stop()
    Probe.all = {}
    after = Scene()
    after.watcher.judge.go_on_from(before.judge)
    after.watcher.start((A, B, C))
    after.say(A, recovery=False, timeline=1)
    after.fail(B)
    after.fail(C)
    # The old writer is fenced although nobody else speaks.
    assert after.writer is None
    changes = [entry.change for entry in after.watcher.judge.history.entries()]
    assert changes.count(Change.BECAME_WRITER) == 2 and Change.FENCED in changes


def test_nothing_goes_on_behind_the_end(scene: Scene) -> None:
    scene.be_well()
    scene.watcher.stop()
    scene.watcher.alarm()
    assert not scene.clock.getDelayedCalls()
    assert all(probe.stopped for probe in Probe.all.values())


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("says"), st.sampled_from([A, B, C]), st.booleans(), st.integers(1, 3)),
        st.tuples(st.just("fails"), st.sampled_from([A, B, C]), st.sampled_from(list(Trouble))),
        st.tuples(st.just("hosts"), st.sets(st.sampled_from([A, B, C]))),
        st.tuples(st.just("alarm")),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 0.05, 0.1, 1.0, 40.0])),
    ),
    max_size=40,
)


@given(STEPS)
def test_whatever_happens_there_is_one_next_look(steps: list[tuple[Any, ...]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pgproxy.watch.watcher.Probe", Probe)
        scene = Scene()
        listed = {A, B, C}
        highest = 0
        scene.watcher.start(sorted(listed))
        for what, *more in steps:
            match what:
                case "says" if more[0] in listed:
                    scene.say(*more)
                case "fails" if more[0] in listed:
                    scene.fail(*more)
                case "hosts":
                    listed = more[0]
                    scene.watcher.set_hosts(sorted(listed))
                case "alarm":
                    scene.watcher.alarm()
                case "wait":
                    scene.clock.advance(more[0])
            roles = scene.watcher.judge.roles
            assert len(scene.clock.getDelayedCalls()) == 1
            assert {address for address, probe in Probe.all.items() if not probe.stopped} == listed
            assert roles.writer is None or roles.writer in listed
            assert roles.writer not in roles.readers
            assert set(roles.readers) <= listed
            writer = scene.watcher.judge.hosts.get(roles.writer) if roles.writer else None
            if writer is not None and roles.up and writer.answer is not None:
                assert not writer.answer.in_recovery
                assert writer.answer.timeline >= highest
                highest = writer.answer.timeline
