"""What comes back for what a client sends, so that it can be compared, and the client that collects it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from struct import unpack_from

import attrs

from pgproxy.wire.messages import read_error_fields
from tests.raw import TERMINATE, Raw, startup

Value = str | tuple[object, ...]
Reply = tuple[str, Value]

_USER_OID = 16384
"""From here on type oids are a database's own (access/transam.h, FirstNormalObjectId)."""

_FINAL = {"P": "1E", "B": "2E", "D": "TnE", "E": "CsIE", "C": "3E", "S": "Z", "Q": "Z", "F": "Z"}
"""What a message waits for."""

_FIELDS = "SCMDHP"
"""Of an error: all but its place in the server's source, and its context."""


@attrs.frozen
class Answer:
    """All that came back for a step. `settings` are ParameterStatus messages, whose place isn't promised."""

    replies: tuple[Reply, ...]
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def said(self) -> str:
        """What a step can `want`: rows as `a|b;c|d`, and of an error `!` and its SQLSTATE."""
        words = ""
        for tag, value in self.replies:
            if tag == "D":
                row = "|".join("NULL" if field is None else str(field) for field in value)
                words += f";{row}" if words else row
            elif tag == "E":
                fields: dict[str, str] = dict(value)  # type: ignore[arg-type]
                words += f"!{fields['C']}"
        return words

    def __str__(self) -> str:
        lines = [f"{tag} {value!r}" if value else tag for tag, value in self.replies]
        return "\n".join(lines + [f"S {name}={value}" for name, value in self.settings])


class Player(Raw):
    """A client that knows which replies it is owed."""

    def __init__(self, port: int, settings: Mapping[str, str]) -> None:
        super().__init__(port)
        self.notifications: list[tuple[str, str]] = []
        self.status = "I"
        self.closed = False
        self._skips = False  # an error has happened, until the Sync nothing is answered
        self._unsynced = False
        self.send(startup(protocol=3 << 16, **settings))
        self.login = self._collect("Z", [])

    @property
    def idle(self) -> bool:
        """Whether it's outside a transaction, and between two pipelines."""
        return self.status == "I" and not self._unsynced

    def perform(self, data: bytes) -> Answer:
        """Send messages, and collect what they're answered."""
        if self.closed:
            return Answer((("closed", ""),))
        self.send(data)
        replies: list[Reply] = []
        settings: list[tuple[str, str]] = []
        for tag, _ in cut(data):
            if tag in "SQF":
                self._skips = self._unsynced = False
            elif tag in "PBDEC":
                self._unsynced = True
            if tag not in _FINAL or self._skips or self.closed:
                continue
            answer = self._collect(_FINAL[tag], replies)
            settings += answer.settings
            self._skips = replies[-1][0] == "E" and tag not in "SQF"
        return Answer(tuple(replies), tuple(sorted(settings)))

    def leave(self, *, abruptly: bool = False) -> None:
        """Go; returns when the other side has gone, too. A direct server has cleaned up by then."""
        if not self.closed and not abruptly:
            self.send(TERMINATE)
            while not self.ended():
                pass
        self.socket.close()
        self.closed = True

    def _collect(self, final: str, replies: list[Reply]) -> Answer:
        settings: list[tuple[str, str]] = []
        while True:
            try:
                tag, payload = self.message()
            except (EOFError, ConnectionError):
                self.closed = True
                replies.append(("closed", ""))
                break
            if tag == "A":
                channel, text, _ = payload[4:].split(b"\0")
                self.notifications.append((channel.decode(), text.decode()))
            elif tag == "S":
                name, value, _ = payload.split(b"\0")
                settings.append((name.decode(), value.decode()))
            elif tag not in "RKv":
                replies.append((tag, read(tag, payload)))
                if tag == "Z":
                    self.status = payload.decode()
                if tag in final:
                    break
        return Answer(tuple(replies), tuple(sorted(settings)))


def cut(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Give the tags and payloads of messages."""
    at = 0
    while at < len(data):
        end = at + 1 + int.from_bytes(data[at + 1 : at + 5], "big")
        yield chr(data[at]), data[at + 5 : end]
        at = end


def tell(data: str | bytes) -> str:
    """Write what a client sends as one reads it: `P s1|select 1  B |s1  E  S`."""
    if isinstance(data, str):
        return data if len(data) < 1000 else f"{data[:1000]}..."
    words = []
    for tag, payload in cut(data):
        word = payload.decode("utf-8", "replace").replace("\0", "|").rstrip("|")
        words.append(f"{tag} {word[:200]}" if word else tag)
    return "  ".join(words if len(words) < 100 else [*words[:20], f"... and {len(words) - 20} more"])


def read(tag: str, payload: bytes) -> Value:
    """Give what is comparable of a reply."""
    match tag:
        case "T":
            return tuple(_columns(payload))
        case "D":
            return tuple(_fields(payload))
        case "E" | "N":
            fields = read_error_fields(payload)
            return tuple((code, _mask(fields[code])) for code in _FIELDS if code in fields)
        case "t":
            return tuple(_type(oid) for oid in unpack_from(f">{len(payload) // 4}I", payload, 2))
        case "C":
            return payload[:-1].decode()
        case "Z" | "d":
            return payload.decode("utf-8", "surrogateescape")
        case _:
            return payload.hex()


def _columns(payload: bytes) -> Iterator[tuple[str, int]]:
    at = 2
    while at < len(payload):
        end = payload.index(b"\0", at)
        (oid,) = unpack_from(">I", payload, end + 7)
        yield payload[at:end].decode("utf-8", "surrogateescape"), _type(oid)
        at = end + 19


def _fields(payload: bytes) -> Iterator[str | None]:
    at = 2
    while at < len(payload):
        (size,) = unpack_from(">i", payload, at)
        at += 4
        yield None if size < 0 else _mask(payload[at : at + size].decode("utf-8", "surrogateescape"))
        at += max(size, 0)


def _type(oid: int) -> int:
    return oid if oid < _USER_OID else _USER_OID


def _mask(text: str) -> str:
    """Take out what differs between two servers whose clients do the same."""
    return re.sub(r"pg_temp_\d+", "pg_temp_N", text)
