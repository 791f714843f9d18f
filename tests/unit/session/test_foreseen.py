"""SET, RESET and DISCARD ALL of which is known what they leave: who is asked, and who need not be."""

from __future__ import annotations

from collections.abc import Callable

import pgparse
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgproxy.session.following import Following
from pgproxy.session.foreseen import Effects, Foresight, Said
from pgproxy.session.server import ServerSession
from pgproxy.session.settings import NOTHING_SET, Setting, setting, settings_of
from pgproxy.session.suspicion import Verdicts, classify
from pgproxy.session.verdict import ALL_SETTINGS, ASK, EVERYTHING, Verdict
from pgproxy.wire.messages import error_response, ready_for_query
from tests.examples import examples
from tests.unit.session.house import House, assert_at_rest
from tests.unit.session.model import SYNC, bind, close, execute, message, parse, query
from tests.unit.session.test_links import ANSWER, IDLE, PARSED, Link, tag_of
from tests.unit.sessions import new_session

pytestmark = pytest.mark.usefixtures("ways")

IN_TRANSACTION = ready_for_query(b"T")
BOUND = message(b"2")
SET_MEMORY = b"SET work_mem TO '1MB'"
MEMORY = setting(b"work_mem", b"1024", b"user")
TENANT = setting(b"my.tenant", b"x", b"custom")

WHAT_IS_SET: list[tuple[str, tuple[bytes, ...]]] = [
    ("SET work_mem TO '1MB'", (b"work_mem",)),
    ("set session work_mem = 64; ", (b"work_mem",)),
    ("SET SESSION my.tenant TO E'x'", (b"my.tenant",)),
    ("SET TimeZone = 'CET'", (b"timezone",)),
    ("SET TIME ZONE 'CET'", (b"timezone",)),
    ("SET SESSION TIME ZONE LOCAL", (b"timezone",)),
    ("SET time = 1", (b"time",)),
    ("SET NAMES 'LATIN1'", (b"client_encoding",)),
    ('SET "Work_Mem" = on', (b"work_mem",)),
    ("SET search_path TO a, \"B\", 'c', public", (b"search_path",)),
    ("SET geqo_seed = -0.5", (b"geqo_seed",)),
    ("SET work_mem TO DEFAULT", (b"work_mem",)),
    ("SET session.x = 1", (b"session.x",)),
    ("RESET work_mem", (b"work_mem",)),
    # What it is then depends on what the session began with.
    ("RESET my.tenant", ()),
    ("SET my.tenant TO DEFAULT", ()),
    ("SET my.tenant = 'default'", (b"my.tenant",)),
    # It is looked up in the search_path.
    ("SET default_text_search_config = 'simple'", ()),
    ("RESET TIME ZONE", (b"timezone",)),
    ("SET a.b = 1; RESET work_mem; SELECT 1", (b"a.b", b"work_mem")),
    ("DISCARD ALL", (EVERYTHING,)),
    # A half of it stays as it was.
    ("SET DateStyle TO 'ISO'", ()),
    ("SET TIME ZONE INTERVAL '1' HOUR TO MINUTE", ()),
    ("SET role TO a", (b"role",)),
    ("SET ROLE a", (b"role",)),
    ("SET SESSION ROLE 'A'", (b"role",)),
    ("SET ROLE NONE", (b"role",)),
    ("SET SESSION AUTHORIZATION a", ()),
    ("SET session_authorization = a", ()),
    ("RESET ROLE", (b"role",)),
    ("RESET SESSION AUTHORIZATION", ()),
    ("SELECT set_config('My.tenant', 'x', false);", (b"my.tenant",)),
    ("SELECT set_config('work_mem', 'x', false); SET a.b = 1", (b"work_mem", b"a.b")),
    ("SELECT set_config('role', 'x', false)", (b"role",)),
    ("SELECT set_config('DateStyle', 'x', false)", ()),
    ("SELECT set_config('seed', '1', false)", ()),
    ("SELECT set_config('a.b', 'x', true)", ()),
    ("SELECT set_config('a.b', NULL, false)", ()),
    ("SELECT set_config('a.b', 'x\\y', false)", ()),
    ("SELECT set_config('a.b', E'x', false)", ()),
    ("SELECT set_config('a.b', $1, false)", ()),
    ("SELECT set_config('a.b', 'x', false) FROM f()", ()),
    ("SELECT set_config('a.b', 'x', false), 1", ()),
    ("SELECT set_config('a' || 'b', 'x', false)", ()),
    ("SELECT \"set_config\"('a.b', 'x', false)", ()),
    ("RESET ALL", (ALL_SETTINGS,)),
    ("SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;", (ALL_SETTINGS,)),
    ("CLOSE ALL; SET work_mem = 64", (b"work_mem",)),
    ("UNLISTEN *", ()),
    ("SET seed = 0.5", ()),
    ("SET LOCAL work_mem = 64", ()),
    ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", ()),
    ("SET TRANSACTION READ ONLY", ()),
    ("SET work_mem FROM CURRENT", ()),
    ("SET work_mem =", ()),
    ("SET = 1", ()),
    ("SET a. = 1", ()),
    ("SET work_mem = f(1)", ()),
    ("SET XML OPTION DOCUMENT", ()),
    ("DISCARD TEMP", ()),
    ("SET work_mem = 64; LISTEN a", ()),
    ("SET work_mem = 64; SELECT f()", ()),
    ("SET work_mem = 64; INSERT INTO t VALUES (1)", ()),
    ("SET my.tenant = 'b\\c'", ()),
    ("SET my.tenant = 'é'", ()),
    ("SELECT 1", ()),
    ("", ()),
]


