"""Clients whose servers are lost: in a house with model servers that end when a test has them end."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgproxy.session.pins import PinReason
from pgproxy.wire.messages import error_response
from tests.examples import examples
from tests.unit.session.house import PREFIX, Client, House, Server, assert_at_rest
from tests.unit.session.model import SYNC, bind, close, execute, message, parse, query, read, whole
from tests.unit.session.test_bereft import short
from tests.unit.session.test_following import BLOCKS, KEEPS, READS, SETS, SQL, WRONG, scripts

pytestmark = pytest.mark.usefixtures("ways")

SELECT, BEGIN, ROLLBACK, COMMIT = map(query, (b"SELECT 'x'", b"BEGIN", b"ROLLBACK", b"COMMIT"))
DONE = "T D CSELECT 1 ZI"
GOING = error_response({"S": "FATAL", "V": "FATAL", "C": "57P01", "M": "going"})
TERMINATE = message(b"X")


def linked(client: Client) -> Server:
    server = client.splice.server
    assert isinstance(server, Server)
    return server


class Talk:
    """One client in a house of its own."""

    def __init__(self, servers: int = 1) -> None:
        self.house = House(servers=servers)
        self.client = self.house.client()
        self.at = 0

    def say(self, data: bytes) -> str:
        """Say something and hear all of the answer."""
        self.house.say(self.client, data)
        return self.heard()

    def begins(self, data: bytes) -> None:
        """Say something that no server comes to read."""
        self.client.splice.from_client(data)

    def heard(self) -> str:
        heard, self.at = self.client.heard[self.at :], len(self.client.heard)
        return " ".join(word for word in short(heard).split() if word != "S")

    def lose(self, last_word: bytes = b"") -> str:
        """Lose the server that the client is linked to; give what it hears of it."""
        self.house.lose(linked(self.client), last_word)
        self.house.settle()
        return self.heard()


@pytest.fixture
def talk() -> Talk:
    return Talk()


def test_a_statement_under_way(talk: Talk) -> None:
    talk.begins(SELECT)
    assert talk.lose() == "E08006 ZI"
    assert talk.say(SELECT) == DONE
    assert talk.client.splice.at_rest


def test_a_pipeline_under_way(talk: Talk) -> None:
    talk.begins(SELECT + whole(b"SELECT 'x'") + parse(b"", b"SELECT 'x'"))
    assert talk.lose() == "E08006 ZI E08006 ZI E08006"
    assert talk.say(bind(b"") + execute()) == ""
    assert talk.say(SYNC + SELECT) == "ZI " + DONE


def test_in_a_transaction(talk: Talk) -> None:
    talk.say(BEGIN)
    assert talk.lose() == ""
    assert not talk.client.splice.at_rest
    assert talk.say(SELECT) == "E08006 ZE"
    assert talk.say(SELECT) == "E25P02 ZE"
    assert talk.say(ROLLBACK) == "CROLLBACK ZI"
    assert talk.say(SELECT) == DONE


def test_a_statement_in_a_transaction(talk: Talk) -> None:
    talk.say(BEGIN)
    talk.begins(SELECT)
    assert talk.lose() == "E08006 ZE"
    assert talk.say(COMMIT + SELECT) == "CROLLBACK ZI " + DONE


def test_the_servers_last_word_is_told_and_does_not_end_the_client(talk: Talk) -> None:
    talk.begins(SELECT)
    assert talk.lose(GOING) == "E57P01 ZI"
    assert talk.say(SELECT) == DONE


def test_what_comes_behind_the_last_word_goes_to_another_server(talk: Talk) -> None:
    talk.say(BEGIN + COMMIT + parse(b"a", b"SELECT 'x'") + SYNC)
    talk.begins(parse(b"b", b"SELECT 'y'"))
    server = linked(talk.client)
    talk.house.settle()
    server.receive(GOING)
    talk.begins(SYNC + SELECT)
    assert server.transport.written == b""
    assert talk.lose().endswith("ZI " + DONE)


def test_where_nothing_was_sent_nothing_is_told() -> None:
    talk = Talk(servers=2)
    house, client = talk.house, talk.client
    house.say_on(house.servers[0], client, query(b"SET ROLE 'owner'"))
    talk.heard()
    house.idle = [house.servers[1]]
    talk.begins(SELECT)  # waits until the role is restored
    assert linked(client) is house.servers[1] and client.talk.waits
    assert talk.lose() == DONE
    assert talk.say(query(b"SHOW role")) == "T D CSHOW ZI"
    assert b"owner" in client.heard[-40:]


def test_servers_that_are_lost_again_and_again_have_an_end() -> None:
    talk = Talk(servers=2)
    house, client = talk.house, talk.client
    house.say_on(house.servers[0], client, query(b"SET ROLE 'owner'"))
    house.idle = [house.servers[1]]
    talk.begins(SELECT)
    for _ in range(100):
        if client.gone:
            break
        house.lose(linked(client))
    assert client.gone == "lost"


def test_what_is_set_follows(talk: Talk) -> None:
    talk.say(query(b"SET work_mem TO '1MB'"))
    talk.begins(SELECT)
    talk.lose()
    talk.say(query(b"SHOW work_mem"))
    assert b"1MB" in talk.client.heard


def test_what_the_lost_transaction_has_set_is_undone_and_the_client_told() -> None:
    talk = Talk()
    talk.say(query(b"SET TimeZone TO 'before'"))
    talk.say(BEGIN + query(b"SET TimeZone TO 'within'"))
    talk.lose()
    assert read(talk.client.heard)[-1] == (b"S", b"TimeZone\0before\0")
    talk.say(ROLLBACK)
    before = len(talk.client.heard)
    talk.say(query(b"SHOW TimeZone"))
    assert b"before" in talk.client.heard[before:] and b"within" not in talk.client.heard[before:]
    assert not [one for one in read(talk.client.heard[before:]) if one[0] == b"S"]


def test_prepared_statements_follow(talk: Talk) -> None:
    talk.say(parse(b"a", b"SELECT 'a'") + SYNC)
    talk.begins(parse(b"b", b"SELECT 'b'") + SYNC)
    talk.lose()
    assert talk.say(bind(b"a") + execute() + SYNC) == "2 D CSELECT 1 ZI"
    # What was under way when the server was lost was not prepared, as far as the client knows.
    assert talk.say(bind(b"b") + execute() + SYNC) == "E26000 ZI"
    assert talk.say(parse(b"b", b"SELECT 'b'") + bind(b"b") + execute() + SYNC) == "1 2 D CSELECT 1 ZI"


def test_what_is_prepared_and_closed_without_a_server(talk: Talk) -> None:
    talk.say(parse(b"a", b"SELECT 'a'") + SYNC + BEGIN)
    talk.lose()
    assert talk.say(close(b"a") + parse(b"r", b"ROLLBACK") + SYNC) == "3 1 ZE"
    assert talk.say(bind(b"r") + execute() + SYNC) == "2 CROLLBACK ZI"
    assert talk.say(bind(b"a") + execute() + SYNC) == "E26000 ZI"
    assert talk.say(parse(b"a", b"SELECT 'a'") + SYNC) == "1 ZI"
    assert talk.say(BEGIN + bind(b"r") + execute() + SYNC) == "CBEGIN ZT 2 CROLLBACK ZI"


def test_a_pin(talk: Talk) -> None:
    talk.say(query(b"SELECT pg_advisory_lock(1)"))
    assert talk.client.talk._inquiry.reasons == {PinReason.ADVISORY_LOCK}
    assert talk.lose() == "" and talk.client.splice.at_rest
    assert talk.say(SELECT + SELECT) == "E08006 ZI " + DONE
    assert b"advisory_lock" in talk.client.heard
    assert talk.client.splice.server is None


def test_who_listens_is_ended(talk: Talk) -> None:
    talk.say(query(b"LISTEN a"))
    assert talk.lose() == "E08006"
    assert talk.client.gone == "lost" and b"SFATAL" in talk.client.heard


@pytest.mark.parametrize("behind", [b"", BEGIN])
def test_whose_settings_are_not_known_is_ended(talk: Talk, behind: bytes) -> None:
    server = talk.house.servers[0]
    talk.begins(query(b"SET work_mem TO '1MB'") + behind)
    server.answers += server.postgres.feed(server.transport.take(1000))
    server.receive(server.answers)  # but for the answer to the question
    server.answers = b""
    assert "CSET ZI" in talk.heard()
    assert talk.lose() == "E08006"
    assert talk.client.gone == "lost" and b"SFATAL" in talk.client.heard


def test_a_setting_under_way_is_not_set(talk: Talk) -> None:
    talk.begins(query(b"SET work_mem TO '1MB'"))
    assert talk.lose() == "E08006 ZI"
    talk.say(query(b"SHOW work_mem"))
    assert b"4MB" in talk.client.heard


def test_in_the_middle_of_an_answer(talk: Talk) -> None:
    talk.begins(SELECT)
    server = linked(talk.client)
    server.answers += server.postgres.feed(server.transport.take(1000))
    row = server.answers.index(b"D\0")
    server.receive(server.answers[: row + 8])
    server.answers = b""
    talk.house.lose(server)
    assert talk.client.gone == "lost" and b"08006" not in talk.client.heard


def test_in_the_middle_of_what_the_client_says(talk: Talk) -> None:
    long = query(b"SELECT '" + b"x" * 60_000 + b"'")
    talk.begins(long[:30_000])
    assert talk.lose() == ""
    assert talk.say(long[30_000:40_000]) == ""
    assert talk.say(long[40_000:] + SELECT) == "E08006 ZI " + DONE


def test_late_copy_data_is_dropped(talk: Talk) -> None:
    talk.begins(query(b"COPY thing FROM STDIN"))
    linked(talk.client).receive(message(b"G", b"\0\0\0"))
    talk.begins(message(b"d", b"1\n") + message(b"d", b"22\n")[:6])
    assert talk.lose().startswith("G")
    assert talk.say(message(b"d", b"22\n")[6:] + message(b"c")) == "E08006 ZI"
    assert talk.say(message(b"d", b"3\n") + message(b"c") + SELECT) == DONE


def test_terminate_behind_a_loss(talk: Talk) -> None:
    talk.say(BEGIN)
    talk.lose()
    assert talk.say(SELECT + TERMINATE) == "E08006 ZE"
    assert talk.client.gone == "terminated"


def test_vanishing_behind_a_loss(talk: Talk) -> None:
    talk.say(BEGIN)
    talk.lose()
    talk.client.splice.client_lost()
    assert not talk.house.queue and len(talk.house.idle) == 1


def test_what_has_not_arrived_goes_to_another_server(talk: Talk) -> None:
    talk.say(parse(b"a", b"SELECT 'x'") + SYNC)
    for said, heard in (
        (SELECT, DONE),
        (whole(b"SELECT 'x'"), "1 2 T D CSELECT 1 ZI"),
        (bind(b"a") + execute() + SYNC, "2 D CSELECT 1 ZI"),
        (parse(b"b", b"SELECT 'x'") + bind(b"b") + execute() + SYNC, "1 2 D CSELECT 1 ZI"),
    ):
        talk.begins(said)
        talk.house.lose(linked(talk.client), in_order=True)
        talk.house.settle()
        assert talk.heard() == heard


@pytest.mark.parametrize("arrived", [1, 10])
def test_what_has_arrived_in_part_does_not(talk: Talk, arrived: int) -> None:
    talk.begins(SELECT)
    server = linked(talk.client)
    server.postgres.feed(server.transport.take(arrived))
    talk.house.lose(server, in_order=True)
    assert talk.heard() == "E08006 ZI"


def test_nor_does_what_is_within_a_transaction_or_one_of_several(talk: Talk) -> None:
    talk.begins(SELECT + SELECT)
    talk.house.lose(linked(talk.client), in_order=True)
    assert talk.heard() == "E08006 ZI E08006 ZI"
    talk.say(BEGIN)
    talk.begins(SELECT)
    talk.house.lose(linked(talk.client), in_order=True)
    assert talk.heard() == "E08006 ZE"


def test_what_waits_is_not_taken_for_what_is_under_way(talk: Talk) -> None:
    talk.say(BEGIN)
    talk.begins(parse(b"c", b"COMMIT") + SYNC)
    talk.begins(
        bind(b"c") + execute() + SYNC + SELECT
    )  # until it is known what the client has under this name
    assert talk.client.splice._held
    talk.house.lose(linked(talk.client), in_order=True)
    talk.house.settle()
    assert talk.heard() == "E08006 ZE E25P02 ZE E25P02 ZE"


def test_a_sync_within_copy_data_is_not_what_is_under_way(talk: Talk) -> None:
    talk.begins(query(b"COPY thing FROM STDIN"))
    server = linked(talk.client)
    server.transport.take(1000)
    server.receive(message(b"G", b"\0\0\0"))
    talk.begins(SYNC)
    talk.house.lose(server, in_order=True)
    assert talk.heard() == "G E08006 ZI"
    assert talk.say(message(b"c") + SELECT) == DONE


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (COMMIT, "E08006 ZI"),
        (whole(b"COMMIT"), "E08006 ZI"),
        (query(b"/* so */ end;"), "E08006 ZI"),
        (ROLLBACK, "CROLLBACK ZI"),
        (whole(b"ROLLBACK"), "E08006 ZI"),
        (bind(b"c") + execute() + SYNC, "E08006 ZI"),
        (bind(b"s") + execute() + SYNC, "E08006 ZE"),
        (query(b"COMMIT; BEGIN"), "E08006 ZE"),
        (COMMIT + SELECT, "E08006 ZE E08006 ZE"),
    ],
)
def test_an_end_of_a_transaction_that_was_under_way(talk: Talk, said: bytes, heard: str) -> None:
    """After COMMIT or ROLLBACK there is no transaction, as PostgreSQL has it, whatever became of it."""
    talk.say(parse(b"c", b"COMMIT") + parse(b"s", b"SELECT 'x'") + SYNC)
    for within in (b"", query(b"SET work_mem TO '1MB'")):
        talk.say(BEGIN + within)
        talk.begins(said)
        assert talk.lose() == heard
        talk.say(ROLLBACK)


# At any time.

FEW = settings(max_examples=examples(200))
SEEDS = st.integers(0, 2**32)


def run_with_losses(house: House, losses: int) -> None:
    """Have all clients say what they have to say, while servers end now and then."""
    while True:
        moves = [(house._from_client, one) for one in house.clients if house._may_speak(one)]
        moves += [(house._to_server, one) for one in house.servers if one.transport.written]  # type: ignore[misc]
        moves += [(house._from_server, one) for one in house.servers if one.answers]  # type: ignore[misc]
        moves += [(house._ended, one) for one in house.servers if one.leaving and not one.transport.written]  # type: ignore[misc]
        if not moves:
            return
        if losses and house.random.random() < 0.15:
            losses -= 1
            server = house.random.choice(
                [one for one in house.servers if one not in house.releasing] or [None]
            )
            if server is not None:
                house.lose(server, house.random.choice([b"", GOING]), house.random.choice([False, True]))
            continue
        move, one = house.random.choice(moves)
        move(one)


def due(script: bytes) -> int:
    return sum(tag in (b"Q", b"S") for tag, _payload in read(script))


@FEW
@given(scripts(READS + SETS + WRONG + BLOCKS + KEEPS + SQL), SEEDS, st.booleans(), st.integers(1, 5))
def test_servers_that_end_at_any_time(said: list[list[bytes]], seed: int, waits: bool, losses: int) -> None:
    house = House(seed, limit=(1, 100)[seed % 2])
    for number, one in enumerate(said):
        batches = [*(batch.replace(b"@@", b"m%d" % (number + 1)) for batch in one), ROLLBACK]
        stops, size = {}, 0
        for count, batch in enumerate(batches, 1):
            size += len(batch)
            if waits or count == len(batches):
                stops[size] = count
        house.client(b"".join(batches) + TERMINATE, stops)
    run_with_losses(house, losses)
    for number, client in enumerate(house.clients):
        assert client.gone in ("terminated", "lost"), short(client.heard)
        readies = sum(tag == b"Z" for tag, _payload in read(client.heard[: whole_messages(client.heard)]))
        if client.gone == "terminated":
            assert readies == due(client.script)
            if client.splice._bereft is None:
                assert_at_rest(client)
        else:
            assert readies <= due(client.script)
        assert PREFIX not in client.heard
        for other in range(len(said)):
            assert other == number or b"m%d" % (other + 1) not in client.heard
    assert not house.queue and not house.releasing
    assert len(house.idle) == len(house.servers)
    for server in house.servers:
        server.fit()


def whole_messages(stream: bytes) -> int:
    """Say how many bytes of a stream are whole messages."""
    at = 0
    while len(stream) >= at + 5 and len(stream) > at + int.from_bytes(stream[at + 1 : at + 5], "big"):
        at += 1 + int.from_bytes(stream[at + 1 : at + 5], "big")
    return at


@FEW
@given(
    st.lists(st.lists(st.sampled_from([0, 0, 1, 2]), max_size=8), min_size=1, max_size=3),
    SEEDS,
    st.booleans(),
)
def test_nothing_is_said_to_two_servers(plans: list[list[int]], seed: int, waits: bool) -> None:
    house = House(seed)
    tokens = []
    for number, plan in enumerate(plans):
        script, stops = b"", {}
        for turn, kind in enumerate(plan):
            token = b"token_%d_%d" % (number, turn)
            tokens.append(token)
            said = b"SELECT '%s'" % token
            script += (query(said), whole(said), parse(b"", said) + bind(b"") + execute() + SYNC)[kind]
            if waits or turn == len(plan) - 1:
                stops[len(script)] = turn + 1
        house.client(script + TERMINATE, stops)
    run_with_losses(house, 5)
    for token in tokens:
        assert sum(one.postgres.heard.count(token + b"'") for one in [*house.servers, *house.lost]) <= 1
    for number, (client, plan) in enumerate(zip(house.clients, plans, strict=True)):
        assert client.gone in ("terminated", "lost")
        if client.gone == "terminated":
            for turn in range(len(plan)):
                # It was answered, or an error was.
                assert client.heard.count(b"token_%d_%d" % (number, turn)) <= 1
