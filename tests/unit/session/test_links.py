"""One `Following` and one server, message by message: what no client of a model server brings about."""

from __future__ import annotations

from collections.abc import Callable
from struct import pack

import pytest

from pgproxy.session.conversation import Pinned, QuestionFailed, Unpinned
from pgproxy.session.following import Following
from pgproxy.session.hidden import HIDDEN
from pgproxy.session.loss import Cause
from pgproxy.session.pins import PinReason
from pgproxy.session.question import ANSWER_LIMIT
from pgproxy.session.server import SEVERAL, ServerSession
from pgproxy.session.settings import NOTHING_SET, setting, settings_of
from pgproxy.session.suspicion import Verdicts
from pgproxy.wire import tags
from pgproxy.wire.messages import error_response, parameter_status, ready_for_query
from pgproxy.wire.skim import Skimmer
from tests.unit.session.house import House
from tests.unit.session.model import QUESTION, SYNC, bind, data_row, message, parse, query, read
from tests.unit.sessions import new_session

pytestmark = pytest.mark.usefixtures("ways")

IDLE = ready_for_query(b"I")
ERROR = error_response({"S": "ERROR", "C": "26000", "M": "there is none"})
PARSED = message(b"1", b"")
EXECUTE = message(b"E", b"\0" * 5)
FORGOTTEN = message(b"C", b"DISCARD SEQUENCES\0") + IDLE
PID, OTHERS, CLIENTS = b"\0\0\0\7", b"\0\0\0\x08", b"\0\0\3\xe8"


class Link:
    """A client that is linked to a server."""

    def __init__(self, server: ServerSession | None = None, talk: Following | None = None) -> None:
        self.server = server or new_session()
        self.server.pid = PID
        self.talk = talk or Following(Verdicts(), frozenset(), None)
        self.talk.pid = CLIENTS
        self.beginning = self.talk.begin(self.server)

    def say(self, data: bytes) -> bytes:
        return self.talk.from_client(*Skimmer(self.talk.direction).feed(data))

    def say_again(self) -> bytes:
        """Say what was put off."""
        assert self.talk.put_off is not None
        run, self.talk.put_off = self.talk.put_off[0], None
        return self.say(run)

    def hear(self, data: bytes) -> bytes:
        return self.talk.from_server(*Skimmer(tags.FROM_SERVER).feed(data))

    def done(self, text: bytes, tag: bytes) -> None:
        """Have the client say something, and the server do it."""
        said = self.say(query(text))
        ours = read(said).index((b"Q", text + b"\0"))
        assert self.hear(IDLE * ours) == b""
        assert self.hear(message(b"C", tag + b"\0") + IDLE) == message(b"C", tag + b"\0") + IDLE


def tag_of(name: str) -> bytes:
    return message(b"C", name.encode() + b"\0")


def notification(pid: bytes) -> bytes:
    return message(b"A", pid + b"channel\0\0")


ANSWER = tag_of("SET") + tag_of("SELECT 0") + IDLE


# What a server says unasked.


def test_a_client_hears_of_its_own_notifications_as_its_own() -> None:
    link = Link()
    link.say(query(b"NOTIFY channel"))
    heard = link.hear(notification(PID) + notification(OTHERS) + tag_of("NOTIFY") + IDLE)
    assert heard == notification(CLIENTS) + notification(OTHERS) + tag_of("NOTIFY") + IDLE


def test_what_comes_unasked_in_an_answer_of_ours_is_the_clients() -> None:
    link = Link()
    link.done(b"LISTEN channel", b"LISTEN")
    question = link.talk.rest()
    assert question is not None and question[5:].startswith(QUESTION)
    assert link.talk.swallows
    heard = link.hear(notification(PID) + tag_of("SET") + parameter_status(b"TimeZone", b"CET"))
    assert heard == b""
    heard = link.hear(notification(OTHERS) + tag_of("SELECT 0") + IDLE)
    assert heard == notification(CLIENTS) + notification(OTHERS) + parameter_status(b"TimeZone", b"CET")
    assert not link.talk.swallows and link.talk.told is link.server.reported


def test_what_a_server_reports_is_told_at_once() -> None:
    link = Link()
    link.say(query(b"BEGIN; SET TimeZone TO 'CET'"))
    status = parameter_status(b"TimeZone", b"CET")
    assert link.hear(status + ready_for_query(b"T")) == status + ready_for_query(b"T")
    assert link.talk.told is link.server.reported and link.talk.told[b"TimeZone"] == b"CET"


