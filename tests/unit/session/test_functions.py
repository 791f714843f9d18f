"""Functions on no list: what is learned of them, for how long it holds, and what is asked then."""

from __future__ import annotations

import pytest

from pgproxy.session.conversation import AuditFound
from pgproxy.session.following import Following
from pgproxy.session.functions import Functions, Row
from pgproxy.session.hidden import HIDDEN
from pgproxy.session.question import literal, versions_question
from pgproxy.session.server import ServerSession
from pgproxy.session.settings import NOTHING_SET, setting, settings_of
from pgproxy.session.suspicion import Verdicts, classify
from pgproxy.session.verdict import ASK, HARMLESS, OPAQUE, WRITES
from pgproxy.wire.messages import error_response, ready_for_query
from tests.unit.session.model import SYNC, bind, data_row, execute, message, parse, query
from tests.unit.session.test_links import ANSWER, IDLE, PARSED, Link, tag_of
from tests.unit.sessions import new_session

pytestmark = pytest.mark.usefixtures("ways")

CALL = b"SELECT f(1)"
CALLED = tag_of("SELECT 1") + IDLE
OWN: Row = (b"f", b"select 1", b"sql 7:100")
OF_TRGM: Row = (b"similarity", b"", b"c 8:100 pg_trgm")


@pytest.mark.parametrize(
    ("text", "calls", "otherwise"),
    [
        ("select f(1), a.g(2), f(3)", (b"f", b"g"), HARMLESS),
        ('select "F"(1)', (b"F",), HARMLESS),
        ("insert into t values (f(1))", (b"f",), WRITES),
        ("update t set a = f(1); select 1", (b"f",), HARMLESS),
        ("explain select f(1)", (b"f",), HARMLESS),
        ("copy (select f(1)) to stdout", (b"f",), HARMLESS),
        ('select "merge", merge, case when a then insert(1) end', (b"insert",), HARMLESS),
        ("select f(1), set_config('a.b', 'c', false)", (), None),
        ("select f(1), set_config('a.b', 'c', true)", (), None),
        ("select f(1), currval('s')", (), None),
        ("select f(1); set work_mem = 64", (), None),
        ("select f(1) into temp t", (), None),
        ("call f(1)", (), None),
        ("create table t as select f(1)", (), None),
        ("select f('\\'' || g(1))", (), None),
        ("select " + ", ".join(f"f{n}(1)" for n in range(21)), (), None),
        ("select lower('a')", (), None),
    ],
)
def test_what_a_text_calls(text: str, calls: tuple[bytes, ...], otherwise: object) -> None:
    says = classify(text.encode())
    assert says.calls == calls
    if calls:
        assert says.otherwise is otherwise and says.flags & (ASK | OPAQUE) == ASK | OPAQUE


# What is known.


def learned(*rows: Row, names: tuple[bytes, ...] = ()) -> Functions:
    functions = Functions()
    functions.learn(names or tuple(row[0] for row in rows), rows)
    return functions


@pytest.mark.parametrize(
    ("rows", "always", "checked"),
    [
        ([OF_TRGM], True, []),
        ([(b"similarity", b"", b"plpgsql 8:1 postgis")], False, None),
        ([(b"set_limit", b"", b"c 8:1 pg_trgm")], False, None),
        ([(b"dblink", b"", b"c 8:1 dblink")], False, None),
        ([(b"time_bucket", b"", b"c 8:1 timescaledb")], True, []),
        ([(b"add_job", b"", b"c 8:1 timescaledb")], False, None),
        ([OWN], False, [b"f"]),
        ([OWN, (b"f", b"", b"c 8:1 pg_trgm")], False, [b"f"]),
        ([OWN, (b"f", b"", b"c 8:1 dblink")], False, None),
        ([OWN, (b"f", b"listen a", b"sql 8:1")], False, None),
        ([(b"f", b"", b"sql 8:1")], False, None),
        ([(b"f", b"f", b"c 8:1")], False, None),
    ],
)
def test_what_is_learned(rows: list[Row], always: bool, checked: list[bytes] | None) -> None:
    functions = learned(*rows)
    name = rows[0][0]
    assert functions.leave_nothing([name]) is always
    assert functions.to_check([name]) == checked
    assert functions.unknown([name]) == []
    functions.forget()
    assert functions.unknown([name]) == [name]
    assert not functions.leave_nothing([name]) and functions.to_check([name]) is None


