"""
Single conversations in transaction mode, each compared with what a direct connection gives.

They are played on one server, which all clients share, so that each of them finds what the one before has
left. What is known to go wrong is marked.
"""

from __future__ import annotations

import pytest

from tests.unit.session.house import PREFIX, Client, House, assert_at_rest
from tests.unit.session.model import (
    FLUSH,
    SYNC,
    Postgres,
    World,
    bind,
    close,
    describe,
    execute,
    parse,
    query,
    read,
    whole,
)

pytestmark = pytest.mark.usefixtures("ways")

ONE, TWO, SELECT = b"SELECT 'one'", b"SELECT 'two'", b"SELECT $1"
UNKNOWN = bind(b"nobody") + execute()
LONG = b"n" * 70
Step = tuple[int, bytes]


def wrong(why: str) -> pytest.MarkDecorator:
    return pytest.mark.xfail(strict=True, reason=why)


def play(steps: list[Step], most: int = 0) -> House:
    """Have clients say something in turn; each hears what it would directly, but for ParameterStatus."""
    house = House(servers=1, most=most)
    clients: dict[int, tuple[Client, Postgres]] = {}
    for number, said in steps:
        if number not in clients:
            clients[number] = house.client(), Postgres(World())
        client, direct = clients[number]
        heard = house.say(client, said)
        assert heard_of(heard) == heard_of(direct.feed(said)), (number, said)
    return house


def heard_of(stream: bytes) -> list[tuple[bytes, bytes]]:
    return [one for one in read(stream) if one[0] != b"S"]


