"""
Workers that are forked beforehand, of what the nursery has imported.

A supervisor starts a worker as `python -m pgproxy.workers`, which imports all of it: a third of a second,
for each. One that the nursery has forked has children that wait, forked before anything of twistd has begun:
the first workers are those. What is started later is started from nothing, as are the workers of all programs
that the nursery does not start.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from fcntl import F_DUPFD, fcntl
from typing import Any

_MOST = 1 << 17
"""Bytes of what one is told."""
_MOST_DESCRIPTORS = 250
"""Linux passes 253 at once."""
_MODULE = "pgproxy.workers"
_ANSWER_SECONDS = 60.0


def prepare(number: int) -> None:
    """Fork so many, and have Twisted take them where it is to start a worker."""
    lines: list[socket.socket] = []
    for _ in range(number):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() == 0:
            for other in (*lines, ours):
                other.close()
            _be_one(theirs)
        theirs.close()
        ours.settimeout(_ANSWER_SECONDS)
        lines.append(ours)
    _lend(lines)


def _lend(lines: list[socket.socket]) -> None:
    from twisted.internet.process import Process

    begins_program = Process._trySpawnInsteadOfFork

    def begin(
        process: Any, path: Any, uid: Any, gid: Any, program: Any, words: Any, env: Any, more: Any
    ) -> Any:
        command = [os.fsdecode(word) for word in words]
        if not lines or command[:3] != [sys.executable, "-m", _MODULE]:
            return begins_program(process, path, uid, gid, program, words, env, more)
        assert path is None and uid is None and gid is None
        with lines.pop(0) as line:
            process.pid = _tell(line, command[3:], env, more["fdmap"])
        process.status = -1
        return True

    Process._trySpawnInsteadOfFork = begin  # type: ignore[method-assign]


def _tell(
    line: socket.socket, arguments: list[str], env: Mapping[Any, Any], theirs: Mapping[int, int]
) -> int:
    """Have one begin, with descriptors under the numbers that it is to have; gives its process id."""
    environment = {os.fsdecode(name): os.fsdecode(value) for name, value in env.items()}
    told = {"arguments": arguments, "env": environment, "places": list(theirs)}
    socket.send_fds(line, [json.dumps(told).encode()], list(theirs.values()))
    answer = line.recv(_MOST)
    if not answer:
        raise ChildProcessError("a worker that was forked beforehand has ended")
    return int(answer)


def _be_one(line: socket.socket) -> None:
    """Wait until there is something to do; then be that worker, and nothing else."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    told, descriptors, _flags, _address = socket.recv_fds(line, _MOST, _MOST_DESCRIPTORS)
    if not told:
        os._exit(0)
    asked = json.loads(told)
    line.send(str(os.getpid()).encode())
    line.close()
    _place(dict(zip(asked["places"], descriptors, strict=True)))
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.path[0] = os.getcwd()
    sys.argv = [_MODULE, *asked["arguments"]]
    sys.orig_argv = [sys.executable, "-m", *sys.argv]
    runpy.run_module(_MODULE, run_name="__main__", alter_sys=True)
    os._exit(0)


def _place(descriptors: Mapping[int, int]) -> None:
    """Have descriptors under these numbers, and no others."""
    above = 1 + max(*descriptors, *descriptors.values())
    high = {place: fcntl(one, F_DUPFD, above) for place, one in descriptors.items()}
    for place, one in high.items():
        os.dup2(one, place)
    for other in range(above):
        if other not in descriptors:
            with suppress(OSError):
                os.close(other)
    os.closerange(above, max(high.values()) + 1)