def test_a_client_is_brought_up_to_date_with_a_server() -> None:
    server = new_session()
    talk = Following(Verdicts(), frozenset(), None)
    server.status(b"TimeZone\0CET\0")
    link = Link(server, talk)
    assert link.beginning.to_client == parameter_status(b"TimeZone", b"CET")
    assert link.beginning.to_server == b"" and not link.beginning.wait


LAST_WORDS = [
    ("ERROR", "57P01", True, False),
    ("FATAL", "57P05", True, True),
    ("FATAL", "53300", True, True),
    ("FATAL", "57P01", False, False),
    ("PANIC", "57P02", False, False),
    ("FATAL", "08006", False, False),
]


@pytest.mark.parametrize(("severity", "sqlstate", "passed", "fatal"), LAST_WORDS)
def test_a_servers_last_word(severity: str, sqlstate: str, passed: bool, fatal: bool) -> None:
    """What ends the server for everybody does not end the client; what ends this client does."""
    link = Link()
    link.say(query(b"SELECT 1"))
    error = error_response({"S": severity, "V": severity, "C": sqlstate, "M": "going"})
    assert link.hear(error) == (error if passed else b"")
    assert link.talk.fatal is fatal
    assert link.talk.cause == (None if passed else Cause(sqlstate, "going"))


def test_a_servers_last_word_in_an_answer_of_ours() -> None:
    link = Link()
    link.done(b"SET work_mem TO '1MB'", b"SET")
    assert link.talk.rest()
    assert link.hear(error_response({"S": "FATAL", "C": "57P01", "M": "going"})) == b""
    assert link.talk.cause == Cause("57P01", "going")


# The settings of a client.


def test_where_nothing_differs_nothing_is_said() -> None:
    link = Link()
    link.done(b"SELECT 1", b"SELECT 1")
    assert link.talk.rest() is None and link.talk.clean
    link.talk.part()
    assert Link(link.server, link.talk).beginning.to_server == b""


def test_settings_go_before_the_first_message_and_their_answer_is_swallowed() -> None:
    server, talk = new_session(), Following(Verdicts(), frozenset(), None)
    talk.settings = settings_of({b"work_mem": setting(b"work_mem", b"1MB", b"user")})
    link = Link(server, talk)
    assert link.beginning.to_server == query(b"SET \"work_mem\" TO E'1MB'") and not link.beginning.wait
    said = query(b"SHOW work_mem")
    assert link.say(said) == said
    row = message(b"D", data_row([b"1MB"]))
    assert link.hear(tag_of("SET") + IDLE + row) == row
    assert link.hear(tag_of("SHOW") + IDLE) == tag_of("SHOW") + IDLE
    assert link.talk.rest() is None and link.talk.clean and server.settings is talk.settings


def test_what_another_client_has_left_unseen_is_reset() -> None:
    server = new_session()
    server.opaque = True
    link = Link(server)
    assert b"RESET ALL" in link.beginning.to_server and not server.opaque
    link.hear(tag_of("RESET") + IDLE)
    link.talk.part()
    assert Link(server, link.talk).beginning.to_server == b""


def test_what_a_client_cannot_get_back_ends_it_before_its_query_is_sent() -> None:
    house = House()
    client, other = house.client(), house.client()
    house.say_on(house.servers[0], client, query(b"SET ROLE 'owner'"))
    del house.world.roles[b"owner"]
    heard = house.say_on(house.servers[1], client, query(b"SELECT 'dangerous'"))
    assert b"C08006\0" in heard and b"22023 role does not exist" in heard
    assert client.gone == "session_not_restored"
    assert not any(b"dangerous" in one.postgres.heard for one in house.servers)
    assert b"other" in house.say(other, query(b"SELECT 'other'"))


# Suspicion, and what pins.


