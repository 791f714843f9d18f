"""Opens a server; every way in which that can fail comes out as `OpenFailed`, with its stage."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from pgproxy.link.connect import CannotConnect, connect
from pgproxy.link.server import OpenFailed, ServerConnection
from pgproxy.link.threads import Threads
from pgproxy.link.transport import Stream
from pgproxy.pool.trouble import Cause, Stage


async def open_server(
    reactor: Any, threads: Threads, connection: ServerConnection, connect_timeout: float
) -> ServerConnection:
    """
    Connect and log in. Raises `OpenFailed`.

    The caller cancels the Deferred of this coroutine after `connect_timeout` seconds, which then fails with
    what the time was not enough for.
    """
    host = connection.host

    def looked_up() -> None:
        connection.stage = Stage.CONNECT

    try:
        sock = await connect(reactor, threads, host.name, host.port, looked_up)
        connection.makeConnection(Stream(sock, connection, reactor, host.keepalive))
        return await connection.opened
    except CancelledError as error:
        raise OpenFailed(connection.timed_out(connect_timeout)) from error
    except CannotConnect as error:
        raise OpenFailed(connection.trouble(error.cause, str(error))) from error
    except OSError as error:
        # The peer has gone again before there was a transport.
        raise OpenFailed(connection.trouble(Cause.LOST, error.strerror or str(error))) from error
    except OpenFailed:
        raise
    except Exception as error:
        raise OpenFailed(connection.defect(Failure(error))) from error
