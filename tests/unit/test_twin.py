"""The compiled twin: it does what the methods in Python do, whatever it is given, and leaks nothing."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pgproxy.link import records, transport
from pgproxy.session import last, ledger, prepared, suspicion
from pgproxy.session.lexer import LONGEST_NAME
from pgproxy.session.suspicion import quick
from pgproxy.session.verdict import HARMLESS, WRITES
from pgproxy.twin import twin
from pgproxy.wire import skim, tags
from pgproxy.wire.skim import Malformed, Skimmer
from tests.examples import examples
from tests.unit.conftest import CLASSES
from tests.unit.session.house import Client, House
from tests.unit.session.model import bind, close, describe, execute, message, parse, query
from tests.unit.session.test_texts import TEXTS
from tests.unit.states import state

pytestmark = pytest.mark.skipif(twin is None, reason="there is no compiled twin")

SYNC = message(b"S", b"")
DIRECTIONS = (
    tags.FROM_CLIENT,
    tags.FROM_CLIENT_READ,
    tags.FROM_SERVER,
    tags.FROM_SERVER_DESCRIBING,
    tags.FROM_SERVER_LEFT,
)


def in_python(owner: str, name: str) -> Callable[..., Any]:
    [method] = [method for one, other, method in twin.look()["replaced"] if (one, other) == (owner, name)]
    return method  # type: ignore[no-any-return]


def test_what_is_written_twice_is_the_same() -> None:
    known = twin.look()
    assert known["HEADER"] == skim.HEADER
    assert known["READ_SIZE"] == transport.READ_SIZE
    assert known["FULL_RECORD"] == records.FULL_RECORD
    assert known["LONGEST_PLAIN"] == prepared.LONGEST_PLAIN
    assert known["MOST_OWED"] == ledger.MOST_OWED
    assert known["CACHED_TEXT"] == suspicion.CACHED_TEXT
    assert known["TEXT_LOOK"] == tags.TEXT_LOOK
    assert known["LONGEST_NAME"] == LONGEST_NAME
    assert known["MOST_CALLED"] == prepared._MOST_CALLED
    assert known["MOST_KEPT"] == last.MOST_KEPT


def test_it_knows_all_the_attributes_that_it_names() -> None:
    # Twisted's reactor has no slots.
    assert {name.partition(".")[0] for name in twin.look()["unknown"]} <= {"DirectReactor"}


@pytest.mark.parametrize(("setting", "there"), [("1", False), ("0", True), ("", True)])
def test_it_can_be_switched_off(setting: str, there: bool) -> None:
    said = subprocess.run(
        [sys.executable, "-c", "from pgproxy.twin import twin; print(twin is not None)"],
        env={**os.environ, "PGPROXY_PURE": setting},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == f"{there}\n"


# Framing.

messages = st.tuples(
    st.sampled_from(b"QPBDECSHFXdcfpZ123CGHWInt1sSTDVNANR\0\xff"),
    st.one_of(st.binary(max_size=30), st.binary(min_size=4090, max_size=4100), st.just(b"x" * 16_400)),
    st.sampled_from((0, 0, 0, 0, 0, 0, 0, 0, 0, 1, -1, -5, 300_000, 0x7FFFFFFF - 40_000)),
).map(lambda one: bytes((one[0],)) + ((len(one[1]) + 4 + one[2]) % (1 << 32)).to_bytes(4, "big") + one[1])


@given(
    st.sampled_from(DIRECTIONS), st.lists(st.one_of(messages, st.binary(max_size=9)), max_size=40), st.data()
)
def test_any_stream_is_cut_the_same(
    direction: tags.Direction, pieces: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    compiled, python = Skimmer(direction), Skimmer(direction)
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        chunk = stream[start:stop]
        results: list[object] = []
        for skimmer, feed in ((compiled, Skimmer.feed), (python, in_python("Skimmer", "feed"))):
            try:
                results.append((feed(skimmer, chunk), skimmer.left, skimmer.held))
            except Malformed as error:
                results.append(str(error))
        assert results[0] == results[1]
        if isinstance(results[0], str):
            break


@pytest.mark.parametrize("data", [None, "text", 5, bytearray(b"Z\0\0\0\5I"), memoryview(b"Z")])
def test_what_is_no_bytes_is_left_to_python(data: Any) -> None:
    results: list[object] = []
    for feed in (Skimmer.feed, in_python("Skimmer", "feed")):
        try:
            results.append(feed(Skimmer(tags.FROM_SERVER), data))
        except Exception as error:
            results.append(repr(error))
    assert results[0] == results[1]


@pytest.mark.parametrize("owner", ["Skimmer", "Stream", "Splice", "ServerLender", "DirectReactor"])
def test_what_is_no_such_object_is_refused(owner: str) -> None:
    for one, name, _method in twin.look()["replaced"]:
        method = getattr(CLASSES[one], name)
        for given_ in ((), (1,), (1, 2), (None, b"x"), (object(), b"x", 3), (b"", b"Z\0\0\0\5I")):
            if one == owner:
                with pytest.raises((AttributeError, TypeError)):
                    method(*given_)


# Texts.

_SAYS = {0: None, 1: HARMLESS, 2: WRITES}
HEADS = st.sampled_from("select delete update insert with begin commit set Select INSERT show".split())


@given(HEADS, st.sampled_from((b" ", b"\n", b" into t ", b' into "a b" (', b"(", b"")), TEXTS)
@example("select", b" ", b"a -")
@example("select", b" ", b"$1 $")
@example("select", b" ", b"p, pg, pg_")
@example("insert", b" into t", b"")
@example("select", b" ", b"count(*) over (order by x) filter \n(")
def test_any_text_is_judged_the_same(head: str, link: bytes, rest: bytes) -> None:
    for text in (head.encode() + link + rest, rest, link + head.encode(), head.encode() + link + rest * 9):
        said = quick(text) if len(text) <= suspicion.CACHED_TEXT else None
        assert _SAYS[twin.quick(text)] is said


@pytest.mark.parametrize(
    "text",
    [b"md5('a')", b"sha256('a')", b"x::float8", b"int4 (x)", b"md5(1), f(md5(2))", b"md5/* 5 */('a') /*(*/"],
)
def test_digits_tell_functions_apart(text: bytes) -> None:
    # Nor is what is known of one taken for the other's.
    for digits in (b"0000", b"5624", b"0000", b"9999"):
        said = b"SELECT " + text.translate(bytes.maketrans(b"5624", digits))
        for again in (said, b"SELECT " + text):
            assert _SAYS[twin.quick(again)] is quick(again)


WORDS = b"""select insert into update default with distinct over filter ) ( . , count lower md5 md5( now "
$ $1 ; -- - /* */ /*/ */* / * ' & pg_ \xe9 \\ x 1""".split()


@given(st.lists(st.sampled_from(WORDS)))
def test_any_words_are_judged_the_same(words: list[bytes]) -> None:
    for between in (b" ", b"", b"\n"):
        for head in (b"select ", b"insert into t ", b"update "):
            text = head + between.join(words)
            assert _SAYS[twin.quick(text)] is quick(text)


# Links.

SELECT = query(b"SELECT 1")
BATCH = parse(b"", b"SELECT 2") + bind(b"") + describe(b"", b"P") + execute() + SYNC
NAMED = bind(b"name") + describe(b"", b"P") + execute() + SYNC
# As drivers say them that know what they get: JDBC, asyncpg, tokio-postgres.
BRIEF_BATCH = parse(b"", b"SELECT 4") + bind(b"") + execute() + SYNC
BRIEF = bind(b"name") + execute() + SYNC
FIRST = bind(b"begin") + execute() + NAMED
SEVERAL = (bind(b"name") + execute()) * 3 + NAMED
LAST = bind(b"commit") + execute() + SYNC
SCRIPT = [
    parse(b"name", b"SELECT 3") + SYNC,
    parse(b"begin", b"BEGIN") + SYNC,
    parse(b"commit", b"COMMIT") + SYNC,
    *(SELECT, BATCH, NAMED, BRIEF_BATCH, BRIEF) * 3,
    query(b"BEGIN"),
    SELECT,
    BATCH,
    NAMED,
    BRIEF_BATCH,
    BRIEF,
    query(b"COMMIT"),
    FIRST,
    SEVERAL,
    LAST,
    query(b"SELECT 5; SELECT 6"),
    SELECT + SELECT,
    BATCH + NAMED + SELECT + BRIEF_BATCH + BRIEF,
]


def talk(house: House, client: Client) -> list[bytes]:
    return [house.say(client, said) for said in SCRIPT]


def play(compiled: bool, script: list[bytes], servers: int = 1, limit: int = 100) -> list[object]:
    """Have two clients say it all, whole and cut, and give all that is said and known after each step."""
    with pytest.MonkeyPatch.context() as patch:
        if not compiled:
            for owner, name, method in twin.look()["replaced"]:
                patch.setattr(CLASSES[owner], name, method)
        return _play(script, servers, limit)


def _play(script: list[bytes], servers: int, limit: int) -> list[object]:
    house = House(servers=servers, limit=limit)
    clients = [house.client(), house.client()]
    seen: list[object] = []
    for said in script:
        for client in clients:
            talk = client.talk
            seen.append(house.say(client, said[:7]) + house.say(client, said[7:]))
            seen += [house.say(client, said), state(client.splice), state(talk), state(talk.ledger)]
            seen += [state(talk._prepared), state(talk._completions)]
            for server in house.servers:
                seen += [state(server.record.session), state(server.record.session.statements)]
    return seen


def test_it_leaves_everything_as_python_does() -> None:
    script = [*SCRIPT, query(b"SET a.b TO 1"), *SCRIPT, query(b"INSERT INTO t VALUES (1)"), *SCRIPT]
    before = twin.look()["plain"]
    compiled = play(True, script)
    assert twin.look()["plain"] > before
    assert compiled == play(False, script)


_NAMES = st.sampled_from([b"name", b"name", b"begin", b"commit", b"other", b"none", b""])
_TEXTS_TO_PREPARE = st.sampled_from([b"SELECT 3", b"SELECT 4", b"BEGIN", b"COMMIT", b"SET a.b TO 1"])
_BOUND = st.tuples(_NAMES, st.sampled_from([b"", b"", describe(b"", b"P")])).map(
    lambda one: bind(one[0]) + one[1] + execute()
)
_PARTS = st.one_of(
    _BOUND,
    _BOUND,
    _BOUND,
    st.tuples(_NAMES, _TEXTS_TO_PREPARE).map(lambda one: parse(*one)),
    _NAMES.map(describe),
    _NAMES.map(close),
)
_BATCHES = st.lists(_PARTS, min_size=1, max_size=9).map(lambda parts: b"".join(parts) + SYNC)
_PREPARED = [
    parse(b"name", b"SELECT 3") + SYNC,
    parse(b"begin", b"BEGIN") + SYNC,
    parse(b"commit", b"COMMIT") + SYNC,
    parse(b"other", b"SELECT 4") + SYNC,
]


@given(
    st.lists(st.one_of(_BATCHES, _BATCHES, st.sampled_from(SCRIPT)), max_size=12),
    st.integers(1, 2),
    st.sampled_from([1, 2, 100]),
)
@settings(max_examples=examples(40))
def test_whatever_is_bound_it_leaves_everything_as_python_does(
    batches: list[bytes], servers: int, limit: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # Who is looked at closely is drawn from what both have done until then.
        patch.setattr(House, "_looks", lambda _house: False)
        script = [*_PREPARED, *batches]
        assert play(True, script, servers, limit) == play(False, script, servers, limit)


def test_the_common_way_is_taken() -> None:
    house = House(servers=1)
    client = house.client()
    talk(house, client)
    before = twin.look()["plain"]
    talk(house, client)
    # All but the Parse and what has several batches in one: once for the client, once for the server. What is
    # several statements in one Query is looked at closely.
    assert twin.look()["plain"] - before >= 2 * (len(SCRIPT) - 6)


def test_nothing_is_leaked() -> None:
    house = House(servers=1)
    client = house.client()
    for _ in range(3):
        talk(house, client)
        client.wire.written = b""
    gc.collect()
    objects = len(gc.get_objects())
    tracemalloc.start()
    try:
        before = held(house, client, 1)
        after = held(house, client, 50)
    finally:
        tracemalloc.stop()
    assert len(gc.get_objects()) - objects < 100
    assert after - before < 5_000


def held(house: House, client: Client, times: int) -> int:
    """Say it all so often; give how many bytes are held then, but for what the model keeps of it."""
    for _ in range(times):
        talk(house, client)
        client.wire.written = b""
    gc.collect()
    others = tracemalloc.Filter(False, "*/model.py")
    return sum(one.size for one in tracemalloc.take_snapshot().filter_traces([others]).traces)