@pytest.mark.parametrize(("text", "sets"), WHAT_IS_SET)
def test_what_a_text_sets(text: str, sets: tuple[bytes, ...]) -> None:
    assert classify(text.encode()).sets == sets


def test_a_text_that_is_not_whole_sets_nothing_that_is_known() -> None:
    assert classify(SET_MEMORY, whole=False).sets == ()


WORDS = st.sampled_from(
    "set reset session local time zone names to = , . - work_mem my tenant DateStyle role all default on 1 "
    "'x' E'x' \"A\" \"b.c\" authorization characteristics transaction from current ; discard names".split()
)


@settings(max_examples=examples(200))
@given(st.lists(WORDS, min_size=2, max_size=9).map(lambda words: "set " + " ".join(words)))
def test_the_parser_sees_the_same(text: str) -> None:
    sets = classify(text.encode()).sets
    try:
        statements = [one["stmt"] for one in pgparse.parse(text)]
    except pgparse.PGQueryError:
        return
    if not sets:
        return
    names = []
    for statement in statements:
        if "DiscardStmt" in statement:
            names.append("")
        else:
            said = statement["VariableSetStmt"]
            assert not said.get("is_local")
            assert said["kind"] in ("VAR_SET_VALUE", "VAR_SET_DEFAULT", "VAR_RESET")
            names.append(said["name"].lower())
    assert [name.encode() for name in names] == list(sets)


# What is learned, and when it is believed.


def rows(*settings: tuple[bytes, bytes, bytes], role: bytes = b"none") -> bytes:
    """Build an answer to the question that has these settings: name, value and context."""
    acting = [(b"r", b"role", role, b""), (b"r", b"session_authorization", b"app", b"")]
    found = [*acting, *((b"s", name, value, context) for name, value, context in settings)]
    said = b"".join(message(b"D", b"\0\4" + b"".join(_column(one) for one in row)) for row in found)
    return tag_of("SET") + said + tag_of("SELECT 1") + IDLE


