"""
What a supervisor and a worker tell each other: Twisted's AMP over a socket pair.

Only what has an answer is a question; all the rest is told, and whoever it is told to acts or doesn't. The
documentation is Twisted's "Asynchronous Messaging Protocol".
"""

from __future__ import annotations

from typing import Any, ClassVar

from twisted.protocols.amp import Argument, Boolean, Command, Float, Integer, ListOf, String, Unicode

from pgproxy.pool.permits import Part, Report

Arguments = list[tuple[bytes, Argument]]
_PIECE = 60_000
"""Bytes."""


class Name(Argument):
    """A name as a client has sent it: not all of them are UTF-8."""

    def toString(self, inObject: str) -> bytes:
        """Encode it."""
        return inObject.encode("utf-8", "surrogateescape")

    def fromString(self, inString: bytes) -> str:
        """Decode it."""
        return inString.decode("utf-8", "surrogateescape")


class Long(Argument):
    """A text of any length: AMP's values end at 64 KiB, so it is cut into several, by numbered keys."""

    def toBox(self, name: bytes, strings: dict[bytes, bytes], objects: dict[str, Any], proto: Any) -> None:
        """Write it."""
        data = self.retrieve(objects, name.decode(), proto).encode("utf-8", "surrogateescape")
        pieces = [data[at : at + _PIECE] for at in range(0, len(data), _PIECE)]
        strings[name] = b"%d" % len(pieces)
        for place, piece in enumerate(pieces):
            strings[b"%s%d" % (name, place)] = piece

    def fromBox(self, name: bytes, strings: dict[bytes, bytes], objects: dict[str, Any], proto: Any) -> None:
        """Read it."""
        pieces = [strings.pop(b"%s%d" % (name, place)) for place in range(int(strings.pop(name)))]
        objects[name.decode()] = b"".join(pieces).decode("utf-8", "surrogateescape")


class Tell(Command):
    """Something that has no answer."""

    requiresAnswer = False


_PART: Arguments = [
    (b"where", Name()),
    (b"database", Name()),
    (b"user", Name()),
    (b"walsender", Boolean()),
]
"""A target and where it is, and what of it permits are for."""
_KEY: Arguments = [(b"pid", Integer()), (b"secret", String())]

# Both ways.


class Cancel(Command):
    """Cancel what the client with this key has under way, if you, or those that you can ask, have it."""

    arguments: ClassVar[Arguments] = _KEY
    response: ClassVar[Arguments] = [(b"found", Boolean())]


class MakeWay(Tell):
    """Have idle servers leave these databases."""

    arguments: ClassVar[Arguments] = [(b"target", Name()), (b"databases", ListOf(String()))]


class DefaultsChanged(Tell):
    """Have new servers opened for all pools of a target."""

    arguments: ClassVar[Arguments] = [(b"target", Name())]


class Welcome(Tell):
    """A server that was opened with these parameters greets like this: pairs and pairs, as JSON."""

    arguments: ClassVar[Arguments] = [
        (b"database", Name()),
        (b"user", Name()),
        (b"parameters", String()),
        (b"greeting", String()),
    ]


class Forget(Tell):
    """No worker has this pool any more: forget how its servers greeted."""

    arguments: ClassVar[Arguments] = [(b"database", Name()), (b"user", Name())]


# A worker to the supervisor.


class Ready(Command):
    """
    I am ready to serve, by the charge of this number.

    The answer comes when I have been told what the others have.
    """

    arguments: ClassVar[Arguments] = [(b"charge", Integer())]


class Reported(Tell):
    """How a part of a target is doing here: a `Report`."""

    arguments: ClassVar[Arguments] = [
        *_PART,
        (b"heard", Integer()),
        (b"servers", Integer()),
        (b"opening", Integer()),
        (b"idle", Integer()),
        (b"turned", Integer()),
        (b"waiting", Integer()),
        (b"waited", Float()),
        (b"kept", Boolean()),
    ]


class Learned(Tell):
    """A server has said how many there may be."""

    arguments: ClassVar[Arguments] = [(b"where", Name()), (b"capacity", Integer())]


