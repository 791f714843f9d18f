"""A client without a server: each message is answered once, as by PostgreSQL, and no COMMIT is believed."""

from __future__ import annotations

import re

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.session.bereft import Bereft
from pgproxy.session.loss import Cause, Loss
from pgproxy.session.pins import NO_REASON, PinReason
from pgproxy.session.prepared import Prepared
from pgproxy.session.suspicion import Verdicts
from pgproxy.wire import tags
from pgproxy.wire.messages import parameter_status, read_error_fields
from pgproxy.wire.skim import Skimmer
from tests.unit.session.model import (
    FLUSH,
    SYNC,
    Postgres,
    World,
    bind,
    close,
    describe,
    execute,
    message,
    parse,
    query,
    read,
    whole,
)

LOSS = Loss(
    owed=0,
    half_said=False,
    told=False,
    batch_open=False,
    in_transaction=False,
    reasons=NO_REASON,
    cause=Cause(),
)
IDLE_IN_TRANSACTION = evolve(LOSS, in_transaction=True)
UNDER_WAY = evolve(LOSS, owed=1)
UNDER_WAY_IN_TRANSACTION = evolve(LOSS, owed=1, in_transaction=True)
OPEN_BATCH = evolve(LOSS, batch_open=True)
PINNED = evolve(LOSS, reasons=frozenset({PinReason.TEMPORARY_OBJECT, PinReason.SEED}))
PINNED_IN_TRANSACTION = evolve(PINNED, in_transaction=True)
COPY_DATA, COPY_DONE, TERMINATE = message(b"d", b"1\n"), message(b"c"), message(b"X")


class Client:
    """What `Splice` does, and no more."""

    def __init__(self, loss: Loss = LOSS, news: bytes = b"") -> None:
        self.book = Prepared(Verdicts(), lambda: None)
        self.bereft = Bereft(loss, self.book, news)
        self.skim = Skimmer(tags.FROM_CLIENT_READ)
        self.over = False
        self.to_server = b""
        self.heard = self.bereft.begin()
        self._settle()

    def _settle(self) -> None:
        if self.over or self.bereft.terminated:
            return
        if not self.skim.mid_message:
            self.heard += self.bereft.whole()
        self.over = self.bereft.over

    def say(self, data: bytes) -> str:
        """Say something; give what comes of it in short."""
        before = len(self.heard)
        run, frames = self.skim.feed(data)
        if self.over:
            self.to_server += run
        elif not self.bereft.terminated:
            self.heard += self.bereft.take(run, frames)
            if self.bereft.over:
                self.to_server += self.bereft.rest[0]
                for tag, start, _stop in self.bereft.rest[1]:
                    assert self.bereft.rest[0][start] == tag
            self._settle()
        return short(self.heard[before:])


def short(stream: bytes) -> str:
    """Say what was heard: tags, with the SQLSTATE of an error and the status of a ReadyForQuery."""
    words = []
    for tag, payload in read(stream):
        letter = tag.decode()
        if letter == "E":
            letter += read_error_fields(payload)["C"]
        elif letter == "Z":
            letter += payload.decode()
        elif letter == "C":
            letter += payload[:-1].decode()
        words.append(letter)
    return " ".join(words)


ROLLBACK, COMMIT, SELECT = query(b"ROLLBACK"), query(b"COMMIT"), query(b"SELECT 1")
NAMED = parse(b"r", b"ROLLBACK") + bind(b"r") + execute()