def test_what_does_not_exist_leaves_nothing_as_long_as_that_is_so() -> None:
    functions = learned(names=(b"f",))
    assert functions.unknown([b"f"]) == [] and functions.to_check([b"f"]) == [b"f"]
    assert not functions.leave_nothing([b"f"])
    assert functions.are_the_same([b"f"], []) and not functions.are_the_same([b"f"], [(b"f", b"7:1")])


def test_of_too_many_with_one_name_nothing_is_known() -> None:
    rows: list[Row] = [(b"f", b"select 1", b"sql %d:1" % number) for number in range(17)]
    assert learned(*rows[1:]).to_check([b"f"]) == [b"f"]
    assert learned(*rows).to_check([b"f"]) is None


def test_what_it_calls_counts() -> None:
    functions = learned((b"f", b"select g(1), similarity('a', 'b')", b"sql 7:1"), OF_TRGM)
    assert functions.unknown([b"f"]) == [b"g"] and functions.to_check([b"f"]) is None
    functions.learn([b"g"], [(b"g", b"begin return f(1); end", b"plpgsql 9:1")])
    assert functions.unknown([b"f"]) == [] and functions.to_check([b"f"]) == [b"f", b"g"]
    functions.learn([b"g"], [(b"g", b"listen a", b"sql 9:2")])
    assert functions.to_check([b"f"]) is None


def test_where_there_is_a_new_function_nothing_is_known() -> None:
    functions = Functions()
    functions.newest_is(b"100")
    functions.learn([b"f"], [OWN])
    functions.newest_is(b"100")
    assert functions.to_check([b"f"])
    functions.newest_is(b"101")
    assert functions.unknown([b"f"]) and not functions.any_known


def test_what_calls_too_many_is_not_known() -> None:
    chain: list[Row] = [(b"f%d" % n, b"select f%d(1)" % (n + 1), b"sql %d:1" % n) for n in range(99)]
    end: Row = (b"f99", b"select 1", b"sql 99:1")
    assert len(learned(*chain, end).to_check([b"f0"]) or ()) == 100
    more: list[Row] = [(b"f99", b"select f100(1)", b"sql 99:1"), (b"f100", b"select 1", b"sql 100:1")]
    assert learned(*chain, *more).to_check([b"f0"]) is None
    assert learned(*chain, *more).unknown([b"f0"]) == []


def test_what_makes_a_question_fail_is_not_asked_about_again() -> None:
    link = Link()
    link.done(CALL, b"SELECT 1")
    assert link.talk.rest()
    link.hear(error_response({"S": "ERROR", "C": "54000", "M": "no"}) + IDLE)
    assert link.talk.rest() == b""
    link.done(CALL, b"SELECT 1")
    asked = link.talk.rest()
    assert asked is not None and literal(b"f") not in asked
    link.hear(answer())
    assert link.talk.rest() is None


def test_what_is_kept_is_bounded() -> None:
    functions = Functions()
    for number in range(1001):
        functions.learn([b"f%d" % number], [])
    assert functions.unknown([b"f0"]) and not functions.unknown([b"f1000"])
    assert functions.turn == 1


@pytest.mark.parametrize(
    ("versions", "same"),
    [
        ([(b"f", b"7:100")], True),
        ([(b"f", b"7:101")], False),
        ([(b"f", b"9:100")], False),
        ([(b"f", b"7:100"), (b"f", b"9:100")], False),
        ([(b"f", b"7:100"), (b"g", b"9:100")], True),
        ([], False),
    ],
)
def test_whether_they_are_the_same(versions: list[tuple[bytes, bytes]], same: bool) -> None:
    assert learned(OWN).are_the_same([b"f"], versions) is same


