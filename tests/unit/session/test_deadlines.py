"""When a client's life ends: nobody is ended early, nobody late, and who waits is told so once."""

from __future__ import annotations

import pytest
from attrs import define, evolve, field
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.session.conversation import Conversation
from pgproxy.session.deadlines import Attention, Deadlines, Overdue, Watch, time_between_looks
from pgproxy.session.following import Following
from pgproxy.session.ledger import FAILED, IDLE, IN_TRANSACTION
from pgproxy.session.suspicion import Verdicts
from pgproxy.wire import messages, tags
from pgproxy.wire.skim import Skimmer
from tests.unit.session.model import message, query
from tests.unit.session.test_conversation import from_client, from_server, talk
from tests.unit.sessions import new_session

ALL = Deadlines(
    idle_client_timeout=10,
    idle_transaction_timeout=4,
    transaction_timeout=8,
    query_timeout=6,
    connection_borrow_notice=3,
)


@define
class Client:
    """One client that is looked at."""

    deadlines: Deadlines = ALL
    talk: Conversation = field(factory=Conversation)
    watch: Watch = field(factory=Watch)
    now: float = 0.0

    def look(
        self, seconds: float, place: int = 0, unsent: int = 0, held: bool = False
    ) -> tuple[Overdue, float] | None:
        """Look once a second for so long; say which limit it comes to, and when."""
        end = self.now + seconds
        while self.now < end:
            self.now += 1
            overdue = self.watch.look(self.now, self.deadlines, self.talk, place, unsent, held)
            if overdue is not None:
                return overdue, self.now
        return None

    def wait(self, seconds: float) -> list[float]:
        """The same while it waits for a server: say when it is told so."""
        told = []
        end = self.now + seconds
        while self.now < end:
            self.now += 1
            if self.watch.wait(self.now, self.deadlines, self.talk):
                told.append(self.now)
        return told

    def sends(self, letters: str) -> None:
        for letter in letters:
            self.talk.ledger.sent(ord(letter))

    def gets(self, *statuses: int) -> None:
        for status in statuses:
            self.talk.ledger.ready(status)


@pytest.fixture
def client() -> Client:
    return Client()


# The limits.


def test_idle(client: Client) -> None:
    assert client.look(100) == (Overdue.IDLE_CLIENT, 11)


@pytest.mark.parametrize("status", [IN_TRANSACTION, FAILED])
def test_idle_in_a_transaction(client: Client, status: int) -> None:
    client.sends("Q")
    client.gets(status)
    assert client.look(100) == (Overdue.IDLE_TRANSACTION, 5)


def test_a_transaction_of_many_statements(client: Client) -> None:
    for _ in range(8):
        client.sends("Q")
        client.gets(IN_TRANSACTION)
        assert client.look(1) is None
    client.sends("Q")
    assert client.look(100) == (Overdue.TRANSACTION, 9)


def test_a_query(client: Client) -> None:
    client.sends("Q")
    assert client.look(100) == (Overdue.QUERY, 7)


def test_a_statement_outside_of_a_transaction_is_one(client: Client) -> None:
    client.deadlines = evolve(ALL, query_timeout=0)
    client.sends("Q")
    assert client.look(100) == (Overdue.TRANSACTION, 9)


def test_none() -> None:
    client = Client(Deadlines())
    assert client.look(1000) is None
    client.sends("Q")
    assert client.look(1000) is None
    client.gets(IN_TRANSACTION)
    assert client.look(1000) is None
    assert client.wait(1000) == []


def test_other_limits_hold_from_the_next_look(client: Client) -> None:
    assert client.look(5) is None
    client.deadlines = evolve(ALL, idle_client_timeout=5)
    assert client.look(100) == (Overdue.IDLE_CLIENT, 6)


def test_a_limit_of_transactions_that_is_new_begins_when_it_is_known() -> None:
    client = Client(Deadlines())
    client.sends("Q")
    client.look(100)
    client.deadlines = Deadlines(transaction_timeout=8)
    assert client.look(100) == (Overdue.TRANSACTION, 109)


# Who is doing something.


