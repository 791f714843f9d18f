"""A client's prepared statements in the words of its servers."""

from __future__ import annotations

from struct import pack

import pytest

from pgproxy.session import statements
from pgproxy.session.conversation import Pinned, Unpinned
from pgproxy.session.following import Following
from pgproxy.session.ledger import Ledger
from pgproxy.session.pins import PinReason
from pgproxy.session.prepared import Prepared
from pgproxy.session.suspicion import Verdicts
from pgproxy.wire import tags
from pgproxy.wire.messages import error_response
from pgproxy.wire.skim import Malformed, Skimmer
from tests.unit.session.house import PREFIX, House
from tests.unit.session.model import (
    SYNC,
    World,
    bind,
    close,
    describe,
    execute,
    message,
    parse,
    query,
    read,
)
from tests.unit.sessions import new_session

SELECT = b"SELECT $1"
THING = b"SELECT * FROM thing"


def tags_of(heard: bytes) -> str:
    return b"".join(tag for tag, _payload in read(heard)).decode()


def heard_by(house: House, at: int = 0) -> list[tuple[bytes, bytes]]:
    """What a server was told; questions are left out."""
    return [(tag, payload) for tag, payload in read(house.servers[at].postgres.heard) if tag != b"Q"]


# Sharing.


def test_clients_share_a_statement_of_equal_text_but_each_has_it_prepared_anew() -> None:
    house = House(servers=1)
    for client in (house.client(), house.client()):
        assert tags_of(house.say(client, parse(b"a", SELECT) + SYNC)) == "1Z"
    assert house.servers[0].postgres.statements.keys() == {PREFIX + b"1"}
    assert [tag for tag, _payload in heard_by(house)] == [b"P", b"S", b"C", b"P", b"S"]


def test_clients_with_other_settings_do_not_share_one() -> None:
    house = House(servers=1)
    one, other = house.client(), house.client()
    house.say(other, query(b"SET TimeZone TO 'CET'"))
    for client in (one, other):
        house.say(client, parse(b"a", b"SELECT zone") + SYNC)
    assert len(house.servers[0].postgres.statements) == 2
    for client, zone in ((one, b"UTC"), (other, b"CET"), (one, b"UTC")):
        assert zone in house.say(client, bind(b"a") + execute() + SYNC)


def test_a_statement_is_analysed_elsewhere_under_the_settings_it_had() -> None:
    house = House()
    client = house.client()
    house.say_on(house.servers[0], client, parse(b"a", b"SELECT zone") + SYNC)
    house.say_on(house.servers[0], client, query(b"SET TimeZone TO 'CET'"))
    heard = house.say_on(house.servers[1], client, bind(b"a") + execute() + SYNC)
    assert b"UTC" in heard and tags_of(heard).endswith("2DCZ")
    assert b"CET" in house.say(client, query(b"SHOW TimeZone"))


@pytest.mark.parametrize("end", [b"", SYNC])
def test_in_a_pipeline_each_is_prepared_once_whatever_the_limit(end: bytes) -> None:
    house = House(servers=1, limit=2)
    client = house.client()
    names = [b"a", b"b", b"c", b"d"]
    for name in names:
        house.say(client, parse(name, b"SELECT '" + name + b"'") + SYNC)
    before = len(heard_by(house))
    heard = house.say(client, b"".join(bind(name) + execute() + end for name in names * 5) + SYNC)
    assert tags_of(heard).count("C") == 20 and "E" not in tags_of(heard)
    prepared = [tag for tag, _payload in heard_by(house)[before:]].count(b"P")
    assert prepared <= len(names)
    assert len(house.servers[0].postgres.statements) <= 2 + len(names)
    # The next to be prepared makes room again.
    house.say(client, parse(b"e", SELECT) + SYNC)
    assert len(house.servers[0].postgres.statements) == 2


