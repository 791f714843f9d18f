"""
The servers that a dead worker has left: what they do is cancelled.

The kernel has closed their connections; PostgreSQL notices that when it next reads from one, so an idle one
has ended already, and one at work ends when its work does. That is cancelled with the key that the worker
has told us; more than once, as a server goes on with what else it was sent before it hears of the end.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred as Wait
from twisted.internet.defer import DeferredSemaphore, gatherResults
from twisted.internet.task import deferLater

from pgproxy.link.cancel import cancel_at
from pgproxy.link.server import Host
from pgproxy.link.threads import Threads

_AT_ONCE = 8
_TIMES = (0.0, 0.2, 0.5)
"""Seconds before each time that they are cancelled."""
_AFTER = 0.3
"""Seconds until the last of them has ended."""
_LONGEST = 5.0
"""Seconds for one to be cancelled."""


@frozen
class Left:
    """A server that has nobody."""

    host: Host
    pid: int
    secret: bytes


async def end_all(reactor: Any, threads: Threads, servers: Iterable[Left]) -> None:
    """Cancel what they do, and give them the time to end."""
    servers = list(servers)
    tokens = DeferredSemaphore(_AT_ONCE)
    for before in _TIMES:
        await deferLater(reactor, before)
        await gatherResults([tokens.run(_cancel, reactor, threads, server) for server in servers])
    await deferLater(reactor, _AFTER)


def _cancel(reactor: Any, threads: Threads, server: Left) -> Wait[Any]:
    sent: Wait[Any] = Wait.fromCoroutine(cancel_at(reactor, threads, server.host, server.pid, server.secret))
    sent.addTimeout(_LONGEST, reactor)
    return sent.addErrback(lambda _failure: None)