CASES: dict[str, list[Step]] = {
    "a setting follows its client": [
        (0, query(b"SET work_mem TO '1MB'")),
        (1, query(b"SHOW work_mem")),
        (0, query(b"SHOW work_mem")),
    ],
    "a role follows its client": [
        (0, query(b"SET ROLE 'clerk'")),
        (1, whole(b"SHOW role")),
        (0, whole(b"SHOW role")),
        (1, query(b"SHOW role")),
    ],
    "what a function sets follows": [
        (0, query(b"SELECT hide('x')")),
        (1, query(b"SHOW my.hidden")),
        (0, query(b"SHOW my.hidden")),
    ],
    "a value in quotes, with backslashes and letters": [
        (0, query("SET my.tenant TO 'it''s \\ é'".encode())),
        (1, query(b"SHOW my.tenant")),
        (0, query(b"SHOW my.tenant")),
    ],
    "a name from a parameter": [
        (
            0,
            parse(b"", b"SELECT set_config($1, $2, false)")
            + bind(b"", [b"my.tenant", b"x"])
            + execute()
            + SYNC,
        ),
        (1, query(b"SHOW my.tenant")),
        (0, query(b"SHOW my.tenant")),
    ],
    "SET LOCAL ends with its transaction": [
        (0, query(b"BEGIN; SET LOCAL work_mem TO '1MB'; SHOW work_mem")),
        (0, query(b"COMMIT")),
        (0, query(b"SHOW work_mem")),
    ],
    "what is rolled back is not set": [
        (0, query(b"BEGIN; SET work_mem TO '1MB'")),
        (0, query(b"ROLLBACK")),
        (1, query(b"SHOW work_mem")),
        (0, query(b"SHOW work_mem")),
    ],
    "an error takes back what came before it in the batch": [
        (0, parse(b"", b"SET work_mem TO '1MB'") + bind(b"") + execute() + UNKNOWN + SYNC),
        (0, query(b"SHOW work_mem")),
    ],
    "two clients with a statement of the same name": [
        (0, parse(b"a", ONE) + SYNC),
        (1, parse(b"a", TWO) + SYNC),
        (0, describe(b"a") + bind(b"a") + execute() + SYNC),
        (1, describe(b"a") + bind(b"a") + execute() + SYNC),
        (0, close(b"a") + SYNC),
        (1, bind(b"a") + execute() + SYNC),
        (0, bind(b"a") + execute() + SYNC),
    ],
    "two clients with the unnamed statement": [
        (0, parse(b"", ONE) + SYNC),
        (1, parse(b"", TWO) + SYNC),
        (0, bind(b"") + execute() + SYNC),
        (1, bind(b"") + execute() + SYNC),
        (2, bind(b"") + execute() + SYNC),
    ],
    "a Query does away with the unnamed statement": [
        (0, parse(b"", ONE) + SYNC),
        (0, query(TWO)),
        (0, bind(b"") + execute() + SYNC),
    ],
    "an unnamed statement behind one that was thrown away, with a name that waits for that": [
        (
            0,
            (describe(b"") + parse(b"", ONE) + parse(b"a", ONE) + SYNC)
            + (parse(b"", TWO) + parse(b"a", ONE) + describe(b"") + bind(b"") + execute() + SYNC),
        ),
        (0, bind(b"") + execute() + SYNC),
        (1, bind(b"") + execute() + SYNC),
    ],
    "a Query behind a Close that was thrown away, with a name that waits for that": [
        (
            0,
            (parse(b"", ONE) + describe(b"a") + close(b"") + close(b"a") + SYNC)
            + query(TWO)
            + (parse(b"a", ONE) + bind(b"") + SYNC),
        ),
        (0, bind(b"") + SYNC),
    ],
    "a Close that is not done of what DEALLOCATE has taken away": [
        (0, parse(b"b", b"DEALLOCATE b") + bind(b"b") + execute() + SYNC + UNKNOWN + close(b"b") + SYNC),
        (0, parse(b"b", ONE) + SYNC),
        (0, bind(b"b") + execute() + SYNC),
    ],
    "a Close that is not done of what was prepared behind DEALLOCATE ALL": [
        (0, query(b"DEALLOCATE all") + parse(b"b", ONE) + describe(b"nope") + close(b"b") + SYNC),
        (0, bind(b"b") + execute() + SYNC),
        (0, parse(b"a", ONE) + SYNC),
        (0, query(b"DISCARD ALL") + parse(b"a", TWO) + describe(b"nope") + close(b"a") + SYNC),
        (0, bind(b"a") + execute() + SYNC),
    ],
    "a Close that is not done behind DEALLOCATE ALL": [
        (0, parse(b"a", b"DEALLOCATE all") + SYNC),
        (0, bind(b"a") + execute() + UNKNOWN + close(b"a") + SYNC),
        (0, bind(b"a") + execute() + SYNC),
        (0, query(b"PREPARE a AS SELECT 'sql'")),
        (0, query(b"EXECUTE a")),
    ],
    "a name that is taken": [
        (0, parse(b"a", ONE) + SYNC),
        (0, parse(b"a", TWO) + bind(b"a") + execute() + SYNC),
        (1, parse(b"a", TWO) + bind(b"a") + execute() + SYNC),
        (0, bind(b"a") + execute() + SYNC),
    ],
    "a name that is taken in the same batch": [
        (0, parse(b"a", ONE) + parse(b"a", TWO) + SYNC),
        (0, bind(b"a") + execute() + SYNC),
    ],
    "Parse, Close and Parse in one batch": [
        (0, parse(b"a", ONE) + close(b"a") + parse(b"a", TWO) + bind(b"a") + execute() + SYNC),
        (0, bind(b"a") + execute() + SYNC),
    ],
    "a Close behind an error is not done": [
        (0, parse(b"a", ONE) + SYNC),
        (0, UNKNOWN + close(b"a") + SYNC),
        (0, bind(b"a") + execute() + SYNC),
    ],
    "a Parse behind an error is not done": [
        (0, UNKNOWN + parse(b"a", ONE) + SYNC),
        (0, parse(b"a", TWO) + SYNC),
        (0, bind(b"a") + execute() + SYNC),
    ],
    "a Parse whose fate is not known yet, and another one": [
        (0, UNKNOWN + parse(b"a", ONE) + SYNC + parse(b"a", TWO) + SYNC + bind(b"a") + execute() + SYNC),
    ],
    "a Close whose fate is not known yet, and a Parse": [
        (0, parse(b"a", ONE) + SYNC),
        (0, UNKNOWN + close(b"a") + SYNC + parse(b"a", TWO) + SYNC + bind(b"a") + execute() + SYNC),
    ],
    "an empty statement": [(0, whole(b"")), (0, query(b""))],
    "a Flush alone": [(0, FLUSH), (0, query(ONE))],
    "answers up to a Flush": [(0, parse(b"a", ONE) + FLUSH), (0, bind(b"a") + execute() + FLUSH), (0, SYNC)],
    "a failed transaction": [
        (0, parse(b"a", ONE) + SYNC),
        (0, query(b"BEGIN; SELECT 1/0")),
        (0, bind(b"a") + execute() + SYNC),
        (0, parse(b"b", ONE) + SYNC),
        (0, query(b"ROLLBACK")),
        (0, bind(b"a") + execute() + SYNC),
        (0, bind(b"b") + execute() + SYNC),
    ],
    "SQL's PREPARE keeps the server": [
        (0, query(b"PREPARE s AS SELECT 'sql'")),
        (0, query(b"EXECUTE s")),
        (0, query(b"DEALLOCATE s")),
        (1, query(b"EXECUTE s")),
    ],
    "SQL sees the client's names": [
        (0, parse(b"a", ONE) + parse(b"b", TWO) + SYNC),
        (0, query(b"SELECT name FROM pg_prepared_statements ORDER BY name")),
        (0, query(b"EXECUTE b")),
        (1, query(b"SELECT name FROM pg_prepared_statements ORDER BY name")),
        (0, query(b"DEALLOCATE a")),
        (0, bind(b"a") + execute() + SYNC),
        (0, bind(b"b") + execute() + SYNC),
    ],
    "SQL sees the client's names in a transaction": [
        (0, parse(b"a", ONE) + SYNC),
        (0, query(b"BEGIN")),
        (0, query(b"EXECUTE a")),
        (0, whole(b"EXECUTE a")),
        (0, query(b"COMMIT")),
        (0, bind(b"a") + execute() + SYNC),
    ],
    "DEALLOCATE ALL": [
        (0, parse(b"a", ONE) + SYNC),
        (1, parse(b"a", TWO) + SYNC),
        (0, query(b"DEALLOCATE all")),
        (0, bind(b"a") + execute() + SYNC),
        (1, bind(b"a") + execute() + SYNC),
    ],
    "DISCARD ALL": [
        (0, parse(b"a", ONE) + SYNC),
        (0, query(b"SET work_mem TO '1MB'")),
        (1, parse(b"a", TWO) + SYNC),
        (0, query(b"DISCARD ALL")),
        (0, query(b"SHOW work_mem")),
        (0, bind(b"a") + execute() + SYNC),
        (1, bind(b"a") + execute() + SYNC),
    ],
    "names that only differ behind the 63rd byte are one": [
        (0, parse(LONG + b"1", ONE) + SYNC),
        (0, parse(LONG + b"2", TWO) + SYNC),
        (0, bind(LONG + b"3") + execute() + SYNC),
    ],
    "a name like the proxy's own": [
        (0, parse(b"a", ONE) + SYNC),
        (1, bind(PREFIX + b"2") + execute() + SYNC),
    ],
    "another's unnamed statement": [
        (0, parse(b"", ONE) + SYNC),
        (0, UNKNOWN + parse(b"", TWO) + SYNC),
        (1, bind(b"") + execute() + SYNC),
    ],
    "another's unnamed statement, by Close": [
        (0, parse(b"", ONE) + SYNC),
        (0, UNKNOWN + close(b"") + SYNC),
        (1, bind(b"") + execute() + SYNC),
    ],
    "one's own unnamed statement": [
        (0, parse(b"", ONE) + SYNC),
        (1, query(TWO)),
        (0, UNKNOWN + describe(b"") + SYNC),
        (0, bind(b"") + execute() + SYNC),
    ],
    "SQL's PREPARE of a name that a failing Parse wants": [
        (0, UNKNOWN + parse(b"a", ONE) + SYNC + query(b"PREPARE a AS SELECT 'sql'"))
    ],
    "a Describe of SQL's statement beside another Describe": [
        (0, query(b"PREPARE a AS SELECT 'sql'")),
        (0, parse(b"", ONE) + describe(b"") + describe(b"a") + SYNC),
    ],
    "DEALLOCATE ALL before a Parse of a long name in one batch": [
        (0, parse(b"", b"DEALLOCATE all") + bind(b"") + execute() + parse(LONG, ONE) + SYNC),
        (0, bind(LONG) + execute() + SYNC),
    ],
    "SQL's names in a failed transaction": [
        (0, parse(b"a", ONE) + SYNC),
        (0, query(b"BEGIN; SELECT 1/0")),
        (0, query(b"EXECUTE a")),
        (0, query(b"ROLLBACK")),
        (0, bind(b"a") + execute() + SYNC),
    ],
    "SQL's names behind an error in a batch": [
        (0, query(b"LISTEN c")),
        (0, parse(b"a", ONE) + SYNC),
        (0, UNKNOWN + parse(b"", b"EXECUTE a") + SYNC),
        (0, bind(b"a") + execute() + SYNC),
    ],
    "a Bind of a name whose Parse fails, sent before that is known": [
        (0, parse(b"b", ONE) + SYNC),
        (0, UNKNOWN + parse(b"a", ONE) + SYNC + bind(b"a") + execute() + SYNC),
    ],
    "a Bind of a name whose Close is thrown away, sent before that is known": [
        (0, parse(b"a", ONE) + SYNC),
        (0, UNKNOWN + close(b"a") + SYNC + bind(b"a") + execute() + SYNC),
    ],
    "a name that is taken, in a failed transaction, again": [
        (0, parse(b"a", ONE) + SYNC),
        (0, query(b"BEGIN")),
        (0, parse(b"a", TWO) + SYNC),
        (0, parse(b"a", TWO) + SYNC),
        (0, query(b"ROLLBACK")),
    ],
    "a name that is taken, by nonsense, again": [
        (0, parse(b"a", ONE) + SYNC),
        (0, query(b"LISTEN c")),
        (0, parse(b"a", TWO) + SYNC),
        (0, parse(b"a", b"SELEC") + SYNC),
    ],
    "one's own unnamed statement behind an error": [
        (0, parse(b"", ONE) + SYNC),
        (0, UNKNOWN + parse(b"", TWO) + SYNC),
        (0, bind(b"") + execute() + SYNC),
    ],
    "a name that the server has not, behind an error, and again in the next batch": [
        (0, parse(b"a", ONE) + SYNC),
        (1, query(b"DISCARD ALL")),
        (0, UNKNOWN + bind(b"a") + execute() + SYNC + bind(b"a") + execute() + SYNC),
    ],
    "the same by Describe, and with another batch in between": [
        (0, parse(b"a", ONE) + SYNC),
        (1, query(b"DISCARD ALL")),
        (0, UNKNOWN + describe(b"a") + SYNC + query(b"SELECT 1") + describe(b"a") + SYNC),
    ],
    "an unnamed statement that the server has not, behind an error, and in the next batch": [
        (0, parse(b"", ONE) + SYNC),
        (1, query(b"SELECT 1")),
        (0, UNKNOWN + bind(b"") + execute() + SYNC + bind(b"") + execute() + SYNC),
    ],
    "DEALLOCATE ALL before a Parse of a name that was there in one batch": [
        (0, parse(b"a", ONE) + SYNC),
        (0, parse(b"", b"DEALLOCATE all") + bind(b"") + execute() + parse(b"a", TWO) + SYNC),
        (0, bind(b"a") + execute() + SYNC),
    ],
    "a long name that is taken, then a question, then SQL's names": [
        (0, parse(LONG, ONE) + SYNC),
        (0, query(b"LISTEN c")),
        (0, parse(LONG, TWO) + SYNC),
        (0, query(b"UNLISTEN c")),
        (1, query(b"SELECT name FROM pg_prepared_statements ORDER BY name")),
    ],
    "a long name that SQL has seen": [
        (0, query(b"BEGIN; SET work_mem TO '1MB'")),
        (0, query(b"SELECT name FROM pg_prepared_statements ORDER BY name")),
        (0, parse(LONG, ONE) + SYNC),
        (0, query(b"COMMIT")),
        (1, query(b"SELECT name FROM pg_prepared_statements ORDER BY name")),
    ],
}
WRONG = {
    "one's own unnamed statement behind an error": wrong(
        "an unnamed Parse that is thrown away costs the client the one before, which the server still has"
    ),
    "DEALLOCATE ALL before a Parse of a name that was there in one batch": wrong(
        "the name is taken for taken until the command's tag has come"
    ),
}


