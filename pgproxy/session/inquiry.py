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
from pgproxy.session.lexer import LONGEST_NAME
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
from pgproxy.session.verdict import (
    ASK,
    DYNAMIC,
    FORESEEABLE,
    LOCAL,
    OPAQUE,
    ROLE_DEFAULTS,
    SEED,
    STATEMENTS,
    Verdict,
)

_MOST_NAMES = 200
"""Custom settings that one question looks up."""
_NOT_SET_CONFIG = OPAQUE | STATEMENTS
"""What is not, or not only, a set_config() whose name is computed."""


@frozen
class Asked:
    """A question under way, and the suspicion that it is to end."""

    whole: bool
    """False where it is only whether functions are the same still."""
    flags: int
    text: bytes
    names: tuple[bytes, ...]
    calls: tuple[bytes, ...]
    functions: list[bytes]
    """Functions that it asks about."""
    turn: int
    """Of the pool's `Functions` when it was asked."""
    lessons: list[Lesson]
    """Texts of which it tells what they do."""
    defined: bool
    """Whether something had been created, altered or dropped."""


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
        self._asked: Asked | None = None
        self._text = b""
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
    def unasked(self) -> bool:
        """Whether something may have been done, or defined, and no answer has come since."""
        return bool(self._flags) or self._defined or self._asked is not None

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
            if len(self._names) < _MOST_NAMES and name.isascii() and _is_kept_whole(name):
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
        if foresight is None or self._flags & ~FORESEEABLE or PinReason.UNKNOWN in self._found:
            return False
        settings = foresight.outcome(server)
        if settings is None:
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
        functions = server.habits.functions
        known = None
        if self._calls_only and functions.turn == self._turn:
            known = functions.to_check(self._calls)
        if known:
            if self._audit is None or not self._audit():
                self._ask(server, known, whole=False)
                return versions_question(known)
        elif self._defined:
            # What was known since the statement that did it may be from before it was committed.
            functions.forget()
        custom = [name for name in (*self.settings, *server.settings) if b"." in name and name.isascii()]
        about = functions.unknown(name for name in self._calls if name.isascii())
        text = question(
            dict.fromkeys((*self._names, *custom)),
            functions=bool(self._flags & OPAQUE),
            hidden=self._defined or server.habits.overdue,
            calls=about,
            newest=bool(about) or functions.any_known,
        )
        if known:
            # This is an audit: the server is to say that there is nothing.
            self._flags = 0
        elif self._flags & OPAQUE:
            server.habits.due = True
        self._ask(server, about, whole=True)
        return text

    def _ask(self, server: ServerSession, functions: list[bytes], whole: bool) -> None:
        foresight = self._foresight if not self._flags & ~FORESEEABLE else None
        self._asked = Asked(
            whole,
            self._flags,
            self._text,
            tuple(self._names),
            tuple(self._calls),
            functions,
            server.habits.functions.turn,
            foresight.lessons(server) if foresight is not None else [],
            self._defined,
        )
        self._ask_no_more()

    def _ask_no_more(self) -> None:
        """Enter that all there is to know up to now is known, or has been asked for."""
        self._defined = self.doubt = False
        self._foresight = None
        self._flags = 0
        self._names.clear()
        self._calls.clear()
        self._calls_only = False
        self._answered = True

    def _suspect_again(self, asked: Asked, flags: int) -> None:
        """Put back what was asked about, before what is suspicious since: all of it has to be asked."""
        names, self._names = self._names, {}
        self.look_up((*asked.names, *names))
        self._calls = {**dict.fromkeys(asked.calls), **self._calls}
        self._text = self._text if self._flags else asked.text
        self._flags |= asked.flags | flags
        self._defined = self._defined or asked.defined
        self._calls_only = False
        self._foresight = self._foresight or Foresight()
        self._foresight.lose()

    @property
    def checks(self) -> bool:
        """Whether what was asked is only whether functions are the same still."""
        return self._asked is not None and not self._asked.whole

    def checked(self, replies: list[tuple[int, bytes]], server: ServerSession) -> bool:
        """Take the replies to that; say whether nothing was left. If not, all of it has to be asked."""
        asked, self._asked = self._asked, None
        assert asked is not None
        functions = server.habits.functions
        try:
            versions = read_versions(replies)
            same = functions.turn == asked.turn and functions.are_the_same(asked.functions, versions)
        except NoAnswer:
            same = False
        if same:
            self._enter(server.settings, server)
            return True
        functions.forget()
        self._suspect_again(asked, 0)
        self._answered = False
        return False

    def answer(self, replies: list[tuple[int, bytes]], server: ServerSession) -> Answer | None:
        """Take the replies to the question; give what they say, None where they say nothing."""
        asked, self._asked = self._asked, None
        assert asked is not None
        functions = server.habits.functions
        self._culprit = asked.text
        try:
            answer = read_answer(replies, server.user, server.role)
        except NoAnswer as error:
            self.events.append(QuestionFailed(str(error)))
            # They may be why, and are not asked about again.
            functions.give_up(asked.functions)
            self._suspect_again(asked, ASK | OPAQUE)
            self._found = frozenset({PinReason.UNKNOWN})
            return None
        if not asked.flags:
            self._compare(answer, server, asked.text)
        if asked.flags & (OPAQUE | DYNAMIC):
            server.opaque = True
        if asked.turn == functions.turn:
            if answer.newest:
                functions.newest_is(answer.newest)
            functions.learn(asked.functions, answer.functions)
        server.habits.effects.learn(asked.lessons, server.settings, answer.settings)
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
        self._foresight = self._asked = None


def _is_kept_whole(name: bytes) -> bool:
    """Whether PostgreSQL cuts nothing off a name, or may not."""
    return len(name) <= LONGEST_NAME or max(map(len, name.split(b"."))) <= LONGEST_NAME
