"""
What passes between one client and its servers: read where it must be, changed where it must be.

`Conversation` itself is session mode: the client keeps its server, nothing is changed on the way, and what it
leaves behind is cleaned when it goes. `Following` (following.py) is transaction mode.
"""

from __future__ import annotations

from attrs import frozen

from pgproxy.session.bereft import Bereft
from pgproxy.session.known import Known
from pgproxy.session.ledger import Ledger
from pgproxy.session.loss import UNKNOWN_CAUSE, Cause, fatal
from pgproxy.session.pins import Reasons
from pgproxy.session.reported import NOTHING_REPORTED, Reported, news
from pgproxy.session.server import ServerSession
from pgproxy.session.settings import NOTHING_SET, Settings
from pgproxy.twin import quicken
from pgproxy.wire import errors, tags
from pgproxy.wire.errors import Complaint
from pgproxy.wire.messages import read_error_fields
from pgproxy.wire.skim import HEADER, Frame, Skimmer

_LOAD = b"LOAD\0"
_LISTEN = b"LISTEN\0"
_COMMIT = b"COMMIT\0"
READ_ONLY = b"C25006\0"
"""Stands in the ErrorResponse of a server, or a transaction, that is read-only."""
_TELLING = (_LOAD, _LISTEN, _COMMIT)
"""The command tags that say something that has to be kept in mind."""


@frozen
class Beginning:
    """How a link begins."""

    to_server: bytes = b""
    wait: bool = False
    """Whether the client's own messages have to wait until the server has answered (`Conversation.waits`)."""
    to_client: bytes = b""


@frozen
class Pinned:
    """The client keeps its server from now on."""

    reasons: Reasons
    statement: bytes
    """What did it, as the client said it."""


@frozen
class Unpinned:
    """These reasons are gone."""

    reasons: Reasons


@frozen
class AuditFound:
    """The server held something that no signal had told of."""

    what: str
    statement: bytes


@frozen
class QuestionFailed:
    """The server did not say what its session holds."""

    why: str


@frozen
class WriteRefused:
    """A statement was refused because the server, or the transaction, is read-only (25006)."""


Event = Pinned | Unpinned | AuditFound | QuestionFailed | WriteRefused
NOTHING_FIRST = Beginning()
"""The one beginning with nothing to be said to anybody."""


