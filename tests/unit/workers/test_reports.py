"""When workers report, and that what one has never passes for what another has."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import structlog
from twisted.internet.task import Clock

from pgproxy.link.target import TargetPools
from pgproxy.pool.rules import Rules
from pgproxy.pool.states import Server
from pgproxy.workers.messages import Reported
from pgproxy.workers.rhythm import BETWEEN, WHILE_CALM, Rhythm
from pgproxy.workers.seat import Seat
from tests.unit.sessions import new_session


class Reports:
    """A rhythm, and when it has reported."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.pressed = self.waits = False
        self.at: list[float] = []
        self.rhythm = Rhythm(self.clock, self._report, lambda: self.pressed, lambda: self.waits)

    def _report(self) -> None:
        self.at.append(round(self.clock.seconds(), 6))

    def pump(self, seconds: float) -> None:
        self.clock.pump([0, *[BETWEEN / 4] * round(4 * seconds / BETWEEN)])

    def gaps(self) -> list[int]:
        """Give how much lay between two reports, in the least that may."""
        return [int((later - at) / BETWEEN) for at, later in pairwise(self.at)]


def test_what_nobody_waits_for_is_reported_now_and_then() -> None:
    reports = Reports()
    for _ in range(100):
        reports.rhythm.changed()
        reports.pump(BETWEEN)
    assert reports.at[0] == 0 and reports.gaps() == [WHILE_CALM / BETWEEN] * 3
    reports.pump(1)
    assert len(reports.at) == 5 and not reports.clock.getDelayedCalls()


def test_what_somebody_waits_for_is_reported_at_once() -> None:
    reports = Reports()
    reports.rhythm.changed()
    reports.pump(4 * BETWEEN)
    reports.rhythm.changed()
    reports.waits = True
    reports.rhythm.changed()
    reports.pump(BETWEEN)
    assert reports.gaps() == [4]
    reports.rhythm.changed()
    reports.rhythm.changed()
    reports.pump(4 * BETWEEN)
    assert reports.gaps() == [4, 1]


def test_while_somebody_waits_elsewhere_report_follows_report() -> None:
    reports = Reports()
    reports.rhythm.changed()
    reports.pump(BETWEEN)
    reports.pressed = True
    reports.rhythm.changed()
    reports.pump(4 * BETWEEN)
    assert len(reports.at) == 5
    reports.pressed = False
    reports.pump(1)
    assert len(reports.at) == 6 and not reports.clock.getDelayedCalls()


class Told(Seat):
    """A seat whose words are heard."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, 2)
        self.transport: Any = object()
        self.said: list[tuple[int, bool]] = []

    def callRemote(self, commandType: Any, *_more: Any, **arguments: Any) -> Any:
        if commandType is Reported and not arguments["walsender"]:
            self.said.append((arguments["servers"], arguments["kept"]))


def has_a_server(target: TargetPools) -> Server:
    """Have it have a pool with a server that is being opened."""
    nobody: Any = None
    pool = target.join(nobody, "app", "app", new_session)
    pools = target.pools
    assert pools.permits is not None and pool.part is not None
    pools.set_pool(pool, 2, 0, 10, False, 0)
    pools.permits.account(pool.part).most = 1
    pools.borrow(pool.lane(()), nobody, 0)
    (server,) = pools.servers
    return server


def test_what_is_left_of_a_target_is_said_before_another_takes_its_place() -> None:
    clock, where = Clock(), ("main", "127.0.0.1", 5432)
    seat = Told(clock)
    log = structlog.testing.CapturingLogger()
    first, second = (
        TargetPools("main", Rules(), clock, lambda: 0.5, log, where, elsewhere=seat) for _ in range(2)
    )
    nobody: Any = None
    server = has_a_server(first)
    seat.changed(first)
    clock.advance(0)
    first.pools.leave(server.lane, nobody)
    first.pools.lost(server, 0)
    first.leave(server.lane.pool)
    seat.changed(first)
    first.end()
    has_a_server(second)
    seat.changed(second)
    clock.advance(2 * WHILE_CALM)
    assert seat.said == [(1, True), (0, False), (1, True)]
