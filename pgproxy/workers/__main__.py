"""A worker's process: `python -m pgproxy.workers NUMBER SOCKETS WRITING`, as the supervisor starts it."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from functools import partial
from typing import Any

from twisted.internet.protocol import Factory

LINE, CHARGE, NEXT, SOCKETS = 3, 4, 5, 6
"""Descriptors: the line to the supervisor, the charge in force, the next one, the first of the sockets."""


class _Line(Factory):
    noisy = False

    def __init__(self, seat: Any) -> None:
        self._seat = seat

    def buildProtocol(self, addr: Any) -> Any:
        return self._seat


def main(number: int, sockets_each: int, writing: int) -> None:
    """Run the worker of a number; of the sockets of each the first `writing` are read-write endpoints."""
    for ours in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        # The supervisor gets them, too (a terminal's Ctrl-C, systemd's stop), and says what is to be done.
        signal.signal(ours, signal.SIG_IGN)
    # What is imported is no garbage: to look for some takes a seventh of a worker's start.
    gc.disable()
    from pgproxy.workers.worker import Worker, read_charge

    charge = read_charge(CHARGE)
    if charge.reactor is not None:
        from twisted.application.reactors import installReactor

        installReactor(charge.reactor)
    else:
        from pgproxy.link.reactor import install

        install()
    from twisted.internet import reactor as chosen  # noqa: TID251
    from twisted.logger import globalLogBeginner

    from pgproxy.observe.logs import TwistedObserver
    from pgproxy.workers.seat import Seat

    gc.freeze()
    gc.enable()
    reactor: Any = chosen
    first = range(SOCKETS, SOCKETS + sockets_each * charge.workers, sockets_each)
    sockets = [list(range(start, start + sockets_each)) for start in first]
    seat = Seat(reactor, charge.workers)
    read = partial(read_charge, NEXT)
    worker = Worker(number, charge, read, sockets, writing, seat, reactor, reactor.stop)
    observer: Any = TwistedObserver(worker.log)
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    reactor.adoptStreamConnection(LINE, socket.AF_UNIX, _Line(seat))
    worker.privilegedStartService()
    worker.startService()
    reactor.run(installSignalHandlers=False)
    # All is closed and said. Taking the interpreter apart would only take a second.
    os._exit(0)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