@pytest.mark.parametrize("status", [IDLE, IN_TRANSACTION])
def test_work_between_two_looks(client: Client, status: int) -> None:
    client.deadlines = evolve(ALL, transaction_timeout=0)
    for _ in range(10):
        client.sends("Q")
        client.gets(status)
        assert client.look(4) is None


def test_transactions_between_two_looks_though_it_always_seems_to_be_in_one(client: Client) -> None:
    for _ in range(20):
        client.sends("Q")
        client.gets(IN_TRANSACTION)
        assert client.look(1) is None
        client.sends("Q")
        client.gets(IDLE)


def test_transactions_that_follow_each_other_without_a_pause(client: Client) -> None:
    """COMMIT AND CHAIN: no ReadyForQuery ever says idle."""
    client.talk = talk()
    for _ in range(20):
        client.sends("Q")
        assert client.look(1) is None
        from_server(client.talk, message(b"C", b"COMMIT\0"))
        from_server(client.talk, messages.ready_for_query(b"T"))


def test_a_pipeline_whose_batches_are_answered(client: Client) -> None:
    client.deadlines = Deadlines(query_timeout=6)
    client.sends("PBDES" * 20)
    for _ in range(19):
        assert client.look(5) is None
        client.gets(IDLE)
    assert client.look(100) == (Overdue.QUERY, 102)


def test_the_next_server_is_another_account(client: Client) -> None:
    """The numbers of a new ledger may be the same."""
    for _ in range(20):
        assert client.look(9) is None
        client.sends("Q")
        client.gets(IDLE)
        client.talk.end()
    for _ in range(20):
        client.sends("Q")
        assert client.look(3) is None
        client.gets(IDLE)
        client.talk.end()


def test_what_the_proxy_asks_is_nothing_of_the_clients(client: Client) -> None:
    client.look(1)
    client.talk.ledger.sent_ours()
    assert client.look(100) == (Overdue.IDLE_CLIENT, 12)


def test_what_the_proxy_says_first_does_not_count(client: Client) -> None:
    client.talk.ledger.sent_ours()
    client.sends("Q")
    assert client.look(5) is None
    client.gets(IDLE)
    assert client.look(100) == (Overdue.QUERY, 12)


@pytest.mark.parametrize("opening", ["P", "PBDE", "SP"])
def test_a_batch_without_its_sync_is_a_query(client: Client, opening: str) -> None:
    client.sends(opening)
    assert client.look(100) == (Overdue.QUERY, 7)


def test_copy_is_a_query(client: Client) -> None:
    client.sends("Q")
    client.talk.ledger.copy_in()
    assert client.look(100, place=77) == (Overdue.QUERY, 7)
    client.deadlines = evolve(ALL, query_timeout=0, transaction_timeout=0)
    assert client.look(100, place=77) is None


@pytest.mark.parametrize(("status", "limit"), [(IDLE, 10), (IN_TRANSACTION, 4)])
def test_a_query_that_does_not_come_whole(client: Client, status: int, limit: float) -> None:
    """As directly: PostgreSQL has not begun with it."""
    client.sends("Q")
    client.gets(status)
    client.sends("Q")
    for left in range(20, 10, -1):
        assert client.look(3, place=left) is None
        client.deadlines = evolve(ALL, transaction_timeout=0)
    ended = client.look(100, place=1)
    assert ended is not None and ended[1] == 31 + limit and ended[0] is not Overdue.QUERY


@pytest.mark.parametrize("sent", ["QQ", "QP", "SP"])
def test_what_does_not_come_whole_behind_something_else(client: Client, sent: str) -> None:
    client.sends(sent)
    assert client.look(100, place=10) == (Overdue.QUERY, 7)


def test_a_message_that_comes_in_pieces(client: Client) -> None:
    for kept in range(1, 20):
        assert client.look(9, place=-kept) is None


def test_results_that_are_taken_slowly(client: Client) -> None:
    for unsent in range(20, 0, -1):
        assert client.look(9, unsent=unsent) is None
    assert client.look(100, unsent=1) == (Overdue.IDLE_CLIENT, 182)