def test_the_question_for_versions() -> None:
    said = versions_question([b"f", b"g'"])
    assert said.startswith(b"Q") and literal(b"f") in said and literal(b"g'") in said


# What is asked.


def row(*values: bytes) -> bytes:
    return message(b"D", data_row(values))


def answer(*rows: Row) -> bytes:
    acting = row(b"r", b"role", b"none", b"") + row(b"r", b"session_authorization", b"app", b"")
    said = b"".join(row(b"f", *one) for one in rows)
    return tag_of("SET") + acting + said + tag_of("SELECT 9") + IDLE


def versions(*found: tuple[bytes, bytes]) -> bytes:
    said = b"".join(row(b"v", name, b"", version) for name, version in found)
    return tag_of("SET") + said + tag_of("SELECT 1") + IDLE


def taught(*rows: Row, text: bytes = CALL) -> ServerSession:
    """Give a session of a pool in which something is known of functions."""
    link = Link()
    link.say(query(text))
    link.hear(CALLED)
    asked = link.talk.rest()
    assert asked is not None and all(literal(one[0]) in asked for one in rows)
    link.hear(answer(*rows))
    assert link.talk.rest() is None and link.talk.clean
    server = new_session()
    server.habits = link.server.habits
    return server


TRGM = b"SELECT similarity('a', 'b')"


def test_what_leaves_nothing_is_not_asked_about() -> None:
    link = Link(taught(OF_TRGM, text=TRGM))
    for said, heard in (
        (query(TRGM), CALLED),
        (parse(b"", TRGM) + bind(b"") + execute() + SYNC, PARSED + message(b"2") + CALLED),
        (query(b"INSERT INTO t VALUES (similarity('a', 'b'))"), tag_of("INSERT 0 1") + IDLE),
    ):
        link.say(said)
        link.hear(heard)
        assert link.talk.rest() is None and link.talk.clean
    assert not link.server.opaque


@pytest.mark.parametrize("forgets", ["a server is opened", "something is defined"])
def test_what_was_known_is_asked_again_where_it_may_have_changed(forgets: str) -> None:
    server = taught(OF_TRGM, text=TRGM)
    if forgets == "something is defined":
        other = Link(server)
        other.done(b"CREATE FUNCTION similarity(int) RETURNS int LANGUAGE c AS 'x'", b"CREATE FUNCTION")
    else:
        server.habits.opened(False)
    link = Link(server)
    link.say(query(TRGM))
    link.hear(CALLED)
    asked = link.talk.rest()
    assert asked is not None and literal(b"similarity") in asked


def test_what_is_learned_before_a_definition_is_committed_is_forgotten() -> None:
    server = taught(OF_TRGM, text=TRGM)
    definer = Link(server)
    definer.say(query(b"BEGIN; CREATE FUNCTION similarity(int) RETURNS int LANGUAGE c AS 'x'"))
    definer.hear(tag_of("BEGIN") + tag_of("CREATE FUNCTION") + ready_for_query(b"T"))
    functions = server.habits.functions
    functions.learn([b"similarity"], [OF_TRGM])
    definer.say(query(b"COMMIT"))
    definer.hear(tag_of("COMMIT") + IDLE)
    assert definer.talk.rest()
    assert functions.unknown([b"similarity"])


def test_what_was_asked_before_all_was_forgotten_is_not_learned() -> None:
    link = Link()
    link.done(CALL, b"SELECT 1")
    assert link.talk.rest()
    functions = link.server.habits.functions
    functions.forget()
    link.hear(answer(OWN))
    assert functions.unknown([b"f"])


