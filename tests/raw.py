"""A client that says exactly what a test wants, byte by byte, over a plain socket."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from struct import pack
from types import TracebackType
from typing import Self

from pgproxy.wire import messages
from pgproxy.wire.messages import read_error_fields

TIMEOUT = 20.0
"""Seconds that a test waits for an answer; a hang is a failure, not a wait."""


class Refused(AssertionError):
    """A login that was refused: the fields of the error."""


class Raw:
    """One connection; messages go out as they are, and come in one by one."""

    def __init__(self, port: int, address: str = "127.0.0.1") -> None:
        self.socket: socket.socket = socket.create_connection((address, port), TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, *data: bytes) -> None:
        self.socket.sendall(b"".join(data))

    def start_tls(self, context: ssl.SSLContext) -> None:
        self.socket = context.wrap_socket(self.socket, server_hostname="localhost")

    def exactly(self, size: int) -> bytes:
        """Give the next `size` bytes; raises EOFError where the peer ends before."""
        while len(self._buffer) < size:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError(self._buffer)
            self._buffer += data
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def message(self) -> tuple[str, bytes]:
        """Give the next message: its tag as a letter, and its payload."""
        tag = self.exactly(1)
        size = int.from_bytes(self.exactly(4), "big") - 4
        return tag.decode("latin-1"), self.exactly(size)

    def until(self, tag: str) -> list[tuple[str, bytes]]:
        """Give the messages up to and with the first of this tag."""
        seen = [self.message()]
        while seen[-1][0] != tag:
            seen.append(self.message())
        return seen

    def tags(self, tag: str = "Z") -> str:
        """Give the tags of the messages up to the first of this tag, as one word."""
        return "".join(seen for seen, _ in self.until(tag))

    def error(self) -> dict[str, str]:
        """Give the fields of the ErrorResponse that comes next, whatever notices come before."""
        return read_error_fields(self.until("E")[-1][1])

    def ended(self) -> bool:
        """Say whether the peer closes without another byte."""
        try:
            return self.socket.recv(1) == b"" and not self._buffer
        except ConnectionError:
            return True

    def alerted(self) -> bool:
        """Say whether the peer ends with nothing but, perhaps, a TLS alert."""
        try:
            return self.socket.recv(1000)[:1] in (b"", b"\x15")
        except ConnectionError:
            return True

    def log_in(self, user: str = "app", database: str = "app", **settings: str) -> dict[str, str]:
        """
        Start up where no password is asked for; give the settings that the server reports.

        Raises `Refused` with what an ErrorResponse says.
        """
        self.send(startup(protocol=3 << 16, **{"user": user, "database": database, **settings}))
        seen = [self.message()]
        while seen[-1][0] != "Z":
            if seen[-1][0] == "E":
                raise Refused(read_error_fields(seen[-1][1]))
            seen.append(self.message())
        status = [payload.split(b"\0") for tag, payload in seen if tag == "S"]
        self.key = next(payload for tag, payload in seen if tag == "K")
        return {name.decode(): value.decode() for name, value, _ in status}

    def query(self, text: str) -> list[tuple[str, bytes]]:
        self.send(messages.query(text))
        return self.until("Z")

    def value(self, text: str) -> str | None:
        """Give the first column of the first row of a query."""
        for tag, payload in self.query(text):
            if tag == "D":
                size = int.from_bytes(payload[2:6], "big", signed=True)
                return None if size < 0 else payload[6 : 6 + size].decode()
            if tag == "E":
                raise AssertionError(read_error_fields(payload))
        return None


def startup(*, protocol: int = 3 << 16, **settings: str) -> bytes:
    body = b"".join(f"{name}\0{value}\0".encode() for name, value in settings.items()) + b"\0"
    return pack(">II", len(body) + 8, protocol) + body


def message(tag: str, payload: bytes = b"") -> bytes:
    return messages.message(ord(tag), payload)


def parse(text: str, name: str = "", types: Sequence[int] = ()) -> bytes:
    oids = b"".join(pack(">I", oid) for oid in types)
    return message("P", f"{name}\0{text}\0".encode() + pack(">H", len(types)) + oids)


def bind(statement: str = "", portal: str = "", values: Sequence[str | None] = ()) -> bytes:
    """Build a Bind with values as texts, None for NULL; the results are texts, too."""
    fields = b"".join(
        pack(">i", -1) if value is None else pack(">i", len(value.encode())) + value.encode()
        for value in values
    )
    return message("B", f"{portal}\0{statement}\0\0\0".encode() + pack(">H", len(values)) + fields + b"\0\0")


def describe(portal: str = "") -> bytes:
    return message("D", f"P{portal}\0".encode())


def describe_statement(name: str = "") -> bytes:
    return message("D", f"S{name}\0".encode())


def execute(portal: str = "", limit: int = 0) -> bytes:
    return message("E", f"{portal}\0".encode() + pack(">I", limit))


def close_portal(name: str = "") -> bytes:
    return message("C", f"P{name}\0".encode())


def close_statement(name: str = "") -> bytes:
    return message("C", f"S{name}\0".encode())


SYNC = message("S")
FLUSH = message("H")
TERMINATE = message("X")


def extended(text: str, *values: str | None) -> bytes:
    return parse(text) + bind(values=values) + describe() + execute()


@contextmanager
def client(port: int, **settings: str) -> Iterator[Raw]:
    """Give a logged-in client."""
    with Raw(port) as raw:
        raw.log_in(**settings)
        yield raw
