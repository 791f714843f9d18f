"""
Transaction mode against a model of PostgreSQL: each client sees what its own direct connection would show it.

What a client hears is compared, message by message, with what a `Postgres` of its own says to the same bytes.
Only ParameterStatus may come at another place; what it has told by each ReadyForQuery must be the same.
"""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pgproxy.session.conversation import AuditFound, QuestionFailed
from tests.examples import examples
from tests.unit.session.house import PREFIX, Client, House, assert_at_rest
from tests.unit.session.model import (
    DEFAULTS,
    FLUSH,
    REPORTED,
    SYNC,
    TERMINATE,
    Postgres,
    World,
    bind,
    close,
    describe,
    execute,
    parse,
    query,
    read,
)

pytestmark = pytest.mark.usefixtures("ways")

Message = tuple[bytes, bytes]
View = list[Message | dict[bytes, bytes]]


def view(stream: bytes) -> View:
    """What a client hears, with what it knows of the reported settings at each ReadyForQuery."""
    reported = {name: DEFAULTS[name] for name in REPORTED}
    seen: View = []
    for tag, payload in read(stream):
        if tag == b"S":
            name, value, _ = payload.split(b"\0")
            reported[name] = value
        else:
            seen.append((tag, payload))
        if tag == b"Z":
            seen.append(dict(reported))
    return seen


def directly(script: bytes) -> View:
    return view(Postgres(World()).feed(script))


MARK = b"@@"
"""Each client has its own token, of the same length, in the place of this."""

# Clients: lists of batches, each the bytes between two ReadyForQuery.

NAMES = [b"", b"", b"a", b"a", b"b"]
LONG = b"n" * 70
PORTALS = st.sampled_from([b"", b"", b"", b"p"])
READS = [
    b"SELECT '@@'",
    b"SELECT $1",
    b"SHOW TimeZone",
    b"SHOW work_mem",
    b"SHOW application_name",
    b"",
    b"SHOW role",
]
SETS = [
    b"SET TimeZone TO '@@'",
    b"SET application_name TO 'it''s @@'",
    b"SET work_mem TO '@@'",
    b"RESET work_mem",
    b"RESET ALL",
    b"SET LOCAL work_mem TO 'local'",
    b"SELECT set_config('my.tenant', '@@ \xc3\xa9\\', false)",
    b"SELECT set_config('search_path', '@@, \"B\"', false)",
    b"SHOW my.tenant",
    b"SHOW search_path",
    b"SET ROLE 'owner'",
    b"SET ROLE 'clerk'",
    b"SET SESSION AUTHORIZATION 'owner'",
    b"SET log_min_messages TO '@@'",
    b"RESET ROLE",
    b"SELECT hide('@@')",
    b"SHOW my.hidden",
]
BLOCKS = [b"BEGIN", b"COMMIT", b"ROLLBACK"]
WRONG = [b"SELECT 1/0", b"SELECT missing", b"SELEC", b"SET nothing TO 'x'"]
KEEPS = [b"LISTEN @@", b"UNLISTEN @@", b"SELECT pg_advisory_lock(1)", b"SELECT pg_advisory_unlock(1)"]
SQL = [
    b"PREPARE a AS SELECT 'sql @@'",
    b"PREPARE c AS SELECT $1",
    b"EXECUTE a",
    b"EXECUTE c('@@')",
    b"DEALLOCATE a",
    b"DEALLOCATE b",
    b"SELECT name FROM pg_prepared_statements ORDER BY name",
]
ALL = [b"DEALLOCATE all", b"DISCARD ALL"]


def batches(texts: list[bytes]) -> st.SearchStrategy[bytes]:
    text = st.sampled_from(texts)
    # What is known to go wrong with long names has a test of its own in test_conversations.py.
    name = st.sampled_from(NAMES if SQL[0] in texts else [*NAMES, LONG])
    values = st.sampled_from([(), (), (b"@@",)])
    piece = st.one_of(
        st.builds(parse, name, text),
        st.builds(bind, name, values, PORTALS),
        st.builds(describe, name),
        st.builds(describe, PORTALS, st.just(b"P")),
        st.builds(execute, PORTALS),
        st.builds(close, name),
        st.builds(close, PORTALS, st.just(b"P")),
        st.just(FLUSH),
    )
    usual = st.builds(
        lambda name, said, portal: (
            parse(name, said) + bind(name, [b"@@"] * said.count(b"$1"), portal) + execute(portal)
        ),
        name,
        text,
        PORTALS,
    )
    again = st.builds(lambda name: describe(name) + bind(name) + execute(), name)
    batch = st.lists(st.one_of(piece, usual, again, usual), max_size=5).map(
        lambda pieces: b"".join(pieces) + SYNC
    )
    simple = st.lists(text, min_size=1, max_size=2).map(lambda texts: query(b"; ".join(texts)))
    return st.one_of(simple, batch, batch)


def scripts(texts: list[bytes]) -> st.SearchStrategy[list[list[bytes]]]:
    """What two or three clients say."""
    one = st.lists(batches(texts), min_size=1, max_size=6)
    return st.lists(one, min_size=2, max_size=3)


