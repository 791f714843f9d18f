"""What a process is passed: by systemd, by the process before it, or wrongly."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from fcntl import F_DUPFD, fcntl
from pathlib import Path

import pytest
from twisted.python import usage

from pgproxy.config import Address
from pgproxy.link.keepalive import Keepalive
from pgproxy.succession import inherited
from pgproxy.succession.inherited import ESTATE, READ_ONLY, Inherited, UnusableSocket, bequest, inherit
from pgproxy.tap import Options
from pgproxy.workers.sockets import open_sockets

KEEPALIVE = Keepalive(30, 10, 3, 0.0)


@pytest.fixture
def two() -> Iterator[list[socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        yield [one, other]


def where(one: socket.socket) -> Address:
    return Address(*one.getsockname()[:2])


def dup(one: socket.socket) -> int:
    return os.dup(one.fileno())


def test_nothing() -> None:
    assert inherit({}, 1) == Inherited()


@pytest.mark.parametrize("environ", [{"LISTEN_PID": "2", "LISTEN_FDS": "1"}, {"LISTEN_PID": "1"}])
def test_what_is_for_another(environ: dict[str, str]) -> None:
    assert inherit(environ, 1) == Inherited()
    assert environ == {}


def test_systemds(two: list[socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    # One behind the other, far from what else this process has open: it is not to be replaced.
    first = fcntl(two[0], F_DUPFD, 500)
    assert fcntl(two[1], F_DUPFD, first + 1) == first + 1
    monkeypatch.setattr(inherited, "FIRST", first)
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "pgproxy.socket:read-only"}
    found = inherit(environ, 1)
    assert found.instead and environ == {}
    assert found.addresses(False) == (where(two[0]),)
    assert found.addresses(True) == (where(two[1]),)
    found.keep([])
    assert all(one.fileno() == -1 for one in found.sockets)


def test_a_predecessors(two: list[socket.socket]) -> None:
    numbers = {dup(two[0]): "", dup(two[1]): READ_ONLY}
    found = inherit({ESTATE: bequest(numbers, False, 9), "LISTEN_PID": "1", "LISTEN_FDS": "5"}, 1)
    assert (found.names, found.instead, found.line) == (("", READ_ONLY), False, 9)
    assert [one.fileno() for one in found.at(where(two[0]))] == list(numbers)[:1]
    assert found.at(Address("127.0.0.1", 1)) == []
    found.keep([where(two[1])])
    assert [one.fileno() == -1 for one in found.sockets] == [True, False]
    found.keep([])


def test_names_are_looked_up(two: list[socket.socket]) -> None:
    found = inherit({ESTATE: bequest({dup(two[0]): ""}, False, 9)}, 1)
    assert len(found.at(Address("localhost", where(two[0]).port))) == 1
    found.keep([])


@pytest.mark.parametrize("kind", ["udp", "unix", "not listening", "file", "closed"])
def test_what_cannot_be_listened_on(kind: str, tmp_path: Path) -> None:
    if kind == "file":
        number = os.open(tmp_path, os.O_RDONLY)
    elif kind == "closed":
        number = os.open(tmp_path, os.O_RDONLY)
        os.close(number)
    else:
        family = socket.AF_UNIX if kind == "unix" else socket.AF_INET
        number = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM).detach()
    try:
        with pytest.raises(UnusableSocket, match=str(number)):
            inherit({ESTATE: bequest({number: ""}, False, 9)}, 1)
    finally:
        if kind != "closed":
            os.close(number)


@pytest.mark.parametrize(("there", "workers"), [(1, 3), (3, 1), (3, 2), (2, 2)])
def test_sockets_are_dealt_out_and_none_is_left(there: int, workers: int) -> None:
    opened = open_sockets([Address("127.0.0.1", 0)], there, KEEPALIVE)
    address = where(opened[0][0])
    found = inherit({ESTATE: bequest({dup(own[0]): "" for own in opened}, False, 9)}, 1)
    dealt = open_sockets([address], workers, KEEPALIVE, found)
    assert len(dealt) == workers and len({len(own) for own in dealt}) == 1
    assert {one.fileno() for own in dealt for one in own} == {one.fileno() for one in found.sockets}
    for one in [*found.sockets, *(own[0] for own in opened)]:
        one.close()


class OpenToAll(Inherited):
    """As if sockets on all addresses had been passed."""

    def addresses(self, read_only: bool) -> tuple[Address, ...]:
        return () if read_only else (Address("0.0.0.0", 6432),)


def test_trust_is_refused_on_passed_sockets_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "pgproxy.toml"
    config.write_text('[proxy]\nauth = "trust"\n[targets.main]\nserver = "127.0.0.1:5432"\n')
    monkeypatch.setattr("pgproxy.tap.inherit", lambda _environ, _pid: OpenToAll(instead=True))
    with pytest.raises(usage.UsageError, match=r"proxy\.auth.*0\.0\.0\.0:6432"):
        Options().parseOptions(["--config", str(config)])
