"""What the supervisor does where two things happen at a time; test_workers.py has what needs processes."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from pgproxy.config import Address, Config, Database, Proxy, Target
from pgproxy.workers.supervisor import Supervisor


class Reactor(Clock):
    """It can be stopped, but not twice: that is an error."""

    stopped = 0

    def stop(self) -> None:
        self.stopped += 1


def made(reactor: Reactor) -> Supervisor:
    proxy = Proxy(min_pool_size=3)
    config = Config(
        proxy=proxy,
        targets={"main": Target(server=(Address("127.0.0.1", 5432),))},
        databases={"*": Database(target="main")},
    )
    return Supervisor(config, lambda: config, reactor)


@pytest.mark.parametrize(("retired", "least"), [(False, 3), (True, 0)])
def test_who_has_been_followed_keeps_no_minimum_whatever_its_console_is_told(
    retired: bool, least: int
) -> None:
    supervisor = made(Reactor())
    taken: list[Config] = []
    supervisor.budgets.configure = taken.append  # type: ignore[method-assign, assignment]
    supervisor._retired = retired
    supervisor.adjust(supervisor.config)
    assert [config.proxy.min_pool_size for config in taken] == [least]
    supervisor._charges.close()


def test_who_is_told_to_go_before_all_are_ready_does_not_say_that_it_serves() -> None:
    supervisor = made(Reactor())
    supervisor._leaving = True
    supervisor._say_started()
    supervisor._charges.close()


@pytest.mark.parametrize("meanwhile", [False, True])
def test_a_stop_while_the_last_clients_are_waited_for_is_the_only_one(meanwhile: bool) -> None:
    reactor = Reactor()
    asked: list[tuple[str, Deferred[list[Any]]]] = []
    supervisor = made(reactor)

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
