"""
Enhanced logging: a line for each batch of statements of a chosen user or database, with what it took.

It ends by itself a day after the configuration was loaded: nobody has to remember it. Who is not chosen has a
`Conversation` like anybody, so it costs them nothing; the chosen ones do without the compiled twin.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import frozen

from pgproxy.config import Config
from pgproxy.session.conversation import Conversation
from pgproxy.session.digest import digest
from pgproxy.session.following import Following
from pgproxy.session.known import Known
from pgproxy.wire import tags
from pgproxy.wire.skim import HEADER, Frame

A_DAY = 86_400.0
"""Seconds that it lasts."""
_SHOWN = 10
"""Statements of a batch that its line has."""
_NAMES = 1000
"""Prepared statements of one client whose digests are kept."""
_MOST = 10_000
"""Batches on their way that are kept: who pipelines more has no lines for the rest."""
_ENDS = frozenset({tags.QUERY, tags.FUNCTION_CALL, tags.SYNC})


class Enhancement:
    """For whom and until when it is on; `seconds` gives the time."""

    def __init__(self, config: Config, seconds: Callable[[], float], log: Any) -> None:
        self._seconds = seconds
        self._log = log
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Take another configuration: the day begins anew."""
        self._databases = {name for name, one in config.databases.items() if one.enhanced_logging}
        self._named = set(config.databases)
        self._users = {name for name, one in config.users.items() if one.enhanced_logging}
        self._until = self._seconds() + A_DAY if self._databases or self._users else 0.0

    @property
    def lasts(self) -> bool:
        """Whether the day is not over."""
        return self._seconds() < self._until

    def chooses(self, database: str, user: str) -> bool:
        """Say whether it is on for a client that logs in now."""
        if not self._until:
            return False
        entry = database if database in self._named else "*"
        return self.lasts and (user in self._users or entry in self._databases)

    def look(self) -> None:
        """Say it once when the day is over."""
        if self._until and not self.lasts:
            self._until = 0.0
            self._log.info("enhanced_logging_over", remedy="reload the configuration to have another day")


@frozen
class _Batch:
    number: int
    digests: list[str]
    more: int
    sent: float


class Recorder:
    """What one client has said, until it is answered. `server` gives the number of the server that it has."""

    def __init__(self, enhancement: Enhancement, seconds: Callable[[], float], log: Any) -> None:
        self._enhancement = enhancement
        self._seconds = seconds
        self._log = log
        self.server: Callable[[], int | None] = lambda: None
        self._names: OrderedDict[bytes, str] = OrderedDict()
        self._digests: list[str] = []
        self._more = 0
        self._under_way: deque[_Batch] = deque()

    def said(self, run: bytes, frames: list[Frame], asked: int) -> None:
        """Take what was sent to a server; `asked` ReadyForQuery were asked for before."""
        if not self._enhancement.lasts:
            return
        for tag, start, stop in frames:
            if tag == tags.QUERY:
                self._add(digest(run[start + HEADER : stop].removesuffix(b"\0")))
            elif tag == tags.PARSE:
                name, _nul, rest = run[start + HEADER : stop].partition(b"\0")
                self._names[name] = digest(rest.partition(b"\0")[0])
                self._names.move_to_end(name)
                if len(self._names) > _NAMES:
                    self._names.popitem(last=False)
            elif tag == tags.BIND:
                _portal, _nul, rest = run[start + HEADER : stop].partition(b"\0")
                self._add(self._names.get(rest.partition(b"\0")[0], "(prepared before)"))
            elif tag == tags.FUNCTION_CALL:
                self._add("(function call)")
            if tag in _ENDS:
                asked += 1
                if len(self._under_way) < _MOST:
                    batch = _Batch(asked, self._digests, self._more, self._seconds())
                    self._under_way.append(batch)
                self._digests, self._more = [], 0

    def _add(self, text: str) -> None:
        if len(self._digests) < _SHOWN:
            self._digests.append(text)
        else:
            self._more += 1

    def answered(self, number: int, settled: bool) -> None:
        """Take the word that all batches up to a number were answered, and that none is left if so."""
        while self._under_way and (settled or self._under_way[0].number <= number):
            batch = self._under_way.popleft()
            if batch.digests and self._enhancement.lasts:
                more = {"more": batch.more} if batch.more else {}
                self._log.info(
                    "statement",
                    server=self.server(),
                    digests=batch.digests,
                    seconds=round(self._seconds() - batch.sent, 6),
                    **more,
                )


if TYPE_CHECKING:
    _Base = Conversation
else:
    _Base = object


class _Recorded(_Base):
    """A conversation that tells a `Recorder`."""

    __slots__ = ()
    recorder: Recorder

    def recognises(self, data: bytes) -> Known | None:
        """Have everything be given message by message."""
        return None

    def from_client(self, run: bytes, frames: list[Frame]) -> bytes:
        """Take what the client has sent, give what goes to the server. Raises `Malformed`."""
        asked = self.ledger.asked
        out = super().from_client(run, frames)
        # What is put off comes again.
        later = len(self.put_off[1]) if self.put_off is not None else 0
        self.recorder.said(run, frames[: len(frames) - later] if later else frames, asked)
        return out

    def from_server(self, run: bytes, frames: list[Frame]) -> bytes:
        """Take what a server has sent, give what goes to the client. Raises `Malformed`."""
        out = super().from_server(run, frames)
        self.recorder.answered(self.ledger.answered, self.ledger.settled)
        return out


_Talk = TypeVar("_Talk", bound=_Recorded)


def recording(talk: _Talk, recorder: Recorder) -> _Talk:
    """Have a conversation tell a recorder."""
    talk.recorder = recorder
    return talk


class RecordedConversation(_Recorded, Conversation):
    """In session mode."""

    __slots__ = ("recorder",)
    direction = Following.direction


class RecordedFollowing(_Recorded, Following):
    """In transaction mode."""

    __slots__ = ("recorder",)
