"""
A small PostgreSQL: one backend, fed byte by byte with what a frontend says, gives what it answers.

It knows a few statements, and keeps what PostgreSQL keeps: the transaction, prepared statements and portals,
settings and whom the session acts as, channels, locks. It answers the proxy's question from that. A text is
read without regard to the proxy's lexer, so that the one does not repeat the other's mistakes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from struct import pack, unpack_from

from attrs import Factory, define, evolve, frozen

DEFAULTS = {
    b"TimeZone": b"UTC",
    b"application_name": b"",
    b"work_mem": b"4MB",
    b"search_path": b'"$user", public',
    b"log_min_messages": b"warning",
    b"my.tenant": b"",
    b"my.hidden": b"",
}
"""All settings there are. The custom ones are as they are for ever after the first SET: empty."""
REPORTED = (b"TimeZone", b"application_name")
SUPERUSER = frozenset({b"log_min_messages"})
"""Who is no superuser may not set these."""
QUESTION = b"SET TRANSACTION ISOLATION LEVEL READ COMMITTED READ ONLY NOT DEFERRABLE; SELECT 's', name, "

Words = tuple[bytes, ...]
_words = re.compile(
    rb"""[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|\$\d+|[A-Za-z_][\w.]*|\d+|::|[^\s]""",
    re.DOTALL,
)
_UNDONE = (b"rollback", b"abort")
_ENDS = (b"commit", b"end", *_UNDONE)


class Failed(Exception):
    """An error of the server's."""

    def __init__(self, sqlstate: str, text: bytes, routine: str = "exec") -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate
        self.text = text
        self.routine = routine


@define
class World:
    """What is not in a session: the roles that there are, and how many columns the table has."""

    roles: dict[bytes, bool] = Factory(lambda: {b"app": True, b"owner": True, b"clerk": False})
    """Whether each is a superuser."""
    columns: int = 1


@frozen
class Prepared:
    """A prepared statement."""

    words: Words
    parameters: int
    zone: bytes
    """The time zone under which it was analysed."""
    columns: tuple[bytes, ...] | None
    from_sql: bool = False


@frozen
class Values:
    """What a transaction can take back."""

    session: dict[bytes, bytes]
    local: dict[bytes, bytes]
    role: bytes
    user: bytes


@define
class Portal:
    """A statement with its parameters."""

    prepared: Prepared
    values: list[bytes]
    run: bool = False


class Postgres:
    """One backend."""

    def __init__(self, world: World | None = None, pid: int = 7, user: bytes = b"app") -> None:
        self.world = world if world is not None else World()
        self.pid = pid
        self.login = user
        self.values = Values({}, {}, b"none", user)
        self.status = b"I"
        self.statements: dict[bytes, Prepared] = {}
        self.portals: dict[bytes, Portal] = {}
        self.channels: set[bytes] = set()
        self.locks: set[bytes] = set()
        self.temporary: set[bytes] = set()
        self.skipping = False
        """Whether everything is thrown away up to the next Sync."""
        self.heard = b""
        """All that was said to it, for a look at what a proxy does."""
        self.deaf = 0
        """How many questions of the proxy's it is going to refuse."""
        self._before: Values | None = None
        """What the transaction that is under way began with."""
        self._savepoints: list[tuple[bytes, Values]] = []
        self._out: list[bytes] = []
        self._rest = b""
        self._told = {name: DEFAULTS[name] for name in REPORTED}

    # The protocol.

    def feed(self, data: bytes) -> bytes:
        """Take what a frontend has sent, give what the backend answers."""
        self.heard += data
        self._rest += data
        while len(self._rest) >= 5 and len(self._rest) > (size := int.from_bytes(self._rest[1:5], "big")):
            message, self._rest = self._rest[: size + 1], self._rest[size + 1 :]
            self.take(message[:1], message[5:])
        out, self._out = b"".join(self._out), []
        return out

    def take(self, tag: bytes, payload: bytes) -> None:
        """Take one message."""
        if tag == b"S":
            self.skipping = False
            if self.status == b"I":
                self._commit()
            self._ready()
        elif self.skipping:
            pass
        elif tag == b"Q":
            self._query(payload[:-1])
        elif tag in _EXTENDED:
            try:
                _EXTENDED[tag](self, payload)
            except Failed as failed:
                self._fail(failed)
                self.skipping = True
        else:
            # CopyDone and CopyFail outside of COPY have no answer.
            assert tag in b"HXcf", tag

    def _say(self, tag: bytes, payload: bytes = b"") -> None:
        self._out.append(tag + pack(">I", len(payload) + 4) + payload)

    def _ready(self) -> None:
        for name in REPORTED:
            if self.show(name) != self._told[name]:
                self._told[name] = self.show(name)
                self._say(b"S", name + b"\0" + self.show(name) + b"\0")
        self._say(b"Z", self.status)

    def _fail(self, failed: Failed) -> None:
        fields = (b"SERROR", b"VERROR", b"C" + failed.sqlstate.encode(), b"M" + failed.text)
        self._say(b"E", b"\0".join((*fields, b"R" + failed.routine.encode(), b"", b"")))
        self._abort()
        self.status = b"I" if self.status == b"I" else b"E"

    def _query(self, text: bytes) -> None:
        self.statements.pop(b"", None)
        self.portals.pop(b"", None)
        try:
            if text.startswith(QUESTION):
                self._answer(text)
            else:
                statements = split(text)
                for words in statements:
                    self._allow(words)
                    prepared = self._analyse(words, 0)
                    if prepared.parameters and words[0].lower() != b"prepare":
                        raise Failed("42P02", b"there is no parameter $1")
                    if prepared.columns is not None:
                        self._say(b"T", row_description(prepared.columns))
                    tag, rows = self._execute(prepared, [], alone=len(statements) == 1)
                    self._rows(rows)
                    self._say(b"C", tag + b"\0")
                if not statements:
                    self._say(b"I")
            if self.status == b"I":
                self._commit()
        except Failed as failed:
            self._fail(failed)
        self._ready()

    def _parse(self, payload: bytes) -> None:
        name, text, rest = payload.split(b"\0", 2)
        if not name:
            self.statements.pop(b"", None)
        statements = split(text)
        if len(statements) > 1:
            raise Failed("42601", b"cannot insert multiple commands into a prepared statement")
        words = statements[0] if statements else ()
        self._allow(words)
        prepared = self._analyse(words, unpack_from(">H", rest)[0])
        self._store(name, prepared)
        self._say(b"1")

    def _store(self, name: bytes, prepared: Prepared) -> None:
        if name[:63] in self.statements:
            raise Failed("42P05", b'prepared statement "%s" already exists' % name)
        self.statements[name[:63]] = prepared

    def _find(self, name: bytes) -> Prepared:
        found = self.statements.get(name[:63])
        if found is None:
            raise Failed("26000", b'prepared statement "%s" does not exist' % name)
        return found

    def _bind(self, payload: bytes) -> None:
        portal, name, rest = payload.split(b"\0", 2)
        prepared = self._find(name)
        values = read_values(rest)
        if len(values) != prepared.parameters:
            raise Failed("08P01", b"bind message supplies %d parameters" % len(values))
        self._allow(prepared.words)
        if portal and portal in self.portals:
            raise Failed("42P03", b'cursor "%s" already exists' % portal)
        self._revalidate(prepared)
        self._begin()
        self.portals[portal] = Portal(prepared, values)
        self._say(b"2")

    def _describe(self, payload: bytes) -> None:
        name = payload[1:-1]
        if payload[:1] == b"S":
            prepared = self._find(name)
            if self.status == b"E" and prepared.columns is not None:
                raise Failed("25P02", b"current transaction is aborted")
            self._say(b"t", pack(">H", prepared.parameters) + pack(">I", 25) * prepared.parameters)
            self._revalidate(prepared)
        else:
            prepared = self._portal(name).prepared
        if prepared.columns is None:
            self._say(b"n")
        else:
            self._say(b"T", row_description(prepared.columns))

    def _revalidate(self, prepared: Prepared) -> None:
        if self._columns(prepared.words) != prepared.columns:
            raise Failed("0A000", b"cached plan must not change result type", "RevalidateCachedQuery")

    def _portal(self, name: bytes) -> Portal:
        portal = self.portals.get(name)
        if portal is None:
            raise Failed("34000", b'portal "%s" does not exist' % name)
        return portal

    def _run(self, payload: bytes) -> None:
        portal = self._portal(payload[:-5])
        self._allow(portal.prepared.words)
        if not portal.prepared.words:
            self._say(b"I")
            return
        if portal.run:
            raise Failed("55000", b"portal cannot be run")
        portal.run = True
        tag, rows = self._execute(portal.prepared, portal.values, alone=False)
        self._rows(rows)
        self._say(b"C", tag + b"\0")

    def _close(self, payload: bytes) -> None:
        if payload[:1] == b"S":
            self.statements.pop(payload[1:-1][:63], None)
        else:
            self.portals.pop(payload[1:-1], None)
        self._say(b"3")

    def _rows(self, rows: list[list[bytes]]) -> None:
        for row in rows:
            self._say(b"D", data_row(row))

    # The transaction.

    def _allow(self, words: Words) -> None:
        if self.status == b"E" and words and words[0].lower() not in _ENDS:
            raise Failed("25P02", b"current transaction is aborted")

    def _begin(self) -> None:
        if self._before is None:
            self._before = self.values

    def _commit(self) -> None:
        self.values = evolve(self.values, local={})
        self._end()

    def _abort(self) -> None:
        if self._savepoints:
            self.values = self._savepoints[-1][1]
            return
        if self._before is not None:
            self.values = self._before
        if self.status == b"I":
            self._end()

    def _end(self) -> None:
        self._before = None
        self._savepoints.clear()
        self.portals.clear()
        self.status = b"I"

    # Statements.

    def _analyse(self, words: Words, declared: int) -> Prepared:
        if words and words[0].lower() not in _COMMANDS:
            raise Failed("42601", b"syntax error at or near " + words[0])
        if b"missing" in words:
            raise Failed("42703", b"column missing does not exist")
        self._begin()
        found = [int(word[1:]) for word in words if word[:1] == b"$" and word[1:].isdigit()]
        return Prepared(words, max([declared, *found]), self.show(b"TimeZone"), self._columns(words))

    def _columns(self, words: Words) -> tuple[bytes, ...] | None:
        if not words or words[0].lower() not in (b"select", b"show", b"execute"):
            return None
        if words[-1] == b"thing":
            return tuple(b"c%d" % number for number in range(self.world.columns))
        return (b"v",)

    def _execute(
        self, prepared: Prepared, values: Sequence[bytes], alone: bool
    ) -> tuple[bytes, list[list[bytes]]]:
        self._begin()
        words = prepared.words
        if words[:1] and words[0].lower() == b"execute":
            called = self._find(words[1])
            if not called.words:
                raise Failed("42601", b"EXECUTE does not support an empty statement")
            if called.words[0].lower() == b"execute":
                raise Failed("54001", b"stack depth limit exceeded")
            arguments = list(map(literal, words[3:-1:2]))
            if len(arguments) != called.parameters:
                raise Failed("42601", b"wrong number of parameters")
            self._revalidate(called)
            return self._execute(called, arguments, alone)
        command = _COMMANDS[words[0].lower()]
        says, value = command(self, prepared, values, alone)
        rows = [] if prepared.columns is None else value
        return says if says != b"SELECT" else b"SELECT %d" % len(rows), rows

    def _select(
        self, prepared: Prepared, values: Sequence[bytes], alone: bool
    ) -> tuple[bytes, list[list[bytes]]]:
        words = prepared.words
        what = words[1].removeprefix(b"pg_catalog.")
        if what == b"set_config":
            name, at = expression(words, 3, values)
            value, at = expression(words, at + 1, values)
            self._set(name, value, local=words[at + 1] == b"true")
            return b"SELECT", [[value]]
        if what == b"hide":
            self._set(b"my.hidden", literal(words[3]), local=False)
        elif what == b"pg_advisory_lock":
            self.locks.add(words[3])
        elif what == b"pg_advisory_unlock":
            self.locks.discard(words[3])
        elif what == b"zone":
            return b"SELECT", [[prepared.zone]]
        elif what == b"name":
            return b"SELECT", [[name] for name in sorted(self.statements) if name]
        elif words[-1] == b"thing":
            return b"SELECT", [[b"x"] * self.world.columns]
        elif b"/" in words:
            raise Failed("22012", b"division by zero")
        else:
            return b"SELECT", [[expression(words, 1, values)[0]]]
        return b"SELECT", [[b""]]

    def _show(
        self, prepared: Prepared, _values: Sequence[bytes], _alone: bool
    ) -> tuple[bytes, list[list[bytes]]]:
        return b"SHOW", [[self.show(path(prepared.words, 1)[0])]]

    def show(self, name: bytes) -> bytes:
        """Give the value of a setting, or whom the session acts as."""
        name = known(name)
        if name == b"role":
            return self.values.role
        if name == b"session_authorization":
            return self.values.user
        return self.values.local.get(name, self.values.session.get(name, DEFAULTS[name]))

    def _set_command(
        self, prepared: Prepared, _values: Sequence[bytes], _alone: bool
    ) -> tuple[bytes, list[list[bytes]]]:
        words = prepared.words
        if words[1].lower() == b"session" and words[2].lower() == b"authorization":
            self._act_as(None if words[3].lower() == b"default" else literal(words[3]))
        elif words[1].lower() == b"role":
            self._set_role(literal(words[2]))
        else:
            local = words[1].lower() == b"local"
            name, at = path(words, 2 if local else 1)
            value = literal(words[at + 1])
            if known(name) == b"search_path" and not re.fullmatch(rb"[a-z_]+", value):
                # One name, not a list of them.
                value = b'"' + value.replace(b'"', b'""') + b'"'
            if local and self.status == b"I":
                self._say(b"N", b"SWARNING\0C25P01\0MSET LOCAL can only be used in transaction blocks\0\0")
            else:
                self._set(name, value, local)
        return b"SET", []

    def _set(self, name: bytes, value: bytes, local: bool) -> None:
        name = known(name)
        acting = self.values.user if self.values.role == b"none" else self.values.role
        if name in SUPERUSER and not self.world.roles.get(acting):
            raise Failed("42501", b"permission denied to set parameter")
        values = self.values
        if local:
            self.values = evolve(values, local={**values.local, name: value})
        else:
            rest = {key: one for key, one in values.local.items() if key != name}
            self.values = evolve(values, session={**values.session, name: value}, local=rest)

    def _act_as(self, user: bytes | None) -> None:
        user = self.login if user is None else user
        if user not in self.world.roles:
            raise Failed("22023", b"role does not exist")
        if user != self.values.user and not self.world.roles[self.login]:
            raise Failed("42501", b"permission denied to set session authorization")
        self.values = evolve(self.values, user=user, role=b"none")

    def _set_role(self, role: bytes) -> None:
        if role != b"none" and role not in self.world.roles:
            raise Failed("22023", b"role does not exist")
        if role not in (b"none", self.values.user) and not self.world.roles[self.values.user]:
            raise Failed("42501", b"permission denied to set role")
        self.values = evolve(self.values, role=role)

    def _reset(
        self, prepared: Prepared, _values: Sequence[bytes], _alone: bool
    ) -> tuple[bytes, list[list[bytes]]]:
        name, _at = path(prepared.words, 1)
        if name.lower() == b"role":
            self._set_role(b"none")
        elif name.lower() == b"all":
            self.values = evolve(self.values, session=self._custom(), local={})
        else:
            name = known(name)
            self._set(name, DEFAULTS[name], local=False)
            session = {key: one for key, one in self.values.session.items() if key != name}
            self.values = evolve(self.values, session=session)
        return b"RESET", []

    def _custom(self) -> dict[bytes, bytes]:
        return {}

    def _transaction(
        self, prepared: Prepared, _values: Sequence[bytes], _alone: bool
    ) -> tuple[bytes, list[list[bytes]]]:
        word = prepared.words[0].lower()
        if word == b"begin":
            self.status = b"T"
            return b"BEGIN", []
        name = prepared.words[-1]
        if word == b"savepoint":
            if self.status != b"T":
                raise Failed("25P01", b"SAVEPOINT can only be used in transaction blocks")
            self._savepoints.append((name, self.values))
            return b"SAVEPOINT", []
        if word == b"release" or (word == b"rollback" and len(prepared.words) > 1):
            while self._savepoints and self._savepoints[-1][0] != name:
                self._savepoints.pop()
            if not self._savepoints:
                raise Failed("3B001", b"savepoint does not exist")
            if word == b"release":
                self._savepoints.pop()
                return b"RELEASE", []
            self.values = self._savepoints[-1][1]
            self.status = b"T"
            return b"ROLLBACK", []
        done = b"ROLLBACK" if word in _UNDONE or self.status == b"E" else b"COMMIT"
        if done == b"ROLLBACK":
            self.values = self._before if self._before is not None else self.values
        self._commit()
        return done, []

    def _prepare(
        self, prepared: Prepared, _values: Sequence[bytes], _alone: bool
    ) -> tuple[bytes, list[list[bytes]]]:
        words = prepared.words
        self._store(words[1], evolve(self._analyse(words[3:], 0), from_sql=True))
        return b"PREPARE", []

    def _deallocate(
        self, prepared: Prepared, _values: Sequence[bytes], _alone: bool
    ) -> tuple[bytes, list[list[bytes]]]:
        name = prepared.words[1]
        if name == b"all":
            self.statements = {key: one for key, one in self.statements.items() if not key}
            return b"DEALLOCATE ALL", []
        self._find(name)
        del self.statements[name]
        return b"DEALLOCATE", []

    def _discard(
        self, prepared: Prepared, _values: Sequence[bytes], alone: bool
    ) -> tuple[bytes, list[list[bytes]]]:
        if prepared.words[1].lower() == b"sequences":
            return b"DISCARD SEQUENCES", []
        if not alone or self.status != b"I":
            raise Failed("25001", b"DISCARD ALL cannot run inside a transaction block")
        self.values = Values(self._custom(), {}, b"none", self.login)
        self.statements.clear()
        self.portals.clear()
        self.channels.clear()
        self.locks.clear()
        self.temporary.clear()
        return b"DISCARD ALL", []

    def _others(
        self, prepared: Prepared, _values: Sequence[bytes], _alone: bool
    ) -> tuple[bytes, list[list[bytes]]]:
        words = prepared.words
        match words[0].lower():
            case b"listen":
                self.channels.add(words[1])
                return b"LISTEN", []
            case b"unlisten":
                self.channels.clear()
                return b"UNLISTEN", []
            case b"alter":
                self.world.columns += 1
                return b"ALTER TABLE", []
            case b"drop":
                self.temporary.clear()
                return b"DROP TABLE", []
        self.temporary.add(words[-1])
        return b"CREATE TABLE", []

    # The proxy's question.

    def _answer(self, text: bytes) -> None:
        if self.deaf:
            self.deaf -= 1
            raise Failed("57014", b"canceling statement due to statement timeout")
        self._say(b"C", b"SET\0")
        rows = self.held(
            set(re.findall(rb"\(E'([^']*)'::pg_catalog\.text\)", text)), b"pg_proc, LATERAL" in text
        )
        if b"E'hide'::pg_catalog.text" in text:
            rows.append([b"f", b"hide", b"", b"c 16400:700"])
        self._say(b"T", row_description((b"k", b"n", b"v", b"c")))
        self._rows(rows)
        self._say(b"C", b"SELECT %d\0" % len(rows))

    def held(self, custom: set[bytes], functions: bool) -> list[list[bytes]]:
        """Give the rows of the answer."""
        names = [name for name in self.values.session if b"." not in name]
        names += [name for name in DEFAULTS if name in custom or (functions and name == b"my.hidden")]
        settings = [(b"s", name, self.show(name), context(name)) for name in names]
        identity = [(b"r", name, self.show(name), b"") for name in (b"role", b"session_authorization")]
        rows = [[kind, name, *spelled(value, context)] for kind, name, value, context in settings + identity]
        rows += [
            [b"p", name, b"true" if one.from_sql else b"false", b""] for name, one in self.statements.items()
        ]
        rows += [[b"l", name, b"", b""] for name in self.channels]
        rows += [[b"a", b"", b"", b""] for _ in self.locks]
        return rows + [[b"t", b"", b"", b""] for _ in self.temporary]


_EXTENDED: dict[bytes, Callable[[Postgres, bytes], None]] = {
    b"P": Postgres._parse,
    b"B": Postgres._bind,
    b"D": Postgres._describe,
    b"E": Postgres._run,
    b"C": Postgres._close,
}
Command = Callable[[Postgres, Prepared, Sequence[bytes], bool], tuple[bytes, list[list[bytes]]]]
_COMMANDS: dict[bytes, Command] = {
    b"select": Postgres._select,
    b"show": Postgres._show,
    b"set": Postgres._set_command,
    b"reset": Postgres._reset,
    **dict.fromkeys((b"begin", *_ENDS, b"savepoint", b"release"), Postgres._transaction),
    b"prepare": Postgres._prepare,
    b"execute": Postgres._select,
    b"deallocate": Postgres._deallocate,
    b"discard": Postgres._discard,
    **dict.fromkeys((b"listen", b"unlisten", b"alter", b"create", b"drop"), Postgres._others),
}


def split(text: bytes) -> list[Words]:
    """Give the statements of a text as their words."""
    statements: list[list[bytes]] = [[]]
    for word in _words.findall(text):
        if word == b";":
            statements.append([])
        else:
            statements[-1].append(word)
    return [tuple(words) for words in statements if words]


def literal(word: bytes) -> bytes:
    """Give what is meant by a string, a quoted identifier or a word."""
    if word[:2] in (b"E'", b"e'"):
        return re.sub(rb"\\(.)|''", lambda found: found[1] or b"'", word[2:-1], flags=re.DOTALL)
    if word[:1] in (b"'", b'"'):
        return word[1:-1].replace(word[:1] * 2, word[:1])
    return word


def path(words: Words, at: int) -> tuple[bytes, int]:
    """Read a name with its dots; give it, and where it ends."""
    name = literal(words[at])
    while at + 2 < len(words) and words[at + 1] == b".":
        at += 2
        name += b"." + literal(words[at])
    return name, at + 1


def known(name: bytes) -> bytes:
    """Give a setting's name as the server spells it."""
    for spelling in (*DEFAULTS, b"role", b"session_authorization"):
        if spelling.lower() == name.lower():
            return spelling
    raise Failed("42704", b"unrecognized configuration parameter")


def context(name: bytes) -> bytes:
    """Give the word for who may set a setting, as the question has it."""
    if name in (b"role", b"session_authorization"):
        return b""
    return b"custom" if b"." in name else b"superuser" if name in SUPERUSER else b"user"


def expression(words: Words, at: int, values: Sequence[bytes]) -> tuple[bytes, int]:
    """Give the value of a literal, a parameter or a convert_from(), and where it ends."""
    word = words[at]
    if word == b"pg_catalog.convert_from":
        return bytes.fromhex(literal(words[at + 2])[2:].decode()), at + 8
    if word[:1] == b"$":
        return values[int(word[1:]) - 1], at + 1
    return literal(word), at + 1


def spelled(value: bytes, context: bytes) -> tuple[bytes, bytes]:
    """Spell a value as the question has it."""
    if re.fullmatch(rb"[ -}~]*", value):
        return value, context
    return value.hex().encode(), context + b"/hex"


def row_description(names: Sequence[bytes]) -> bytes:
    return pack(">H", len(names)) + b"".join(
        name + b"\0" + pack(">IHIhiH", 0, 0, 25, -1, -1, 0) for name in names
    )


def data_row(values: Sequence[bytes]) -> bytes:
    return pack(">H", len(values)) + b"".join(pack(">i", len(value)) + value for value in values)


def read_values(rest: bytes) -> list[bytes]:
    """Read the parameters of a Bind, behind its names."""
    at = 2 + 2 * unpack_from(">H", rest)[0]
    count = unpack_from(">H", rest, at)[0]
    at += 2
    values = []
    for _ in range(count):
        size = unpack_from(">i", rest, at)[0]
        values.append(rest[at + 4 : at + 4 + size])
        at += 4 + size
    return values


# What a frontend says.


def message(tag: bytes, payload: bytes = b"") -> bytes:
    return tag + pack(">I", len(payload) + 4) + payload


def query(text: bytes) -> bytes:
    return message(b"Q", text + b"\0")


def parse(name: bytes, text: bytes) -> bytes:
    return message(b"P", name + b"\0" + text + b"\0" + pack(">H", 0))


def bind(name: bytes, values: Sequence[bytes] = (), portal: bytes = b"") -> bytes:
    sent = b"".join(pack(">i", len(value)) + value for value in values)
    return message(b"B", portal + b"\0" + name + b"\0" + pack(">HH", 0, len(values)) + sent + pack(">H", 0))


def describe(name: bytes, kind: bytes = b"S") -> bytes:
    return message(b"D", kind + name + b"\0")


def execute(portal: bytes = b"") -> bytes:
    return message(b"E", portal + b"\0" + pack(">I", 0))


def close(name: bytes, kind: bytes = b"S") -> bytes:
    return message(b"C", kind + name + b"\0")


SYNC = message(b"S")
FLUSH = message(b"H")
TERMINATE = message(b"X")


def whole(text: bytes, name: bytes = b"", values: Sequence[bytes] = ()) -> bytes:
    """A statement as most drivers say it."""
    return parse(name, text) + bind(name, values) + describe(b"", b"P") + execute() + SYNC


def read(stream: bytes) -> list[tuple[bytes, bytes]]:
    """Cut a stream into its messages: tag and payload."""
    messages = []
    at = 0
    while at < len(stream):
        size = int.from_bytes(stream[at + 1 : at + 5], "big")
        messages.append((stream[at : at + 1], stream[at + 5 : at + size + 1]))
        at += size + 1
    assert at == len(stream), "the stream ends inside a message"
    return messages
