"""The sockets that a process listens on although it has not opened them: systemd's, or its predecessor's."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Mapping, MutableMapping
from contextlib import suppress

from attrs import field, frozen

from pgproxy.config import Address

FIRST = 3
"""The first descriptor that systemd passes (SD_LISTEN_FDS_START)."""
ESTATE = "PGPROXY_ESTATE"
"""The variable by which a process says what it leaves to the next."""
READ_ONLY = "read-only"
"""The name of systemd's sockets for clients that only read."""
_SYSTEMD = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


class UnusableSocket(Exception):
    """A descriptor is none to listen on; the text says which and why."""


@frozen
class Inherited:
    """What was passed to this process."""

    sockets: tuple[socket.socket, ...] = ()
    names: tuple[str, ...] = ()
    """What systemd calls each (FileDescriptorName); "" where nobody has named them."""
    instead: bool = False
    """Whether they stand for `proxy.listen`, whatever that says: socket activation."""
    line: int | None = None
    """The descriptor of the line to the predecessor, if there is one."""
    whose: str = field(default="nobody")

    def addresses(self, read_only: bool) -> tuple[Address, ...]:
        """Give where those listen that are read-only endpoints, or the others."""
        chosen = [
            one
            for one, name in zip(self.sockets, self.names, strict=True)
            if (name == READ_ONLY) == read_only
        ]
        return tuple(dict.fromkeys(Address(*one.getsockname()[:2]) for one in chosen))

    def at(self, address: Address) -> list[socket.socket]:
        """Give those that listen on an address."""
        names = _names(address)
        return [one for one in self.sockets if one.fileno() >= 0 and one.getsockname()[:2] in names]

    def keep(self, addresses: Iterable[Address]) -> None:
        """Close those that listen on none of these."""
        wanted = {one for address in addresses for one in self.at(address)}
        for one in self.sockets:
            if one not in wanted:
                one.close()


def inherit(environ: MutableMapping[str, str], pid: int) -> Inherited:
    """
    Take what was passed to the process `pid`, which is to be ours; the variables that say so are removed.

    Raises `UnusableSocket`.
    """
    estate = environ.pop(ESTATE, None)
    listen = {name: environ.pop(name, "") for name in _SYSTEMD}
    if estate is not None:
        said = json.loads(estate)
        sockets = _sockets(said["sockets"])
        return Inherited(sockets, tuple(said["names"]), said["instead"], said["line"], "predecessor")
    if listen["LISTEN_PID"] != str(pid) or not listen["LISTEN_FDS"].isdigit():
        return Inherited()
    count = int(listen["LISTEN_FDS"])
    if not count:
        return Inherited()
    names = listen["LISTEN_FDNAMES"].split(":")
    names = [*names, *[""] * count][:count]
    return Inherited(_sockets(range(FIRST, FIRST + count)), tuple(names), instead=True, whose="systemd")


def bequest(sockets: Mapping[int, str], instead: bool, line: int) -> str:
    """
    Write what the successor finds under `ESTATE`: the numbers that its sockets have there, with their names.

    `instead` and `line` are as in `Inherited`.
    """
    said = {"sockets": list(sockets), "names": list(sockets.values()), "instead": instead, "line": line}
    return json.dumps(said)


def _sockets(numbers: Iterable[int]) -> tuple[socket.socket, ...]:
    return tuple(map(_socket, numbers))


def _socket(number: int) -> socket.socket:
    try:
        one = socket.socket(fileno=number)
    except OSError as error:
        raise UnusableSocket(f"descriptor {number} is no socket ({error.strerror})") from error
    os.set_inheritable(number, False)
    listens = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if one.family not in (socket.AF_INET, socket.AF_INET6) or one.type != socket.SOCK_STREAM or not listens:
        one.detach()
        raise UnusableSocket(f"descriptor {number} is no TCP socket that listens")
    one.setblocking(False)
    return one


def _names(address: Address) -> set[tuple[str, int]]:
    """Give what the address may be called by the socket that has it."""
    names = {(address.host, address.port)}
    with suppress(OSError):
        for *_kind, name in socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM):
            names.add((str(name[0]), int(name[1])))
    return names