def _column(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value


def taught(text: bytes = SET_MEMORY, answer: bytes = rows((b"work_mem", b"1024", b"user"))) -> ServerSession:
    """Give a session of a pool in which it is known what a text sets, or resets."""
    link = has(new_session(), {b"work_mem": MEMORY} if text.startswith(b"RESET") else {})
    link.hear(IDLE * link.talk.swallows)
    link.done(text, b"RESET" if text.startswith(b"RESET") else b"SET")
    assert link.talk.rest()
    link.hear(answer)
    assert link.talk.rest() is None and link.talk.clean
    server = new_session()
    server.habits = link.server.habits
    return server


def has(server: ServerSession, left: dict[bytes, Setting]) -> Link:
    """Give a client that has set this, linked to a server that has it."""
    talk = Following(Verdicts(), frozenset(), None)
    server.settings = talk.settings = settings_of(left)
    return Link(server, talk)


def test_what_has_been_told_is_not_asked_again() -> None:
    link = Link(taught())
    link.done(SET_MEMORY, b"SET")
    assert link.talk.rest() is None and link.talk.clean
    assert link.talk.settings is link.server.settings
    assert dict(link.talk.settings) == {b"work_mem": MEMORY}
    link.talk.part()
    assert link.talk.begin(link.server).to_server == b""


@pytest.mark.parametrize("text", [b"SET work_mem TO '2MB'", b"SET work_mem TO '1MB' "])
def test_another_text_is_asked_about(text: bytes) -> None:
    link = Link(taught())
    link.done(text, b"SET")
    assert link.talk.rest()


def test_what_is_reset_is_set_no_longer() -> None:
    link = has(taught(b"RESET work_mem", rows()), {b"Work_Mem": MEMORY, b"my.tenant": TENANT})
    link.done(b"RESET work_mem", b"RESET")
    assert link.talk.rest() is None
    assert dict(link.talk.settings) == {b"my.tenant": TENANT}


def test_in_the_protocol_of_statements() -> None:
    link = Link(taught())
    link.say(parse(b"", SET_MEMORY) + bind(b"") + execute() + SYNC)
    link.hear(PARSED + BOUND + tag_of("SET") + IDLE)
    assert link.talk.rest() is None and dict(link.talk.settings) == {b"work_mem": MEMORY}


def test_within_a_transaction() -> None:
    link = Link(taught())
    link.say(query(b"BEGIN"))
    link.hear(tag_of("BEGIN") + IN_TRANSACTION)
    link.say(query(SET_MEMORY))
    link.hear(tag_of("SET") + IN_TRANSACTION)
    link.say(query(b"COMMIT"))
    link.hear(tag_of("COMMIT") + IDLE)
    assert link.talk.rest() is None and dict(link.talk.settings) == {b"work_mem": MEMORY}


ERROR = error_response({"S": "ERROR", "C": "22023", "M": "no"})


def _undone(link: Link) -> None:
    link.say(query(b"BEGIN"))
    link.hear(tag_of("BEGIN") + IN_TRANSACTION)
    link.say(query(SET_MEMORY))
    link.hear(tag_of("SET") + IN_TRANSACTION)
    link.say(query(b"ROLLBACK"))
    link.hear(tag_of("ROLLBACK") + IDLE)


def _undone_in_part(link: Link) -> None:
    link.say(query(b"BEGIN; SAVEPOINT a;" + SET_MEMORY + b"; ROLLBACK TO a; COMMIT"))
    tags = ("BEGIN", "SAVEPOINT", "SET", "ROLLBACK", "COMMIT")
    link.hear(b"".join(map(tag_of, tags)) + IDLE)


def _failed(link: Link) -> None:
    link.say(query(SET_MEMORY + b"; SELECT 1/0"))
    link.hear(tag_of("SET") + ERROR + IDLE)


def _failed_behind_it(link: Link) -> None:
    link.say(query(SET_MEMORY) + query(b"SELECT 1/0"))
    link.hear(tag_of("SET") + IDLE)
    link.hear(ERROR + IDLE)


def _said_and_not_done(link: Link) -> None:
    link.say(parse(b"", SET_MEMORY) + bind(b"") + SYNC)
    link.hear(PARSED + BOUND + IDLE)


def _bound_once_and_another_set_for_the_transaction(link: Link) -> None:
    link.say(parse(b"", SET_MEMORY) + bind(b"") + SYNC + query(b"SET LOCAL a.b = 1"))
    link.hear(PARSED + BOUND + IDLE + tag_of("SET") + IDLE)


def _in_portals_with_names(link: Link) -> None:
    link.say(parse(b"", SET_MEMORY) + bind(b"", portal=b"p") + execute(b"p") + SYNC)
    link.hear(PARSED + BOUND + tag_of("SET") + IDLE)


def _with_something_else(link: Link) -> None:
    link.say(query(SET_MEMORY) + query(b"SELECT f()"))
    link.hear(tag_of("SET") + IDLE + tag_of("SELECT 1") + IDLE)


def _where_something_changes_in_hiding(link: Link) -> None:
    link.server.habits.hidden = True
    link.talk.part()
    link.talk.begin(link.server)
    link.say(query(SET_MEMORY))
    link.hear(tag_of("SET") + IDLE)


def _by_what_is_called_so(link: Link) -> None:
    link.say(query(b"PREPARE p AS SELECT 1") + query(SET_MEMORY))
    link.hear(tag_of("PREPARE") + IDLE + tag_of("SET") + IDLE)


def _more_than_is_kept(link: Link) -> None:
    for _ in range(101):
        link.done(SET_MEMORY, b"SET")


@pytest.mark.parametrize(
    "play",
    [
        _undone,
        _undone_in_part,
        _failed,
        _failed_behind_it,
        _said_and_not_done,
        _bound_once_and_another_set_for_the_transaction,
        _in_portals_with_names,
        _with_something_else,
        _where_something_changes_in_hiding,
        _by_what_is_called_so,
        _more_than_is_kept,
    ],
)
def test_where_anything_else_may_have_happened_it_is_asked(play: Callable[[Link], None]) -> None:
    link = Link(taught())
    play(link)
    assert link.talk.rest()
    assert link.talk.settings is NOTHING_SET
    # And nothing is learned of it.
    link.hear(ANSWER)
    assert link.server.habits.effects.of(said(SET_MEMORY, b"work_mem")) == {
        b"work_mem": (b"work_mem", MEMORY)
    }


def test_the_next_time_is_foreseen_again() -> None:
    link = Link(taught())
    _undone(link)
    assert link.talk.rest()
    link.hear(rows())
    link.talk.part()
    link.talk.begin(link.server)
    link.done(SET_MEMORY, b"SET")
    assert link.talk.rest() is None and dict(link.talk.settings) == {b"work_mem": MEMORY}


def test_an_audit_asks_all_the_same() -> None:
    server = taught()
    link = Link(server, Following(Verdicts(), frozenset(), lambda: True))
    link.done(SET_MEMORY, b"SET")
    assert link.talk.rest() is None
    link.talk.part()
    link.talk.begin(server)
    link.done(b"SELECT 1", b"SELECT 1")
    assert link.talk.rest()
    link.hear(rows((b"work_mem", b"1024", b"user")))
    assert link.talk.events == []


def test_what_may_stay_in_a_server_is_not_the_clients() -> None:
    server = taught()
    link = Link(server, Following(Verdicts(), frozenset({"work_mem"}), None))
    link.done(SET_MEMORY, b"SET")
    assert link.talk.rest() is None
    assert link.talk.settings is NOTHING_SET and dict(server.settings) == {b"work_mem": MEMORY}


def test_what_sessions_begin_with_comes_back_where_it_is_reset() -> None:
    server = taught(b"RESET work_mem", rows())
    server.begins_with(settings_of({b"work_mem": MEMORY}))
    link = Link(server)
    link.done(b"RESET work_mem", b"RESET")
    assert link.talk.rest() is None
    assert server.settings is NOTHING_SET and dict(link.talk.settings) == {b"work_mem": MEMORY}
    assert MEMORY.statement in link.say(query(b"SHOW work_mem"))


ASYNCPG_SAYS = b"SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;"


def test_what_asyncpg_says_behind_what_was_set() -> None:
    link = has(new_session(), {b"work_mem": MEMORY})
    link.say(query(ASYNCPG_SAYS))
    link.hear(b"".join(map(tag_of, ("SELECT 1", "CLOSE CURSOR ALL", "UNLISTEN", "RESET"))) + IDLE)
    assert link.talk.rest() is None and link.talk.settings is link.server.settings is NOTHING_SET


# DISCARD ALL.


@pytest.mark.parametrize(
    ("left", "known"),
    [
        ({}, True),
        ({b"work_mem": MEMORY}, True),
        ({b"my.tenant": TENANT}, False),
        ({b"role": setting(b"role", b"a", b"")}, False),
    ],
)
def test_discard_all_leaves_nothing_but_custom_settings(left: dict[bytes, Setting], known: bool) -> None:
    link = has(new_session(), left)
    link.done(b"DISCARD ALL", b"DISCARD ALL")
    if known:
        assert link.talk.rest() is None and link.talk.clean and link.server.settings is NOTHING_SET
    else:
        assert link.talk.rest()


def test_discard_all_ends_what_pins() -> None:
    link = Link()
    link.done(b"LISTEN a", b"LISTEN")
    assert link.talk.rest()
    row = message(b"D", b"\0\4" + b"".join(map(_column, (b"l", b"a", b"", b""))))
    link.hear(tag_of("SET") + row + tag_of("SELECT 1") + IDLE)
    assert link.talk.rest() == b"" and link.talk.pinned
    link.done(b"DISCARD ALL", b"DISCARD ALL")
    assert link.talk.rest() is None and not link.talk.pinned and link.talk.clean


@pytest.mark.parametrize("text", [b"SET a.b = 1", SET_MEMORY])
def test_discard_all_beside_others_is_asked_about(text: bytes) -> None:
    for says in ([text, b"DISCARD ALL"], [b"DISCARD ALL", text]):
        link = Link(taught())
        link.say(b"".join(map(query, says)))
        link.hear(b"".join(tag_of("DISCARD ALL" if b"ALL" in one else "SET") + IDLE for one in says))
        assert link.talk.rest()


def test_a_role_is_foreseen_where_sessions_begin_with_none() -> None:
    link = Link(taught(b"SET ROLE a", rows(role=b"a")))
    link.done(b"SET ROLE a", b"SET")
    assert link.talk.rest() is None and link.talk.settings[b"role"] == setting(b"role", b"a", b"")
    link.server.role = b"a"
    link.done(b"SET ROLE a", b"SET")
    assert link.talk.rest()


def test_where_sessions_begin_with_a_role_nothing_is_learned_of_roles() -> None:
    server = new_session()
    server.role = b"a"
    link = Link(server)
    link.done(b"SET ROLE a", b"SET")
    assert link.talk.rest()
    link.hear(rows(role=b"a"))
    assert link.talk.settings is NOTHING_SET
    link.server.role = b"none"
    link.done(b"SET ROLE a", b"SET")
    assert link.talk.rest()


def test_where_sessions_begin_with_a_role_it_is_asked_about() -> None:
    server = new_session()
    server.role = b"a"
    link = Link(server)
    link.done(b"DISCARD ALL", b"DISCARD ALL")
    assert link.talk.rest()


# What others than the text decide.


def test_an_old_name_of_a_setting_is_asked_about_each_time() -> None:
    link = Link()
    for _ in range(2):
        link.done(b"SET sort_mem TO '1MB'", b"SET")
        assert link.talk.rest()
        link.hear(rows((b"work_mem", b"1024", b"user")))
        assert dict(link.talk.settings) == {b"work_mem": MEMORY}


def test_what_is_not_looked_up_is_not_learned() -> None:
    texts = [b"SET " + b"; SET ".join(b"my.s%d_%d = 1" % (n, m) for m in range(3)) for n in range(80)]
    link = Link()
    link.say(b"".join(map(query, texts)))
    link.hear((tag_of("SET") * 3 + IDLE) * 80)
    assert link.talk.rest()
    link.hear(rows(*((b"my.s0_%d" % m, b"1", b"custom") for m in range(3))))
    for text in (texts[0], texts[-1]):
        link.done(text, b"SET")
        assert link.talk.rest()
        link.hear(rows())


@pytest.mark.parametrize("first", [b"RESET ALL", b"CLOSE ALL; RESET ALL"])
@pytest.mark.parametrize(("text", "tag"), [(SET_MEMORY, "SET"), (b"RESET work_mem", "RESET")])
def test_the_tag_of_a_reset_is_not_taken_for_another(first: bytes, text: bytes, tag: str) -> None:
    for known in (True, False):
        link = Link(taught(text, rows((b"work_mem", b"1024", b"user"))) if known and tag == "SET" else None)
        link.say(query(first) + parse(b"", text) + bind(b"") + SYNC)
        link.hear(
            tag_of("CLOSE CURSOR ALL") * (b";" in first) + tag_of("RESET") + IDLE + PARSED + BOUND + IDLE
        )
        assert link.talk.rest()
        link.hear(rows())
        if not known:
            assert link.server.habits.effects.of(said(text, b"work_mem")) is None


def test_behind_a_reset_that_is_answered_it_is_foreseen() -> None:
    link = Link(taught())
    link.say(query(b"RESET ALL"))
    link.hear(tag_of("RESET") + IDLE)
    link.done(SET_MEMORY, b"SET")
    assert link.talk.rest() is None


def test_with_the_next_ledger_batches_are_counted_anew() -> None:
    link = Link(taught())
    for _ in range(3):
        link.say(query(b"RESET ALL"))
        link.hear(tag_of("RESET") + IDLE)
    link.talk.end()
    link.talk.begin(link.server)
    link.done(SET_MEMORY, b"SET")
    assert link.talk.rest() is None


def test_nothing_is_learned_beside_an_old_name() -> None:
    link = Link()
    link.say(query(SET_MEMORY) + query(b"SET sort_mem TO '2MB'"))
    link.hear((tag_of("SET") + IDLE) * 2)
    assert link.talk.rest()
    link.hear(rows((b"work_mem", b"2048", b"user")))
    link.done(SET_MEMORY, b"SET")
    assert link.talk.rest()


def test_a_reset_in_a_portal_with_a_name_is_not_taken_for_another() -> None:
    server = taught()
    link = Link(server)
    link.say(query(b"BEGIN"))
    link.hear(tag_of("BEGIN") + IN_TRANSACTION)
    link.say(parse(b"", b"RESET ALL") + bind(b"", portal=b"p") + SYNC)
    link.hear(PARSED + BOUND + IN_TRANSACTION)
    link.done(SET_MEMORY, b"SET")
    link.say(execute(b"p") + SYNC)
    link.hear(tag_of("RESET") + IN_TRANSACTION)
    link.say(query(b"COMMIT"))
    link.hear(tag_of("COMMIT") + IDLE)
    assert link.talk.rest()


def test_what_could_not_be_asked_is_asked_whatever_is_known() -> None:
    link = Link(taught())
    link.done(b"SELECT f(current_setting('my.other'))", b"SELECT 1")
    assert link.talk.rest()
    link.say(query(SET_MEMORY))
    link.hear(ERROR + IDLE + tag_of("SET") + IDLE)
    asked = link.talk.rest()
    assert asked is not None and b"my.other" in asked
    link.hear(ERROR + IDLE)
    assert link.talk.rest() == b""
    link.done(SET_MEMORY, b"SET")
    assert link.talk.rest()
    link.hear(rows((b"work_mem", b"1024", b"user")))
    assert link.talk.rest() is None and not link.talk.pinned


# What is kept.


def said(text: bytes, *sets: bytes, value: bytes | None = None) -> Said:
    return Said(text, sets, value)


def test_of_several_the_last_is_learned() -> None:
    effects, sight = Effects(), Foresight()
    texts: list[tuple[bytes, tuple[bytes, ...]]] = [
        (b"1", (b"a",)),
        (b"2", (b"b",)),
        (b"3", (b"a", b"c")),
    ]
    for text, sets in texts:
        sight.announced(text, Verdict(ASK, (), sets, (b"SET",) * len(sets)))
        for _ in sets:
            sight.heard(b"SET")
    for before in ({}, {b"B": MEMORY}, {b"C": MEMORY}):
        # A name that nothing shows may be another one's old name.
        effects.learn(sight.lessons(new_session()), settings_of(before), {b"A": MEMORY})
        assert not any(effects.of(said(text, *sets)) for text, sets in texts)
    effects.learn(sight.lessons(new_session()), settings_of({b"B": MEMORY, b"C": MEMORY}), {b"A": MEMORY})
    assert effects.of(said(b"1", b"a")) is None
    assert effects.of(said(b"2", b"b")) == {b"b": None}
    assert effects.of(said(b"3", b"a", b"c")) == {b"a": (b"A", MEMORY), b"c": None}


def test_where_all_was_reset_nothing_is_learned() -> None:
    for sets in ([(b"a",), (ALL_SETTINGS,)], [(ALL_SETTINGS,), (b"a",)], [(b"a", ALL_SETTINGS)]):
        sight = Foresight()
        for one in sets:
            sight.announced(b"text", Verdict(ASK, (), one, (b"SET",) * len(one)))
            for _ in one:
                sight.heard(b"SET")
        assert sight.lessons(new_session()) == []


def test_what_is_kept_is_bounded() -> None:
    effects = Effects()
    effects.learn([(b"x" * 257, (b"a",))], NOTHING_SET, {b"a": MEMORY})
    assert effects.of(said(b"x" * 257, b"a")) is None
    for number in range(1001):
        name = b"a.b%d" % number
        effects.learn([(name, (name,))], NOTHING_SET, {name: setting(name, b"x", b"custom")})
    assert effects.of(said(b"a.b0", b"a.b0")) is None
    assert effects.of(said(b"a.b1000", b"a.b1000")) is not None
    assert effects.of(said(b"new", b"a.b0", value=b"y")) is None
    assert effects.of(said(b"new", b"a.b1000", value=b"y")) is not None


# Custom settings.


def of_tenant() -> ServerSession:
    """Give a session of a pool in which My.tenant has been set before."""
    return taught(b"SET My.tenant TO 'x'", rows((b"My.tenant", b"x", b"custom")))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("SET my.tenant = 'another one'", b"another one"),
        ("SET SESSION my.tenant TO 'it''s'", b"it's"),
        ("SET MY.TENANT TO ''", b""),
        ("SET my.tenant = 42;", b"42"),
        ("SET my.tenant = 0", b"0"),
        ("SELECT set_config('my.tenant', 'another', false)", b"another"),
    ],
)
def test_a_custom_setting_is_what_it_is_set_to(text: str, value: bytes) -> None:
    link = Link(of_tenant())
    link.done(text.encode(), b"SET" if text.startswith("SET") else b"SELECT 1")
    assert link.talk.rest() is None
    assert dict(link.talk.settings) == {b"My.tenant": setting(b"My.tenant", value, b"custom")}


