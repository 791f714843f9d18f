"""
Transaction mode against a model of PostgreSQL: each client sees what its own direct connection would show it.

What a client hears is compared, message by message, with what a `Postgres` of its own says to the same bytes.
Only ParameterStatus may come at another place; what it has told by each ReadyForQuery must be the same.
"""

from __future__ import annotations

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

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

NAMES = st.sampled_from([b"", b"", b"a", b"a", b"b", b"n" * 70])
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
    values = st.sampled_from([(), (), (b"@@",)])
    piece = st.one_of(
        st.builds(parse, NAMES, text),
        st.builds(bind, NAMES, values, PORTALS),
        st.builds(describe, NAMES),
        st.builds(describe, PORTALS, st.just(b"P")),
        st.builds(execute, PORTALS),
        st.builds(close, NAMES),
        st.builds(close, PORTALS, st.just(b"P")),
        st.just(FLUSH),
    )
    usual = st.builds(
        lambda name, said, portal: (
            parse(name, said) + bind(name, [b"@@"] * said.count(b"$1"), portal) + execute(portal)
        ),
        NAMES,
        text,
        PORTALS,
    )
    again = st.builds(lambda name: describe(name) + bind(name) + execute(), NAMES)
    batch = st.lists(st.one_of(piece, usual, again, usual), max_size=5).map(
        lambda pieces: b"".join(pieces) + SYNC
    )
    simple = st.lists(text, min_size=1, max_size=2).map(lambda texts: query(b"; ".join(texts)))
    return st.one_of(simple, batch, batch)


def scripts(texts: list[bytes]) -> st.SearchStrategy[list[list[bytes]]]:
    """What two or three clients say."""
    one = st.lists(batches(texts), min_size=1, max_size=6)
    return st.lists(one, min_size=2, max_size=3)


def allow(script: bytes) -> None:
    """Leave out what is known to go wrong: each such thing has a test of its own, below."""
    direct = Postgres(World())
    direct.feed(script)
    # An unnamed Parse or Close behind an error.
    assume(
        not any(
            (tag, payload[:1]) == (b"P", b"\0") or (tag, payload) == (b"C", b"S\0")
            for tag, payload in direct.skipped
        )
    )
    # A Describe of what SQL has prepared.
    assume(not (b"PREPARE a" in script and describe(b"a") in script))


def settle_clients(house: House, said: list[list[bytes]], waits: bool) -> list[Client]:
    """Have clients say this, then leave when all is answered; compare all they hear."""
    clients = []
    for number, one in enumerate(said):
        script = b"".join(batch.replace(MARK, b"m%d" % number) for batch in one)
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
    assert len(house.idle) == len(house.servers)
    for server in house.servers:
        server.fit()
    return clients


FEW = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SEEDS = st.integers(0, 2**32)


@FEW
@given(scripts(READS + WRONG + BLOCKS), SEEDS, st.booleans())
def test_statements_follow_their_clients(said: list[list[bytes]], seed: int, waits: bool) -> None:
    settle_clients(House(seed), said, waits)


@FEW
@given(scripts(READS + SETS + WRONG + BLOCKS), SEEDS, st.booleans())
def test_settings_follow_their_clients(said: list[list[bytes]], seed: int, waits: bool) -> None:
    settle_clients(House(seed), said, waits)


@FEW
@given(scripts(READS + SQL + BLOCKS + ALL + WRONG), SEEDS)
def test_statements_have_the_clients_names_in_sql(said: list[list[bytes]], seed: int) -> None:
    settle_clients(House(seed), said, waits=True)


@FEW
@given(scripts(READS + SETS + WRONG + BLOCKS + KEEPS + ALL), SEEDS, st.booleans())
def test_what_keeps_a_server_to_a_client(said: list[list[bytes]], seed: int, waits: bool) -> None:
    settle_clients(House(seed), said, waits)


@FEW
@given(scripts(READS + SETS + WRONG + BLOCKS + KEEPS + SQL + ALL), SEEDS)
def test_everything_together(said: list[list[bytes]], seed: int) -> None:
    settle_clients(House(seed), said, waits=True)