def test_a_question_that_fails_pins_until_one_is_answered() -> None:
    house = House(servers=1)
    client, other = house.client(), house.client()
    house.servers[0].postgres.deaf = 1
    house.say(client, query(b"SET work_mem TO '1MB'"))
    assert client.splice.server is not None
    unknown = frozenset({PinReason.UNKNOWN})
    assert house.events[1:] == [Pinned(unknown, b"SET work_mem TO '1MB'")]
    assert isinstance(house.events[0], QuestionFailed)
    house.say(client, query(b"SELECT 1"))
    assert house.events[2:] == [Unpinned(unknown)] and client.splice.server is None
    assert b"4MB" in house.say(other, query(b"SHOW work_mem"))
    assert b"1MB" in house.say(client, query(b"SHOW work_mem"))


def test_an_answer_that_is_too_long_is_none() -> None:
    link = Link()
    link.done(b"SET work_mem TO '1MB'", b"SET")
    assert link.talk.rest()
    row = message(b"D", data_row([b"l", b"x" * 100_000, b"", b""]))
    for _ in range(ANSWER_LIMIT // 100_000 + 1):
        assert link.hear(row) == b""
    assert sum(map(len, link.talk._asides._collected)) <= ANSWER_LIMIT
    assert link.hear(tag_of("SELECT 42") + IDLE) == b""
    assert link.talk.rest() == b"" and isinstance(link.talk.events[0], QuestionFailed)


@pytest.mark.parametrize(
    ("tag", "asks"),
    [
        ("SELECT 1", False),
        ("INSERT 0 1", False),
        ("COPY 5", False),
        ("SET", True),
        ("LISTEN", True),
        ("CREATE TABLE", True),
        ("DO", True),
    ],
)
def test_a_command_that_no_text_explains_is_asked_about(tag: str, asks: bool) -> None:
    link = Link()
    link.done(b"SELECT 1", tag.encode())
    assert (link.talk.rest() is not None) is asks


@pytest.mark.parametrize(
    ("text", "tag", "asks"),
    [
        (b"INSERT INTO t VALUES (1)", b"INSERT 0 1", True),
        (b"SELECT * FROM view", b"SELECT 1", True),
        (b"COMMIT", b"COMMIT", True),
        (b"BEGIN", b"BEGIN", False),
        (b"ROLLBACK", b"ROLLBACK", False),
    ],
)
def test_where_something_changes_in_hiding_all_that_does_work_is_asked_about(
    text: bytes, tag: bytes, asks: bool
) -> None:
    server = new_session()
    server.habits.hidden = True
    link = Link(server)
    link.done(text, tag)
    assert (link.talk.rest() is not None) is asks


@pytest.mark.parametrize("text", [b"CREATE TABLE t ()", b"ALTER TABLE t ADD c int", b"DROP TABLE t"])
def test_the_answer_says_whether_something_changes_in_hiding(text: bytes) -> None:
    server = new_session()
    link = Link(server)
    command = b" ".join(text.split()[:2])
    for said, hidden in ((b"true", True), (b"false", False)):
        link.done(text, command)
        question = link.talk.rest()
        assert question is not None and HIDDEN in question
        row = message(b"D", data_row([b"w", b"", said, b""]))
        link.hear(tag_of("SET") + row + tag_of("SELECT 1") + IDLE)
        assert link.talk.rest() is None and server.habits.hidden is hidden
        link.done(b"SELECT 1", b"SELECT 1")
        question = link.talk.rest()
        assert (question is not None) is hidden
        if question is not None:
            # It is only asked where something was created, altered or dropped, and holds until then.
            assert HIDDEN not in question
            link.hear(ANSWER)
            assert server.habits.hidden


def test_behind_set_local_what_others_have_left_of_sequences_is_forgotten_first() -> None:
    in_transaction = message(b"Z", b"T")
    for said in (b"SELECT n FROM order_LastVal", b"SELECT 1"):
        server = new_session()
        link = Link(server)
        for text, tag in ((b"BEGIN", "BEGIN"), (b"SET LOCAL work_mem = 1", "SET"), (b"SELECT 1", "SELECT 1")):
            link.say(query(text))
            link.hear(tag_of(tag) + in_transaction)
        assert link.talk._calm
        server.sequences = object()
        server.habits.sequences_matter = said == b"SELECT 1"
        batch = parse(b"", said) + bind(b"") + EXECUTE + SYNC
        assert b"DISCARD SEQUENCES" in link.say(batch)


CREATE_TRIGGER = b"CREATE TRIGGER a BEFORE INSERT ON t EXECUTE FUNCTION f()"


def hiding(said: bytes) -> bytes:
    """Give the answer to what is asked about that."""
    row = message(b"D", data_row([b"w", b"", said, b""]))
    return tag_of("SET") + row + tag_of("SELECT 1") + IDLE


@pytest.mark.parametrize("heard", [tag_of("CREATE TRIGGER") + IDLE, tag_of("CREATE TRIGGER"), b""])
def test_who_defines_something_and_leaves_has_an_idle_server_asked(heard: bytes) -> None:
    link = Link()
    link.say(query(CREATE_TRIGGER))
    link.hear(heard)
    assert link.talk.unasked and not link.server.habits.due
    link.talk.end()
    assert link.server.habits.due


@pytest.mark.parametrize("text", [b"SELECT f()", b"DO ''", b"CALL p()"])
def test_so_has_who_runs_code_and_leaves(text: bytes) -> None:
    link = Link()
    link.say(query(text))
    link.talk.end()
    assert link.server.habits.due


def test_who_has_left_nothing_has_nobody_asked() -> None:
    link = Link()
    link.done(b"SELECT 1", b"SELECT 1")
    link.talk.end()
    assert not link.server.habits.due
    link = Link()
    link.done(CREATE_TRIGGER, b"CREATE TRIGGER")
    assert link.talk.rest()
    link.hear(hiding(b"false"))
    assert not link.talk.unasked
    link.talk.end()
    assert not link.server.habits.due


@pytest.mark.parametrize("known", [True, False])
def test_that_something_hides_is_news_once(known: bool) -> None:
    server = new_session()
    server.habits.hidden = known
    link = Link(server)
    link.done(CREATE_TRIGGER, b"CREATE TRIGGER")
    assert link.talk.rest()
    link.hear(hiding(b"true"))
    assert server.habits.hidden and link.talk.hides is not known


def test_that_it_does_so_no_longer_is_asked_again() -> None:
    """The answer may be older than the one that said it does."""
    server = new_session()
    server.habits.hidden = True
    assert not server.habits.told(False)
    assert server.habits.due and not server.habits.hidden


def test_where_no_server_was_idle_the_next_question_asks() -> None:
    server = new_session()
    server.habits.overdue = True
    link = Link(server)
    link.done(b"LISTEN a", b"LISTEN")
    question = link.talk.rest()
    assert question is not None and HIDDEN in question
    link.hear(hiding(b"false"))
    assert not server.habits.overdue


def test_code_that_nobody_sees_has_an_idle_server_asked() -> None:
    for text, due in ((b"DO ''", True), (b"COMMIT PREPARED 'a'", True), (b"LISTEN a", False)):
        link = Link()
        link.done(text, text.split(b" '")[0])
        question = link.talk.rest()
        assert question is None or HIDDEN not in question
        assert link.server.habits.due is due


ASYNCPG_SAYS = b"SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;"
ALL_UNDONE = (tag_of("SELECT 1"), tag_of("CLOSE CURSOR ALL"), tag_of("UNLISTEN"), tag_of("RESET"))
UNDOING = [
    (ASYNCPG_SAYS, b"".join(ALL_UNDONE)),
    (b"RESET ALL", tag_of("RESET")),
    (b"UNLISTEN channel", tag_of("UNLISTEN")),
    (b"CLOSE cursor", tag_of("CLOSE CURSOR")),
    (b"SELECT pg_advisory_unlock_all()", tag_of("SELECT 1")),
    (b"DISCARD TEMP", tag_of("DISCARD TEMP")),
    (b"DISCARD SEQUENCES", tag_of("DISCARD SEQUENCES")),
]


@pytest.mark.parametrize(("text", "answer"), UNDOING)
def test_who_has_left_nothing_may_undo_it_unasked(text: bytes, answer: bytes) -> None:
    link = Link()
    said = parse(b"", text) + bind(b"") + EXECUTE + SYNC if b";" not in text else query(text)
    for _ in range(2):
        assert link.say(said) == said
        link.hear((PARSED + message(b"2", b"") if b";" not in text else b"") + answer + IDLE)
        assert link.talk.rest() is None and link.talk.clean
    assert link.say(query(b"SET work_mem TO '1MB'"))
    link.hear(tag_of("SET") + IDLE)
    assert link.talk.rest()


WORK_MEM = settings_of({b"work_mem": setting(b"work_mem", b"1MB", b"user")})


def _has_set() -> Link:
    talk = Following(Verdicts(), frozenset(), None)
    talk.settings = WORK_MEM
    link = Link(None, talk)
    link.hear(tag_of("SET") + IDLE)
    return link


def _began_with_init_query() -> Link:
    server = new_session()
    server.begins_with(WORK_MEM)
    return Link(server)


def _listens() -> Link:
    link = Link()
    link.done(b"LISTEN channel", b"LISTEN")
    assert link.talk.rest()
    row = message(b"D", data_row([b"l", b"channel", b"", b""]))
    link.hear(tag_of("SET") + row + tag_of("SELECT 1") + IDLE)
    assert link.talk.rest() == b"" and link.talk.listens
    return link


def _seeds() -> Link:
    link = Link()
    link.say(query(b"SELECT setseed(0.5)"))
    return link


def _is_being_asked() -> Link:
    link = Link()
    link.done(b"SET work_mem TO '1MB'", b"SET")
    assert link.talk.rest()
    return link


def _has_set_what_may_stay_there() -> Link:
    link = Link(None, Following(Verdicts(), frozenset({"work_mem"}), None))
    link.done(b"SET work_mem TO '1MB'", b"SET")
    assert link.talk.rest()
    link.say(query(b"BEGIN"))
    rows = [
        [b"r", b"role", b"none", b""],
        [b"r", b"session_authorization", b"app", b""],
        [b"s", b"work_mem", b"1024", b"user"],
    ]
    said = b"".join(message(b"D", data_row(row)) for row in rows)
    link.hear(tag_of("SET") + said + tag_of("SELECT 1") + IDLE)
    link.hear(tag_of("BEGIN") + ready_for_query(b"T"))
    assert link.talk.settings is NOTHING_SET and link.server.settings is not NOTHING_SET
    return link


def _where_something_changes_in_hiding() -> Link:
    server = new_session()
    server.habits.hidden = True
    return Link(server)


HELD = [_listens, _seeds, _is_being_asked, _where_something_changes_in_hiding]
SET = [_has_set, _began_with_init_query, _has_set_what_may_stay_there]


@pytest.mark.parametrize("left", HELD)
@pytest.mark.parametrize(("text", "answer"), [one for one in UNDOING if one[0] != b"RESET ALL"])
def test_who_may_hold_something_is_asked_what_is_undone(
    text: bytes, answer: bytes, left: Callable[[], Link]
) -> None:
    link = left()
    assert link.say(query(text))
    link.hear((ANSWER if link.talk.swallows else b"") + answer + IDLE)
    assert link.talk._inquiry.suspicious and link.talk.rest()


@pytest.mark.parametrize("left", SET)
@pytest.mark.parametrize(("text", "answer"), UNDOING)
def test_who_has_only_set_something_is_not_asked(
    text: bytes, answer: bytes, left: Callable[[], Link]
) -> None:
    link = left()
    own, there = link.talk.settings, link.server.settings
    link.say(query(text))
    link.hear(IDLE * link.talk.swallows + answer + IDLE)
    assert link.talk.rest() is None and link.talk.clean
    if b"RESET ALL" in text:
        own, there = link.server.initial, NOTHING_SET
    assert link.talk.settings is own and link.server.settings is there


def test_a_reset_of_all_leaves_what_is_held() -> None:
    link = _listens()
    link.done(b"RESET ALL", b"RESET")
    assert link.talk.rest() == b"" and link.talk.listens


def test_what_is_custom_is_asked_about_where_all_is_reset() -> None:
    talk = Following(Verdicts(), frozenset(), None)
    talk.settings = settings_of({b"my.tenant": setting(b"my.tenant", b"x", b"custom")})
    link = Link(None, talk)
    link.hear(tag_of("SET") + IDLE)
    link.done(b"RESET ALL", b"RESET")
    assert link.talk.rest()


def test_where_something_changes_in_hiding_what_undoes_and_fails_is_asked_about() -> None:
    link = _where_something_changes_in_hiding()
    link.say(query(b"SELECT pg_advisory_unlock_all(), 1/0 FROM view"))
    link.hear(error_response({"S": "ERROR", "C": "22012", "M": "division by zero"}) + IDLE)
    assert link.talk.rest()


def test_what_is_set_on_the_way_is_asked_about_whatever_is_undone_with_it() -> None:
    for text in (b"RESET ALL; SET work_mem TO '1MB'", b"SET work_mem TO '1MB'; RESET ALL"):
        link = Link()
        link.say(query(text))
        assert link.talk._inquiry.suspicious
    link = Link()
    link.say(query(b"RESET ALL") + query(b"SET work_mem TO '1MB'"))
    link.hear(tag_of("RESET") + IDLE)
    link.hear(tag_of("SET") + IDLE)
    assert link.talk.rest()


def test_load_lasts() -> None:
    link = Link()
    link.done(b"LOAD 'auto_explain'", b"LOAD")
    assert link.talk.rest()
    link.hear(ANSWER)
    assert link.talk.rest() == b"" and link.talk.lasting
    assert link.talk.events == [Pinned(frozenset({PinReason.LIBRARY_LOADED}), b"LOAD 'auto_explain'")]
    link.talk.end()
    assert not link.talk.lasting


@pytest.mark.parametrize(("oid", "asks"), [(957, False), (2077, True)])
def test_a_function_call_is_asked_about_unless_it_is_a_large_objects(oid: int, asks: bool) -> None:
    link = Link()
    link.say(message(b"F", pack(">I", oid) + b"\0" * 6))
    link.hear(message(b"V", b"\xff" * 4) + IDLE)
    assert (link.talk.rest() is not None) is asks


def test_databases_are_made_way_for_before_the_statement_is_sent() -> None:
    link = Link()
    link.say(query(b"DROP DATABASE one"))
    assert b"one" in link.talk.make_way


@pytest.mark.parametrize(
    ("text", "tag", "changed"),
    [
        (b"ALTER ROLE app SET work_mem TO '1MB'", b"ALTER ROLE", True),
        (b"ALTER DATABASE app SET work_mem TO '1MB'", b"ALTER DATABASE", True),
        (b"ALTER TABLE role ADD c int", b"ALTER TABLE", False),
    ],
)
def test_defaults_have_changed_when_it_is_done(text: bytes, tag: bytes, changed: bool) -> None:
    link = Link()
    link.say(query(text))
    assert not link.talk.defaults_changed
    link.hear(error_response({"S": "ERROR", "C": "42704", "M": "no such role"}) + IDLE)
    assert not link.talk.defaults_changed
    link = Link()
    link.done(text, tag)
    assert link.talk.defaults_changed is changed


# Sequences.


def test_sequences_are_kept_apart_once_anybody_asks() -> None:
    server = new_session()
    writer = Link(server)
    writer.done(b"SELECT nextval('s')", b"SELECT 1")
    assert server.sequences is writer.talk._sequences and writer.talk.home is server
    assert writer.talk.rest() is None
    writer.talk.part()
    reader = Link(server)
    assert reader.beginning.to_server == b""
    assert reader.say(query(b"SELECT lastval()")) == query(b"DISCARD SEQUENCES") and reader.talk.waits
    assert server.sequences is None
    reader.hear(FORGOTTEN)
    assert not reader.talk.waits and reader.say_again() == query(b"SELECT lastval()")
    reader.hear(tag_of("SELECT 1") + IDLE)
    assert reader.talk.rest() is None
    reader.talk.part()
    again = Link(server, writer.talk)
    again.done(b"SELECT nextval('s')", b"SELECT 1")
    again.done(b"SELECT currval('s')", b"SELECT 1")
    assert again.talk.rest() == b"" and again.talk.events[-1] == Pinned(
        frozenset({PinReason.SEQUENCE}), b"SELECT currval('s')"
    )
    again.done(b"DISCARD SEQUENCES", b"DISCARD SEQUENCES")
    assert again.talk.rest()
    again.hear(ANSWER)
    assert again.talk.rest() is None


def used_by_others() -> ServerSession:
    """A server in which somebody has used sequences before anybody has asked for them."""
    server = new_session()
    link = Link(server)
    link.done(b"SELECT nextval('s')", b"SELECT 1")
    link.talk.part()
    return server


ASKS = parse(b"", b"SELECT lastval()") + bind(b"")


def test_in_an_open_batch_nobody_is_answered_with_what_others_have_left() -> None:
    link = Link(used_by_others())
    first = parse(b"", b"SELECT 1") + bind(b"")
    assert link.say(first) == first
    assert link.say(ASKS + SYNC) == parse(b"", b"SELECT lastval()")
    assert link.talk.refusal is not None and link.talk.refusal.sqlstate == "55000"


def test_a_server_forgets_before_a_batch_that_asks_further_on() -> None:
    link = Link(used_by_others())
    said = parse(b"", b"SELECT 1") + bind(b"") + ASKS + SYNC
    assert link.say(said) == query(b"DISCARD SEQUENCES") and link.talk.waits
    link.hear(FORGOTTEN)
    assert link.say_again() == said and link.talk.refusal is None


def test_what_is_prepared_in_an_open_batch_is_kept_apart_from_the_next_one_on() -> None:
    link = Link(used_by_others())
    ours = link.say(parse(b"one", b"SELECT 1")) + link.say(parse(b"two", b"SELECT lastval()") + SYNC)
    assert ours.count(b"SELECT") == 2 and link.talk.refusal is None
    link.hear(message(b"1") * 2 + IDLE)
    assert link.say(bind(b"one") + bind(b"two") + SYNC) == query(b"DISCARD SEQUENCES")
    link.hear(FORGOTTEN)
    assert link.say_again().count(b"B") >= 2 and link.talk.refusal is None


def test_a_server_is_told_to_forget_when_it_is_known_that_it_can() -> None:
    link = Link(used_by_others())
    begin = query(b"BEGIN; SELECT 1/0")
    assert link.say(begin) == begin
    assert link.say(query(b"SELECT lastval()")) == b""
    assert link.talk.waits
    link.hear(error_response({"S": "ERROR", "C": "22012"}) + ready_for_query(b"E"))
    # PostgreSQL refuses it.
    assert link.say_again() == query(b"SELECT lastval()")
    link.hear(error_response({"S": "ERROR", "C": "25P02"}) + ready_for_query(b"E"))
    assert link.server.sequences is not None
    assert link.say(query(b"ROLLBACK")) == query(b"ROLLBACK")
    link.hear(tag_of("ROLLBACK") + IDLE)
    assert link.say(query(b"SELECT lastval()")) == query(b"DISCARD SEQUENCES")


@pytest.mark.parametrize("exit_", [b"ROLLBACK", b"rollback to savepoint s", b"; end", b"/**/abort work"])
def test_what_ends_a_failed_transaction_and_asks_is_refused(exit_: bytes) -> None:
    link = Link(used_by_others())
    link.say(query(b"BEGIN; SELECT 1/0"))
    link.hear(error_response({"S": "ERROR", "C": "22012"}) + ready_for_query(b"E"))
    assert link.say(query(exit_ + b"; SELECT lastval()")) == b"" and link.talk.refusal is not None


def test_a_server_that_would_not_forget_answers_nobody() -> None:
    link = Link(used_by_others())
    assert link.say(query(b"SELECT lastval()")) == query(b"DISCARD SEQUENCES")
    link.hear(error_response({"S": "ERROR", "C": "57014"}) + IDLE)
    assert link.server.sequences is SEVERAL
    assert link.say_again() == b"" and link.talk.refusal is not None


def test_what_asks_waits_until_a_server_has_forgotten_that_was_told_to_when_it_was_linked() -> None:
    server = used_by_others()
    server.habits.sequences_matter = True
    link = Link(server)
    assert link.beginning.to_server == query(b"DISCARD SEQUENCES")
    assert link.say(query(b"SELECT 1")) == query(b"SELECT 1")
    assert link.say(query(b"SELECT lastval()")) == b"" and link.talk.waits
    link.hear(FORGOTTEN + tag_of("SELECT 1") + IDLE)
    assert link.say_again() == query(b"SELECT lastval()")


@pytest.mark.parametrize("text", [b"SELECT mine()", b"DO $$ begin end $$", b"CALL mine()"])
def test_code_that_nobody_sees_may_have_used_sequences(text: bytes) -> None:
    server = new_session()
    Link(server).say(query(text))
    assert Link(server).say(query(b"SELECT lastval()")) == query(b"DISCARD SEQUENCES")


def test_a_function_call_of_lastval_is_one_that_asks() -> None:
    link = Link(used_by_others())
    call = message(b"F", pack("!IhhH", 2559, 0, 0, 0))
    assert link.say(call) == query(b"DISCARD SEQUENCES")


@pytest.mark.parametrize(
    "text",
    [
        b"SELECT nextval('s')",
        b"SELECT setval('s', 1)",
        b"SELECT NEXTVAL('s')",
    ],
)
def test_who_has_called_nextval_has_its_server_reserved(text: bytes) -> None:
    link = Link()
    link.done(text, b"SELECT 1")
    assert link.server.reserved is link.talk._sequences


def test_nobody_comes_back_for_what_a_client_that_is_gone_has_left() -> None:
    server = new_session()
    link = Link(server)
    link.done(b"SELECT nextval('s')", b"SELECT 1")
    link.talk.part()
    server.reserved = link.talk._sequences
    link.talk.gone()
    assert server.reserved is None and server.sequences is SEVERAL


# The end of a link.


def test_terminate_ends_what_is_read() -> None:
    link = Link()
    assert link.say(SYNC + message(b"X") + query(b"SELECT 1")) == SYNC
    assert link.talk.terminated and link.talk.ledger.awaited == 1


def test_an_end_amid_everything_leaves_nothing() -> None:
    link = Link()
    link.done(b"SET work_mem TO '1MB'", b"SET")
    assert link.talk.rest()
    link.hear(tag_of("SET")[:-1])
    link.say(parse(b"a", b"SELECT 1") + bind(b"a") + message(b"D", b"Sa\0"))
    ledger = link.talk.end()
    assert not ledger.settled and link.talk.ledger is not ledger
    talk = link.talk
    assert talk.server is None and talk.clean and not talk.waits and not talk.swallows and not talk.describing
    assert not talk._completions and not talk._asides and not talk._asides._collected
    # What was not confirmed is not there.
    again = Link(new_session(), talk)
    assert again.beginning.to_server == b""
    assert again.say(bind(b"a")) == bind(b"a")


def test_what_has_arrived_is_not_said_again_however_much_was_put_in_behind_it() -> None:
    """A statement that this server lacks is prepared in the middle of the batch: that is not the client's."""
    long = b"select 1 /* " + b"x" * 8000 + b" */"
    texts = [(b"b", b"begin"), (b"i", b"insert into t values (1)"), (b"c", b"commit")]
    client = Link()
    client.say(b"".join(parse(name, text) for name, text in [*texts, (b"l", long)]) + SYNC)
    client.hear(PARSED * 4 + IDLE)
    assert client.talk.rest() is None
    client.talk.part()
    elsewhere = Link()
    elsewhere.say(b"".join(parse(name, text) for name, text in texts) + SYNC)
    elsewhere.hear(PARSED * 3 + IDLE)
    elsewhere.talk.part()
    link = Link(elsewhere.server, client.talk)
    run = b"".join(bind(name) + EXECUTE for name in (b"b", b"i", b"c", b"l")) + SYNC
    sent = link.say(run)
    assert len(sent) > 2 * len(run)
    # All of the transaction is in front of it.
    fate = link.talk.bereave(half_said=False, not_received=len(run))
    assert fate is not None
    assert link.talk.put_off is None


def test_what_has_not_arrived_at_all_is_said_again_with_what_was_put_in() -> None:
    client = Link()
    client.say(parse(b"l", b"select 1") + SYNC)
    client.hear(PARSED + IDLE)
    client.talk.rest()
    client.talk.part()
    link = Link(new_session(), client.talk)
    run = bind(b"l") + EXECUTE + SYNC
    sent = link.say(run)
    assert len(sent) > len(run)
    assert link.talk.bereave(half_said=False, not_received=len(sent)) is None
    assert link.talk.put_off is not None
    assert link.talk.put_off[0] == run


def test_a_parse_that_is_thrown_away_takes_nothing_from_the_same_one_behind_it() -> None:
    """Both were sent before the error of the first batch came: the server has what the second one made."""
    link = Link()
    no_statement = message(b"D", b"S\0")
    link.say(no_statement + parse(b"a", b"select 1") + SYNC)
    sent = link.say(parse(b"b", b"select 1") + SYNC)
    names = [payload.split(b"\0")[0] for tag, payload in read(sent) if tag == b"P"]
    assert link.hear(ERROR + IDLE) == ERROR + IDLE
    assert link.hear(message(b"3", b"") + PARSED + IDLE) == PARSED + IDLE
    assert list(link.server.statements.names) == names
