"""
Says a client's prepared statements in the words of the server that it is linked to.

`parse`, `bind` and `describe` take a message of the client's and give what goes to the server in its place
(`Instead`). The rules are in statements.py; this is where they are kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable
from functools import partial

from pgproxy.session.completions import MOST_OWED, Completion, Completions, nothing
from pgproxy.session.described import Describing, Descriptions
from pgproxy.session.ledger import FAILED, Ledger
from pgproxy.session.lexer import LONGEST_NAME
from pgproxy.session.named import NamedStatements
from pgproxy.session.parts import (
    NOT_YET,
    Instead,
    in_front,
    is_portals,
    is_whole,
    length_at,
    pack_header,
    statement_name,
)
from pgproxy.session.server import UNKNOWN, ServerSession
from pgproxy.session.settings import NOTHING_SET, Difference, Settings, difference
from pgproxy.session.statements import Copy, Statement, close, next_turn, parse
from pgproxy.session.suspicion import CACHED_TEXT, Verdicts, classify
from pgproxy.session.verdict import HARMLESS, Verdict
from pgproxy.session.wording import CHANGED, in_clients_words
from pgproxy.twin import quicken
from pgproxy.wire import messages, tags
from pgproxy.wire.skim import HEADER, Frame, Malformed

_MOST_CALLED = 2000
"""Names that are remembered, to be said in an error."""
_MOST_SAID = 200
"""Bytes of a name that an error says."""
_PORTAL = b"\0"
"""Stands for a statement's name where a portal is closed; none is called so."""
_ASKS, _RUNS = b"BDES", b"BES"
_PREPARES_AND_ASKS, _PREPARES_AND_RUNS = b"PBDES", b"PBES"
LONGEST_PLAIN = 16
"""Messages of a batch that is looked at as a whole."""
_runs = re.compile(rb"(?:BD?E)+S").fullmatch
"""Several in one batch, as JDBC says BEGIN with the first statement of a transaction."""
_EMPTY = b"\0\0\0"
"""The body of a Parse of nothing, which never fails."""
_NOT_LINKED = Ledger()
"""That of those who are linked to no server yet: nothing is entered."""


def _is_over() -> None:
    raise RuntimeError("nothing can be said for a client that has gone")


