"""
Programs of SQL over several clients, to be played directly and through pgproxy: the answers must be equal.

A program is a list of steps. A `Step` says what a client sends and, where that's worth saying, what the
server answers (`want`); other kinds come from outside the conversation (`Connect`, `Leave`, `Admin`) or state
what pgproxy is to do about it, and mean nothing to a direct connection (`Pinned`, `Unpinned`, `Free`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from struct import unpack_from
from typing import Protocol

import attrs

from pgproxy.wire.messages import read_error_fields
from tests.raw import SYNC, TERMINATE, Raw, extended, message, startup

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


@attrs.frozen
class Step:
    """What a client sends: a text is a simple query, bytes are messages as they are."""

    client: str
    data: str | bytes
    want: str | None = None

    @property
    def messages(self) -> bytes:
        return self.data if isinstance(self.data, bytes) else message("Q", self.data.encode() + b"\0")

    def __str__(self) -> str:
        return f"{self.client}: {tell(self.data)}"


@attrs.frozen
class Connect:
    """A client logs in with these settings. One that only appears in a Step does so as boss."""

    client: str
    settings: Mapping[str, str] = {}


@attrs.frozen
class Leave:
    """A client says goodbye, or (`abruptly`) is gone without a word."""

    client: str
    abruptly: bool = False


@attrs.frozen
class Admin:
    """Something happens on a connection of its own, by the superuser, past pgproxy."""

    text: str


@attrs.frozen
class Pinned:
    """From here on a client is pinned, for this reason: the others wait for its server."""

    reason: str


@attrs.frozen
class Unpinned:
    """The client is no longer pinned: who has waited for its server gets it."""


@attrs.frozen
class Free:
    """Whether a client was pinned or not, now none is."""


Part = Step | Connect | Leave | Admin | Pinned | Unpinned | Free


@attrs.frozen
class Program:
    """
    A name and steps.

    `servers` are the sizes of the pool that it can be played with: only one where two would leave to chance
    who sees what, only two where two clients are in a transaction or pinned. `may_pin` are reasons that may
    pin on the way, where the specification leaves it open; without it, only what a step says (`Pinned`).
    """

    name: str
    parts: Sequence[Part]
    servers: tuple[int, ...] = (1, 2)
    may_pin: frozenset[str] = frozenset()

    @property
    def reasons(self) -> set[str]:
        """What the steps say that it's pinned for."""
        return {part.reason for part in self.parts if isinstance(part, Pinned)}


def program(
    name: str, *parts: Part | tuple[str, str | bytes] | tuple[str, str | bytes, str], **more: object
) -> Program:
    """Make a program; a tuple is a Step."""
    if "may_pin" in more:
        more["may_pin"] = frozenset(str(more["may_pin"]).split())
    steps = [Step(*part) if isinstance(part, tuple) else part for part in parts]
    return Program(name, steps, **more)  # type: ignore[arg-type]


def bound(text: str, *values: str | None) -> bytes:
    """Build a query in the extended protocol, with its Sync."""
    return extended(text, *values) + SYNC


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


class Stage(Protocol):
    """Where a program is played: a port, a database, and what happens there between the steps."""

    @property
    def port(self) -> int: ...
    @property
    def database(self) -> str: ...
    def admin(self, text: str) -> None: ...
    def before(self, client: Player, clients: Iterable[Player]) -> None: ...
    def mark(self, mark: Pinned | Unpinned | Free) -> None: ...


Transcript = list[tuple[Part, Answer]]


def play(program: Program, stage: Stage) -> Transcript:
    """Play a program to its end, and give the answers; each is checked for what its step wants."""
    clients: dict[str, Player] = {}
    transcript: Transcript = []

    def connect(name: str, settings: Mapping[str, str]) -> Player:
        clients[name] = Player(stage.port, {"user": "boss", "database": stage.database, **settings})
        return clients[name]

    try:
        for part in program.parts:
            match part:
                case Step(client=name):
                    player = clients.get(name) or connect(name, {})
                    stage.before(player, clients.values())
                    answer = player.perform(part.messages)
                    transcript.append((part, answer))
                    if part.want is not None and answer.said != part.want:
                        raise AssertionError(f"{part} was answered {answer.said!r}\n{show(transcript)}")
                case Connect(client=name, settings=settings):
                    transcript.append((part, connect(name, settings).login))
                case Leave(client=name, abruptly=abruptly):
                    clients.pop(name).leave(abruptly=abruptly)
                case Admin(text=text):
                    stage.admin(text)
                case Pinned() | Unpinned() | Free():
                    stage.mark(part)
        for name, player in sorted(clients.items()):
            if player.notifications:
                heard = tuple(("A", notification) for notification in player.notifications)
                transcript.append((Step(name, "(notifications)"), Answer(heard)))
    finally:
        for player in clients.values():
            player.leave()
    return transcript


def show(transcript: Transcript) -> str:
    """Write a transcript as one reads it."""
    lines = []
    for part, answer in transcript:
        lines.append(f"-- {part}")
        lines += [f"     {line}" for line in str(answer).splitlines()]
    return "\n".join(lines)


def compare(program: Program, direct: Transcript, proxied: Transcript) -> None:
    """Fail where the two differ, with the first step that does and what came before it."""
    for number, ((part, expected), (_, got)) in enumerate(zip(direct, proxied, strict=False)):
        if expected != got:
            raise AssertionError(
                f"{program.name}: {part}\n-- directly:\n{expected}\n-- through pgproxy:\n{got}\n"
                f"-- before that:\n{show(proxied[:number])}"
            )
    assert len(direct) == len(proxied), f"{program.name}: {direct[len(proxied) :]}{proxied[len(direct) :]}"