def test_a_new_function_of_whomever_is_seen_with_the_next_question() -> None:
    server = taught(OF_TRGM, text=TRGM)
    functions = server.habits.functions
    functions.newest_is(b"100")
    functions.learn([b"similarity"], [OF_TRGM])
    link = Link(server)
    link.say(query(b"DO 'begin end'"))
    link.hear(tag_of("DO") + IDLE)
    asked = link.talk.rest()
    assert asked is not None and b"max(oid)" in asked
    newest = row(b"n", b"", b"101", b"")
    link.hear(answer().replace(tag_of("SELECT 9"), newest + tag_of("SELECT 9")))
    assert functions.unknown([b"similarity"])


def test_of_ones_own_it_is_asked_whether_they_are_the_same() -> None:
    link = Link(taught(OWN))
    link.done(CALL, b"SELECT 1")
    assert link.talk.rest() == versions_question([b"f"])
    assert link.hear(versions((b"f", b"7:100"))) == b""
    assert link.talk.rest() is None and link.talk.clean
    assert not link.server.opaque and link.talk.settings is NOTHING_SET


@pytest.mark.parametrize(
    "said",
    [
        versions((b"f", b"7:101")),
        versions(),
        error_response({"S": "ERROR", "C": "57014", "M": "canceling statement"}) + IDLE,
    ],
)
def test_what_has_changed_is_asked_about(said: bytes) -> None:
    link = Link(taught(OWN))
    link.done(CALL + b", current_setting('my.tenant')", b"SELECT 1")
    assert link.talk.rest() == versions_question([b"f"])
    assert link.hear(said) == b""
    assert not link.talk.clean
    asked = link.talk.rest()
    assert asked is not None
    assert literal(b"f") in asked and literal(b"my.tenant") in asked and b"regexp_matches" in asked
    link.hear(answer((b"f", b"listen a", b"sql 7:101")))
    assert link.talk.rest() is None and link.talk.clean and link.server.opaque
    link.done(CALL, b"SELECT 1")
    assert link.talk.rest() != versions_question([b"f"])


def test_what_is_learned_behind_the_call_says_nothing_of_it() -> None:
    """What was called may have been another then, and be replaced since."""
    link = Link()
    link.done(CALL, b"SELECT 1")
    functions = link.server.habits.functions
    functions.learn([b"f"], [OWN])
    assert link.talk.rest() != versions_question([b"f"])


def test_what_is_learned_anew_behind_the_call_says_nothing_of_it_either() -> None:
    link = Link(taught(OWN))
    link.done(CALL, b"SELECT 1")
    functions = link.server.habits.functions
    functions.forget()
    functions.learn([b"f"], [OWN])
    assert link.talk.rest() != versions_question([b"f"])


def test_a_known_setting_in_between_ends_no_suspicion() -> None:
    server = taught(OWN)
    first = Link(server)
    first.done(b"SET work_mem TO '1MB'", b"SET")
    assert first.talk.rest()
    first.hear(
        answer().replace(tag_of("SELECT 9"), row(b"s", b"work_mem", b"1024", b"user") + tag_of("SELECT 9"))
    )
    first.talk.part()
    link = Link(server, first.talk)
    link.done(CALL, b"SELECT 1")
    assert link.talk.rest() == versions_question([b"f"])
    link.say(query(b"SET work_mem TO '1MB'"))
    link.hear(versions((b"f", b"7:101")) + tag_of("SET") + IDLE)
    asked = link.talk.rest()
    assert asked is not None and literal(b"f") in asked


def test_a_known_call_in_between_ends_no_suspicion() -> None:
    server = taught(OWN)
    link = Link(server)
    link.done(b"LISTEN a", b"LISTEN")
    assert link.talk.rest()
    link.say(query(CALL))
    link.hear(error_response({"S": "ERROR", "C": "57014", "M": "no"}) + IDLE + CALLED)
    asked = link.talk.rest()
    assert asked is not None and b"pg_listening_channels" in asked


