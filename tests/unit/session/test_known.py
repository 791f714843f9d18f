"""What is recognised at one look leaves the same behind as what is cut into messages and read."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any, cast

import pytest
from attrs import frozen
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
    parse(b"", b"SELECT 1") + bind(b"name") + describe(b"", b"P") + execute() + SYNC,
    parse(b"", b"SELECT 1") + bind(b"", (), b"portal") + describe(b"", b"P") + execute() + SYNC,
    bind(b"") + describe(b"", b"P") + execute() + SYNC,
    parse(b"", b"SELECT 1") + describe(b"") + SYNC,
    parse(b"", b"SELECT 1") + FLUSH,
    close(b"name") + SYNC,
    describe(b"name") + FLUSH,
    SYNC,
    FLUSH,
    message(b"c"),
]
INSIDE = query(b"SELECT 1")
CARRIES_ANOTHER = batch(b"SELECT $1", (INSIDE + b"x" * 5000,))
"""Has what would be a whole Query in it."""
PLAIN = (*SAID[:6], *SAID[14:17])


@frozen
class Step:
    """Who says what, in pieces, and what happens behind it."""

    client: int
    pieces: tuple[bytes, ...]
    loses: bool = False
    """A server is lost before it has answered all of it."""
    leaves: bool = False
    """The client leaves, and another comes."""
    hides: bool = False
    """From the next link on, statements may do something in hiding, or no longer."""


def pieces_of(data: bytes, *cuts: int) -> tuple[bytes, ...]:
    places = sorted(cut % len(data) for cut in cuts)
    ends = zip([0, *places], [*places, len(data)], strict=True)
    return tuple(data[start:end] for start, end in ends if end > start)


IN_THREE = pieces_of(
    CARRIES_ANOTHER, CARRIES_ANOTHER.index(INSIDE), CARRIES_ANOTHER.index(INSIDE) + len(INSIDE)
)


HELD_BACK = (b"Q" + (len(INSIDE) + 5).to_bytes(4, "big"), INSIDE, b"\0")
"""The middle one is the text of a Query of which no more has come than its header."""


def steps(random: Random) -> Iterator[Step]:
    """Give what two clients do: mostly what is plain, now and then something else, and then its end."""
    for _ in range(15):
        client = random.randrange(2)
        some = SAID if random.random() < 0.2 else PLAIN
        data = b"".join(random.choices(some, k=random.choice((1, 1, 1, 1, 1, 2, 3))))
        cuts = random.choices(range(len(data)), k=random.choice((0, 0, 0, 0, 1, 2)))
        pieces = IN_THREE if random.random() < 0.05 else pieces_of(data, *cuts)
        yield Step(client, pieces, loses=random.random() < 0.05)
        yield Step(client, (random.choice(PLAIN),), hides=random.random() < 0.1)
        if random.random() < 0.3:
            yield Step(client, (SYNC, query(b"ROLLBACK")), leaves=random.random() < 0.5)


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


def play(told: list[Step], seed: int, servers: int, most: int) -> Iterator[list[object]]:
    """Give what is left behind by each step."""
    house = House(seed, servers=servers, most=most)
    clients = [house.client(), house.client()]
    for step in told:
        client = clients[step.client]
        if client.gone:
            continue
        try:
            for piece in step.pieces:
                client.splice.from_client(piece)
            if step.loses and client.splice.server is not None:
                house.lose(cast(Any, client.splice.server))
            house.habits.hidden ^= step.hides
            house.settle()
            if step.leaves:
                house.vanish(client)
                house.settle()
                clients[step.client] = house.client()
        except AssertionError as error:
            # In an irregular pipeline nobody can tell what is owed.
            yield [repr(error)]
            return
        yield [house.looked_at, *(everything(house, one) for one in clients)]


def hold_against_each_other(told: list[Step], seed: int, servers: int, most: int) -> None:
    with Ways(one_look=True):
        at_one_look = list(play(told, seed, servers, most))
    with Ways(one_look=False) as reads:
        read = list(play(told, seed, servers, most))
    assert not reads.looks
    for number, (ours, theirs) in enumerate(zip(at_one_look, read, strict=True)):
        assert ours == theirs, told[: number + 1]


@given(st.integers(0, 1 << 32), st.integers(1, 2), st.sampled_from((0, 7, 100_000, 100_000, 100_000)))
def test_whatever_is_said_both_ways_are_one(seed: int, servers: int, most: int) -> None:
    random = Random(seed)
    hold_against_each_other(list(steps(random)), seed, servers, most)


@pytest.mark.parametrize("most", [2, 100_000])
@pytest.mark.parametrize("plain", [query(b"SELECT 2"), batch(b"SELECT $1", (b"5",))])
def test_beside_whatever_else_is_said_both_ways_are_one(plain: bytes, most: int) -> None:
    for said in (*SAID, CARRIES_ANOTHER):
        pieces = [
            (plain,),
            (plain,),
            (said,),
            (plain,),
            (said, plain),
            (plain, said),
            (plain,),
            (SYNC,),
            (plain,),
        ]
        pieces += [
            IN_THREE,
            (plain,),
            HELD_BACK,
            (plain,),
            (said[:7], said[7:], plain),
            (query(b"ROLLBACK"),),
            (plain,),
        ]
        for number in (0, 1):
            hold_against_each_other([Step(number * at % 2, one) for at, one in enumerate(pieces)], 1, 1, most)


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

COLUMNS = message(b"T", row_description([b"column"]))
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
some = st.lists(st.sampled_from(ANSWERS), max_size=6).map(b"".join)
places = st.integers(0, len(USUAL) - 1)
answers = st.one_of(
    some,
    some.map(lambda one: PARSED + one),
    # Such that it begins and ends as always.
    some.map(lambda one: COLUMNS + one + DONE + READY),
    some.map(lambda one: PARSED + COLUMNS + one + DONE + READY),
    st.tuples(places, st.integers(0, 255)).map(
        lambda one: USUAL[: one[0]] + bytes((one[1],)) + USUAL[one[0] + 1 :]
    ),
    places.map(lambda one: USUAL[:one] + USUAL[one + 1 :]),
)


def answer(asked: bytes, before: bytes, answer: bytes, cut: int) -> list[object]:
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
            for piece in pieces_of(said, cut) if said is answer and said else (said,):
                server.receive(piece)
        except (Malformed, AssertionError) as error:
            seen.append(repr(error))
            break
        seen += everything(house, client)
    return seen


ROWS = COLUMNS + ROW * 3 + DONE + READY
AS_LONG_AS_COLUMNS = message(b"S", b"TimeZone\0" + b"x" * (len(COLUMNS) - 15) + b"\0")
LYING = message(b"D", ROW + ROW) + DONE + READY
"""A row in which there is what would be rows, too."""


@given(st.booleans(), answers, st.sampled_from((0, 0, 0, 1, 5, 8, 30)))
@example(False, USUAL, 0)
@example(True, PARSED + USUAL, 0)
@example(True, USUAL, 0)
@example(False, PARSED + USUAL, 0)
@example(False, ROWS, 0)
@example(False, COLUMNS + LYING, len(COLUMNS) + 5 + len(ROW))
@example(False, COLUMNS + b"D\0\0\0\3" + DONE + READY, 0)
@example(False, COLUMNS + b"D\0\0\0\0" + DONE + READY, 0)
@example(False, COLUMNS + message(b"N", b"SNOTICE\0\0") + DONE + READY, 0)
@example(False, AS_LONG_AS_COLUMNS + ROW + DONE + READY, 0)
@example(False, COLUMNS + ROW + message(b"C", b"LISTEN 1\0") + READY, 0)
@example(False, message(b"D", COLUMNS + ROW) + DONE + READY, 5)
@example(False, COLUMNS + message(b"D", DONE + READY), 0)
@example(False, COLUMNS + DONE + READY + COLUMNS + ROW + DONE + READY, 0)
@example(False, COLUMNS + ROW + DONE + message(b"Z", b"T"), 0)
@example(True, PARSED + COLUMNS + b"n\0\0\0\3" + message(b"C", b"FETCH 1\0") + READY, 0)
@example(False, b"n\0\0\0\3" + message(b"C", b"FETCH 1\0") + READY, 0)
@example(False, b"n\0\0\0\0" + message(b"C", b"FETCH 1\0") + READY, 0)
def test_whatever_is_answered_both_ways_are_one(prepares: bool, said: bytes, cut: int) -> None:
    asked = batch(b"SELECT 1") if prepares else query(b"SELECT 1")
    usual = PARSED + USUAL if prepares else USUAL
    with Ways(one_look=True) as ways:
        at_one_look = answer(asked, usual, said, cut)
    # The second time that a Parse comes it is learnt.
    assert ways.looks >= 2 - prepares
    with Ways(one_look=False):
        assert at_one_look == answer(asked, usual, said, cut)


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


def test_the_length_counts_although_it_looks_like_digits() -> None:
    verdicts = Verdicts()
    said = query(b"SELECT 1" + b" " * (0x31 - 4 - 9))
    assert said[4] == ord("1") and verdicts.of(said[5:-1]) is HARMLESS
    verdicts.learn_query(said)
    assert verdicts.known_query(said) is not None
    assert verdicts.known_query(said[:4] + b"5" + said[5:]) is None


def test_digits_in_the_name_of_a_function_count() -> None:
    verdicts = Verdicts()
    said = query(b"SELECT md5('1')")
    assert verdicts.of(said[5:-1]) is HARMLESS
    verdicts.learn_query(said)
    assert verdicts.known_query(query(b"SELECT md7('1')")) is None


def test_in_an_encoding_that_is_not_read_nothing_is_recognised() -> None:
    house = House(servers=1, most=100_000)
    client = house.client()
    for _ in range(2):
        house.say(client, query(b"SELECT 1"))
    assert client.talk.recognises(query(b"SELECT 1")) is not None
    client.talk._prepared.readable = False
    assert client.talk.recognises(query(b"SELECT 1")) is None


def test_who_waits_and_says_more_is_answered_in_order() -> None:
    seen = []
    for one_look in (True, False):
        house = House(servers=1, most=100_000)
        house._looks = lambda: False  # type: ignore[method-assign]
        holder, other = house.client(), house.client()
        with Ways(one_look):
            for _ in range(2):
                house.say(other, query(b"SELECT 1"))
            house.say(holder, query(b"BEGIN"))
            for text in (b"SELECT 1", b"SELECT 2", b"SELECT 1"):
                other.splice.from_client(query(text))
            house.settle()
            house.say(holder, query(b"COMMIT"))
            house.settle()
        seen.append([everything(house, holder), everything(house, other)])
        assert other.heard.count(b"Z\0\0\0\5I") == 5
    assert seen[0] == seen[1]


def test_only_so_much_is_remembered() -> None:
    verdicts = Verdicts(most=10)
    for number in range(100):
        text = b"SELECT " + b"a" * number
        assert verdicts.of(text) is HARMLESS
        verdicts.learn_query(query(text))
        verdicts.learn_parse(parse(b"", text), text)
        assert len(verdicts._queries) <= 10 and len(verdicts.parses) <= 10
    known = verdicts.known_query(query(b"SELECT " + b"a" * 99))
    assert known is not None
    kept = known.tail
    for answer in (b"x" * LEARNED + b"tail", b"tail" + b"x" * LEARNED):
        known.learn_answer(answer, answer.index(b"tail"), answer.index(b"tail"), None)
    assert len(known.head) <= LEARNED and known.tail != kept and len(known.tail) <= LEARNED
    long = b"SELECT " + b"a" * LEARNED
    verdicts.learn_query(query(long))
    verdicts.learn_parse(parse(b"", long), long)
    assert verdicts.known_query(query(long)) is None and parse(b"", long) not in verdicts.parses