def test_what_was_used_longest_ago_is_closed_for_the_limit() -> None:
    house = House(servers=1, limit=2)
    client = house.client()
    for name in (b"a", b"b", b"c"):
        house.say(client, parse(name, b"SELECT '%s'" % name) + SYNC)
    assert house.servers[0].postgres.statements.keys() == {PREFIX + b"2", PREFIX + b"3"}
    for name in (b"a", b"b", b"c", b"a", b"a"):
        heard = house.say(client, bind(name) + execute() + SYNC)
        assert tags_of(heard) == "2DCZ" and b"\0\0\0\1" + name in heard
    assert len(house.servers[0].postgres.statements) == 2


def test_more_statements_in_a_batch_than_a_server_may_keep() -> None:
    house = House(servers=1, limit=2)
    client = house.client()
    batch = b"".join(parse(b"%d" % number, b"SELECT '%d'" % number) for number in range(9))
    runs = b"".join(bind(b"%d" % number) + execute() for number in range(9))
    assert tags_of(house.say(client, batch + runs + SYNC)) == "1" * 9 + "2DC" * 9 + "Z"


# Descriptions.


@pytest.mark.parametrize(("columns", "answer"), [(1, "2DCZ"), (2, "EZ")])
def test_a_client_that_was_told_is_served_only_where_it_is_the_same(columns: int, answer: str) -> None:
    house = House()
    house.servers[1].postgres.world = World(columns=columns)
    client = house.client()
    assert (
        tags_of(house.say_on(house.servers[0], client, parse(b"a", THING) + describe(b"a") + SYNC)) == "1tTZ"
    )
    for _ in range(2):
        heard = house.say_on(house.servers[1], client, bind(b"a") + execute() + SYNC)
        assert tags_of(heard) == answer
        assert (b"C0A000\0Mcached plan must not change result type\0" in heard) is (columns == 2)
        assert PREFIX not in heard
    assert tags_of(house.say_on(house.servers[0], client, bind(b"a") + execute() + SYNC)) == "2DCZ"


def test_what_waits_for_a_description_is_sent_in_its_order() -> None:
    house = House()
    client = house.client()
    house.say_on(house.servers[0], client, parse(b"a", THING) + describe(b"a") + SYNC)
    runs = bind(b"a") + execute() + SYNC + query(b"SELECT 'last'")
    heard = house.say_on(house.servers[1], client, runs)
    assert tags_of(heard) == "2DCZTDCZ"


def test_one_that_is_told_anew_is_served_anew() -> None:
    house = House()
    house.servers[1].postgres.world = World(columns=2)
    client = house.client()
    house.say_on(house.servers[0], client, parse(b"a", THING) + describe(b"a") + SYNC)
    heard = house.say_on(house.servers[1], client, describe(b"a") + bind(b"a") + execute() + SYNC)
    assert tags_of(heard) == "tT2DCZ" and b"c1\0" in heard


# What is too much to be kept.


def test_a_statement_that_cannot_be_kept_keeps_its_server() -> None:
    house = House(most=1 << 24)
    client = house.client()
    long = b"SELECT '" + b"x" * tags.PARSE_LOOK + b"'"
    assert tags_of(house.say(client, parse(b"a", long) + bind(b"a") + SYNC)) == "12Z"
    assert house.events == [Pinned(frozenset({PinReason.STATEMENT_MEMORY}), b"")]
    assert client.splice.server is not None
    assert tags_of(house.say(client, bind(b"a") + SYNC)) == "2Z"
    assert tags_of(house.say(client, close(b"a") + SYNC)) == "3Z"
    assert house.events[1:] == [Unpinned(frozenset({PinReason.STATEMENT_MEMORY}))]
    assert client.splice.server is None


def test_so_does_an_unnamed_one() -> None:
    house = House(most=1 << 24)
    client = house.client()
    long = b"SELECT '" + b"x" * tags.PARSE_LOOK + b"'"
    house.say(client, parse(b"", long) + SYNC)
    assert client.splice.server is not None
    assert tags_of(house.say(client, bind(b"") + SYNC)) == "2Z"
    house.say(client, query(b"SELECT 'short'"))
    assert client.splice.server is None


