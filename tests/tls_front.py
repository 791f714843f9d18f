"""TLS in front of a PostgreSQL that was built without: SSLRequest or direct TLS outside, plain inside."""

import contextlib
import select
import socket
import ssl
import struct
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_GSSENC_REQUEST = struct.pack("!ii", 8, 80877104)
_HANDSHAKE = 0x16  # a TLS record of type handshake: direct TLS (protocol-flow, SSL Session Encryption)
_CHUNK = 65536
_SECONDS = 10.0
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class TlsFront:
    """
    Listens on a port of 127.0.0.1 and answers as a PostgreSQL with `ssl = on`, for the one on port `target`.

    Whoever asks for no TLS is taken to the server in plain. SCRAM with channel binding is not to be had: the
    server has no TLS to bind to and doesn't offer it.
    """

    def __init__(self, target: int, context: ssl.SSLContext) -> None:
        self._target = target
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(_SECONDS)
        self._listener.close()
        for open_socket in list(self._sockets):
            with contextlib.suppress(OSError):
                # SSLSocket's own would take the TLS away from under the thread that is using it.
                socket.socket.shutdown(open_socket, socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.enter_context(client)
            client.settimeout(_SECONDS)
            outside = stack.enter_context(self._greet(client))
            server = stack.enter_context(socket.create_connection(("127.0.0.1", self._target), _SECONDS))
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets.add(outside)
            try:
                relay(outside, server)
            finally:
                self._sockets.discard(outside)

    def _greet(self, client: socket.socket) -> socket.socket:
        """Answer what comes before the startup packet; returns the socket on which that follows."""
        while True:
            start = client.recv(8, socket.MSG_PEEK)
            if start[:1] == bytes([_HANDSHAKE]):
                secured = self._context.wrap_socket(client, server_side=True)
                if secured.selected_alpn_protocol() != "postgresql":
                    secured.close()
                return secured
            if start == _SSL_REQUEST:
                client.recv(8)
                client.sendall(b"S")
                return self._context.wrap_socket(client, server_side=True)
            if start != _GSSENC_REQUEST:
                return client
            client.recv(8)
            client.sendall(b"N")


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Build the context of a server with this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["postgresql"])
    return context


def relay(outside: socket.socket, server: socket.socket) -> None:
    """
    Carry bytes both ways until one side ends, in one thread: an OpenSSL connection doesn't stand two.

    It reads no more from one side than the other takes: what it holds is bounded.
    """
    outside.setblocking(False)
    server.setblocking(False)
    flows = (_Flow(outside, server), _Flow(server, outside))
    while not any(flow.ended for flow in flows):
        # Both are asked before waiting: OpenSSL may hold decrypted bytes that select() knows nothing of.
        if not any([flow.move() for flow in flows]):
            readers = [flow.source for flow in flows if not flow.held]
            writers = [flow.target for flow in flows if flow.held]
            select.select(readers, writers, [])
    if isinstance(outside, ssl.SSLSocket):
        with contextlib.suppress(OSError):
            outside.unwrap()  # says close_notify; the answer isn't waited for


class _Flow:
    """One direction, holding a chunk at most."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source = source
        self.target = target
        self.held = b""
        self.ended = False

    def move(self) -> bool:
        """Read where nothing is held, write what is; returns whether anything moved."""
        try:
            if not self.held:
                self.held = self.source.recv(_CHUNK)
                self.ended = not self.held
            if self.held:
                self.held = self.held[self.target.send(self.held) :]
        except _WOULD_BLOCK:
            return False
        return True
