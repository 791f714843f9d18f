"""Reads and builds the messages that the proxy itself speaks; the rest is carried as it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from struct import Struct
from struct import error as StructError

from pgproxy.wire import tags
from pgproxy.wire.skim import HEADER, Malformed

_header = Struct(">cI")
_word = Struct(">I")


class MessageReader:
    """
    Takes whole messages from a stream, for the phases of login, where each is read and all are short.

    `limit` bounds a message's length word in bytes, before anything is stored for it.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()

    @property
    def size(self) -> int:
        """How many bytes are there that have not been read."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Add what was received."""
        self._buffer += data

    def next(self) -> tuple[int, bytes] | None:
        """Give the next whole message's tag and payload, None if it is not there yet; raises `Malformed`."""
        buffer = self._buffer
        if len(buffer) < HEADER:
            return None
        length = _word.unpack_from(buffer, 1)[0]
        if not 4 <= length <= self._limit:
            raise Malformed(f"invalid message length {length} in message type {buffer[0]}")
        if len(buffer) < length + 1:
            return None
        tag, payload = buffer[0], bytes(buffer[HEADER : length + 1])
        del buffer[: length + 1]
        return tag, payload

    def rest(self) -> bytes:
        """Give back, once, what was received behind the last message."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest


def message(tag: int, payload: bytes = b"") -> bytes:
    """Put the header in front of a payload."""
    return _header.pack(bytes((tag,)), len(payload) + 4) + payload


def authentication(code: int, data: bytes = b"") -> bytes:
    """Build an Authentication request (R): Int32 code, then what belongs to it."""
    return message(tags.AUTHENTICATION, _word.pack(code) + data)


def read_authentication(payload: bytes) -> tuple[int, bytes]:
    """Read an Authentication request: its code and data. Raises `Malformed`."""
    try:
        return _word.unpack_from(payload)[0], payload[4:]
    except StructError:
        raise Malformed("an Authentication request without its code") from None


def parameter_status(name: bytes, value: bytes) -> bytes:
    """Build a ParameterStatus (S): String name, String value."""
    return message(tags.PARAMETER_STATUS, name + b"\0" + value + b"\0")


def read_parameter_status(payload: bytes) -> tuple[bytes, bytes]:
    """Read a ParameterStatus. Raises `Malformed`."""
    words = payload.split(b"\0")
    if len(words) != 3 or words[2]:
        raise Malformed("a ParameterStatus that is not a name and a value")
    return words[0], words[1]


def backend_key_data(pid: int, secret: bytes) -> bytes:
    """Build a BackendKeyData (K): Int32 process id, then the secret."""
    return message(tags.BACKEND_KEY_DATA, _word.pack(pid) + secret)


def read_backend_key_data(payload: bytes) -> tuple[int, bytes]:
    """Read a BackendKeyData. Raises `Malformed` for a secret of no or over 256 bytes."""
    if not 4 < len(payload) <= 4 + 256:
        raise Malformed("a BackendKeyData of a wrong length")
    return _word.unpack_from(payload)[0], payload[4:]


def negotiate_protocol_version(options: Iterable[str]) -> bytes:
    """Build a NegotiateProtocolVersion (v): the newest version we know (3.0), and the options we don't."""
    names = [option.encode("utf-8", "surrogateescape") + b"\0" for option in options]
    return message(
        tags.NEGOTIATE_PROTOCOL_VERSION, _word.pack(3 << 16) + _word.pack(len(names)) + b"".join(names)
    )


def ready_for_query(status: bytes) -> bytes:
    """Build a ReadyForQuery (Z) with the transaction status I, T or E."""
    return message(tags.READY_FOR_QUERY, status)


def query(text: str) -> bytes:
    """Build a Query (Q)."""
    return message(tags.QUERY, text.encode() + b"\0")


def query_of(statements: Iterable[bytes]) -> bytes:
    """Build a Query of several statements."""
    return message(tags.QUERY, b"; ".join(statements) + b"\0")


def password(payload: bytes) -> bytes:
    """Build a p message: PasswordMessage, SASLInitialResponse or SASLResponse, as the payload is."""
    return message(tags.PASSWORD, payload)


FLUSH = message(tags.FLUSH)
SYNC = message(tags.SYNC)
TERMINATE = message(tags.TERMINATE)


def error_response(fields: Mapping[str, str], tag: int = tags.ERROR_RESPONSE) -> bytes:
    """Build an ErrorResponse (by its tag, a NoticeResponse) of one-letter fields; empty ones are left out."""
    body = b"".join(
        code.encode() + text.replace("\0", "").encode("utf-8", "replace") + b"\0"
        for code, text in fields.items()
        if text
    )
    return message(tag, body + b"\0")


def read_error_fields(payload: bytes) -> dict[str, str]:
    """
    Read the fields of an ErrorResponse or NoticeResponse, of as much of it as is there.

    Never raises: a server's error is told on, however badly it is made.
    """
    fields: dict[str, str] = {}
    for piece in payload.split(b"\0"):
        if not piece:
            break
        fields.setdefault(chr(piece[0]), piece[1:].decode("utf-8", "replace"))
    return fields