def test_who_has_sent_what_waits_is_not_idle(client: Client) -> None:
    client.talk.ledger.sent_ours()
    assert client.look(100, held=True) is None
    client.sends("Q")
    assert client.look(100, held=True) == (Overdue.QUERY, 107)


class Listener(Conversation):
    @property
    def listens(self) -> bool:
        return True


def test_who_listens_is_not_idle_but_in_a_transaction(client: Client) -> None:
    client.talk = Listener()
    assert client.look(1000) is None
    client.sends("Q")
    client.gets(IN_TRANSACTION)
    ended = client.look(100)
    assert ended is not None and ended[0] is Overdue.IDLE_TRANSACTION


# Who waits for a server.


def test_who_waits_is_told_once_in_each_wait(client: Client) -> None:
    assert client.wait(100) == [4]
    client.sends("Q")
    assert client.look(1) is None
    client.gets(IDLE)
    assert client.wait(100) == [105]


def test_waits_that_are_short(client: Client) -> None:
    for _ in range(20):
        assert client.wait(3) == []
        client.sends("Q")
        client.gets(IDLE)


def test_who_waits_is_not_idle_and_has_no_transaction(client: Client) -> None:
    assert client.look(9) is None
    client.wait(1000)
    client.sends("Q")
    assert client.look(6) is None
    assert client.look(1) == (Overdue.QUERY, client.now)


def test_idleness_begins_behind_a_wait_that_led_to_nothing(client: Client) -> None:
    assert client.look(9) is None
    client.wait(1)
    assert client.look(9) is None


# The law, for any life.


@define
class Truth:
    """When things have really begun."""

    busy: float | None = None
    idle: float | None = 0.0
    transaction: float | None = None

    def query(self, now: float) -> None:
        self.busy, self.idle = now, None
        if self.transaction is None:
            self.transaction = now

    def ready(self, now: float, status: int) -> None:
        self.busy, self.idle = None, now
        if status == IDLE:
            self.transaction = None

    def lasted(self, now: float) -> dict[Overdue, float]:
        """How much longer than its limit each thing has lasted, in seconds."""
        idle = Overdue.IDLE_TRANSACTION if self.transaction is not None else Overdue.IDLE_CLIENT
        begun = {Overdue.QUERY: self.busy, idle: self.idle, Overdue.TRANSACTION: self.transaction}
        return {
            what: now - since - getattr(ALL, what.value) for what, since in begun.items() if since is not None
        }


@given(
    st.lists(st.tuples(st.floats(0, 12), st.sampled_from([IDLE, IN_TRANSACTION, FAILED])), max_size=30),
    st.lists(st.floats(0.1, 1), min_size=1, max_size=20),
)
def test_nobody_is_ended_early_or_late(acts: list[tuple[float, int]], pauses: list[float]) -> None:
    client = Client()
    truth = Truth()
    acts = [*acts, (1000, IDLE)]
    now, looked, act, at = 0.0, 0, 0, acts[0][0]
    while act < len(acts) - 1:
        look_at = client.now + pauses[looked % len(pauses)]
        if at <= look_at:
            now = at
            if truth.busy is None:
                client.sends("Q")
                truth.query(now)
            else:
                client.gets(acts[act][1])
                truth.ready(now, acts[act][1])
            act += 1
            at += acts[act][0]
            continue
        client.now = now = look_at
        looked += 1
        overdue = client.watch.look(now, ALL, client.talk, 0, 0, False)
        if overdue is not None:
            assert truth.lasted(now)[overdue] > -1e-9
            return
        assert all(over < 2 for over in truth.lasted(now).values())


# Looks.


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [((), 1.0), ((0, 0), 1.0), ((1800, 0, 5), 1.0), ((1800, 2), 0.4), ((0.3,), 0.1), ((1, 0), 0.2)],
)
def test_how_often_clients_are_looked_at(limits: tuple[float, ...], seconds: float) -> None:
    assert time_between_looks(limits) == pytest.approx(seconds)