class Watched(Postgres):
    """Notices what is known to go wrong; each such thing has a test of its own in test_conversations.py."""

    wrong = False
    _old_unnamed = False
    """Whether an unnamed Parse has been thrown away, so that an older statement may still be there."""
    _gone: frozenset[bytes] = frozenset()
    """Names that the batch has had with DEALLOCATE ALL or DISCARD ALL."""

    def take(self, tag: bytes, payload: bytes) -> None:
        words, name = self._read(tag, payload)
        failed = self.skipping or self.status == b"E"
        if name is not None:
            self.wrong = self.wrong or self._goes_wrong(tag, name[:63], words, failed, len(name) > 63)
        if tag == b"P" and name == b"":
            self._old_unnamed = self.skipping
        elif tag == b"Q":
            self._old_unnamed = False
        before = frozenset(self.statements)
        super().take(tag, payload)
        self._gone = (self._gone | (before - self.statements.keys())) if tag == b"E" else self._gone
        if tag in b"SQ":
            self._gone = frozenset()

    def _goes_wrong(self, tag: bytes, name: bytes, words: bytes, failed: bool, long: bool) -> bool:
        there = self.statements.get(name)
        if tag in b"BD" and not name and self._old_unnamed and there is not None and not self.skipping:
            return True
        if self.skipping and any(one in words for one in (b"PREPARE", b"EXECUTE", b"DEALLOCATE", b"pg_prep")):
            # Statements spelled out behind an error.
            return True
        if tag == b"D" and self.status == b"E" and name and there is not None and there.columns is None:
            # It may have been closed for the limit.
            return True
        if tag != b"P" or not name:
            return False
        # The name is taken, and again; or with two errors; or not any more.
        taken = there is not None and (long or failed or any(one in words for one in WRONG))
        return taken or name in self._gone

    def _read(self, tag: bytes, payload: bytes) -> tuple[bytes, bytes | None]:
        """Give the text that a message is about, and the name of a statement."""
        if tag == b"P":
            name, text, _rest = payload.split(b"\0", 2)
            return text, name
        if tag in b"DC" and payload[:1] == b"S":
            return b"", payload[1:-1]
        if tag == b"B":
            name = payload.split(b"\0", 2)[1]
            prepared = self.statements.get(name[:63])
            return b" ".join(prepared.words) if prepared is not None else b"", name
        return b"", None


def allow(script: bytes) -> None:
    """Leave out what is known to go wrong."""
    direct = Watched(World())
    direct.feed(script)
    assume(not direct.wrong)


def a_house(seed: int) -> House:
    """One with few or many statements in a server, and every other time with an audit."""
    return House(seed, limit=(1, 2, 100)[seed % 3], audit=seed % 2 == 1)


def settle_clients(house: House, said: list[list[bytes]], waits: bool) -> list[Client]:
    """Have clients say this, then leave when all is answered; compare all they hear."""
    clients = []
    for number, one in enumerate(said):
        script = b"".join(batch.replace(MARK, b"m%d" % (number + 1)) for batch in one)
        allow(script)
        stops, size = {}, 0
        for count, batch in enumerate(one, 1):
            size += len(batch)
            if waits or count == len(one):
                stops[size] = count
        clients.append(house.client(script + TERMINATE, stops))
    house.run()
    for client in clients:
        assert view(client.heard) == directly(client.script[: -len(TERMINATE)])
        assert client.gone == "terminated"
        assert PREFIX not in client.heard
        assert_at_rest(client)
    assert not house.queue and not house.releasing
    assert not [event for event in house.events if isinstance(event, AuditFound | QuestionFailed)]
    assert len(house.idle) == len(house.servers)
    for server in house.servers:
        server.fit()
    return clients


FEW = settings(max_examples=examples(60))
SEEDS = st.integers(0, 2**32)


@FEW
@given(scripts(READS + WRONG + BLOCKS), SEEDS, st.booleans())
def test_statements_follow_their_clients(said: list[list[bytes]], seed: int, waits: bool) -> None:
    settle_clients(a_house(seed), said, waits)


@FEW
@given(scripts(READS + SETS + WRONG + BLOCKS), SEEDS, st.booleans())
def test_settings_follow_their_clients(said: list[list[bytes]], seed: int, waits: bool) -> None:
    settle_clients(a_house(seed), said, waits)


@FEW
@given(scripts(READS + SQL + BLOCKS + ALL + WRONG), SEEDS)
def test_statements_have_the_clients_names_in_sql(said: list[list[bytes]], seed: int) -> None:
    settle_clients(a_house(seed), said, waits=True)


@FEW
@given(scripts(READS + SETS + WRONG + BLOCKS + KEEPS + ALL), SEEDS, st.booleans())
def test_what_keeps_a_server_to_a_client(said: list[list[bytes]], seed: int, waits: bool) -> None:
    settle_clients(a_house(seed), said, waits)


@FEW
@given(scripts(READS + SETS + WRONG + BLOCKS + KEEPS + SQL + ALL), SEEDS)
def test_everything_together(said: list[list[bytes]], seed: int) -> None:
    settle_clients(a_house(seed), said, waits=True)


@FEW
@given(scripts(READS + SETS + WRONG + BLOCKS + KEEPS + ALL), SEEDS, st.data())
def test_clients_that_vanish_anywhere_leave_nothing(
    said: list[list[bytes]], seed: int, data: st.DataObject
) -> None:
    house = a_house(seed)
    script = b"".join(said[0]).replace(MARK, b"m0")
    allow(script)
    vanishing = house.client(script[: data.draw(st.integers(1, len(script)))])
    vanishing.vanishes = True
    settle_clients(house, said[1:], waits=False)
    assert vanishing.gone == "vanished" and not vanishing.talk.server
