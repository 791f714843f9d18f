"""
What a link may leave behind in its server: suspicion, the question, the answer, and the pins that follow.

The law:

1. Suspicion only leads to a question; it pins nobody.
2. What the answer says is in the session is the truth: settings travel with the client, the rest pins it.
3. A few things no question finds: LOAD, setseed(), and that a client relies on currval(). These pin as soon
   as they are seen.
4. A question that fails pins the client, until the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import frozen

from pgproxy.session.commands import (
    ALL_DISCARDED,
    ALTERS_DEFAULTS,
    DEFINES,
    LIBRARY_LOADED,
    SEQUENCES_FORGOTTEN,
)
from pgproxy.session.conversation import AuditFound, Event, Pinned, QuestionFailed, Unpinned
from pgproxy.session.foreseen import Foresight, Lesson
from pgproxy.session.functions import Functions
from pgproxy.session.pins import LASTING, NO_REASON, PinReason, Reasons, words
from pgproxy.session.question import (
    Answer,
    NoAnswer,
    question,
    read_answer,
    read_versions,
    versions_question,
)
from pgproxy.session.server import ServerSession
from pgproxy.session.settings import NOTHING_SET, Settings, beginning_with, settings_of
from pgproxy.session.verdict import ASK, DYNAMIC, LOCAL, OPAQUE, ROLE_DEFAULTS, SEED, STATEMENTS, Verdict

_MOST_NAMES = 200
"""Custom settings that one question looks up."""
_NOT_SET_CONFIG = OPAQUE | STATEMENTS
"""What is not, or not only, a set_config() whose name is computed."""


@frozen
class Check:
    """A question whether functions are the same still, and the suspicion that it may end."""

    functions: list[bytes]
    turn: int
    """Of what was known of functions when it was asked."""
    flags: int
    text: bytes
    names: tuple[bytes, ...]
    calls: tuple[bytes, ...]


class Inquiry:
    """One client's suspicions and pins."""

    def __init__(self, filters: frozenset[str], audit: Callable[[], bool] | None) -> None:
        self._filters = filters
        self._audit = audit
        self._flags = 0
        self._names: dict[bytes, None] = {}
        self._calls: dict[bytes, None] = {}
        """Functions that were called, and are on no list."""
        self._calls_only = False
        """Whether nothing else is suspicious, and what they leave was known before."""
        self._turn = -1
        """In which turn of the pool's `Functions`."""
        self._check: Check | None = None
        """What is being asked, where that is only whether they are the same still."""
        self._text = b""
        self._asking = (0, b"")
        self._asking_about: tuple[list[bytes], int] = ([], 0)
        """Functions, and the turn in which it was asked about them."""
        self._found: Reasons = NO_REASON
        self._culprit = b""
        """The statement that the latest reason is put down to."""
        self._certain: set[PinReason] = set()
        self._excluded = False
        self._answered = False
        """Whether there was an answer, or none to be had, since the client's last message."""
        self.settings: Settings = NOTHING_SET
        """What the client has set."""
        self.reasons: Reasons = NO_REASON
        """Why the client is pinned."""
        self.explained = False
        """Whether a text has announced command tags that are not quiet."""
        self.lasting = False
        """Whether something is in the server that no cleaning undoes."""
        self.doubt = False
        """Whether what has been done may have changed settings that the server has yet to be asked about."""
        self._defined = False
        """Whether something has been created, altered or dropped."""
        self._sets_defaults = False
        """Whether a text has announced that defaults of roles or databases are set."""
        self._foresight: Foresight | None = None
        """What of it can be foreseen, if anything was suspicious since the last question."""
        self._lessons: list[Lesson] = []
        """What the question under way tells of texts."""
        self.events: list[Event] = []

    @property
    def clean(self) -> bool:
        """Whether nothing is in the server that is not known or may not stay there."""
        return not (self._flags or self.reasons or self._excluded)

    @property
    def nothing_held(self) -> bool:
        """Whether there is nothing in the server that could be undone, the client's settings aside."""
        return self.clean and not self._certain

    @property
    def text(self) -> bytes:
        """The statement that was suspicious last."""
        return self._text

    @property
    def suspicious(self) -> bool:
        """Whether there is something that the server has not been asked about."""
        return bool(self._flags)

    def suspect(
        self, verdict: Verdict, text: bytes, named: bool = False, functions: Functions | None = None
    ) -> None:
        """
        Enter what a statement may leave behind.

        With `named` the settings that it computes the name of are known all the same. `functions` are those
        of the pool.
        """
        flags = verdict.flags
        if flags & (ASK | LOCAL):
            self.explained = True
            if self._foresight is None:
                self._foresight = Foresight()
            self._foresight.announced(text, verdict)
        if flags & ASK:
            suspicious = bool(self._flags)
            self._calls_only = bool(verdict.calls) and (self._calls_only or not suspicious)
            self._flags |= flags
            self._text = text
            self.look_up(verdict.names)
            self._calls.update(dict.fromkeys(verdict.calls))
            if len(self._calls) > _MOST_NAMES:
                self._calls.clear()
                self._calls_only = False
            if self._calls_only:
                self._calls_only = self._were_known(functions, new=not suspicious)
        if flags & SEED:
            self.certain(PinReason.SEED, text)
        if flags & ROLE_DEFAULTS:
            self._sets_defaults = True
        if flags & DYNAMIC and not flags & _NOT_SET_CONFIG and not named and not verdict.names:
            self.certain(PinReason.COMPUTED_SETTING, text)

    def _were_known(self, functions: Functions | None, new: bool) -> bool:
        """Say whether what the called functions leave was known before, and has been since."""
        if functions is None or functions.to_check(self._calls) is None:
            return False
        if new:
            self._turn = functions.turn
        return functions.turn == self._turn

    def heard(self, tag: bytes) -> bool:
        """Enter a command tag that is not quiet; say whether new sessions begin with other defaults by it."""
        self._calls_only = False
        if self._foresight is not None:
            self._foresight.heard(tag)
        if tag == ALL_DISCARDED:
            self.no_longer(PinReason.COMPUTED_SETTING)
        if tag in SEQUENCES_FORGOTTEN:
            self.no_longer(PinReason.SEQUENCE)
        if tag[:3] in DEFINES:
            self._defined = True
        if tag == LIBRARY_LOADED:
            self.certain(PinReason.LIBRARY_LOADED, self._text or tag)
        return self._sets_defaults and tag in ALTERS_DEFAULTS

    def unforeseen(self) -> None:
        """Enter that what has been said may not have been done, not in this order, or been undone."""
        if self._foresight is not None:
            self._foresight.lose()

    def done(self) -> None:
        """Enter that what was suspicious lasts, if it has done anything: no rollback undoes it any more."""
        self.doubt = bool(self._flags)

    def look_up(self, names: Iterable[bytes]) -> None:
        """Have custom settings looked up by the next question."""
        for name in names:
            if len(self._names) < _MOST_NAMES and name.isascii():
                self._names[name] = None
            else:
                # It may be set all the same: nobody else gets the server with it.
                self._flags |= ASK | OPAQUE
                self._calls_only = False

    def certain(self, reason: PinReason, text: bytes) -> None:
        """Pin for a reason that no question finds."""
        if reason not in self._certain:
            self._certain.add(reason)
            self._culprit = text

    def no_longer(self, reason: PinReason) -> None:
        """End such a reason."""
        self._certain.discard(reason)

    def client_spoke(self) -> None:
        """Enter that there is something new to ask about."""
        self._answered = False

    # The question.

    @property
    def due(self) -> bool:
        """Whether the server is to be asked before it is let go."""
        if self._answered:
            return False
        if self._flags & ASK:
            return True
        return self._audit is not None and not self.reasons and self._audit()

    def foresees(self, server: ServerSession) -> bool:
        """Answer what is due without asking, if what the server would say is known."""
        foresight = self._foresight
        settings = foresight.outcome(server) if foresight is not None else None
        if foresight is None or settings is None:
            return False
        if foresight.discards_all:
            self._found = NO_REASON
        self._ask_no_more()
        self._enter(settings, server)
        self.pin()
        return True

    def ask(self, server: ServerSession) -> bytes:
        """
        Build the question; where anything has been defined, also about what statements do in hiding.

        Where only functions were called that are known, it is no more than whether they are the same.
        """
        opaque = bool(self._flags & OPAQUE)
        functions = server.habits.functions
        calls = None
        if self._calls_only and functions.turn == self._turn:
            calls = functions.to_check(self._calls)
        if calls:
            if self._audit is None or not self._audit():
                return self._ask_versions(server, calls)
            # Nothing is suspicious then: the server is to say that there is nothing.
            self._flags = 0
        custom = [name for name in (*self.settings, *server.settings) if b"." in name and name.isascii()]
        if self._defined:
            # What was known since the statement that did it may be from before it was committed.
            functions.forget()
        calls = functions.unknown(name for name in self._calls if name.isascii())
        text = question(
            dict.fromkeys((*self._names, *custom)),
            functions=opaque,
            hidden=self._defined,
            calls=calls,
        )
        self._asking = (self._flags, self._text)
        self._asking_about = (calls, functions.turn)
        self._lessons = self._foresight.lessons(server) if self._foresight is not None else []
        self._ask_no_more()
        return text

    def _ask_versions(self, server: ServerSession, calls: list[bytes]) -> bytes:
        names, called = tuple(self._names), tuple(self._calls)
        self._check = Check(calls, server.habits.functions.turn, self._flags, self._text, names, called)
        self._ask_no_more()
        return versions_question(calls)

    def _ask_no_more(self) -> None:
        """Enter that all there is to know up to now is known, or has been asked for."""
        self._defined = self.doubt = False
        self._foresight = None
        self._flags = 0
        self._names.clear()
        self._calls.clear()
        self._calls_only = False
        self._answered = True

    @property
    def checks(self) -> bool:
        """Whether what was asked is only whether functions are the same still."""
        return self._check is not None

    def checked(self, replies: list[tuple[int, bytes]], server: ServerSession) -> bool:
        """Take the replies to that; say whether nothing was left. If not, all of it has to be asked."""
        check, self._check = self._check, None
        assert check is not None
        functions = server.habits.functions
        try:
            same = functions.turn == check.turn and functions.are_the_same(
                check.functions, read_versions(replies)
            )
        except NoAnswer:
            same = False
        if same:
            self._enter(server.settings, server)
            return True
        functions.forget()
        self._text = self._text if self._flags else check.text
        self._flags |= check.flags
        self._names = {**dict.fromkeys(check.names), **self._names}
        self._calls = {**dict.fromkeys(check.calls), **self._calls}
        self._calls_only = self._answered = False
        return False

    def answer(self, replies: list[tuple[int, bytes]], server: ServerSession) -> Answer | None:
        """Take the replies to the question; give what they say, None where they say nothing."""
        flags, text = self._asking
        calls, turn = self._asking_about
        self._culprit = text
        try:
            answer = read_answer(replies, server.user, server.role)
        except NoAnswer as error:
            self.events.append(QuestionFailed(str(error)))
            # They may be why, and are not asked about again.
            server.habits.functions.learn(calls, (), turn)
            self._flags |= flags | ASK | OPAQUE
            self._found = frozenset({PinReason.UNKNOWN})
            return None
        if not flags:
            self._compare(answer, server, text)
        if flags & (OPAQUE | DYNAMIC):
            server.opaque = True
        server.habits.functions.learn(calls, answer.functions, turn)
        server.habits.effects.learn(self._lessons, answer.settings)
        self._enter(settings_of(answer.settings), server)
        self._found = answer.reasons
        return answer

    def _enter(self, settings: Settings, server: ServerSession) -> None:
        """Enter what is set in a server; what of it may not be left there is the client's."""
        server.settings = own = settings
        if self._filters:
            own = settings_of(
                {name: one for name, one in own.items() if name.decode("latin-1") not in self._filters}
            )
        self.settings = beginning_with(server.initial, own)

    def _compare(self, answer: Answer, server: ServerSession, text: bytes) -> None:
        """Say what is there although no signal told of it."""
        # What sets them is compared: an extension's setting is a custom one where that is not loaded.
        found = {name: one.statement for name, one in answer.settings.items()}
        known = {name: one.statement for name, one in server.settings.items()}
        missed = [
            f"setting {name.decode('latin-1')}"
            for name in sorted(found.keys() | known.keys())
            if found.get(name) != known.get(name)
        ]
        missed += words(answer.reasons - self._found)
        if missed:
            server.opaque = True
            self.events.append(AuditFound(", ".join(missed), text))

    # The pins.

    def pin(self) -> None:
        """Let the reasons be what was found and what is certain, less what the owner has excluded."""
        every = self._found | self._certain
        if every == self.reasons:
            return
        kept = frozenset(reason for reason in every if reason.value not in self._filters)
        self._excluded = self._excluded or kept != every
        self.lasting = self.lasting or bool(every & LASTING)
        gone, new = self.reasons - kept, kept - self.reasons
        self.reasons = kept
        if gone:
            self.events.append(Unpinned(gone))
        if new:
            self.events.append(Pinned(new, self._culprit))

    def parted(self) -> None:
        """Enter that the server has been let go, or is lost."""
        self._flags = 0
        self._names.clear()
        self._calls.clear()
        self._found = NO_REASON
        self._certain.clear()
        self.pin()
        self._excluded = self._answered = self.explained = self.lasting = False
        self._defined = self._sets_defaults = self.doubt = self._calls_only = False
        self._foresight = self._check = None
