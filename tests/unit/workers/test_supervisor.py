"""What the supervisor does where two things happen at a time; test_workers.py has what needs processes."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from pgproxy.config import Address, Config, Database, Target
from pgproxy.workers.supervisor import Supervisor


class Reactor(Clock):
    """It can be stopped, but not twice: that is an error."""

    stopped = 0

    def stop(self) -> None:
        self.stopped += 1


@pytest.mark.parametrize("meanwhile", [False, True])
def test_a_stop_while_the_last_clients_are_waited_for_is_the_only_one(meanwhile: bool) -> None:
    reactor = Reactor()
    asked: list[tuple[str, Deferred[list[Any]]]] = []
    config = Config(
        targets={"main": Target(server=(Address("127.0.0.1", 5432),))},
        databases={"*": Database(target="main")},
    )
    supervisor = Supervisor(config, lambda: config, reactor)

    async def everybody(request: dict[str, Any]) -> list[Any]:
        answer: Deferred[list[Any]] = Deferred()
        asked.append((request["act"], answer))
        return await answer

    supervisor.company.everybody = everybody  # type: ignore[method-assign]
    supervisor.shut_down("wait_for_clients")
    asked[-1][1].callback([])
    assert [act for act, _answer in asked] == ["leave", "clients"]
    supervisor._stopping = meanwhile
    asked[-1][1].callback([])
    assert reactor.stopped == (not meanwhile)
    supervisor._charges.close()