@quicken
class Conversation:
    """
    One client's side of its links, in session mode.

    Bytes go in with their frames, bytes to be sent come out. The attributes tell what else is to be done.
    """

    __slots__ = (
        "_library_loaded",
        "_listened",
        "broken",
        "cause",
        "defaults_changed",
        "events",
        "failure",
        "fatal",
        "hides",
        "ledger",
        "lets_go",
        "make_way",
        "past_queries",
        "past_transactions",
        "pid",
        "plain",
        "put_off",
        "refusal",
        "server",
        "settings",
        "terminated",
        "told",
    )

    direction = tags.FROM_CLIENT
    """What the client's skimmer has to look at."""

    def __init__(self) -> None:
        self.lets_go = False
        """Whether a server goes as soon as it owes nothing, where all that was said to it was `plain`."""
        self.ledger = Ledger()
        self.server: ServerSession | None = None
        """The session of the server that it is linked to."""
        self.settings: Settings = NOTHING_SET
        """What the client has set."""
        self.told: Reported = NOTHING_REPORTED
        """What the client has been told of the settings that servers report; entered by `hears`."""
        self.pid = b""
        """The process id that the client was told, as messages have it."""
        self.past_queries = self.past_transactions = 0
        """Those of the ledgers of before."""
        self._library_loaded = False
        self._listened = False
        self.terminated = False
        """Whether it has said Terminate; what comes behind that is not read."""
        self.fatal = False
        """Whether the server has told the client why it ends."""
        self.cause: Cause | None = None
        """Why the server ends, if it has said so and the client was not told: it is sent nothing more."""
        self.failure = ""
        """Why the session could not be restored on the server, if so: the link must end."""
        self.plain = False
        """
        Whether what was said last, by either side, is sent on as it is, and nothing else is to be done about
        it than to let the server go where it owes nothing any more.
        """
        self.put_off: tuple[bytes, list[Frame]] | None = None
        """What could not be sent on yet (`waits`), to be given again when it can."""
        self.broken = ""
        """How the client has broken the protocol, if so; what came before that is sent on."""
        self.refusal: Complaint | None = None
        """Why the client's next message can't be sent on, if so; what came before that is sent on."""
        self.events: list[Event] = []
        """For the log."""
        self.make_way: tuple[bytes, ...] = ()
        """Databases that idle servers have to leave before what came is sent on."""
        self.defaults_changed = False
        """Whether servers that are open may have been opened with other defaults than new ones would be."""
        self.hides = False
        """Whether it was found that statements do something in hiding, which other pools have as well."""

    @property
    def clean(self) -> bool:
        """Whether the server may be handed on as it is."""
        return False

    @property
    def pinned(self) -> bool:
        """Whether it is kept by what the client has left in the server."""
        return False

    @property
    def home(self) -> ServerSession | None:
        """The server that the client would rather have than others."""
        return None

    @property
    def unasked(self) -> bool:
        """Whether something may have been done, or defined, that the server has not been asked about."""
        return False

    @property
    def lasting(self) -> bool:
        """Whether the client has left something in the server that no cleaning undoes."""
        return self._library_loaded

    @property
    def listens(self) -> bool:
        """Whether the client may be waiting for notifications: here, whether it has ever said LISTEN."""
        return self._listened

    @property
    def waits(self) -> bool:
        """Whether the client's messages have to wait for the server's answer to one of ours."""
        return False

    @property
    def describing(self) -> bool:
        """Whether the server is to describe a statement, so that its descriptions have to be looked at."""
        return False

    @property
    def swallows(self) -> bool:
        """Whether what comes next from the server is not for the client."""
        return False

    @property
    def queries(self) -> int:
        """How many Queries and Syncs of the client's have been answered."""
        return self.past_queries + self.ledger.queries

    @property
    def transactions(self) -> int:
        """How many transactions the client has had."""
        return self.past_transactions + self.ledger.transactions

    @property
    def prepared(self) -> int:
        """How many named statements of the client's are known."""
        return 0

    def text_of(self, name: bytes) -> bytes:
        """Give the text of a statement of the client's; empty where it is not known."""
        return b""

    def hears(self, reported: Reported) -> None:
        """Enter what the client is told, at login or later, of the settings that servers report."""
        self.told = reported

    def begin(self, server: ServerSession) -> Beginning:
        """Be linked to a server."""
        self.server = server
        if server.reported is self.told:
            return NOTHING_FIRST
        told = self.told
        self.hears(server.reported)
        return Beginning(to_client=news(told, self.told))

    def part(self) -> None:
        """Be linked no longer, to a server that is clean."""
        self.server = None

    def end(self) -> Ledger:
        """Be linked no longer; the ledger goes with the server."""
        self.server = None
        ledger, self.ledger = self.ledger, Ledger()
        self.past_queries += ledger.queries
        self.past_transactions += ledger.transactions
        return ledger

    def bereave(self, half_said: bool, not_received: int) -> Complaint | Bereft | None:
        """
        Be linked no longer, to a server that is lost; say what becomes of the client.

        It ends with an error, is answered without a server, or goes on as if nothing had been, with what is
        `put_off` first. `half_said` says whether it was in the middle of a message that was sent,
        `not_received` how many of the last bytes that were sent have certainly not arrived.
        """
        self.end()
        return fatal(errors.SERVER_LOST, UNKNOWN_CAUSE)

    def gone(self) -> None:
        """Enter that the client has left for good."""

    def apart(self) -> None:
        """Let go of what knows it, as nothing passes any more: all are gone at once then."""

    def recognises(self, data: bytes) -> Known | None:
        """Say whether what has come is known to leave nothing; it is not entered."""
        return None

    def asked(self, data: bytes, known: Known) -> None:
        """Enter what was recognised."""

    def answered(self, data: bytes, skim: Skimmer) -> bool:
        """Enter the whole answer to all that is under way; False where it may be something else."""
        return False

    def from_client(self, run: bytes, frames: list[Frame]) -> bytes:
        """Take what a client has sent, give what goes to the server. Raises `Malformed`."""
        ledger = self.ledger
        for tag, start, _stop in frames:
            if tag == tags.TERMINATE:
                self.terminated = True
                self.plain = False
                return run[:start]
            ledger.sent(tag)
        self.plain = not ledger.full
        return run

    def from_server(self, run: bytes, frames: list[Frame]) -> bytes:
        """Take what a server has sent, give what goes to the client. Raises `Malformed`."""
        assert self.server is not None
        for tag, start, stop in frames:
            if tag == tags.PARAMETER_STATUS:
                self.server.status(run[start + HEADER : stop])
            elif tag == tags.COMMAND_COMPLETE:
                if run.startswith(_TELLING, start + HEADER):
                    self._told(run, start + HEADER)
            elif tag == tags.ERROR_RESPONSE:
                payload = run[start + HEADER : stop]
                self.fatal = self.fatal or is_fatal(payload)
                if READ_ONLY in payload:
                    self.events.append(WriteRefused())
        enter(self.ledger, run, frames)
        self.plain = not (self.fatal or self.events)
        return run

    def _told(self, run: bytes, start: int) -> None:
        if run.startswith(_COMMIT, start):
            self.ledger.committed()
        elif run.startswith(_LISTEN, start):
            self._listened = True
        else:
            self._library_loaded = True

    def rest(self) -> bytes | None:
        """
        Say what is to be done when the server owes nothing: None: let it go.

        Otherwise it stays, and is sent these bytes, if any.
        """
        return b""


def enter(ledger: Ledger, run: bytes, frames: list[Frame]) -> None:
    """Enter a server's frames into the ledger."""
    for tag, start, _stop in frames:
        if tag == tags.READY_FOR_QUERY:
            ledger.ready(run[start + HEADER])
        elif tag == tags.ERROR_RESPONSE:
            ledger.error()
        elif tag == tags.COPY_IN_RESPONSE:
            ledger.copy_in()
        elif tag == tags.COPY_BOTH_RESPONSE:
            ledger.copy_both()


def is_fatal(payload: bytes) -> bool:
    """Say whether an ErrorResponse is a server's last word."""
    fields = read_error_fields(payload)
    return fields.get("V", fields.get("S")) in ("FATAL", "PANIC")
