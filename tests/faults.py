"""What goes wrong on the way: a relay before a PostgreSQL that cuts, adds and delays; a server that lies."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

CANCEL_REQUEST = struct.pack(">I", 80877102)
Serve = Callable[[socket.socket], None]


class Listener:
    """Serves each connection in a thread of its own, on a port of 127.0.0.1."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def serve(self, peer: socket.socket) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        for one in self._open:
            _end(one)

    def cut(self) -> None:
        """End all connections that are open."""
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def keep(self, one: socket.socket) -> socket.socket:
        """Have a socket ended with the listener."""
        self._open.append(one)
        return one

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(self.keep(peer),), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError):
            self.serve(peer)
        _end(peer)


class Relay(Listener):
    """
    Stands in front of a PostgreSQL. `faults`, by connection: what is done to what the server sends.

    A fault takes the bytes that come and gives those that go on; None ends the connection.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self.fault: Callable[[bytes], bytes | None] = lambda data: data
        self.cancel_delay = 0.0
        """Seconds that a CancelRequest is held."""
        self.cancels_lost = 0
        """How many CancelRequests go nowhere."""
        super().__init__()

    def serve(self, peer: socket.socket) -> None:
        first = peer.recv(65536)
        if first[4:8] == CANCEL_REQUEST:
            time.sleep(self.cancel_delay)
            if self.cancels_lost:
                self.cancels_lost -= 1
                _end(peer)
                return
        server = self.keep(socket.create_connection(("127.0.0.1", self._target)))
        server.sendall(first)
        threading.Thread(target=self._back, args=(server, peer), daemon=True).start()
        while data := peer.recv(65536):
            server.sendall(data)
        _end(server)

    def _back(self, server: socket.socket, peer: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                passed = self.fault(data)
                if passed is None:
                    break
                peer.sendall(passed)
        _end(peer)
        _end(server)


class Liar(Listener):
    """A server that says what a test has it say: `script` gets each connection, its startup message read."""

    def __init__(self, script: Serve) -> None:
        self.script = script
        super().__init__()

    def serve(self, peer: socket.socket) -> None:
        length = int.from_bytes(exactly(peer, 4), "big")
        exactly(peer, length - 4)
        self.script(peer)


def exactly(peer: socket.socket, size: int) -> bytes:
    """Give the next `size` bytes. Raises EOFError where the peer ends before."""
    data = b""
    while len(data) < size:
        more = peer.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
