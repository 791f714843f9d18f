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

from pgproxy.session.commands import (
    ALL_DISCARDED,
    ALTERS_DEFAULTS,
    DEFINES,
    LIBRARY_LOADED,
    SEQUENCES_FORGOTTEN,
)
from pgproxy.session.conversation import AuditFound, Event, Pinned, QuestionFailed, Unpinned
from pgproxy.session.foreseen import Foresight, Lesson
from pgproxy.session.pins import LASTING, NO_REASON, PinReason, Reasons, words
from pgproxy.session.question import Answer, NoAnswer, question, read_answer
from pgproxy.session.server import ServerSession
from pgproxy.session.settings import NOTHING_SET, Settings, beginning_with, settings_of
from pgproxy.session.verdict import ASK, DYNAMIC, LOCAL, OPAQUE, ROLE_DEFAULTS, SEED, STATEMENTS, Verdict

_MOST_NAMES = 200
"""Custom settings that one question looks up."""
_NOT_SET_CONFIG = OPAQUE | STATEMENTS
"""What is not, or not only, a set_config() whose name is computed."""


class Inquiry:
    """One client's suspicions and pins."""

    def __init__(self, filters: frozenset[str], audit: Callable[[], bool] | None) -> None:
        self._filters = filters
        self._audit = audit
        self._flags = 0
        self._names: dict[bytes, None] = {}
        self._text = b""
        self._asking = (0, b"")
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

    def suspect(self, verdict: Verdict, text: bytes, named: bool = False) -> None:
        """
        Enter what a statement may leave behind.

        With `named` the settings that it computes the name of are known all the same.
        """
        flags = verdict.flags
        if flags & (ASK | LOCAL):
            self.explained = True
            if self._foresight is None:
                self._foresight = Foresight()
            self._foresight.announced(text, verdict.sets)
        if flags & ASK:
            self._flags |= flags
            self._text = text
            self.look_up(verdict.names)
        if flags & SEED:
            self.certain(PinReason.SEED, text)
        if flags & ROLE_DEFAULTS:
            self._sets_defaults = True
        if flags & DYNAMIC and not flags & _NOT_SET_CONFIG and not named and not verdict.names:
            self.certain(PinReason.COMPUTED_SETTING, text)

    def heard(self, tag: bytes) -> bool:
        """Enter a command tag that is not quiet; say whether new sessions begin with other defaults by it."""
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
        """Build the question; where anything has been defined, also about what statements do in hiding."""
        custom = [name for name in (*self.settings, *server.settings) if b"." in name and name.isascii()]
        text = question(
            dict.fromkeys((*self._names, *custom)),
            functions=bool(self._flags & OPAQUE),
            hidden=self._defined,
        )
        self._asking = (self._flags, self._text)
        self._lessons = self._foresight.lessons() if self._foresight is not None else []
        self._ask_no_more()
        return text

    def _ask_no_more(self) -> None:
        """Enter that all there is to know up to now is known, or has been asked for."""
        self._defined = self.doubt = False
        self._foresight = None
        self._flags = 0
        self._names.clear()
        self._answered = True

    def answer(self, replies: list[tuple[int, bytes]], server: ServerSession) -> Answer | None:
        """Take the replies to the question; give what they say, None where they say nothing."""
        flags, text = self._asking
        self._culprit = text
        try:
            answer = read_answer(replies, server.user, server.role)
        except NoAnswer as error:
            self.events.append(QuestionFailed(str(error)))
            self._flags |= flags | ASK | OPAQUE
            self._found = frozenset({PinReason.UNKNOWN})
            return None
        if not flags:
            self._compare(answer, server, text)
        if flags & (OPAQUE | DYNAMIC):
            server.opaque = True
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
        missed = [
            f"setting {name.decode('latin-1')}"
            for name in sorted(answer.settings.keys() | server.settings.keys())
            if answer.settings.get(name) != server.settings.get(name)
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
        self._found = NO_REASON
        self._certain.clear()
        self.pin()
        self._excluded = self._answered = self.explained = self.lasting = False
        self._defined = self._sets_defaults = self.doubt = False
        self._foresight = None
