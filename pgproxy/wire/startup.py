"""
What comes before login: the packets that have a length but no tag.

Documentation: PostgreSQL manual, "Start-up", "SSL Session Encryption", "Canceling Requests in
Progress"; the limits are PostgreSQL's (MAX_STARTUP_PACKET_LENGTH).
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct

from attrs import field, frozen

from pgproxy.wire.skim import Malformed

MAX_STARTUP_PACKET = 10_000
"""Bytes, length word included."""

PROTOCOL_3_0 = 3 << 16
_SSL_REQUEST = 1234 << 16 | 5679
_GSSENC_REQUEST = 1234 << 16 | 5680
_CANCEL_REQUEST = 1234 << 16 | 5678
_MAX_CANCEL_KEY = 256
"""Bytes of secret: protocol 3.2's bound; 3.0 has 4."""

_KEPT = 100
"""Startup packets whose contents are kept: most clients send what others have sent."""

_two_words = Struct(">II")


@frozen
class SSLRequest:
    """The client asks for TLS; the answer is one byte, S or N."""


@frozen
class GSSENCRequest:
    """The client asks for GSSAPI encryption; the answer is one byte, N."""


@frozen
class CancelRequest:
    """The client asks to cancel what another connection is doing."""

    pid: int
    secret: bytes = field(repr=False)


@frozen(cache_hash=True)
class StartupMessage:
    """The client says who it is and which settings it starts with."""

    user: str
    database: str
    parameters: tuple[tuple[str, str], ...]
    """Everything but user, database and protocol options, sorted: what a server must be opened with."""
    minor: int
    """The minor protocol version asked for."""
    protocol_options: tuple[str, ...]
    """The `_pq_.` options asked for; we know none."""

    @property
    def replication(self) -> bool:
        """Whether this is to be a walsender connection (the value is a boolean or `database`)."""
        return dict(self.parameters).get("replication", "false").lower() not in _NO


class UnsupportedProtocol(Exception):
    """The major protocol version is not 3; the text names it."""


_NO = frozenset({"false", "off", "no", "0", "f", "n", "fals", "fal", "fa", "of"})
"""What PostgreSQL's parse_bool() takes for false."""

StartupPacket = SSLRequest | GSSENCRequest | CancelRequest | StartupMessage


def packet_length(data: bytes | bytearray) -> int | None:
    """
    Give the length in bytes of the packet that `data` begins with; None while that can't be told.

    Raises `Malformed` where it is out of bounds.
    """
    if len(data) < 4:
        return None
    length = int.from_bytes(data[:4], "big")
    if not 8 <= length <= MAX_STARTUP_PACKET:
        raise Malformed("invalid length of startup packet")
    return length


def read_packet(packet: bytes) -> StartupPacket:
    """Read one whole packet. Raises `Malformed` or `UnsupportedProtocol`."""
    length, code = _two_words.unpack_from(packet)
    if code == _SSL_REQUEST or code == _GSSENC_REQUEST:
        if length != 8:
            raise Malformed("invalid length of startup packet")
        return SSLRequest() if code == _SSL_REQUEST else GSSENCRequest()
    if code == _CANCEL_REQUEST:
        if not 12 < length <= 12 + _MAX_CANCEL_KEY:
            raise Malformed("invalid length of cancel request")
        return CancelRequest(int.from_bytes(packet[8:12], "big"), packet[12:])
    if code >> 16 != 3:
        raise UnsupportedProtocol(f"{code >> 16}.{code & 0xFFFF}")
    return _read_startup(packet[8:], code & 0xFFFF)


@lru_cache(_KEPT)
def _read_startup(body: bytes, minor: int) -> StartupMessage:
    if not body.endswith(b"\0"):
        raise Malformed("invalid startup packet layout: expected terminator as last byte")
    words = body[:-1].split(b"\0")
    # "name\0value\0 ... \0": the split leaves an empty piece behind the last value.
    if words.pop() != b"" or len(words) % 2:
        raise Malformed("invalid startup packet layout: names and values do not pair")
    settings: dict[str, str] = {}
    options: list[str] = []
    for name, value in zip(words[::2], words[1::2], strict=True):
        if not name:
            raise Malformed("invalid startup packet layout: a parameter without a name")
        text = name.decode("utf-8", "surrogateescape")
        if text.startswith("_pq_."):
            options.append(text)
        else:
            settings[text] = value.decode("utf-8", "surrogateescape")
    user = settings.pop("user", "")
    database = settings.pop("database", "") or user
    return StartupMessage(user, database, tuple(sorted(settings.items())), minor, tuple(options))


def startup_message(user: str, database: str, parameters: tuple[tuple[str, str], ...]) -> bytes:
    """Build the StartupMessage for a server, protocol 3.0."""
    settings = (("user", user), ("database", database), *parameters)
    body = b"".join(_cstring(name) + _cstring(value) for name, value in settings) + b"\0"
    return _two_words.pack(len(body) + 8, PROTOCOL_3_0) + body


def ssl_request() -> bytes:
    """Build the SSLRequest for a server."""
    return _two_words.pack(8, _SSL_REQUEST)


def cancel_request(pid: int, secret: bytes) -> bytes:
    """Build the CancelRequest for a server, with the key that its BackendKeyData gave."""
    return _two_words.pack(12 + len(secret), _CANCEL_REQUEST) + pid.to_bytes(4, "big") + secret


def _cstring(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape") + b"\0"