CASES: dict[str, tuple[Loss, list[tuple[bytes, str]], bytes]] = {
    "under way": (UNDER_WAY, [(b"", "E08006 ZI"), (SELECT, "")], SELECT),
    "three under way": (evolve(LOSS, owed=3), [(b"", "E08006 ZI E08006 ZI E08006 ZI")], b""),
    "its error had come": (evolve(UNDER_WAY, told=True), [(b"", "ZI")], b""),
    "an open batch": (
        OPEN_BATCH,
        [(b"", "E08006"), (bind(b"") + execute() + SELECT, ""), (SYNC + SELECT, "ZI")],
        SELECT,
    ),
    "an open batch behind another": (
        evolve(OPEN_BATCH, owed=1),
        [(b"", "E08006 ZI E08006"), (FLUSH, ""), (SYNC, "ZI")],
        b"",
    ),
    "COPY by a batch": (OPEN_BATCH, [(COPY_DATA + COPY_DATA, "E08006"), (COPY_DONE + SYNC, "ZI")], b""),
    "in a transaction": (
        UNDER_WAY_IN_TRANSACTION,
        [(b"", "E08006 ZE"), (SELECT, "E25P02 ZE"), (ROLLBACK + SELECT, "CROLLBACK ZI")],
        SELECT,
    ),
    "a batch in a transaction": (
        evolve(OPEN_BATCH, in_transaction=True),
        [(execute(), "E08006"), (SYNC, "ZE"), (SYNC, "ZE"), (whole(b"SELECT 1"), "E25P02 ZE")],
        b"",
    ),
    "idle in a transaction": (
        IDLE_IN_TRANSACTION,
        [(SELECT, "E08006 ZE"), (SELECT, "E25P02 ZE"), (COMMIT, "CROLLBACK ZI")],
        b"",
    ),
    "ROLLBACK needs no error": (IDLE_IN_TRANSACTION, [(ROLLBACK, "CROLLBACK ZI"), (SELECT, "")], SELECT),
    "COMMIT does": (IDLE_IN_TRANSACTION, [(COMMIT, "E08006 ZI"), (SELECT, "")], SELECT),
    "so does END": (IDLE_IN_TRANSACTION, [(query(b"end work"), "E08006 ZI")], b""),
    "COMMIT by a batch": (
        IDLE_IN_TRANSACTION,
        [(parse(b"", b"COMMIT") + bind(b"") + execute() + execute() + SYNC + SELECT, "1 2 E08006 ZI")],
        SELECT,
    ),
    "COMMIT of what failed": (
        UNDER_WAY_IN_TRANSACTION,
        [(whole(b"COMMIT"), "E08006 ZE 1 2 n CROLLBACK ZI")],
        b"",
    ),
    "ROLLBACK and more is for a server": (
        IDLE_IN_TRANSACTION,
        [(query(b"ROLLBACK; SELECT 1") + SELECT, "")],
        query(b"ROLLBACK; SELECT 1") + SELECT,
    ),
    "COMMIT and more is not": (
        UNDER_WAY_IN_TRANSACTION,
        [(query(b"COMMIT; SELECT 1"), "E08006 ZE E25P02 ZE")],
        b"",
    ),
    "ROLLBACK TO": (
        UNDER_WAY_IN_TRANSACTION,
        [(query(b"ROLLBACK TO a"), "E08006 ZE E3B001 ZE"), (ROLLBACK, "CROLLBACK ZI")],
        b"",
    ),
    "ROLLBACK TO tells of the loss": (IDLE_IN_TRANSACTION, [(query(b"ROLLBACK TO a"), "E08006 ZE")], b""),
    "an empty statement": (
        UNDER_WAY_IN_TRANSACTION,
        [(query(b"") + whole(b""), "E08006 ZE I ZE 1 2 n I ZE")],
        b"",
    ),
    "an empty statement tells of the loss": (IDLE_IN_TRANSACTION, [(query(b";"), "E08006 ZE")], b""),
    "a function call": (IDLE_IN_TRANSACTION, [(message(b"F", b"\0\0\0\1\0\0\0\0\0\0"), "E08006 ZE")], b""),
    "ROLLBACK by a batch, twice": (
        IDLE_IN_TRANSACTION,
        [(NAMED + SYNC, "1 2 CROLLBACK ZI"), (bind(b"r") + execute() + SYNC, "")],
        bind(b"r") + execute() + SYNC,
    ),
    "the rest of a batch is for a server": (
        IDLE_IN_TRANSACTION,
        [(NAMED + FLUSH, "1 2 CROLLBACK"), (whole(b"SELECT 1"), "")],
        whole(b"SELECT 1"),
    ),
    "what is only prepared ends nothing": (
        IDLE_IN_TRANSACTION,
        [(parse(b"r", b"ROLLBACK") + describe(b"r") + SYNC, "1 t n ZE"), (SELECT, "E08006 ZE")],
        b"",
    ),
    "a name that is taken": (
        UNDER_WAY_IN_TRANSACTION,
        [((parse(b"r", b"ROLLBACK") + SYNC) * 2, "E08006 ZE 1 ZE E25P02 ZE")],
        b"",
    ),
    "what is closed is gone": (
        UNDER_WAY_IN_TRANSACTION,
        [
            (parse(b"r", b"ROLLBACK") + close(b"r") + SYNC, "E08006 ZE 1 3 ZE"),
            (bind(b"r") + execute() + SYNC, "E25P02 ZE"),
            (parse(b"r", b"ROLLBACK") + bind(b"r", portal=b"p") + close(b"p", b"P") + SYNC, "1 2 3 ZE"),
            (execute(b"p") + SYNC, "E25P02 ZE"),
        ],
        b"",
    ),
    "a pin": (PINNED, [(SYNC, "ZI"), (SELECT + SELECT, "E08006 ZI")], SELECT),
    "a pin, and a batch": (PINNED, [(whole(b"SELECT 1") + SELECT, "E08006 ZI")], SELECT),
    "a pin, and ROLLBACK": (PINNED, [(ROLLBACK, "E08006 ZI")], b""),
    "a pin in a transaction": (
        PINNED_IN_TRANSACTION,
        [(ROLLBACK, "CROLLBACK ZI"), (SELECT + SELECT, "E08006 ZI")],
        SELECT,
    ),
    "a pin that was told of": (
        PINNED_IN_TRANSACTION,
        [(SELECT, "E08006 ZE"), (query(b"ROLLBACK; SELECT 1"), "")],
        query(b"ROLLBACK; SELECT 1"),
    ),
    "a pin, and ROLLBACK and more": (
        PINNED_IN_TRANSACTION,
        [(query(b"ROLLBACK; SELECT 1") + SELECT, "E08006 ZI")],
        SELECT,
    ),
    "a pin, and ROLLBACK in a batch": (
        PINNED_IN_TRANSACTION,
        [(NAMED + bind(b"r") + SYNC, "1 2 CROLLBACK E08006 ZI")],
        b"",
    ),
    "Terminate": (IDLE_IN_TRANSACTION, [(TERMINATE + SELECT, "")], b""),
}


