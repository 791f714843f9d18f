"""What is recognised at one look leaves the same behind as what is cut into messages and read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pgproxy.session.conversation import Conversation
from pgproxy.session.following import Following
from pgproxy.session.known import LEARNED
from pgproxy.session.suspicion import Verdicts
from pgproxy.session.verdict import HARMLESS
from pgproxy.twin import twin
from pgproxy.wire import tags
from pgproxy.wire.skim import Malformed, Skimmer
from tests.unit.conftest import CLASSES
from tests.unit.session.house import Client, House
from tests.unit.session.model import (
    FLUSH,
    SYNC,
    bind,
    close,
    describe,
    execute,
    message,
    parse,
    query,
    row_description,
)
from tests.unit.session.test_texts import TEXTS
from tests.unit.states import state


@pytest.fixture(autouse=True, scope="module")
def in_python() -> Iterator[None]:
    """Have the methods in Python be run: it is theirs."""
    with pytest.MonkeyPatch.context() as patch:
        if twin is not None:
            for owner, name, method in twin.look()["replaced"]:
                patch.setattr(CLASSES[owner], name, method)
        yield


def batch(text: bytes, values: tuple[bytes, ...] = (), name: bytes = b"", portal: bytes = b"") -> bytes:
    return parse(name, text) + bind(name, values, portal) + describe(portal, b"P") + execute(portal) + SYNC


# Conversations.

SAID = [
    query(b"SELECT 1"),
    query(b"SELECT 2"),
    query(b"SELECT 22"),
    query(b"SELECT 'a'"),
    query(b"BEGIN"),
    query(b"COMMIT"),
    query(b"ROLLBACK"),
    query(b"SET a.b TO 1"),
    query(b"RESET ALL"),
    query(b"SHOW a.b"),
    query(b"SELECT nobody"),
    query(b"INSERT INTO t VALUES (1)"),
    query(b"SELECT 1; SELECT 2"),
    query(b"SELECT '" + b"x" * LEARNED + b"'"),
    batch(b"SELECT 1"),
    batch(b"SELECT $1", (b"5",)),
    batch(b"SELECT $1", (b"six",)),
    batch(b"SELECT $1", (b"x" * 5000,)),
    batch(b"SHOW a.b"),
    batch(b"SELECT 1", name=b"name"),
    batch(b"SELECT 1", portal=b"portal"),
    batch(b"SELECT nobody"),
    parse(b"name", b"SELECT 3") + SYNC,
    bind(b"name") + describe(b"", b"P") + execute() + SYNC,
    bind(b"") + describe(b"", b"P") + execute() + SYNC,
    parse(b"", b"SELECT 1") + describe(b"") + SYNC,
    parse(b"", b"SELECT 1") + FLUSH,
    close(b"name") + SYNC,
    describe(b"name") + FLUSH,
    SYNC,
    FLUSH,
    message(b"c"),
]
Step = tuple[int, bytes, int, bool]
"""Who says what, where it is cut, and whether a server is lost behind it."""
often = st.sampled_from((*SAID[:6], *SAID[14:17]))
said = st.lists(st.one_of(often, often, st.sampled_from(SAID)), min_size=1, max_size=3).map(b"".join)
steps = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.one_of(often, said),
        st.sampled_from((0, 0, 0, 1, 4, 7, 30)),
        st.sampled_from((False,) * 15 + (True,)),
    ),
    max_size=25,
)


def everything(house: House, client: Client) -> list[object]:
    """Give all that is held for a client and its servers, and what it has heard."""
    talk = client.talk
    parts: list[object] = [client.splice, talk, talk.ledger, talk._prepared, talk._completions]
    for server in house.servers:
        session = server.record.session
        parts += [server.skim, session, session.statements]
    return [client.heard, client.gone, *map(state, parts), [state(one) for one in house.idle]]


class Ways:
    """Have what is known be recognised at one look, or not."""

    def __init__(self, one_look: bool) -> None:
        self.looks = 0
        """How often that was enough."""
        self._one_look = one_look
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> Ways:
        recognises = Following.recognises if self._one_look else Conversation.recognises
        answered = Following.answered

        def counted(talk: Following, data: bytes, skim: Skimmer) -> bool:
            done = answered(talk, data, skim)
            self.looks += done
            return done

        self._patch.setattr(Following, "recognises", recognises)
        self._patch.setattr(Following, "answered", counted)
        return self

    def __exit__(self, *_error: object) -> None:
        self._patch.undo()


def play(told: list[Step], seed: int, servers: int, most: int) -> list[object]:
    """Give what is left behind by each step."""
    house = House(seed, servers=servers, most=most)
    clients = [house.client(), house.client()]
    seen: list[object] = []
    for number, data, cut, loses in told:
        client = clients[number]
        if client.gone:
            continue
        pieces = (data[:-cut], data[-cut:]) if 0 < cut < len(data) else (data,)
        for piece in pieces:
            client.splice.from_client(piece)
        if loses and client.splice.server is not None:
            house.lose(cast(Any, client.splice.server))
        house.settle()
        seen += [everything(house, one) for one in clients]
    return seen


@given(steps, st.integers(0, 1000), st.integers(1, 2), st.sampled_from((0, 7, 100_000, 100_000)))
@example([(0, one, 0, False) for one in SAID * 2], 1, 1, 100_000)
def test_whatever_is_said_both_ways_are_one(told: list[Step], seed: int, servers: int, most: int) -> None:
    with Ways(one_look=True):
        at_one_look = play(told, seed, servers, most)
    with Ways(one_look=False) as reads:
        read = play(told, seed, servers, most)
    assert not reads.looks
    for ours, theirs in zip(at_one_look, read, strict=True):
        assert ours == theirs


@pytest.mark.parametrize(
    ("text", "again"),
    [
        (query(b"SELECT 1"), query(b"SELECT 7")),
        (batch(b"SELECT $1", (b"5",)), batch(b"SELECT $1", (b"sixty",))),
    ],
)
def test_what_comes_again_is_recognised(text: bytes, again: bytes) -> None:
    house = House(servers=1, most=100_000)
    house._looks = lambda: False  # type: ignore[method-assign]
    clients = [house.client(), house.client()]
    with Ways(one_look=True) as ways:
        for client in clients:
            first = house.say(client, text)
            assert house.say(client, again).count(b"Z\0\0\0\5I") == 1
            assert house.say(client, text) == first
            assert client.splice.server is None
    assert ways.looks == 5


# Answers.

COLUMNS = row_description([b"column"])
ROW = message(b"D", b"\0\1\0\0\0\1x")
DONE = message(b"C", b"SELECT 1\0")
READY = message(b"Z", b"I")
PARSED = message(b"1") + message(b"2")
USUAL = COLUMNS + ROW + DONE + READY
ANSWERS = [
    PARSED,
    message(b"2"),
    message(b"3"),
    COLUMNS,
    ROW,
    ROW + ROW,
    DONE,
    READY,
    message(b"n"),
    message(b"I"),
    message(b"C", b"COMMIT\0"),
    message(b"C", b"SET\0"),
    message(b"C", b"SE"),
    message(b"C"),
    message(b"Z", b"T"),
    message(b"Z", b"E"),
    message(b"N", b"SNOTICE\0\0"),
    message(b"E", b"SERROR\0C42601\0\0"),
    message(b"A", (101).to_bytes(4, "big") + b"channel\0\0"),
    message(b"S", b"TimeZone\0UTC\0"),
    b"D\0\0\0\3",
    b"D\0\0\0\0",
    b"\xff\0\0\0\5x",
    b"D\xff\0\0\5x",
    b"Z",
    b"C\0\0",
]
answers = st.one_of(
    st.tuples(
        st.sampled_from((b"", PARSED)), st.lists(st.sampled_from(ANSWERS), max_size=6).map(b"".join)
    ).map(b"".join),
    st.tuples(st.integers(0, 40), st.integers(0, 255)).map(
        lambda one: USUAL[: one[0]] + bytes((one[1],)) + USUAL[one[0] + 1 :]
    ),
    st.integers(0, len(USUAL)).map(lambda one: USUAL[:one] + USUAL[one + 1 :]),
)


def answer(asked: bytes, before: bytes, answer: bytes) -> list[object]:
    """Give what is left behind by an answer, behind a usual one."""
    house = House(servers=1, most=100_000)
    house._looks = lambda: False  # type: ignore[method-assign]
    client = house.client()
    [server] = house.servers
    seen: list[object] = []
    house.say(client, asked)
    for said in (before, before, answer):
        client.splice.from_client(asked)
        # The model has nothing to say about it.
        server.transport.written = b""
        server.postgres.statements.pop(b"", None)
        try:
            server.receive(said)
        except (Malformed, AssertionError) as error:
            seen.append(repr(error))
            break
        seen += everything(house, client)
    return seen


@given(st.booleans(), answers)
@example(False, USUAL)
@example(True, PARSED + USUAL)
@example(True, USUAL)
@example(False, PARSED + USUAL)
@example(False, COLUMNS + ROW + ROW + DONE + READY)
@example(False, COLUMNS + ROW + DONE + READY + DONE + READY)
@example(False, COLUMNS + ROW + DONE + message(b"Z", b"T"))
def test_whatever_is_answered_both_ways_are_one(prepares: bool, said: bytes) -> None:
    asked = batch(b"SELECT 1") if prepares else query(b"SELECT 1")
    usual = PARSED + USUAL if prepares else USUAL
    with Ways(one_look=True):
        at_one_look = answer(asked, usual, said)
    with Ways(one_look=False):
        assert at_one_look == answer(asked, usual, said)


# Texts.


@given(st.sampled_from((b"SELECT ", b"select 5 + ", b"UPDATE ", b"")), TEXTS, st.data())
def test_no_query_is_recognised_that_may_leave_something(
    head: bytes, text: bytes, data: st.DataObject
) -> None:
    verdicts = Verdicts()
    said = query(head + text)
    if verdicts.of(head + text) is HARMLESS:
        verdicts.learn_query(said)
    other = bytearray(said)
    for place in data.draw(st.lists(st.integers(0, len(said) - 1), max_size=4)):
        other[place] = data.draw(st.sampled_from(b"0123456789(f$"))
    if verdicts.known_query(bytes(other)) is None:
        return
    run, frames = Skimmer(tags.FROM_CLIENT_READ).feed(bytes(other))
    assert frames == [(tags.QUERY, 0, len(run))]
    assert Verdicts().of(run[5:-1]) is HARMLESS


def test_only_so_much_is_remembered() -> None:
    verdicts = Verdicts(most=10)
    for number in range(100):
        text = b"SELECT " + b"a" * number
        assert verdicts.of(text) is HARMLESS
        verdicts.learn_query(query(text))
        verdicts.learn_parse(parse(b"", text), text)
        assert len(verdicts._queries) <= 10 and len(verdicts.parses) <= 10
    long = b"SELECT " + b"a" * LEARNED
    verdicts.learn_query(query(long))
    verdicts.learn_parse(parse(b"", long), long)
    assert verdicts.known_query(query(long)) is None and parse(b"", long) not in verdicts.parses