@quicken
class Prepared:
    """The prepared statements of one client, and how the server it is linked to names them."""

    __slots__ = (
        "_aside",
        "_called",
        "_in_stock",
        "_statements",
        "_stock",
        "_unnamed_unsure",
        "_unresolved",
        "_unspelled",
        "_verdicts",
        "_verified",
        "completions",
        "descriptions",
        "failed_batch",
        "ledger",
        "meaning",
        "own_names",
        "readable",
        "scope",
        "server",
        "unnamed",
    )

    def __init__(self, verdicts: Verdicts, aside: Callable[[], None]) -> None:
        self._verdicts = verdicts
        self._aside = aside
        """Is told that what comes next, up to a ReadyForQuery, is ours."""
        self._statements = NamedStatements()
        self.unnamed: Statement | None = None
        """The client's unnamed statement."""
        self.completions = Completions(self._no_unnamed)
        self.readable = True
        """Whether the client's encoding leaves ASCII what it is."""
        self.meaning: Settings = NOTHING_SET
        """What of the client's settings gives a text its meaning."""
        self.scope: Hashable = None
        """Something unique where the settings may have changed since the link began; else None."""
        self.own_names = False
        """Whether the server has exactly this client's statements, under the client's own names."""
        self.server: ServerSession | None = None
        """The session of the server that the client is linked to."""
        self.ledger = _NOT_LINKED
        """The account of that link."""
        self.descriptions = Descriptions()
        self._verified: tuple[Statement, Hashable] | None = None
        """What the server was last asked to describe for us, and in which `scope`."""
        self.failed_batch = -1
        """The batch that has failed last, by the ledger's number."""
        self._unspelled: set[bytes] = set()
        """Names that the server did not take when it was told this client's statements."""
        self._unresolved: list[Statement] = []
        """Those analysed while the settings may have changed; the next answer tells what they were."""
        self._unnamed_unsure: tuple[Ledger, int] | None = None
        """As `Copy.unsure`, where the server was told the unnamed statement."""
        self._called: dict[bytes, bytes] = {}
        """By our name, what the client calls it."""
        self._stock = 0
        """How often it was found out which statements there are, ..."""
        self._in_stock: frozenset[bytes] = frozenset()
        """... and those that there were the last time."""

    @property
    def too_heavy(self) -> bool:
        """Whether not all of the statements could be said again to another server."""
        unnamed = self.unnamed
        return self._statements.too_heavy or (unnamed is not None and not unnamed.whole)

    @property
    def named(self) -> int:
        """How many the client has under names."""
        return len(self._statements)

    def text_of(self, name: bytes) -> bytes:
        """Give a statement's text; empty for one that is not known."""
        statement = self._statements.get(name[:LONGEST_NAME]) if name else self.unnamed
        return statement.text if statement is not None else b""

    def resolve(self, meaning: Settings) -> None:
        """Enter what the settings are, now that the server has been asked."""
        self.meaning = meaning
        for statement in self._unresolved:
            statement.meaning = meaning
        self._unresolved.clear()

    def apart(self) -> None:
        """Let go of what knows it, as nothing is said any more."""
        self._aside = _is_over
        self.completions.apart()

    def parted(self) -> None:
        """Be linked no longer."""
        self._unresolved.clear()
        self.descriptions.clear()
        self._verified = None
        self.failed_batch = self.completions.unnamed_failed = -1
        self.scope = None
        self.own_names = False

    def lost(self) -> None:
        """Enter that the server is lost: what was too long to be kept is gone with it."""
        unnamed = self.unnamed
        if unnamed is not None and not unnamed.whole:
            self.unnamed = None
        self._statements.keep(frozenset(name for name, one in self._statements.items() if one.whole))

    # Without a server.

    def text(self, name: bytes) -> bytes | None:
        """Give the text of a statement of the client's; None if there is none, or not all of it."""
        statement = self._find(name)
        return statement.text if statement is not None and statement.whole else None

    def enter(self, run: bytes, start: int, stop: int) -> bool:
        """Enter the statement of a client's Parse; False where its name is taken. Raises `Malformed`."""
        name, statement, _name_end = self.read_parse(run, start, stop)
        if not name:
            self.unnamed = statement
        elif name[:LONGEST_NAME] in self._statements:
            return False
        else:
            self._statements.add(name[:LONGEST_NAME], statement)
        return True

    def strike(self, name: bytes) -> None:
        """Strike out a statement of the client's."""
        if name:
            self._statements.remove(name[:LONGEST_NAME])
        else:
            self.unnamed = None

    # What the client says.

    def queried(self) -> None:
        """Enter a Query: it does away with the unnamed statement."""
        assert self.server is not None
        self.unnamed = self.server.unnamed = None

    def judge(self, text: bytes, whole: bool) -> Verdict:
        """Say what a text, or the beginning of one, may leave behind."""
        if whole and self.readable:
            return self._verdicts.of(text)
        return classify(text, whole=False)

    def read_parse(self, run: bytes, start: int, stop: int) -> tuple[bytes, Statement, int]:
        """Read a Parse: the name, the statement and where the name ends. Raises `Malformed`."""
        name_end = run.find(0, start + HEADER, stop)
        text_end = run.find(0, name_end + 1, stop)
        whole = stop - start < tags.PARSE_LOOK or is_whole(run, start, stop)
        if name_end < 0 or (text_end < 0 and whole):
            raise Malformed("invalid Parse message")
        text = run[name_end + 1 : text_end if text_end >= 0 else stop]
        verdict = self.judge(text[: tags.TEXT_LOOK], len(text) < tags.TEXT_LOOK)
        body = run[name_end + 1 : stop] if whole else b""
        statement = Statement(body, verdict, self.meaning, whole, next_turn())
        if self.scope is not None and name_end > start + HEADER and len(self._unresolved) < _MOST_CALLED:
            self._unresolved.append(statement)
        return run[start + HEADER : name_end], statement, name_end

    def asks_plainly(self, run: bytes, frames: list[Frame]) -> bytes | None:
        """
        Say a whole batch, where all that it does is to ask for the results of statements that leave nothing.

        Gives what goes to the server; None where it is something else, and nothing is entered.
        """
        said = bytes([frame[0] for frame in frames])
        if said == _PREPARES_AND_ASKS:
            return self._prepares(run, frames[0], frames[1]) if is_portals(run, frames[2]) else None
        if said == _PREPARES_AND_RUNS:
            return self._prepares(run, frames[0], frames[1])
        if said in (_ASKS, _RUNS) or (len(said) <= LONGEST_PLAIN and _runs(said)):
            return self._binds(run, frames)
        return None

    def _prepares(self, run: bytes, parse: Frame, bind: Frame) -> bytes | None:
        _tag, start, stop = parse
        text_end = run.find(0, start + HEADER + 1, stop)
        if run[start + HEADER] or not 0 <= text_end - start <= CACHED_TEXT or stop - start > tags.TEXT_LOOK:
            return None
        portal_end = run.find(0, bind[1] + HEADER, bind[2])
        if not 0 <= portal_end < bind[2] - 1 or run[portal_end + 1]:
            return None
        body = run[start + HEADER + 1 : stop]
        last = self.unnamed
        if self.readable and last is not None and last.body == body and last.verdict is HARMLESS:
            # What is said again is kept once, and not judged again. It is another statement all the same.
            body = last.body
        elif self.judge(run[start + HEADER + 1 : text_end], True) is not HARMLESS:
            return None
        if len(self.completions) >= MOST_OWED:
            return None
        server = self.server
        assert server is not None
        self._verdicts.learn_parse(run[start:stop], body)
        self.prepares(body, server, self.ledger.asked)
        return run

    def prepares(self, body: bytes, server: ServerSession, batch: int) -> None:
        """Enter a Parse of the unnamed statement that leaves nothing, at the beginning of a batch."""
        self.completions.owe_unnamed(batch)
        self.unnamed = server.unnamed = Statement(body, HARMLESS, self.meaning, True, next_turn())

    def _binds(self, run: bytes, frames: list[Frame]) -> bytes | None:
        if self.completions or self.scope is not None or self.own_names:
            return None
        pieces: list[bytes] = []
        done = 0
        for frame in frames:
            tag, start, stop = frame
            if tag == tags.BIND:
                portal_end = run.find(0, start + HEADER, stop)
                name_end = run.find(0, portal_end + 1, stop)
                if not 0 <= portal_end < name_end - 1:
                    return None
                name = run[portal_end + 1 : name_end]
                ours = self._plainly_there(name)
                if ours is None:
                    return None
                self._call(ours, name)
                size = length_at(run, start + 1)[0] + len(ours) - len(name)
                pieces += (
                    run[done:start],
                    pack_header(b"B", size),
                    run[start + HEADER : portal_end + 1],
                    ours,
                )
                done = name_end
            elif tag == tags.DESCRIBE and not is_portals(run, frame):
                return None
        self._verified = None
        pieces.append(run[done:])
        return b"".join(pieces)

    def _plainly_there(self, name: bytes) -> bytes | None:
        """Give the server's name of a statement that leaves nothing, if it has it as the client knows it."""
        statement = self._statements.get(name[:LONGEST_NAME])
        if statement is None or statement.verdict is not HARMLESS or not statement.whole:
            return None
        server = self.server
        assert server is not None
        copy = server.statements.find((statement.body, statement.meaning))
        if copy is None or copy.turn < statement.turn:
            return None
        if statement.description is not None and statement.description != copy.description:
            return None
        return copy.name

    def undecided(self, name: bytes) -> int:
        """
        Say how many batches have to be answered before it is known what the client has under a name.

        None have to where that is known.
        """
        return self.completions.undecided(name[:LONGEST_NAME], self.ledger.asked) + 1

    def is_undecided(self, name: bytes) -> bool:
        """Say whether it is still to be answered what the client has under a name."""
        return bool(self.completions) and self.undecided(name) > self.ledger.answered

    def unsure(self, name: bytes) -> int:
        """
        Say how many batches have to be answered before it is known whether the server has a statement.

        None have to where it has been said in this batch, or has to be said in any case.
        """
        said = self._unnamed_unsure
        if name:
            statement = self._find(name)
            copy = self._copy(statement) if statement is not None and not self.own_names else None
            said = copy.unsure if copy is not None else None
        if said is None:
            return 0
        ledger, batch = said
        return batch + 1 if ledger is self.ledger and ledger.answered <= batch < ledger.asked else 0

    def _unsure_here(self) -> tuple[Ledger, int] | None:
        """Say where a statement is prepared that is said next, if it may be thrown away there."""
        ledger = self.ledger
        # Behind another message, or in a transaction that may have failed by then.
        if ledger.batch_open or ledger.owed or ledger.status == FAILED:
            return ledger, ledger.asked
        return None

    @property
    def names_undecided(self) -> bool:
        """Whether it is still to be answered what the client has under some name."""
        return not self.ledger.batch_open and self.completions.due(self.ledger.asked - 1)

    def undecided_batches(self, name: bytes) -> int:
        """Say how many batches have to be answered before it is known what the client has under any name."""
        return self.ledger.asked if self.names_undecided else self.undecided(name)

    def knows(self, name: bytes) -> bool:
        """Say whether the client has prepared a statement of this name by a message."""
        return not name or name[:LONGEST_NAME] in self._statements

    def parse(self, name: bytes, statement: Statement, run: bytes, start: int, name_end: int) -> Instead:
        """Say a Parse of the client's."""
        server = self.server
        assert server is not None
        if not name:
            self.unnamed = server.unnamed = statement
            # Behind another message of its batch it may be thrown away, and the old one be there still.
            undo = self._unnamed_unknown if self.ledger.batch_open else self._no_unnamed
            self._owe(tags.PARSE_COMPLETE, name, undo, name)
            return None
        short = name[:LONGEST_NAME]
        if self.own_names:
            server.leftovers.add(short)
            undo = self._statements.add(short, statement)
            self._owe(tags.PARSE_COMPLETE, short, undo, name)
            return None
        if short in self._statements:
            # Let the server find the name taken, and say so.
            before = self.close_all([short])
            server.leftovers.add(short)
            self._owe(tags.PARSE_COMPLETE, short)
            self._owe(tags.PARSE_COMPLETE, short, nothing, name)
            return before + parse(short, _EMPTY), start
        undo = self._statements.add(short, statement)
        before, copy, forget = self._anew(server, statement, statement.turn)
        ours = copy.name
        copy.unsure = self._unsure_here()
        self._owe(tags.PARSE_COMPLETE, ours, partial(_both, forget, undo), name)
        self._call(ours, name)
        size = length_at(run, start + 1)[0] + len(ours) - len(name)
        return before + pack_header(b"P", size) + ours, name_end

    def bound(self, run: bytes, start: int, stop: int) -> tuple[Statement | None, int, int]:
        """
        Read a Bind: the statement, None where the client has none of that name; where the two names end.

        Raises `Malformed`.
        """
        portal_end = run.find(0, start + HEADER, stop)
        name_end = run.find(0, portal_end + 1, stop)
        if portal_end < 0 or name_end < 0:
            raise Malformed("invalid Bind message")
        name = run[portal_end + 1 : name_end]
        return self._find(name), portal_end, name_end

    def bind(
        self, statement: Statement | None, run: bytes, start: int, portal_end: int, name_end: int
    ) -> Instead:
        """Say a Bind of the client's."""
        name = run[portal_end + 1 : name_end]
        before, ours = self._see_to(name, statement)
        if ours is None:
            return in_front(before, start)
        if not ours:
            return before, NOT_YET
        self._call(ours, name)
        size = length_at(run, start + 1)[0] + len(ours) - len(name)
        return before + pack_header(b"B", size) + run[start + HEADER : portal_end + 1] + ours, name_end

    def describe(self, run: bytes, start: int, stop: int) -> Instead:
        """Say a Describe of the client's."""
        name = statement_name(run, start, stop)
        if name is None:
            return None
        statement = self._find(name)
        before, ours = self._see_to(name, statement, described=True)
        known = statement if name else None
        copy = self._copy(known) if known is not None else None
        self.descriptions.owe(Describing(self.ledger.asked, known, copy, False))
        if ours is None:
            return in_front(before, start)
        self._call(ours, name)
        return before + messages.message(tags.DESCRIBE, b"S" + ours + b"\0"), stop

    def close(self, run: bytes, start: int, stop: int) -> bytes:
        """
        Enter a Close of the client's, which goes to the server as it is; give the statement's name.

        The server's statement stays, for others; under the client's own name it has none, and so no error.
        """
        name = statement_name(run, start, stop)
        undo = nothing
        if name == b"":
            undecided = self.completions.undecided(b"", self.ledger.asked)
            undo = partial(self._unnamed_again, self.unnamed, undecided)
            self.queried()
        elif name is not None:
            short = name[:LONGEST_NAME]
            undo = partial(self._not_closed, short, self._stock, self._statements.remove(short))
            if self.own_names and short in self._server_leftovers:
                self._server_leftovers.discard(short)
                undo = partial(_both, undo, partial(self._server_leftovers.add, short))
        self._owe(tags.CLOSE_COMPLETE, name or b"", undo, name if name is not None else _PORTAL)
        return name or b""

    # What the server has.

    def close_all(self, names: Iterable[bytes]) -> bytes:
        """Build the Close messages for names in the server, and expect their completions."""
        server = self.server
        assert server is not None
        listed = list(names)
        for name in listed:
            self._owe(tags.CLOSE_COMPLETE, name, partial(server.leftovers.add, name))
        return b"".join(map(close, listed))

    def spell_out(self) -> bytes:
        """
        Give the server exactly this client's statements under the client's names, whatever becomes of each.

        They go as they are into an open batch; between two batches all that is answered is ours.
        """
        server = self.server
        assert server is not None
        ledger = self.ledger
        if self.own_names or (ledger.status == FAILED and not ledger.awaited):
            # In a failed transaction nothing can be prepared, nor will what follows be done.
            return b""
        self.own_names = True
        self._unspelled.clear()
        old = server.statements.names | server.leftovers
        server.leftovers.clear()
        server.statements.keep_only(frozenset())
        own = [(name, one.body) for name, one in self._statements.items() if one.whole]
        server.leftovers.update(name for name, _body in own)
        if ledger.batch_open:
            closed = self.close_all(old)
            for name, _body in own:
                self._owe(tags.PARSE_COMPLETE, name, self._not_own)
            return closed + b"".join(parse(name, body) for name, body in own)
        return self._spell_out_between(old, own) if old or own else b""

    def _spell_out_between(self, old: frozenset[bytes], own: list[tuple[bytes, bytes]]) -> bytes:
        """Do so between two batches, each with a Sync of its own: one that fails must not undo the others."""
        assert self.server is not None
        mark = self.server.statements.prefix + b"savepoint"
        # In a transaction, one that fails must not take the client's work with it.
        saved = not self.ledger.quiet
        pieces = []
        if saved:
            pieces.append(messages.query_of([b"SAVEPOINT " + mark]))
            self._aside()
        pieces.append(b"".join(map(close, old)) + messages.SYNC)
        self._aside()
        for name, body in own:
            self._owe(tags.PARSE_COMPLETE, name, partial(self._unspelled.add, name))
            pieces.append(parse(name, body) + messages.SYNC)
            self._aside()
        if saved:
            pieces.append(messages.query_of([b"ROLLBACK TO SAVEPOINT " + mark, b"RELEASE SAVEPOINT " + mark]))
            self._aside()
        return b"".join(pieces)

    def _not_own(self) -> None:
        self.own_names = False

    def all_gone(self) -> None:
        """Enter that DISCARD ALL or DEALLOCATE ALL is done: what is still to be confirmed came later."""
        server = self.server
        assert server is not None
        self._takes_stock(frozenset())
        coming = self.completions.names
        server.statements.keep_only(coming)
        server.leftovers &= coming
        self._statements.keep(self.completions.client_names)

    def _takes_stock(self, names: frozenset[bytes]) -> None:
        """Enter that the client has these statements and no other, but for what is still to be confirmed."""
        self._stock += 1
        self._in_stock = names | self.completions.prepares

    def _not_closed(self, name: bytes, stock: int, undo: Callable[[], None]) -> None:
        """Enter that a Close was not done; the statement may have gone all the same since it was said."""
        if stock == self._stock or name in self._in_stock:
            undo()

    def only(self, names: frozenset[bytes]) -> None:
        """Enter that the server has these and no more, but for what is still to be confirmed."""
        server = self.server
        assert server is not None
        there = names
        names |= self.completions.names
        server.statements.keep_only(names)
        server.leftovers &= names
        if self.own_names:
            self._takes_stock(there)
            self._statements.keep(names | self.completions.client_names | self._unspelled)

    def stale(self) -> None:
        """Have all be prepared anew: what one of them gives has changed."""
        server = self.server
        assert server is not None
        server.leftovers |= server.statements.names
        server.statements.keep_only(frozenset())

    def _see_to(
        self, name: bytes, statement: Statement | None, described: bool = False
    ) -> tuple[bytes, bytes | None]:
        """
        See to it that the server has what the client calls `name`.

        Gives what has to be sent before, and the server's name: None where it is the client's, nothing where
        the server first has to describe it. With `described` the client is about to be told anew what it is.
        """
        server = self.server
        assert server is not None
        if not name:
            return self._see_to_unnamed(server), None
        if statement is None or self.own_names:
            # Let the server say that there is none, or find what SQL's PREPARE has made.
            return b"", None
        copy = self._copy(statement)
        told = None if described else statement.description
        if copy is not None and copy.turn >= statement.turn and told in (None, copy.description):
            self._verified = None
            return b"", copy.name
        if not statement.whole or self.failed_batch == self.ledger.asked:
            # The server throws away what comes until the batch ends.
            return b"", copy.name if copy is not None else None
        if self._verified != (statement, self.scope):
            before, copy = self._say_again(server, statement)
            if told is None:
                return before, copy.name
            self._verified = statement, self.scope
            self.descriptions.owe(Describing(self.ledger.asked, statement, copy, True))
            self.ledger.sent(tags.DESCRIBE)
            ask = messages.message(tags.DESCRIBE, b"S" + copy.name + b"\0") + messages.FLUSH
            return before + ask, b""
        # It is described, and not as it was: have the server refuse, as it would directly.
        self._verified = None
        return b"", server.statements.prefix + CHANGED

    def _say_again(self, server: ServerSession, statement: Statement) -> tuple[bytes, Copy]:
        """Build what prepares a statement in the server, as it was prepared at first."""
        before, copy, forget = self._anew(server, statement, next_turn())
        there, back = self._as_it_was(statement)
        before += there
        copy.unsure = self._unsure_here()
        self._owe(tags.PARSE_COMPLETE, copy.name, forget)
        before += parse(copy.name, statement.body)
        if back:
            self._aside()
            before += messages.SYNC + back
            self._aside()
        return before, copy

    def _copy(self, statement: Statement) -> Copy | None:
        assert self.server is not None
        for key in self._keys(statement):
            copy = self.server.statements.find(key)
            if copy is not None:
                return copy
        return None

    def failed(self, batch: int) -> None:
        """Enter an error in a batch, or its end: what was owed in it does not come."""
        self.completions.failed(batch, self.ledger.queried_behind)
        self.descriptions.failed(batch)
        self._verified = None

    def _as_it_was(self, statement: Statement) -> tuple[bytes, bytes]:
        """
        Give what brings the settings to those that a statement was analysed under, and what brings them back.

        It is not done where it can't be: in an open batch, where settings may have changed, in a failed
        transaction, or where it may not succeed.
        """
        if statement.meaning is self.meaning or self.scope is not None:
            return b"", b""
        ledger = self.ledger
        there = difference(self.meaning, statement.meaning)
        if there.guarded or ledger.batch_open or ledger.status == FAILED:
            return b"", b""
        back = difference(statement.meaning, self.meaning)
        if back.guarded:
            return b"", b""
        self._aside()
        return _in_one(there), _in_one(back)

    def _see_to_unnamed(self, server: ServerSession) -> bytes:
        mine = self.unnamed
        if server.unnamed is mine:
            return b""
        if mine is None or not mine.whole:
            self._no_unnamed()
            self._owe(tags.CLOSE_COMPLETE, b"", self._server_unknown)
            return close(b"")
        server.unnamed = mine
        self._unnamed_unsure = self._unsure_here()
        self._owe(tags.PARSE_COMPLETE, b"", self._server_unknown)
        return parse(b"", mine.body)

    def _anew(
        self, server: ServerSession, statement: Statement, turn: int
    ) -> tuple[bytes, Copy, Callable[[], None]]:
        """
        Make room for a statement that is about to be prepared in the server.

        Gives the Close messages to be sent before, the copy, and what to do where it fails.
        """
        key = self._keys(statement)[0]
        copy, is_there = server.statements.anew(key, turn)
        # In a pipeline all that the client has stay: by turns they would be closed and prepared each time,
        # and a few bytes of each Bind become megabytes.
        names = server.statements.surplus(self.named if self.ledger.owed or self.ledger.batch_open else 0)
        if is_there:
            names.append(copy.name)
        return self.close_all(names), copy, partial(server.statements.forget, key, copy)

    def _keys(self, statement: Statement) -> tuple[tuple[bytes, Hashable], ...]:
        """Give the keys that a statement is found by; it is entered by the first."""
        if not statement.whole:
            return ((b"", statement),)
        shared = (statement.body, statement.meaning)
        return (shared,) if self.scope is None else ((statement.body, self.scope), shared)

    @property
    def _server_leftovers(self) -> set[bytes]:
        assert self.server is not None
        return self.server.leftovers

    def _find(self, name: bytes) -> Statement | None:
        return self._statements.get(name[:LONGEST_NAME]) if name else self.unnamed

    def _call(self, ours: bytes, name: bytes) -> None:
        if len(self._called) >= _MOST_CALLED:
            self._called.clear()
        self._called[ours] = name[:_MOST_SAID]

    def in_clients_words(self, payload: bytes) -> bytes:
        """Have a server's error speak of the client's statements, not of ours."""
        server = self.server
        assert server is not None
        return in_clients_words(payload, server.statements.prefix, self._called)

    def _server_unknown(self) -> None:
        if self.server is not None:
            self.server.unnamed = UNKNOWN

    def _unnamed_unknown(self) -> None:
        self._server_unknown()
        self.unnamed = None

    def _unnamed_again(self, statement: Statement | None, undecided: int) -> None:
        """Enter that a Close was not done; the statement may be of a batch that has failed since."""
        self._server_unknown()
        self.unnamed = statement if undecided < 0 or self.completions.unnamed_failed != undecided else None

    def _no_unnamed(self) -> None:
        if self.server is not None:
            self.server.unnamed = None
        self.unnamed = None

    def _owe(
        self, tag: int, name: bytes, undo: Callable[[], None] = nothing, client_name: bytes | None = None
    ) -> None:
        short = client_name[:LONGEST_NAME] if client_name is not None else None
        self.completions.owe(Completion(tag, self.ledger.asked, name, undo, short))


def _in_one(change: Difference) -> bytes:
    return messages.query_of([statement for query in change.queries for statement in query])


def _both(first: Callable[[], None], second: Callable[[], None]) -> None:
    first()
    second()