EACH = pytest.mark.parametrize(
    "steps", [pytest.param(steps, id=name, marks=WRONG.get(name, ())) for name, steps in CASES.items()]
)


@EACH
def test_as_directly(steps: list[Step]) -> None:
    house = play(steps)
    for client in house.clients:
        house.say(client, query(b"DISCARD ALL"))
        if client.talk.server is not None:
            house.say(client, query(b"DISCARD ALL"))
        assert_at_rest(client)


@EACH
@pytest.mark.parametrize("most", [1, 6, 100_000])
def test_cut_anywhere_it_is_the_same(steps: list[Step], most: int) -> None:
    play(steps, most)


@wrong("a statement that was closed for the limit can't be prepared in a failed transaction to be described")
def test_in_a_failed_transaction_a_statement_that_gives_no_rows_can_be_described() -> None:
    house = House(servers=1, limit=1)
    client, direct = house.client(), Postgres(World())
    for said in (
        parse(b"a", b"BEGIN") + bind(b"a") + execute() + SYNC,
        parse(b"b", ONE) + SYNC,
        UNKNOWN + SYNC,
        describe(b"a") + SYNC,
    ):
        assert heard_of(house.say(client, said)) == heard_of(direct.feed(said)), said


# What a statement gives has changed.

THING = b"SELECT * FROM thing"
RUN = bind(b"a") + describe(b"", b"P") + execute() + SYNC


