"""Opens a TCP connection to a host: the name looked up in a thread, each address tried in turn."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from pgproxy.link.threads import Threads
from pgproxy.pool.trouble import Cause

_NO_SUCH_NAME = frozenset({socket.EAI_NONAME, socket.EAI_NODATA})


class CannotConnect(Exception):
    """No connection to a host came about; the text says at which step and why."""

    def __init__(self, cause: Cause, why: str) -> None:
        super().__init__(why)
        self.cause = cause


async def connect(
    reactor: Any, threads: Threads, host: str, port: int, looked_up: Callable[[], None] = lambda: None
) -> socket.socket:
    """
    Give a connected, non-blocking socket; `looked_up` is called once it is known where.

    Raises `CannotConnect`; the caller sets the time limit. Cancelling the Deferred of this coroutine closes
    the attempt under way.
    """
    try:
        found = await threads.resolve(socket.getaddrinfo, host, port, 0, socket.SOCK_STREAM)
    except OSError as error:
        cause = Cause.NAME_UNKNOWN if error.errno in _NO_SUCH_NAME else Cause.NAME_UNANSWERED
        raise CannotConnect(cause, f"cannot look up {host}: {error.strerror or error}") from error
    except UnicodeError as error:
        raise CannotConnect(Cause.NAME_UNKNOWN, f"{host} is not a host's name") from error
    looked_up()
    trouble = CannotConnect(Cause.NAME_UNKNOWN, f"{host} has no address")
    for family, _kind, _protocol, _name, address in found:
        where: Any = address[0]
        try:
            return await _Attempt(reactor, family, address).connected
        except OSError as error:
            reason = error.strerror or str(error)
            trouble = CannotConnect(Cause.UNREACHABLE, f"cannot connect to {where} port {port}: {reason}")
    raise trouble


@implementer(IReadWriteDescriptor)
class _Attempt:
    """One connect(2) under way."""

    def __init__(self, reactor: Any, family: int, address: Any) -> None:
        self._reactor = reactor
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self.connected: Deferred[socket.socket] = Deferred(self._give_up)
        result = self._socket.connect_ex(address)
        if result in (0, errno.EINPROGRESS):
            reactor.addWriter(self)
        else:
            self._fail(result)

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "connect"

    def doRead(self) -> None:
        """Nothing is read yet."""

    def doWrite(self) -> None:
        """Take the outcome: the socket has become writable."""
        self._reactor.removeWriter(self)
        result = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if result:
            self._fail(result)
        else:
            self.connected.callback(self._socket)

    def connectionLost(self, _reason: Failure) -> None:
        """Take the outcome where the reactor saw the failure first."""
        if not self.connected.called:
            self._fail(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or errno.ECONNREFUSED)

    def _fail(self, number: int) -> None:
        self._socket.close()
        self.connected.errback(Failure(OSError(number, os.strerror(number))))

    def _give_up(self, _deferred: Deferred[socket.socket]) -> None:
        self._reactor.removeWriter(self)
        self._socket.close()