@pytest.mark.parametrize(("limit", "pause"), [(0, 9), (1800, 9), (25, 4), (5, 0), (0.3, 0)])
@pytest.mark.parametrize("which", [overdue.value for overdue in Overdue])
def test_a_client_of_long_limits_is_looked_at_seldom(which: str, limit: float, pause: float) -> None:
    watch = Watch()
    assert watch.due == 0
    watch.look(77, Deadlines(**{which: limit}), Conversation(), 0, 0, False)
    assert watch.due == pytest.approx(77 + pause)


def test_who_waits_is_looked_at_every_time() -> None:
    watch = Watch()
    watch.wait(77, Deadlines(idle_client_timeout=1800), Conversation())
    assert watch.due == 0


def test_limits_are_the_same_where_they_are_equal() -> None:
    assert len({Deadlines(1800), Deadlines(1800), Deadlines(1801)}) == 2


def test_time_passes_while_somebody_looks() -> None:
    attention = Attention()
    assert attention.look(1_000_000.0, 1.0) == 0
    assert attention.look(1_000_001.0, 1.0) == 1
    assert attention.look(1_000_002.5, 1.0) == 2.5


@pytest.mark.parametrize(("leap", "passed"), [(3600.0, 2.0), (-3600.0, 0.0)])
def test_time_that_nobody_saw_pass(leap: float, passed: float) -> None:
    """The process was stopped, or the clock was set."""
    attention = Attention()
    attention.look(5000.0, 1.0)
    assert attention.look(5000.0 + leap, 1.0) == passed
    assert attention.look(5001.0 + leap, 1.0) == passed + 1


@given(st.lists(st.floats(-10, 10), max_size=50))
def test_time_never_goes_back(steps: list[float]) -> None:
    attention = Attention()
    now, before = 100.0, attention.look(100.0, 1.0)
    for step in steps:
        now += step
        after = attention.look(now, 1.0)
        assert before <= after <= before + 2
        before = after


# Signals.


def test_where_a_stream_is() -> None:
    skim = Skimmer(tags.FROM_CLIENT)
    places = {skim.place}
    for byte in messages.query("x" * 20):
        skim.feed(bytes([byte]))
        places.add(skim.place)
    # -1 to -4: a header that is not whole; 21 to 1: what is to come.
    assert places == {0, *range(-4, 0), *range(1, 22)} and skim.place == 0


def test_listening_in_session_mode() -> None:
    one = talk()
    assert not one.listens
    from_server(one, message(b"C", b"LISTEN\0"))
    assert one.listens and not one.lasting


def following(hidden: bool) -> Following:
    one = Following(Verdicts(), frozenset(), None)
    session = new_session()
    session.habits.hidden = hidden
    one.begin(session)
    return one


@pytest.mark.parametrize("hidden", [False, True])
def test_a_commit_ends_a_transaction_that_goes_on_as_another(hidden: bool) -> None:
    for one in (talk(), following(hidden)):
        from_client(one, query(b"BEGIN"))
        from_server(one, message(b"C", b"BEGIN\0") + messages.ready_for_query(b"T"))
        begun = one.ledger.transaction
        from_client(one, query(b"SAVEPOINT s") + query(b"COMMENT ON TABLE t IS ''") + query(b"ROLLBACK TO s"))
        for tag in (b"SAVEPOINT", b"COMMENT", b"ROLLBACK"):
            from_server(one, message(b"C", tag + b"\0") + messages.ready_for_query(b"T"))
        assert one.ledger.transaction == begun
        from_client(one, query(b"COMMIT AND CHAIN"))
        from_server(one, message(b"C", b"COMMIT\0") + messages.ready_for_query(b"T"))
        assert one.ledger.transaction > begun


@pytest.mark.parametrize(("hidden", "asks"), [(False, False), (True, True)])
@pytest.mark.parametrize("tag", [b"COMMIT", b"COMMENT"])
def test_what_begins_like_commit_is_quiet_unless_something_is_hidden(
    hidden: bool, asks: bool, tag: bytes
) -> None:
    one = following(hidden)
    from_client(one, query(b"COMMIT"))
    from_server(one, message(b"C", tag + b"\0") + messages.ready_for_query(b"I"))
    assert bool(one.rest()) is asks
