"""What sockets are set to."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from pgproxy.link.keepalive import Keepalive

OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
)


@pytest.fixture(params=["127.0.0.1", "::1"])
def sock(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    try:
        listener = socket.create_server((request.param, 0), family=family)
    except OSError:
        pytest.skip(f"no {request.param}")
    with listener, socket.create_connection(listener.getsockname()[:2]) as sock:
        yield sock


def options(sock: socket.socket) -> list[int]:
    return [sock.getsockopt(level, option) for level, option in OPTIONS]


def test_all_of_it(sock: socket.socket) -> None:
    Keepalive(7, 5, 2, 1.5).set(sock)
    assert options(sock) == [1, 7, 5, 2, 1500]


def test_0_leaves_the_system_s(sock: socket.socket) -> None:
    before = options(sock)
    Keepalive().set(sock)
    assert options(sock) == [1, *before[1:]]


def test_the_shortest_time_is_not_none(sock: socket.socket) -> None:
    Keepalive(user_timeout=0.0001).set(sock)
    assert options(sock)[-1] == 1


def test_what_is_no_tcp_is_left_alone() -> None:
    one, other = socket.socketpair()
    with one, other:
        Keepalive(7, 5, 2, 1.5).set(one)
        assert not one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_connections_have_it_from_the_socket_that_accepts_them() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        systems = options(listener)
        for keepalive, expected in (
            (Keepalive(7, 5, 2, 1.5), [1, 7, 5, 2, 1500]),
            # What is not said any more is the system's again.
            (Keepalive(idle=9), [1, 9, *systems[2:]]),
        ):
            keepalive.hand_down(listener)
            with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
                assert options(accepted) == expected
