"""Ports: free, taken, listened on."""

import socket

from pgproxy.demo.ports import free_port, is_free, is_listening


def test_a_free_port_is_free_and_no_ephemeral_one() -> None:
    port = free_port()
    assert 1024 < port < 32768
    assert is_free(port)
    assert not is_listening(port)


def test_a_listener_takes_its_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert is_listening(port)
        assert not is_free(port)
    assert not is_listening(port)


def test_a_bound_socket_that_does_not_listen_is_not_listening() -> None:
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        assert not is_listening(port)
        bound.listen()
        assert is_listening(port)


def test_a_listener_on_every_address() -> None:
    with socket.create_server(("", 0)) as listener:
        assert is_listening(listener.getsockname()[1])


def test_connections_outlive_their_listener() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        server = listener.accept()[0]
    with client, server:
        assert not is_listening(port)


def test_asking_does_not_keep_a_server_from_its_port() -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with socket.socket() as asking:
            asking.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            asking.bind(("127.0.0.1", 0))
            server.bind(asking.getsockname())
            server.listen()


def test_what_lingers_after_a_connection_does_not_take_the_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            listener.accept()[0].close()  # the side that closes first keeps TIME_WAIT
    assert is_free(port)