class ServerOpened(Tell):
    """I have a server with this key."""

    arguments: ClassVar[Arguments] = [(b"where", Name()), *_KEY]


class ServerEnded(Tell):
    """I have it no more."""

    arguments: ClassVar[Arguments] = [(b"where", Name()), (b"pid", Integer())]


class Figures(Tell):
    """What there is to count, as JSON."""

    arguments: ClassVar[Arguments] = [(b"figures", Long())]


class AskEverybody(Command):
    """A console's request for all workers, as JSON; their replies, as a JSON array."""

    arguments: ClassVar[Arguments] = [(b"request", Long())]
    response: ClassVar[Arguments] = [(b"replies", Long())]


class AskHead(Command):
    """A console's request for the supervisor, as JSON; its reply."""

    arguments: ClassVar[Arguments] = [(b"request", Long())]
    response: ClassVar[Arguments] = [(b"reply", Long())]


class Clients(Tell):
    """How many clients I have; from the supervisor: how many the others have."""

    arguments: ClassVar[Arguments] = [(b"number", Integer())]


# The supervisor to a worker.


class Granted(Tell):
    """You may open one more server."""

    arguments: ClassVar[Arguments] = [*_PART, (b"number", Integer()), (b"warm", Boolean())]


class Recalled(Tell):
    """Give up a server as soon as one is free."""

    arguments: ClassVar[Arguments] = [*_PART, (b"reason", Unicode())]


class Situation(Tell):
    """How it is with a pool beyond this worker, for those who wait there: see `permits.Situation`."""

    arguments: ClassVar[Arguments] = [
        *_PART,
        (b"elsewhere", Integer()),
        (b"full", Unicode()),
        (b"more", Boolean()),
    ]


class Pressed(Tell):
    """Report at short intervals, or no longer."""

    arguments: ClassVar[Arguments] = [(b"where", Name()), (b"on", Boolean())]


class Budgeted(Tell):
    """So many servers may all workers have of a target; 0: it isn't known any more."""

    arguments: ClassVar[Arguments] = [(b"where", Name()), (b"servers", Integer())]


class Tend(Tell):
    """Accept connections for another worker that is not there, or no longer."""

    arguments: ClassVar[Arguments] = [(b"number", Integer()), (b"on", Boolean())]


class Alive(Command):
    """Answer, to show that you can."""


class Prepare(Command):
    """Read the charge that is to be the next and what it names, and say what is wrong, if anything."""

    response: ClassVar[Arguments] = [(b"wrong", Unicode())]


class Adopt(Command):
    """Take what you have prepared, and open the log file anew."""


class Reopen(Tell):
    """Open the log file anew."""


class Deafen(Command):
    """Listen no more."""


class Stop(Tell):
    """Stop in order."""


class Answer(Command):
    """Answer what a console asks, as JSON."""

    arguments: ClassVar[Arguments] = [(b"request", Long())]
    response: ClassVar[Arguments] = [(b"reply", Long())]


class Hurry(Tell):
    """Don't wait for clients."""


def report_arguments(where: str, report: Report) -> dict[str, Any]:
    """Give a report as `Reported` has it."""
    part = report.part
    return {
        "where": where,
        "database": part.database,
        "user": part.user,
        "walsender": part.walsender,
        "heard": report.heard,
        "servers": report.servers,
        "opening": report.opening,
        "idle": report.idle,
        "turned": report.turned,
        "waiting": report.waiting,
        "waited": report.waited,
        "kept": report.kept,
    }


def part_arguments(where: str, part: Part) -> dict[str, Any]:
    """Give a part as messages have it."""
    return {"where": where, "database": part.database, "user": part.user, "walsender": part.walsender}


def where_in_words(where: tuple[str, str, int]) -> str:
    """Give a target's name, host and port as messages have them."""
    return " ".join(map(str, where))


def words_of(where: str) -> tuple[str, str, int]:
    """Give a target's name, host and port again."""
    name, host, port = where.rsplit(" ", 2)
    return name, host, int(port)


def name_of(where: str) -> str:
    """Give the target's name of these."""
    return where.rsplit(" ", 2)[0]