def test_what_comes_while_it_is_asked_is_asked_about_behind_it() -> None:
    for same in (True, False):
        link = Link(taught(OWN))
        link.done(CALL, b"SELECT 1")
        assert link.talk.rest()
        link.say(query(b"LISTEN a"))
        link.hear(versions((b"f", b"7:100" if same else b"7:101")) + tag_of("LISTEN") + IDLE)
        asked = link.talk.rest()
        assert asked is not None and b"pg_listening_channels" in asked
        assert (literal(b"f") in asked) is not same


@pytest.mark.parametrize(
    ("before", "tag"),
    [(b"LISTEN a", b"LISTEN"), (b"SELECT set_config($$a.b$$, $$c$$, false)", b"SELECT 1")],
)
def test_with_anything_else_all_of_it_is_asked(before: bytes, tag: bytes) -> None:
    for texts in ([before, CALL], [CALL, before]):
        link = Link(taught(OWN))
        link.say(b"".join(map(query, texts)))
        link.hear(
            b"".join(message(b"C", (tag if one is before else b"SELECT 1") + b"\0") + IDLE for one in texts)
        )
        asked = link.talk.rest()
        assert asked is not None and b"pg_listening_channels" in asked


def test_where_something_changes_in_hiding_all_of_it_is_asked() -> None:
    server = taught(OWN, OF_TRGM, text=CALL + b", similarity('a', 'b')")
    server.habits.hidden = True
    for text in (CALL, TRGM):
        link = Link(server)
        link.done(text, b"SELECT 1")
        asked = link.talk.rest()
        assert asked is not None and b"pg_listening_channels" in asked


def test_an_audit_asks_all_of_it_and_says_what_it_finds() -> None:
    link = Link(taught(OWN), Following(Verdicts(), frozenset(), lambda: True))
    link.done(CALL, b"SELECT 1")
    assert link.talk.rest() != versions_question([b"f"])
    found = row(b"s", b"work_mem", b"1024", b"user")
    link.hear(answer().replace(tag_of("SELECT 9"), found + tag_of("SELECT 9")))
    assert link.talk.events == [AuditFound("setting work_mem", CALL)]
    assert b"work_mem" in link.talk.settings


def test_an_audit_does_not_mind_whether_an_extension_is_loaded() -> None:
    server = new_session()
    name = b"pg_trgm.similarity_threshold"
    talk = Following(Verdicts(), frozenset(), lambda: True)
    server.settings = talk.settings = settings_of({name: setting(name, b"0.5", b"user")})
    link = Link(server, talk)
    link.done(b"SELECT 1", b"SELECT 1")
    assert link.talk.rest()
    link.hear(answer().replace(tag_of("SELECT 9"), row(b"s", name, b"0.5", b"custom") + tag_of("SELECT 9")))
    assert link.talk.events == []


def test_a_long_name_is_cut_as_postgresql_does() -> None:
    assert classify(b"SELECT " + b"f" * 70 + b"(1)").calls == (b"f" * 63,)


def test_that_something_was_defined_is_asked_again_where_the_question_failed() -> None:
    link = Link()
    link.done(b"CREATE TRIGGER a BEFORE INSERT ON t EXECUTE FUNCTION f()", b"CREATE TRIGGER")
    asked = link.talk.rest()
    assert asked is not None and HIDDEN in asked
    link.hear(error_response({"S": "ERROR", "C": "57014", "M": "no"}) + IDLE)
    link.done(b"SET work_mem TO '1MB'", b"SET")
    asked = link.talk.rest()
    assert asked is not None and HIDDEN in asked


def test_a_name_that_is_not_ascii_is_never_known() -> None:
    text = "SELECT \u00e9(1)".encode()
    link = Link()
    for _ in range(2):
        link.done(text, b"SELECT 1")
        asked = link.talk.rest()
        assert asked is not None and "\u00e9".encode() not in asked
        link.hear(ANSWER)
        assert link.talk.rest() is None