def test_where_no_tag_tells_that_it_is_executed_it_is_asked() -> None:
    link = Link(of_tenant())
    for said in (execute(), b""):
        link.say(parse(b"", b"SELECT set_config('my.tenant', 'y', false)") + bind(b"") + said + SYNC)
        link.hear(PARSED + BOUND + (tag_of("SELECT 1") if said else b"") + IDLE)
        assert link.talk.rest()
        link.hear(rows())


@pytest.mark.parametrize(
    "text",
    [
        "SET my.other = 'x'",
        "SET work_mem = '2MB'",
        "SET my.tenant = 'a', 'b'",
        "SET my.tenant = 'a\\b'",
        "SET my.tenant = E'a'",
        "SET my.tenant = on",
        "SET my.tenant = 007",
        "SET my.tenant = 1.50",
        "SET my.tenant = -1",
        "SET my.tenant = 1_0",
        "SET my.tenant TO DEFAULT",
        "SET my.tenant = 'a'; SET my.tenant = 'b'",
        "RESET my.tenant",
    ],
)
def test_where_that_is_not_plain_it_is_asked(text: str) -> None:
    link = Link(of_tenant())
    link.say(query(text.encode()))
    link.hear(tag_of("RESET" if text.startswith("RESET") else "SET") * (1 + text.count(";")) + IDLE)
    assert link.talk.rest()


def test_others_get_what_was_foreseen() -> None:
    house = House(servers=1, audit=False)
    one, other = house.client(), house.client()
    for _ in range(3):
        for client, said in ((one, b"a"), (other, b"b")):
            house.say(client, query(b"SET my.tenant TO '%s'" % said))
        assert b"a\0" not in house.say(other, query(b"SHOW my.tenant"))
        assert b"\0\0\0\1a" in house.say(one, query(b"SHOW my.tenant"))
        assert b"\0\0\0\1b" in house.say(other, query(b"SHOW my.tenant"))
        house.say(one, parse(b"s", b"SHOW my.tenant") + bind(b"s") + execute() + close(b"s") + SYNC)
    for client in (one, other):
        assert_at_rest(client)