def changed(first: bytes) -> tuple[House, Client]:
    """A client that has prepared `a`, and said `first`; then another has altered the table."""
    house = House(servers=1)
    client, other = house.client(), house.client()
    house.say(client, parse(b"a", THING) + SYNC)
    house.say(client, first)
    house.say(other, query(b"ALTER TABLE thing ADD c1 text"))
    return house, client


def codes(heard: bytes) -> str:
    return b"".join(tag for tag, _payload in read(heard)).decode()


def test_a_batch_that_asks_what_it_gets_is_said_again() -> None:
    house, client = changed(RUN)
    heard = house.say(client, RUN)
    assert codes(heard) == "2TDCZ"
    direct = Postgres(house.world)
    direct.feed(parse(b"a", THING) + SYNC)
    assert heard_of(heard) == heard_of(direct.feed(RUN))


def test_a_batch_that_does_not_ask_is_refused_once() -> None:
    house, client = changed(RUN)
    assert codes(house.say(client, bind(b"a") + execute() + SYNC)) == "EZ"
    assert codes(house.say(client, bind(b"a") + execute() + SYNC)) == "2DCZ"


def test_a_client_that_was_told_is_refused_on_every_server() -> None:
    house, client = changed(describe(b"a") + SYNC)
    for _ in range(2):
        heard = house.say(client, bind(b"a") + execute() + SYNC)
        assert codes(heard) == "EZ" and b"C0A000\0" in heard
    assert (
        codes(house.say(client, close(b"a") + parse(b"a", THING) + bind(b"a") + execute() + SYNC)) == "312DCZ"
    )


def test_a_batch_is_never_said_again_for_another() -> None:
    house, client = changed(b"")
    house.say(client, parse(b"b", SELECT) + SYNC)
    house.say(client, bind(b"b", [b"once"]) + describe(b"", b"P") + execute() + SYNC)
    before = house.servers[0].postgres.heard.count(b"once")
    heard = house.say(client, describe(b"a") + SYNC)
    assert house.servers[0].postgres.heard.count(b"once") == before
    assert codes(heard) == "tEZ" and b"once" not in heard


def test_a_batch_is_never_said_again_for_a_query() -> None:
    house = House()
    client, other = house.client(), house.client()
    house.say(client, query(b"PREPARE s AS SELECT * FROM thing"))
    house.say(client, parse(b"b", SELECT) + SYNC)
    house.say(client, bind(b"b", [b"once"]) + describe(b"", b"P") + execute() + SYNC)
    house.say(other, query(b"ALTER TABLE thing ADD c1 text"))
    heard = house.say(client, query(b"EXECUTE s"))
    assert sum(one.postgres.heard.count(b"once") for one in house.servers) == 1
    # A Query has said what it gives before it fails.
    assert codes(heard) == "TEZ" and b"once" not in heard
