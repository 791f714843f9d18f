"""
Programs of SQL over several clients, to be played directly and through pgproxy: the answers must be equal.

A program is a list of steps. A `Step` says what a client sends and, where that's worth saying, what the
server answers (`want`); other kinds come from outside the conversation (`Connect`, `Leave`, `Admin`) or state
what pgproxy is to do about it, and mean nothing to a direct connection (`Pinned`, `Unpinned`, `Free`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import attrs
import pytest

from tests.answers import Answer, Player, tell
from tests.raw import SYNC, extended, message


@attrs.frozen
class Step:
    """What a client sends: a text is a simple query, bytes are messages as they are."""

    client: str
    data: str | bytes
    want: str | None = None

    def messages(self, database: str) -> bytes:
        """Give what's sent when it's played in this database."""
        if isinstance(self.data, bytes):
            return self.data
        return message("Q", self.data.replace("@DATABASE@", database).encode() + b"\0")

    def __str__(self) -> str:
        return f"{self.client}: {tell(self.data)}"


@attrs.frozen
class Connect:
    """A client logs in with these settings. One that only appears in a Step does so without any."""

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

    A text may name the database that it's played in: @DATABASE@. `servers` are the sizes of the pool that it
    can be played with: only one where two would leave to chance who sees what, only two where two clients are
    in a transaction or pinned. `may_pin` are reasons that may pin on the way, where the specification leaves
    it open; without it, only what a step says (`Pinned`). `hidden` says that only the audit can tell what's
    done. `user` is who its clients are: another one than boss (so another pool) where what a program does may
    bear on others.
    """

    name: str
    parts: Sequence[Part]
    servers: tuple[int, ...] = (1, 2)
    may_pin: frozenset[str] = frozenset()
    hidden: bool = False
    user: str = "boss"

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


def each(programs: Sequence[Program]) -> pytest.MarkDecorator:
    """Parametrize a test by its `program`."""
    return pytest.mark.parametrize("program", programs, ids=lambda program: program.name)


def each_way(programs: Sequence[Program]) -> pytest.MarkDecorator:
    """Parametrize a test by its `program` and the number of `servers`."""
    ways = [
        pytest.param(program, servers, id=f"{program.name}, {servers}")
        for program in programs
        for servers in program.servers
    ]
    return pytest.mark.parametrize(("program", "servers"), ways)


def bound(text: str, *values: str | None) -> bytes:
    """Build a query in the extended protocol, with its Sync."""
    return extended(text, *values) + SYNC


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
        clients[name] = Player(stage.port, {"user": program.user, "database": stage.database, **settings})
        return clients[name]

    try:
        for part in program.parts:
            match part:
                case Step(client=name):
                    player = clients.get(name) or connect(name, {})
                    assert not player.login.said, f"{name} can't log in: {player.login}"
                    stage.before(player, clients.values())
                    answer = player.perform(part.messages(stage.database))
                    transcript.append((part, answer))
                    if part.want is not None and answer.said != part.want:
                        raise AssertionError(f"{part} was answered {answer.said!r}\n{show(transcript)}")
                case Connect(client=name, settings=settings):
                    transcript.append((part, connect(name, settings).login))
                case Leave(client=name, abruptly=abruptly):
                    clients.pop(name).leave(abruptly=abruptly)
                case Admin(text=text):
                    stage.admin(text.replace("@DATABASE@", stage.database))
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
