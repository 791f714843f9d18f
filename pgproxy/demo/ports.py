"""TCP ports of 127.0.0.1: finding a free one, and knowing without a connection that one is listened on."""

import errno
import socket
from itertools import count
from random import SystemRandom

# Below 32768, where Linux begins to hand out ports to outgoing connections: one could be faster than we are.
_PORTS = range(12_000, 32_000)
# One after the other from somewhere, not each by chance: of the many that several processes ask for, two
# would now and then be the same before the first is listened on.
_turns = count(SystemRandom().randrange(len(_PORTS)))


def is_free(port: int, address: str = "127.0.0.1") -> bool:
    """Say whether a server could listen on this port of a loopback address."""
    try:
        _bind(port, address)
    except OSError:
        return False
    return True


def free_port(*addresses: str) -> int:
    """
    Choose a port that is free now on 127.0.0.1, or on all loopback addresses named.

    Whoever takes it must cope with another being faster.
    """
    ports = (_PORTS[turn % len(_PORTS)] for turn in _turns)
    return next(
        port for port in ports if all(is_free(port, address) for address in addresses or ("127.0.0.1",))
    )


def is_listening(port: int) -> bool:
    """
    Say whether somebody listens on this port of 127.0.0.1 or of every address, without connecting.

    A connection made only to find out would be in the log and in the counts of the one who listens. And
    /proc/net/tcp is the longer the more connections have ended a moment ago.
    """
    try:
        _bind(port, "127.0.0.1")
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False


def _bind(port: int, address: str) -> None:
    """Take an address for a moment. Raises OSError; EADDRINUSE where somebody listens there."""
    with socket.socket() as probe:
        # As servers do: what lingers in TIME_WAIT doesn't matter, nor who has it and doesn't listen yet.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((address, port))
