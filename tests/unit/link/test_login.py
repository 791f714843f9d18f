"""A login waits for what has to be waited for, and for nothing when its client has gone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred

from pgproxy.link.login import Login


def test_who_has_gone_has_nothing_waited_for() -> None:
    front: Any = SimpleNamespace(config=SimpleNamespace(proxy=SimpleNamespace(auth="trust")))
    nobody: Any = None
    failures: list[object] = []
    login = Login(front, nobody, nobody, b"", nobody, failures.append)
    elsewhere: Deferred[None] = Deferred()

    async def second() -> None:
        await elsewhere

    async def first() -> None:
        # Its step is done at once, and the next one has to be waited for.
        login._wait_for(second())

    login._wait_for(first())
    assert not elsewhere.called
    login.lost()
    assert elsewhere.called and not failures