def test_so_do_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgproxy.session.named.MOST_OF_A_CLIENT", 10_000)
    house = House(most=1 << 24)
    client = house.client()
    size = 10_000 // 11 - len(b"SELECT ''\0\0\0") - statements._OVERHEAD
    for number in range(12):
        assert client.splice.server is None
        house.say(client, parse(b"%d" % number, b"SELECT '" + b"x" * size + b"'") + SYNC)
    assert client.splice.server is not None
    house.say(client, close(b"0") + SYNC)
    assert client.splice.server is None


# What is malformed.


@pytest.mark.parametrize(
    "data",
    [
        message(b"P", b""),
        message(b"P", b"name"),
        message(b"P", b"name\0text"),
        message(b"B", b""),
        message(b"B", b"portal\0"),
        message(b"B", b"portal\0name"),
        message(b"B", b"p" * 5000),
        message(b"D", b""),
        message(b"D", b"S"),
        message(b"D", b"Sname"),
        message(b"D", b"S" + b"n" * 5000 + b"\0"),
        message(b"C", b""),
        message(b"C", b"Sname"),
        message(b"C", b"P" + b"n" * 5000 + b"\0"),
    ],
)
def test_malformed_messages(data: bytes) -> None:
    talk = Following(Verdicts(), frozenset(), None)
    talk.begin(new_session())
    before = message(b"P", b"a\0SELECT 1\0\0\0") + message(b"E", b"p\0\0\0\0\0")
    run, frames = Skimmer(talk.direction).feed(before + data + query(b"SELECT 2"))
    said = talk.from_client(run, frames)
    assert talk.broken.startswith("invalid ") and talk.put_off is None
    # What came before it is sent, and nothing of it or of what follows.
    assert said == message(b"P", b"ours_1\0SELECT 1\0\0\0") + message(b"E", b"p\0\0\0\0\0")
    assert talk.ledger.batch_open and talk.ledger.asked == 0


@pytest.mark.parametrize("tag", [b"1", b"3"])
def test_answers_that_nobody_asked_for(tag: bytes) -> None:
    talk = Following(Verdicts(), frozenset(), None)
    talk.begin(new_session())
    with pytest.raises(Malformed):
        talk.from_server(*Skimmer(tags.FROM_SERVER).feed(message(tag)))


# An error speaks of the client's statements.


def prepared() -> Prepared:
    one = Prepared(Verdicts(), lambda: None)
    one.server, one.ledger = new_session(), Ledger()
    return one


def test_an_error_speaks_of_the_clients_statements() -> None:
    one = prepared()
    one._call(b"ours_1", b"a")
    one._call(b"ours_12", b"b")
    said = error_response({"M": 'prepared statement "ours_1" ours_12 ours_7 ours_'})[5:]
    assert one.in_clients_words(said) == error_response({"M": 'prepared statement "a" b ours_7 ours_'})[5:]
    other = error_response({"M": "nothing of ours"})[5:]
    assert one.in_clients_words(other) is other


def test_only_so_many_names_are_remembered() -> None:
    one = prepared()
    for number in range(10_000):
        one._call(b"ours_%d" % number, b"a")
    assert len(one._called) <= 2000
    assert one.in_clients_words(b"ours_9999") == b"a"


@pytest.mark.parametrize(
    ("encoding", "readable"), [(b"UTF8", True), (b"SJIS", False), (b"GBK", False), (b"LATIN1", True)]
)
def test_texts_in_some_encodings_are_not_read(encoding: bytes, readable: bool) -> None:
    server = new_session()
    server.status(b"client_encoding\0" + encoding + b"\0")
    talk = Following(Verdicts(), frozenset(), None)
    talk.hears(server.reported)
    talk.begin(server)
    talk.from_client(*Skimmer(talk.direction).feed(query(b"SELECT 1")))
    talk.from_server(*Skimmer(tags.FROM_SERVER).feed(message(b"C", b"SELECT 1\0") + message(b"Z", b"I")))
    assert (talk.rest() is None) is readable


def test_parameters_that_hold_a_zero_are_no_names() -> None:
    house = House(servers=1)
    client = house.client()
    house.say(client, parse(b"a", SELECT) + SYNC)
    heard = house.say(client, bind(b"a", [b"x\0y"]) + execute() + SYNC)
    assert pack(">i", 3) + b"x\0y" in heard