@pytest.mark.parametrize(("loss", "steps", "to_server"), CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("most", [0, 1, 7])
def test_conversations(loss: Loss, steps: list[tuple[bytes, str]], to_server: bytes, most: int) -> None:
    client = Client(loss)
    words = short(client.heard)
    for said, expected in steps:
        pieces = [said[at : at + most] for at in range(0, len(said), most)] if most else [said]
        words = " ".join(filter(None, [words, *map(client.say, pieces)]))
        assert words == expected
        words = ""
    assert client.to_server == to_server


# What is said.


def first_error(loss: Loss, said: bytes = SELECT) -> dict[str, str]:
    client = Client(loss)
    client.say(said)
    return next(read_error_fields(payload) for tag, payload in read(client.heard) if tag == b"E")


def test_the_truth_is_told() -> None:
    assert "not known whether what was under way was carried out" in first_error(UNDER_WAY)["D"]
    assert "COMMIT" in first_error(UNDER_WAY_IN_TRANSACTION)["D"]
    assert first_error(IDLE_IN_TRANSACTION)["D"] == "What the transaction had done is undone."
    assert "was not committed" in first_error(IDLE_IN_TRANSACTION, COMMIT)["D"]
    assert first_error(PINNED)["D"] == "Gone with the server: temporary_object, seed."
    for loss in (UNDER_WAY, UNDER_WAY_IN_TRANSACTION, IDLE_IN_TRANSACTION, PINNED):
        error = first_error(loss)
        assert error["S"] == error["V"] == "ERROR" and "keeps this session" in error["H"]


def test_the_servers_own_words() -> None:
    cause = Cause("57P01", "terminating connection due to administrator command")
    error = first_error(evolve(UNDER_WAY, cause=cause))
    assert error["C"] == "57P01" and error["D"].endswith(f"The server's last word was: {cause.text}")


def test_what_was_undone_is_told_first() -> None:
    news = parameter_status(b"TimeZone", b"CET")
    assert Client(IDLE_IN_TRANSACTION, news).heard == news
    assert short(Client(UNDER_WAY, news).heard) == "S E08006 ZI"


def test_a_message_that_was_not_whole_is_answered_when_it_is() -> None:
    long = query(b"SELECT '" + b"x" * 100_000 + b"'")
    client = Client.__new__(Client)
    client.skim = Skimmer(tags.FROM_CLIENT_READ)
    client.skim.feed(long[:50_000])
    client.bereft = Bereft(evolve(LOSS, owed=2, half_said=True), Prepared(Verdicts(), lambda: None))
    client.over, client.to_server = False, b""
    client.heard = client.bereft.begin()
    client._settle()
    assert short(client.heard) == "E08006 ZI"
    assert client.say(long[50_000:60_000]) == ""
    assert client.say(long[60_000:] + SELECT) == "E08006 ZI"
    assert client.to_server == SELECT


# All that a client may say.

TEXTS = [
    b"", b"ROLLBACK", b"ROLLBACK;", b"COMMIT", b"END", b"ABORT", b"ROLLBACK TO a", b"BEGIN", b"SELECT 'x'",
    b"ROLLBACK; SELECT 'x'", b"COMMIT; SELECT 'x'", b"SAVEPOINT a", b"SELECT '" + b"y" * 20_000 + b"'",
]  # fmt: skip
NAMES = st.sampled_from([b"", b"a", b"b"])
MESSAGES = st.one_of(
    st.sampled_from(TEXTS).map(query),
    st.builds(parse, NAMES, st.sampled_from(TEXTS)),
    st.builds(lambda name, portal: bind(name, portal=portal), NAMES, NAMES),
    st.builds(describe, NAMES, st.sampled_from([b"S", b"P"])),
    st.builds(execute, NAMES),
    st.builds(close, NAMES, st.sampled_from([b"S", b"P"])),
    st.sampled_from([SYNC, FLUSH, COPY_DATA, COPY_DONE]),
)
LOSSES = st.builds(
    Loss,
    owed=st.integers(0, 3),
    half_said=st.just(False),
    told=st.booleans(),
    batch_open=st.booleans(),
    in_transaction=st.booleans(),
    reasons=st.sampled_from([NO_REASON, frozenset({PinReason.SEED})]),
    cause=st.just(Cause()),
).filter(lambda loss: not loss.nothing)


@given(LOSSES, st.lists(MESSAGES, max_size=12), st.lists(st.integers(1, 30_000), max_size=5))
def test_each_is_answered_once(loss: Loss, said: list[bytes], cuts: list[int]) -> None:
    script = b"".join(said) + SYNC
    whole_client, client = Client(loss), Client(loss)
    whole_client.say(script)
    at = 0
    for cut in [*cuts, len(script)]:
        client.say(script[at : at + cut])
        at += cut
    assert client.heard == whole_client.heard
    # What goes to a server is what comes behind what was answered, but for COPY data that is late.
    left = [one for one in read(client.to_server) if one[0] not in (b"d", b"c")]
    every = [one for one in read(script) if one[0] not in (b"d", b"c")]
    assert left == every[len(every) - len(left) :]
    here = every[: len(every) - len(left)]
    replies = read(client.heard)
    assert (b"C", b"COMMIT\0") not in replies
    readies = [payload for tag, payload in replies if tag == b"Z"]
    due = loss.owed + sum(tag in (b"F", b"S") for tag, _payload in here)
    queries = sum(tag == b"Q" for tag, _payload in here)
    # A Query within a batch that has failed is skipped; nothing else is.
    assert due <= len(readies) <= due + queries
    if not loss.batch_open and not any(tag in b"PBDEC" for tag, _payload in here):
        assert len(readies) == due + queries
    # Between two ReadyForQuery there is one error at most.
    errors = 0
    for tag, _payload in replies:
        errors = 0 if tag == b"Z" else errors + (tag == b"E")
        assert errors <= 1
    if not left:
        assert readies
    if client.over and readies:
        assert readies[-1] == b"I" or any(tag == b"C" for tag, _payload in replies)


# What comes behind a COMMIT may count on it: there PostgreSQL goes on, and we don't. To go back to a
# savepoint that is gone fails there when it is executed, and here when it is prepared.
OTHERWISE = re.compile(rb"COMMIT; |^P.*ROLLBACK TO", re.DOTALL)


def model_in_failed_transaction() -> Postgres:
    postgres = Postgres(World())
    postgres.feed(query(b"BEGIN") + query(b"nonsense"))
    assert postgres.status == b"E"
    return postgres


@given(st.lists(MESSAGES, max_size=12))
def test_as_postgresql_in_a_failed_transaction(said: list[bytes]) -> None:
    """Once the loss has been told, each message gets what PostgreSQL says in such a transaction."""
    client, postgres = Client(UNDER_WAY_IN_TRANSACTION), model_in_failed_transaction()
    for one in said:
        if one[:1] in b"dc" or OTHERWISE.search(one):
            continue
        heard, expected = client.say(one), short(postgres.feed(one))
        if client.to_server or client.bereft.terminated:
            return
        assert tags_of(heard) == tags_of(expected), one
        if client.over:
            return


def tags_of(words: str) -> list[str]:
    """Errors are errors, whatever their SQLSTATE."""
    return ["E" if word[0] == "E" else word for word in words.split()]
