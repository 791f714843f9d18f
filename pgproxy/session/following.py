"""
Transaction mode: a client's session follows it from server to server.

The law:

1. What the server says goes before what a statement's text suggests. A text, or a command tag that no text
   explains, raises suspicion; at the end of the transaction the server is asked before it is handed on, and
   its answer decides what travels and what pins (inquiry.py).
2. A server is brought to the client's settings before the client's first message, in the same write. Where
   that may fail, the message waits.
3. Every message of the client's is answered by the server exactly once, as it would be directly; what the
   proxy says in between is answered for the proxy alone.
4. What we say of our own goes between two batches, but for Parse and Close (prepared.py), which go anywhere.

Documentation: PostgreSQL manual, "Extended Query", "Pipelining".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from struct import Struct

from attrs import evolve

from pgproxy.session.asides import Aside, Asides
from pgproxy.session.bereft import Bereft
from pgproxy.session.commands import (
    COMMIT,
    COMMIT_PREPARED,
    COMMITS,
    DEFINES,
    QUIET,
    QUIET_IN_HIDING,
    RESET,
    ROLLED_BACK,
    SEQUENCES_FORGOTTEN,
    STATEMENTS_GONE,
    UNDO,
)
from pgproxy.session.conversation import (
    NOTHING_FIRST,
    READ_ONLY,
    Beginning,
    Conversation,
    WriteRefused,
    is_fatal,
)
from pgproxy.session.inquiry import Inquiry
from pgproxy.session.known import Known
from pgproxy.session.last import MOST_KEPT, NOT_KNOWN, under_way
from pgproxy.session.ledger import IDLE, IN_TRANSACTION, Ledger
from pgproxy.session.loss import UNKNOWN_CAUSE, Loss, cause_of, fatal, in_transaction, owed_to_client
from pgproxy.session.parts import NOT_YET, Instead, in_front, is_whole, length_at, statement_name
from pgproxy.session.pins import PinReason
from pgproxy.session.prepared import Prepared
from pgproxy.session.reported import Reported, news
from pgproxy.session.sequences import USES_SEQUENCES, Apart, Sequences, discarded
from pgproxy.session.server import ServerSession
from pgproxy.session.settings import NOTHING_SET, Difference, beginning_with, difference, meaning
from pgproxy.session.suspicion import CACHED_TEXT, Verdicts, dotted_names
from pgproxy.session.verdict import (
    ASK,
    DATABASE,
    DYNAMIC,
    HARMLESS,
    LOCAL,
    OPAQUE,
    RESETS,
    SEQUENCE_READ,
    STATEMENTS,
    UNDOES,
    WRITES,
    Verdict,
)
from pgproxy.twin import quicken
from pgproxy.wire import errors, messages, tags
from pgproxy.wire.errors import Complaint
from pgproxy.wire.skim import HEADER, Frame, Malformed, Skimmer

_CAN_BE_SAID_AGAIN = frozenset({b"BDES"})
"""
Batches that may be said again when what their statement gives has changed: the client asks what that is. One
that does not ask relies on what it was told before, and has to be told.
"""


_bind_at = Struct(">BIH").unpack_from
"""Reads of a Bind the tag, the length, and the two names if both are empty: then they are 0."""
_PORTAL_TO_SYNC = (
    messages.message(tags.DESCRIBE, b"P\0") + messages.message(tags.EXECUTE, b"\0\0\0\0\0") + messages.SYNC
)
_PORTAL_TO_SYNC_SIZE = len(_PORTAL_TO_SYNC)
"""What stands behind the Bind where the unnamed portal is described, and all of its rows are asked for."""
_PARSED_AND_BOUND = messages.message(tags.PARSE_COMPLETE, b"") + messages.message(tags.BIND_COMPLETE, b"")
_COMMIT = COMMIT + b"\0"
_DESCRIPTIONS = frozenset({tags.PARAMETER_DESCRIPTION, tags.ROW_DESCRIPTION, tags.NO_DATA})
_HIDE_ASCII = frozenset({b"SJIS", b"SHIFT_JIS_2004", b"BIG5", b"GBK", b"UHC", b"JOHAB", b"GB18030"})
"""Encodings in which a byte that looks like ASCII may be half of another character."""
_COMPLETIONS = frozenset({tags.PARSE_COMPLETE, tags.CLOSE_COMPLETE})
_UNEXPLAINED = Verdict(ASK | OPAQUE | DYNAMIC, ())
_ASCII = re.compile(rb"[\x00-\x7f]*")
_MAY_END = Verdict(ASK, ())
_DISCARD_SEQUENCES = messages.query("DISCARD SEQUENCES")
_LARGE_OBJECT_FUNCTIONS = frozenset({715, *range(951, 959), 964, 1004, 3170, 3171, 3172})
"""OIDs that libpq calls by FunctionCall; they leave nothing behind a transaction."""
_SEQUENCE_READERS = frozenset({1575, 2559})
"""The OIDs of currval() and lastval()."""


class _Refused(Exception):
    """A message would be answered with what others have left."""


@quicken
class Following(Conversation):
    """One client's session, in transaction mode."""

    __slots__ = (
        "_again",
        "_alone",
        "_asides",
        "_await",
        "_before",
        "_bound",
        "_calm",
        "_completions",
        "_grown",
        "_initial",
        "_inquiry",
        "_known",
        "_lapsed",
        "_last",
        "_prepared",
        "_quiet",
        "_retry",
        "_saying_again",
        "_sequences",
        "_stray",
        "_touched",
        "_verdicts",
    )

    direction = tags.FROM_CLIENT_READ

    def __init__(self, verdicts: Verdicts, filters: frozenset[str], audit: Callable[[], bool] | None) -> None:
        super().__init__()
        self.lets_go = audit is None
        self._verdicts = verdicts
        self._prepared = Prepared(verdicts, partial(self._say, Aside.OTHER))
        self._completions = self._prepared.completions
        self._inquiry = Inquiry(filters, audit)
        self.events = self._inquiry.events
        self._asides = Asides()
        self._sequences = Sequences()
        self._initial = NOTHING_SET
        """What sessions begin with by `init_query`, as far as it is entered."""
        self._lapsed = False
        """Whether the client has reset some of that, and the server has yet to be brought back to it."""
        self._quiet = QUIET
        self._retry: bytes | None = None
        """The batch under way, if it can be said again."""
        self._grown: tuple[bytes, int] | None = None
        """What was sent otherwise than the client has said it, and how many bytes that was."""
        self._last: bytes | None = None
        """What the client has said last, if that begins a batch and is not long."""
        self._known: Known | None = None
        """What was `asked` last."""
        self._alone = -1
        """The number of the batch under way, if `asked` has entered it and nothing else was said since."""
        self._saying_again = False
        """Whether it is to be said again, once the server is ready."""
        self._again = False
        """Whether it has been said again already."""
        self._bound = False
        self._await = 0
        """How many batches have to be answered before the client's next message is looked at."""
        self._touched = False
        """Whether this link has been anything but quiet."""
        self._calm = False
        """Whether it may be taken for quiet all the same, as long as its transaction lasts."""
        self._stray = -1
        """The batch in which RESET ALL was said last, and not entered, as there was nothing to reset."""
        self._before: Reported | None = None
        """What the client had been told before what is under way, if it was told something since."""

    @property
    def clean(self) -> bool:
        """Whether the server may be handed on as it is."""
        return not self._touched or (
            self._inquiry.clean and not self._completions and not self._asides and not self.ledger.doubtful
        )

    @property
    def lasting(self) -> bool:
        """Whether the client has left something in the server that no cleaning undoes."""
        return self._inquiry.lasting

    @property
    def unasked(self) -> bool:
        """Whether something may have been done, or defined, that the server has not been asked about."""
        return self._inquiry.unasked

    @property
    def listens(self) -> bool:
        """Whether the client waits for notifications, as far as the server was asked."""
        return PinReason.LISTEN in self._inquiry.reasons

    @property
    def waits(self) -> bool:
        """Whether the client's settings are being restored, or its next message waits for earlier answers."""
        return (
            Aside.RESTORE in self._asides
            or self.ledger.answered < self._await
            or self._prepared.descriptions.ours > 0
            or self._saying_again
        )

    @property
    def describing(self) -> bool:
        """Whether the server is to describe a statement, so that its descriptions have to be looked at."""
        return bool(self._prepared.descriptions)

    @property
    def swallows(self) -> bool:
        """Whether what comes next from the server is not for the client."""
        return self.ledger.ours_next

    @property
    def prepared(self) -> int:
        """How many named statements of the client's are known."""
        return self._prepared.named

    def text_of(self, name: bytes) -> bytes:
        """Give the text of a statement of the client's; empty where it is not known."""
        return self._prepared.text_of(name)

    # A link.

    def begin(self, server: ServerSession) -> Beginning:
        """Bring a server to this client's session."""
        self.server = server
        if server.initial is not self._initial:
            self._initial = server.initial
            self.settings = beginning_with(server.initial, self.settings)
        self._prepared.server, self._prepared.ledger = server, self.ledger
        doubtful = False
        habits = server.habits
        self._quiet = QUIET if not habits.hidden else QUIET_IN_HIDING
        if server.owner is not self:
            doubtful, server.opaque = server.opaque, False
            server.owner = self
        if (
            server.settings is self.settings
            and server.reported is self.told
            and not doubtful
            and not server.leftovers
            and not (habits.sequences_matter and self._sequences.others(server))
        ):
            return NOTHING_FIRST
        return self._restore(server, doubtful)

    def _restore(self, server: ServerSession, doubtful: bool) -> Beginning:
        self._touched = True
        first = self._prepared.close_all(server.leftovers)
        server.leftovers.clear()
        change = difference(server.settings, self.settings, doubtful)
        first += self._change(server, change) + self._forget_sequences(server)
        return Beginning(first, change.guarded, b"" if self._asides else self._tell())

    def _change(self, server: ServerSession, change: Difference) -> bytes:
        """Bring a server's settings to the client's."""
        server.settings = self.settings
        for _query in change.queries:
            self._say(Aside.RESTORE)
        return b"".join(map(messages.query_of, change.queries))

    def part(self) -> None:
        """Let go of a server that is clean."""
        if self._touched:
            self._reset()
        self.server = None

    def end(self) -> Ledger:
        """Let go of a server that has to be cleaned, or is lost; the ledger goes with it."""
        if self.server is not None and self.unasked:
            self.server.habits.due = True
        # The next ledger counts anew.
        self._alone = self._stray = -1
        self._prepared.failed(self.ledger.asked)
        self._reset()
        return super().end()

    def bereave(self, half_said: bool, not_received: int) -> Complaint | Bereft | None:
        """Be linked no longer, to a server that is lost; say what becomes of the client."""
        ledger = self.ledger
        cause = self.cause or UNKNOWN_CAUSE
        told = self._prepared.failed_batch == ledger.answered and not self._saying_again
        reasons = self._inquiry.reasons
        in_doubt = self._inquiry.doubt or Aside.QUESTION in self._asides or PinReason.UNKNOWN in reasons
        listens = self.listens
        before = self._before
        said, sent = self._grown or (None, 0)
        self.end()
        self._prepared.lost()
        if ledger.irregular or ledger.doubtful or ledger.streaming:
            return fatal(errors.SERVER_LOST, cause)
        if in_doubt:
            return fatal(errors.SETTINGS_LOST, cause)
        if listens:
            return fatal(errors.LISTENER_LOST, cause)
        owed = owed_to_client(ledger)
        last = under_way(self._last, ledger, self._prepared) if owed == 1 else NOT_KNOWN
        loss = Loss(
            owed=owed,
            half_said=half_said,
            told=told,
            batch_open=ledger.batch_open,
            in_transaction=in_transaction(ledger),
            reasons=reasons,
            cause=cause,
            exits=last.exits,
            by_query=last.by_query,
        )
        if loss.nothing:
            return None
        size = sent if said is self._last else len(last.run)
        if loss.may_be_sent and last.run and size <= not_received:
            # All of it is missing there: it goes to another server, as if it had come later.
            self.put_off = last.run, last.frames
            return None
        return Bereft(loss, self._prepared, self._take_back(before))

    def _take_back(self, before: Reported | None) -> bytes:
        """Tell the client what holds again, as a rollback does, where it was told something since."""
        if before is None or before is self.told:
            return b""
        told = self.told
        self.hears(before)
        return news(told, before)

    def gone(self) -> None:
        """Enter that the client has left for good."""
        self._sequences.gone()

    def apart(self) -> None:
        """Let go of what knows it."""
        self._prepared.apart()

    @property
    def pinned(self) -> bool:
        """Whether it is kept by what the client has left in the server."""
        return bool(self._inquiry.reasons)

    @property
    def home(self) -> ServerSession | None:
        """The server that the client would rather have than others."""
        return self._sequences.home

    def _reset(self) -> None:
        self._touched = False
        self._calm = False
        self._asides.clear()
        self._await = 0
        self._retry = None
        self._again = self._saying_again = self._lapsed = False
        self._before = None
        self._grown = None
        self.cause = None
        self._sequences.parted()
        self._prepared.parted()
        self._inquiry.parted()

    def rest(self) -> bytes | None:
        """Ask where there is suspicion, stay where there is a reason, else let go."""
        inquiry = self._inquiry
        if self._touched:
            if self._prepared.too_heavy:
                inquiry.certain(PinReason.STATEMENT_MEMORY, b"")
            else:
                inquiry.no_longer(PinReason.STATEMENT_MEMORY)
            inquiry.pin()
        if inquiry.due:
            server = self.server
            assert server is not None
            self._touched = True
            if not inquiry.foresees(server):
                question = inquiry.ask(server)
                self._say(Aside.QUESTION)
                return question
            self._settled(server)
        return b"" if inquiry.reasons else None

    # From the client.

    def from_client(self, run: bytes, frames: list[Frame]) -> bytes:
        """Take what a client has sent, give what goes to the server. Raises `Malformed`."""
        self._alone = -1
        self._retry = None
        fresh = not self.ledger.batch_open and bool(frames) and not frames[0][1] and len(run) <= MOST_KEPT
        self._last = run if fresh else None
        if not self._touched or (self._calm and not self._asks_others(run)):
            plain = self._asks_plainly(run, frames)
            if plain is not None:
                return plain
        self.plain = self._calm = False
        if self._saying_again:
            self._last = None
            self.put_off = run, frames
            return b""
        if self._initial is not NOTHING_SET and frames:
            first = self._begin_again()
            if first is not None:
                self._last = None
                self.put_off = run, frames
                return first
        if frames and not frames[0][1] and not self.ledger.batch_open:
            forget = self._look_ahead(run)
            if forget is not None:
                self._last = None
                self.put_off = run, frames
                return forget
        ledger = self.ledger
        pieces: list[bytes] | None = None
        done = 0
        quiet = ledger.quiet
        said = run
        self._bound = False
        for index, (tag, start, stop) in enumerate(frames):
            reader = _READERS.get(tag)
            if reader is not None:
                try:
                    instead = reader(self, run, start, stop)
                except Malformed as error:
                    self.broken = str(error)
                    run = run[:start]
                    break
                except _Refused:
                    self.refusal = errors.complaint(errors.SEQUENCES_OF_OTHERS)
                    run = run[:start]
                    break
                if instead is not None and instead[1] == NOT_YET:
                    self._last = None
                    self.put_off = run[start:], [(t, a - start, b - start) for t, a, b in frames[index:]]
                    pieces = [] if pieces is None else pieces
                    pieces += (run[done:start], instead[0])
                    run, done = run[:start], start
                    break
                if instead is not None:
                    if pieces is None:
                        pieces = []
                    pieces += (run[done:start], instead[0])
                    done = instead[1]
            elif tag == tags.TERMINATE:
                self.terminated = True
                run = run[:start]
                break
            ledger.sent(tag)
        if self._touched:
            self._inquiry.client_spoke()
        if self._bound:
            tags_said = bytes(frame[0] for frame in frames)
            can = quiet and not self._again and tags_said in _CAN_BE_SAID_AGAIN
            alone = not frames[0][1] and frames[-1][2] == len(run)
            self._retry = said if can and alone else None
            self._again = False
        if pieces is None:
            return run
        pieces.append(run[done:])
        sent = b"".join(pieces)
        # The pieces may be much longer, and lie in front of anything: what has arrived is counted with them.
        self._grown = (self._last, len(sent)) if self._last is not None else None
        return sent

    def _asks_others(self, run: bytes) -> bool:
        """Say whether what has come may be answered with what others have left of sequences."""
        server = self.server
        assert server is not None
        return self._sequences.others(server) or self._sequences.may_be_asked(server, run)

    def _asks_plainly(self, run: bytes, frames: list[Frame]) -> bytes | None:
        """
        Enter a Query or a whole batch that leaves nothing; give what goes to the server.

        None where it is something else, or more has to be done about it: then nothing is entered.
        """
        ledger = self.ledger
        prepared = self._prepared
        if len(frames) == 1:
            tag, start, stop = frames[0]
            if tag != tags.QUERY or stop - start > CACHED_TEXT:
                return None
            verdict = prepared.judge(run[start + HEADER : stop - 1], True)
            if verdict is not HARMLESS and self._as_known(verdict) is not HARMLESS:
                return None
            if stop == len(run) and verdict is HARMLESS:
                self._verdicts.learn_query(run)
            prepared.queried()
            ledger.sent(tag)
        else:
            if ledger.batch_open:
                return None
            said = prepared.asks_plainly(run, frames)
            if said is None:
                return None
            asks = len(frames) == 4 and frames[1][0] == tags.DESCRIBE
            alone = not frames[0][1] and frames[-1][2] == len(run)
            if asks and ledger.quiet and not self._again and alone:
                self._retry = run
            run = said
            self._again = False
            ledger.sent(tags.SYNC)
        self.plain = not ledger.full
        return run

    def _begin_again(self) -> bytes | None:
        """Where the client may have reset what `init_query` has set, say what is sent before its messages."""
        server = self.server
        assert server is not None
        if Aside.QUESTION in self._asides:
            self._await = self.ledger.asked
            return b""
        if not self._lapsed:
            return None
        self._lapsed = False
        return self._change(server, difference(server.settings, self.settings))

    def _query(self, run: bytes, start: int, stop: int) -> Instead:
        text = run[start + HEADER : stop - 1]
        whole = stop - start < tags.TEXT_LOOK or is_whole(run, start, stop)
        verdict = self._as_known(self._prepared.judge(text, whole))
        self._prepared.queried()
        if verdict is HARMLESS:
            return None
        if verdict.flags & STATEMENTS and self._prepared.names_undecided:
            return self._not_yet(self.ledger.asked)
        if verdict.flags & SEQUENCE_READ:
            first = self._keep_apart(verdict.flags, text, executes=True)
            if first is not None:
                return first
        return in_front(self._suspect(verdict, text), start)

    def _parse(self, run: bytes, start: int, stop: int) -> Instead:
        name, statement, name_end = self._prepared.read_parse(run, start, stop)
        if Aside.QUESTION in self._asides:
            # Under which settings it is analysed is about to be answered.
            return self._not_yet(self.ledger.asked)
        if name and self._prepared.knows(name) and self.ledger.awaited and self._inquiry.suspicious:
            # It may be on the way out: DISCARD ALL, DEALLOCATE ALL.
            return self._not_yet(self.ledger.asked)
        flags = statement.verdict.flags
        first = self._keep_apart(flags)
        if first is not None:
            return first
        if (name and self._prepared.is_undecided(name)) or (
            flags & STATEMENTS and self._prepared.names_undecided
        ):
            return self._not_yet(self._prepared.undecided_batches(name))
        # The statements that it names have to be there when it is analysed.
        before = self._spell_out() if flags & STATEMENTS else b""
        if name or not statement.whole:
            self._touched = True
        instead = self._prepared.parse(name, statement, run, start, name_end)
        return (before + instead[0], instead[1]) if instead is not None else in_front(before, start)

    def _not_yet(self, batches: int) -> Instead:
        """Let a message, and what is behind it, wait until so many batches have been answered."""
        self._await = batches
        return b"", NOT_YET

    def _bind(self, run: bytes, start: int, stop: int) -> Instead:
        statement, portal_end, name_end = self._prepared.bound(run, start, stop)
        name = run[portal_end + 1 : name_end]
        if name and self._prepared.is_undecided(name):
            return self._not_yet(self._prepared.undecided(name))
        unsure = self._prepared.unsure(name)
        if unsure:
            return self._not_yet(unsure)
        first = self._keep_apart(statement.verdict.flags if statement is not None else 0, executes=True)
        if first is not None:
            return first
        before = b""
        verdict = self._as_known(statement.verdict) if statement is not None else HARMLESS
        if statement is not None and verdict is not HARMLESS:
            names: tuple[bytes, ...] = ()
            if portal_end > start + HEADER and verdict.flags & RESETS:
                # Its tag may come much later.
                verdict = evolve(verdict, flags=verdict.flags | ASK)
            if verdict.flags & DYNAMIC:
                names = dotted_names(run[name_end:stop])
                self._inquiry.look_up(names)
            named = bool(names) and is_whole(run, start, stop)
            before = self._suspect(verdict, statement.text, named)
            if portal_end > start + HEADER or len(verdict.tags) < len(verdict.sets):
                # Others may be executed before it; or no tag tells that it is executed at all.
                self._inquiry.unforeseen()
        self._bound = True
        instead = self._prepared.bind(statement, run, start, portal_end, name_end)
        return (before + instead[0], instead[1]) if instead is not None else in_front(before, start)

    def _describe(self, run: bytes, start: int, stop: int) -> Instead:
        name = statement_name(run, start, stop)
        if name and self._prepared.is_undecided(name):
            return self._not_yet(self._prepared.undecided(name))
        if name is not None:
            unsure = self._prepared.unsure(name)
            if unsure:
                return self._not_yet(unsure)
        return self._prepared.describe(run, start, stop)

    def _close(self, run: bytes, start: int, stop: int) -> Instead:
        named = statement_name(run, start, stop)
        if named and self._prepared.is_undecided(named):
            return self._not_yet(self._prepared.undecided(named))
        self._touched = True
        name = self._prepared.close(run, start, stop)
        if PinReason.SQL_STATEMENT in self._inquiry.reasons and not self._prepared.knows(name):
            self._inquiry.suspect(_MAY_END, name)
        return None

    def _function_call(self, run: bytes, start: int, stop: int) -> Instead:
        function = int.from_bytes(run[start + HEADER : start + HEADER + 4], "big")
        if function in _SEQUENCE_READERS:
            first = self._keep_apart(SEQUENCE_READ, executes=True)
            if first is not None:
                return first
        if function not in _LARGE_OBJECT_FUNCTIONS:
            self._suspect(_UNEXPLAINED, b"function call")
        return None

    # What is known as a whole.

    def recognises(self, data: bytes) -> Known | None:
        """
        Say whether what has come is one message, or one batch, that is known to leave nothing.

        That is a Query, or a Parse, Bind, Describe, Execute and Sync of the unnamed statement and portal, all
        of it whole, where nothing is under way. Nothing is entered: that is what `asked` is for. None where
        it is something else, or may be.
        """
        ledger, prepared = self.ledger, self._prepared
        if (
            not data
            or self._touched
            or ledger.owed
            or ledger.batch_open
            or ledger.irregular
            or ledger.streaming
            or self._completions
            or prepared.descriptions.owed
            or not prepared.readable
        ):
            return None
        if data[0] == tags.QUERY:
            return self._verdicts.known_query(data)
        if not data.endswith(_PORTAL_TO_SYNC):
            return None
        bind = length_at(data, 1)[0] + 1
        known = self._verdicts.parses.get(data[:bind])
        stop = len(data) - _PORTAL_TO_SYNC_SIZE
        if known is None or bind >= stop or _bind_at(data, bind) != (tags.BIND, stop - bind - 1, 0):
            return None
        return known

    def asked(self, data: bytes, known: Known) -> None:
        """Enter what was recognised, now that there is a server that it goes to as it is."""
        server = self.server
        ledger = self.ledger
        prepared = self._prepared
        assert server is not None
        self._known = known
        self._retry = None
        self._last = data if len(data) <= MOST_KEPT else None
        if known.body:
            prepared.prepares(known.body, server, ledger.asked)
            self._again = False
            ledger.owed.append(tags.SYNC)
        else:
            prepared.unnamed = server.unnamed = None
            ledger.owed.append(tags.QUERY)
        ledger.ends = 0
        self._alone = ledger.asked = ledger.asked + 1
        self.plain = True

    def answered(self, data: bytes, skim: Skimmer) -> bool:
        """
        Enter the whole answer to what was `asked`, where nothing else is under way.

        That is rows, or what else is only carried, a quiet command and a ReadyForQuery, with ParseComplete
        and BindComplete before them where they are owed. False where it is something else, or may be: then
        nothing is entered.
        """
        ledger, known = self.ledger, self._known
        if not self._alone == ledger.asked == ledger.answered + 1 or known is None:
            return False
        if not (
            data.startswith(known.head)
            and data.endswith(known.tail)
            and known.quiet is self._quiet
            and skim.are_rows(data, len(known.head), len(data) - len(known.tail))
        ) and not self._learns_answer(known, data, skim):
            return False
        if known.body:
            self._completions.sole = None
        del ledger.owed[0]
        status = ledger.status = data[-1]
        if status == IDLE:
            ledger.transaction += 1
        ledger.answered += 1
        return True

    def _learns_answer(self, known: Known, data: bytes, skim: Skimmer) -> bool:
        """Walk over what may be the whole answer to what was `asked`; say whether it is."""
        if not known.body:
            places = skim.whole_answer(data, 0)
        elif data.startswith(_PARSED_AND_BOUND):
            places = skim.whole_answer(data, len(_PARSED_AND_BOUND))
        else:
            return False
        if places is None:
            return False
        rows, complete = places
        if data[complete + HEADER : complete + HEADER + 3] in self._quiet:
            if data[-1] == IDLE:
                known.learn_answer(data, rows, complete, self._quiet)
        elif self._quiet is QUIET and data.startswith(_COMMIT, complete + HEADER):
            self.ledger.committed()
        else:
            return False
        return True

    # Suspicion.

    def _as_known(self, verdict: Verdict) -> Verdict:
        """Give a verdict by what is known of the functions that the text calls."""
        server = self.server
        assert server is not None
        calls = verdict.calls
        return verdict.otherwise if calls and server.habits.functions.leave_nothing(calls) else verdict

    def _suspect(self, verdict: Verdict, text: bytes, named: bool = False) -> bytes:
        """
        Enter what a statement may leave behind; give what has to be sent before it.

        With `named` the settings that it computes the name of are known all the same.
        """
        server = self.server
        assert server is not None
        if verdict is WRITES and not self._sequences.wrote(server, text):
            return b""
        flags = verdict.flags
        if flags & (UNDOES | RESETS):
            if flags & UNDOES and not self._nothing_held:
                # What that ends is asked, whatever else it sets.
                flags |= ASK
                verdict = Verdict(flags, verdict.names)
            elif flags & RESETS and not self._nothing_set:
                flags |= ASK
                verdict = evolve(verdict, flags=flags)
            elif not flags & ~(UNDOES | RESETS):
                if flags & RESETS:
                    # Its tag is not to be taken for another's.
                    self._stray = self.ledger.asked
                    self._inquiry.unforeseen()
                return b""
        self._touched = True
        if not self._prepared.readable:
            # What of it is a literal can't be told, so none of it goes into the log from there on.
            text = _ASCII.match(text)[0]  # type: ignore[index]
        self._inquiry.suspect(verdict, text, named, server.habits.functions)
        if self.ledger.answered <= self._stray:
            self._inquiry.unforeseen()
        if flags & (ASK | LOCAL) and self._prepared.scope is None:
            self._prepared.scope = object()
        if flags & DATABASE:
            self.make_way += verdict.names
        if flags & USES_SEQUENCES:
            if self._sequences.used(server, flags, text):
                self._inquiry.certain(PinReason.SEQUENCE, text)
        elif flags & OPAQUE:
            self._sequences.hidden(server)
        return self._spell_out() if flags & STATEMENTS else b""

    @property
    def _nothing_held(self) -> bool:
        """
        Whether the client has left nothing in the server, its settings aside: nothing that would pin it.

        Where statements may do something in hiding, this can't be said.
        """
        return self._quiet is QUIET and Aside.QUESTION not in self._asides and self._inquiry.nothing_held

    @property
    def _nothing_set(self) -> bool:
        """
        Whether it has left no setting either.

        One that the owner lets it leave there is the server's, not the client's.
        """
        server = self.server
        assert server is not None
        return (
            self.settings is NOTHING_SET
            and server.settings is NOTHING_SET
            and not self._asides
            and self._nothing_held
        )

    def _forget_sequences(self, server: ServerSession) -> bytes:
        """Build what makes a server forget the sequences that others have used; between two batches only."""
        if not self._sequences.others(server):
            return b""
        self._say(Aside.FORGET)
        discarded(server)
        return _DISCARD_SEQUENCES

    def _look_ahead(self, run: bytes) -> bytes | None:
        """Where a batch asks for sequences further on, say what is sent before it; it has to wait then."""
        server = self.server
        assert server is not None
        if not self._sequences.may_be_asked(server, run):
            return None
        first = self._keep_apart(SEQUENCE_READ)
        return first[0] if first is not None else None

    def _keep_apart(self, flags: int, text: bytes = b"", *, executes: bool = False) -> Instead:
        """
        Have a server forget the sequences that others have used, and a message wait until it has.

        Raises `_Refused` where it is too late for that.
        """
        server = self.server
        assert server is not None
        what = self._sequences.keep_apart(server, self.ledger, self._asides, flags, text, executes)
        if what is Apart.NOTHING:
            return None
        if what is Apart.REFUSE:
            raise _Refused
        if what is Apart.WAIT:
            return self._not_yet(self.ledger.asked)
        forget = self._forget_sequences(server)
        self._await = self.ledger.asked
        return forget, NOT_YET

    def _spell_out(self) -> bytes:
        self._touched = True
        return self._prepared.spell_out()

    def _command(self, tag: bytes) -> None:
        """Look at a command tag that is not quiet."""
        assert self.server is not None
        if tag[:3] == COMMITS:
            if tag == COMMIT:
                self.ledger.committed()
                self._inquiry.done()
            elif tag == COMMIT_PREPARED:
                # Nobody knows what that has defined.
                self.server.habits.due = True
            if self._quiet is QUIET:
                return
        if tag in STATEMENTS_GONE:
            self._prepared.all_gone()
        if tag in SEQUENCES_FORGOTTEN:
            discarded(self.server)
        if self._inquiry.heard(tag):
            self.defaults_changed = True
        if tag[:3] in DEFINES:
            self.server.habits.functions.forget()
        if tag in UNDO and (self._nothing_set if tag == RESET else self._nothing_held):
            return
        if not self._inquiry.explained or self._quiet is QUIET_IN_HIDING:
            self._suspect(_UNEXPLAINED, tag)

    def _say(self, what: Aside) -> None:
        assert self.server is not None
        self._touched = True
        # A Query does away with the unnamed statement.
        self.server.unnamed = None
        self._asides.said(what)
        self.ledger.sent_ours()

    # From the server.

    def from_server(self, run: bytes, frames: list[Frame]) -> bytes:
        """Take what a server has sent, give what goes to the client. Raises `Malformed`."""
        if (not self._touched or self._calm) and self._is_answered_plainly(run, frames):
            return run
        self._alone = -1
        self.plain = False
        ledger = self.ledger
        server = self.server
        assert server is not None
        out: list[bytes] | None = None
        done = 0
        ours = ledger.ours_next
        for tag, start, stop in frames:
            if tag == tags.READY_FOR_QUERY:
                if ours:
                    out = [] if out is None else out
                    self._asides.collect(run[done:stop])
                    done = stop
                    ledger.ready(run[start + HEADER])
                    out.append(self._aside_ended(server))
                else:
                    if self._completions or self._prepared.descriptions:
                        self._prepared.failed(ledger.answered)
                    ledger.ready(run[start + HEADER])
                    if ledger.status == IDLE:
                        self._before = None
                        self._inquiry.done()
                    if self._saying_again:
                        self._saying_again, self._again = False, True
                        batch, self._retry = self._retry, None
                        assert batch is not None
                        self.put_off = Skimmer(self.direction).feed(batch)
                        out = [] if out is None else out
                        out.append(run[done:start])
                        done = stop
                    if ledger.ours_next:
                        out = [] if out is None else out
                        out.append(run[done:stop])
                        done = stop
                ours = ledger.ours_next
            elif ours:
                # What is closed or prepared on its way.
                if self._completions.due(ledger.answered):
                    if tag in _COMPLETIONS:
                        self._completions.came(tag)
                    elif tag == tags.ERROR_RESPONSE:
                        self._prepared.failed(ledger.answered)
                if tag == tags.ERROR_RESPONSE:
                    self.cause = cause_of(run[start + HEADER : stop])
            elif tag == tags.COMMAND_COMPLETE:
                word = run[start + HEADER : start + HEADER + 3]
                if word == ROLLED_BACK:
                    self._inquiry.unforeseen()
                if word not in self._quiet:
                    self._command(run[start + HEADER : stop - 1])
            elif tag == tags.NOTIFICATION_RESPONSE:
                if run[start + HEADER : stop] == server.pid:
                    out = [] if out is None else out
                    out += (run[done : start + HEADER], self.pid)
                    done = stop
            elif tag in _DESCRIPTIONS:
                if not self._prepared.descriptions.came(tag, run[start + HEADER : stop]):
                    out = [] if out is None else out
                    out.append(run[done:start])
                    done = stop
            elif tag in _COMPLETIONS:
                if not self._completions.came(tag):
                    out = [] if out is None else out
                    out.append(run[done:start])
                    done = stop
            else:
                complete = is_whole(run, start, stop)
                instead = self._seldom(tag, run[start + HEADER : stop], complete)
                if instead is not None and complete:
                    out = [] if out is None else out
                    out += (run[done:start], instead)
                    done = stop
        self._calm = self._touched and self._nothing_under_way
        if ours:
            self._asides.collect(run[done:])
        elif out is None:
            return run
        else:
            out.append(run[done:])
        return b"" if out is None else b"".join(out)

    @property
    def _nothing_under_way(self) -> bool:
        """Whether the client is in a transaction, and what comes next has to wait for nothing."""
        ledger = self.ledger
        return (
            ledger.status == IN_TRANSACTION
            and not ledger.owed
            and not ledger.batch_open
            and not ledger.copying
            and not self._asides
            and not self._completions
            and not self._prepared.descriptions
            and not self._saying_again
            and self.put_off is None
            and self._initial is NOTHING_SET
        )

    def _is_answered_plainly(self, run: bytes, frames: list[Frame]) -> bool:
        """
        Enter a ReadyForQuery behind quiet commands, or a whole batch; say whether that is what came.

        Where the client has left something, that is so within its transaction only.
        """
        parsed = len(self._completions)
        if parsed > 1 or len(frames) < 2 + parsed or self._prepared.descriptions:
            return False
        for tag, start, _stop in frames[parsed:-2]:
            if tag != tags.COMMAND_COMPLETE or run[start + HEADER : start + HEADER + 3] not in self._quiet:
                return False
        first, start, _stop = frames[-2]
        last, ready, _end = frames[-1]
        if first != tags.COMMAND_COMPLETE or last != tags.READY_FOR_QUERY:
            return False
        if self._touched and (
            run[ready + HEADER] != IN_TRANSACTION
            or any(run.startswith(ROLLED_BACK, begin + HEADER) for _tag, begin, _stop in frames[parsed:-1])
        ):
            return False
        commits = False
        if run[start + HEADER : start + HEADER + 3] not in self._quiet:
            commits = self._quiet is QUIET and run.startswith(_COMMIT, start + HEADER)
            if not commits or self._touched:
                return False
        if parsed and not self._completions.came_plainly(frames[0][0]):
            return False
        if commits:
            self.ledger.committed()
        self.ledger.ready(run[ready + HEADER])
        self.plain = True
        return True

    def _seldom(self, tag: int, payload: bytes, whole: bool) -> bytes | None:
        """
        Enter what comes seldom; give what the client gets in its place, None where it stays as it is.

        `whole` says whether the payload is all of it: what is not can't be replaced.
        """
        assert self.server is not None
        if tag == tags.ERROR_RESPONSE:
            if whole:
                self.cause = cause_of(payload)
                if self.cause is not None:
                    return b""
            self.ledger.error()
            self._inquiry.unforeseen()
            self._prepared.failed(self.ledger.answered)
            self._prepared.failed_batch = self.ledger.answered
            self.fatal = self.fatal or is_fatal(payload)
            if READ_ONLY in payload:
                self.events.append(WriteRefused())
            if b"RRevalidateCachedQuery\0" in payload:
                # What a statement gives has changed: the next try is prepared anew.
                self._touched = True
                self._prepared.stale()
                alone = self.ledger.awaited == 1 and not self.ledger.batch_open
                if self._retry is not None and alone and whole:
                    self._saying_again = True
                    return b""
            words = self._prepared.in_clients_words(payload)
            return None if words is payload else messages.message(tag, words)
        if tag == tags.PARAMETER_STATUS:
            self._touched = True
            if self._before is None:
                self._before = self.told
            self.server.status(payload)
            self.hears(self.server.reported)
        elif tag == tags.COPY_IN_RESPONSE:
            self.ledger.copy_in()
        elif tag == tags.COPY_BOTH_RESPONSE:
            self.ledger.copy_both()
        return None

    def _aside_ended(self, server: ServerSession) -> bytes:
        """Take the answer to something of ours; give what of it is for the client after all."""
        what, replies = self._asides.answered()
        for_client = b""
        for tag, payload in replies:
            if tag == tags.PARAMETER_STATUS:
                server.status(payload)
            elif tag == tags.NOTIFICATION_RESPONSE:
                told = self.pid + payload[4:] if payload[:4] == server.pid else payload
                for_client += messages.message(tag, told)
            elif tag == tags.ERROR_RESPONSE and what is Aside.RESTORE and not self.failure:
                fields = messages.read_error_fields(payload)
                self.failure = f"{fields.get('C', '')} {fields.get('M', '')}"
        if what is Aside.QUESTION:
            self._answered(replies, server)
        elif what is Aside.FORGET and all(tag != tags.COMMAND_COMPLETE for tag, _payload in replies):
            self._sequences.not_forgotten(server)
        # What is to come may change more.
        return for_client if self._asides else for_client + self._tell()

    def _answered(self, replies: list[tuple[int, bytes]], server: ServerSession) -> None:
        inquiry = self._inquiry
        if inquiry.checks:
            if inquiry.checked(replies, server):
                self._settled(server)
            return
        answer = inquiry.answer(replies, server)
        if answer is not None:
            if answer.hidden is not None:
                self.hides = server.habits.told(answer.hidden) or self.hides
                self._quiet = QUIET if not answer.hidden else QUIET_IN_HIDING
            self._settled(server)
            self._prepared.only(answer.statements)
        inquiry.pin()

    def _settled(self, server: ServerSession) -> None:
        """Take over what is known of the settings by now."""
        inquiry = self._inquiry
        self.settings = inquiry.settings
        self._lapsed = beginning_with(server.initial, server.settings) is not server.settings
        self._prepared.resolve(meaning(self.settings))
        if not inquiry.suspicious:
            self._prepared.scope = None

    def _tell(self) -> bytes:
        """Build the ParameterStatus messages that bring the client up to date."""
        assert self.server is not None
        if self.server.reported is self.told:
            return b""
        told = self.told
        self.hears(self.server.reported)
        return news(told, self.told)

    def hears(self, reported: Reported) -> None:
        """Enter what the client is told of the settings that servers report: its encoding is one of them."""
        self.told = reported
        self._prepared.readable = reported.get(b"client_encoding") not in _HIDE_ASCII


_READERS: dict[int, Callable[[Following, bytes, int, int], Instead]] = {
    tags.QUERY: Following._query,
    tags.PARSE: Following._parse,
    tags.BIND: Following._bind,
    tags.DESCRIBE: Following._describe,
    tags.CLOSE: Following._close,
    tags.FUNCTION_CALL: Following._function_call,
}
