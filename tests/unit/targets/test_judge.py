"""Who is the writer: the law of pgproxy/targets/judge.py."""

from hypothesis import given
from hypothesis import strategies as st

from pgproxy.targets.facts import Address, Answer, Trouble
from pgproxy.targets.history import Change, Entry
from pgproxy.targets.judge import Judge

A, B, C = (Address(name, 5432) for name in "abc")
LAG = 10.0
TIMEOUT = 3.0


def writer(timeline: int = 1, lsn: int = 100, system: str = "s") -> Answer:
    return Answer(False, lsn, timeline, system)


def reader(timeline: int = 1, lsn: int = 100, system: str = "s") -> Answer:
    return Answer(True, lsn, timeline, system)


def judge() -> Judge:
    made = Judge(TIMEOUT, LAG)
    made.set_hosts((A, B, C), 0.0)
    return made


def a_cluster() -> Judge:
    """A is the writer; B and C are readers."""
    made = judge()
    made.answered(A, writer(), 1.0)
    made.answered(B, reader(), 1.0)
    made.answered(C, reader(), 1.0)
    return made


def readers(made: Judge) -> list[Address]:
    return list(made.roles.readers)


def changes(entries: list[Entry]) -> list[tuple[Address, Change]]:
    return [(entry.host, entry.change) for entry in entries]


def test_a_host_that_is_not_in_recovery_is_the_writer() -> None:
    made = a_cluster()
    assert made.roles.writer == A
    assert made.roles.up
    assert readers(made) == [B, C]


def test_nobody_is_the_writer_before_one_says_so() -> None:
    made = judge()
    made.answered(B, reader(), 1.0)
    assert made.roles.writer is None


def test_a_writer_that_is_silent_stays_the_writer_until_another_is() -> None:
    made = a_cluster()
    made.failed(A, Trouble.UNREACHABLE, "refused", 2.0)
    assert made.roles.writer == A
    assert not made.roles.up
    entries = made.answered(B, writer(timeline=2), 2.5)
    assert made.roles.writer == B
    assert readers(made) == [C]
    assert changes(entries) == [
        (A, Change.NO_LONGER_WRITER),
        (B, Change.BECAME_WRITER),
        (B, Change.READER_OUT),
    ]
    assert "refused" in entries[0].why


def test_a_writer_that_says_that_it_is_in_recovery_is_demoted_at_once() -> None:
    made = a_cluster()
    made.answered(A, reader(), 2.0)
    assert made.roles.writer is None
    assert readers(made) == [A, B, C]


def test_of_two_writers_the_one_with_the_higher_timeline_is_believed() -> None:
    made = a_cluster()
    made.answered(B, writer(timeline=2), 2.0)
    assert made.roles.writer == B
    entries = made.answered(A, writer(timeline=1), 2.1)
    assert made.roles.writer == B
    assert not entries
    assert made.hosts[A].fenced


def test_an_old_writer_that_comes_back_is_fenced_though_the_new_one_is_silent() -> None:
    made = a_cluster()
    made.failed(A, Trouble.UNREACHABLE, "refused", 2.0)
    made.answered(B, writer(timeline=2), 2.0)
    made.failed(B, Trouble.SILENT, "no answer", 3.0)
    entries = made.answered(A, writer(timeline=1), 4.0)
    assert changes(entries) == [(A, Change.FENCED)]
    assert made.roles.writer == B


def test_most_readers_know_of_a_higher_timeline() -> None:
    made = judge()
    made.answered(B, reader(timeline=2), 1.0)
    made.answered(C, reader(timeline=2), 1.0)
    made.answered(A, writer(timeline=1), 1.0)
    assert made.roles.writer is None


def test_one_readers_word_fences_nobody() -> None:
    made = judge()
    made.answered(B, reader(timeline=2), 1.0)
    made.answered(C, reader(timeline=1), 1.0)
    made.answered(A, writer(timeline=1), 1.0)
    assert made.roles.writer == A


def test_two_writers_that_nothing_tells_apart() -> None:
    made = judge()
    made.answered(A, writer(), 1.0)
    made.answered(B, writer(), 1.0)
    # The one that was there first stays.
    assert made.roles.writer == A
    assert made.hosts[B].fenced


def test_a_host_of_another_cluster_is_nobody() -> None:
    made = a_cluster()
    entries = made.answered(C, writer(timeline=9, system="other"), 2.0)
    assert made.roles.writer == A
    assert readers(made) == [B]
    assert (C, Change.STRANGER) in changes(entries)
    made.answered(C, reader(), 3.0)
    assert readers(made) == [B, C]


def test_another_cluster_may_take_the_place_of_all() -> None:
    made = judge()
    made.answered(A, writer(timeline=5), 1.0)
    made.answered(A, writer(timeline=1, system="new"), 2.0)
    made.answered(B, reader(timeline=1, system="new"), 2.0)
    assert made.roles.writer == A


def test_a_writer_is_given_up_after_its_time_and_may_come_back() -> None:
    made = a_cluster()
    made.failed(A, Trouble.SILENT, "no answer", 2.0)
    assert not made.judge(4.9)
    entries = made.judge(5.0)
    assert changes(entries) == [(A, Change.WRITER_SILENT)]
    assert made.roles.given_up
    entries = made.answered(A, writer(), 6.0)
    assert changes(entries) == [(A, Change.WRITER_BACK)]
    assert not made.roles.given_up


def test_a_writer_that_refuses_only_the_watcher_is_not_given_up() -> None:
    made = a_cluster()
    made.failed(A, Trouble.REFUSED, "28P01", 2.0)
    made.judge(100.0)
    assert made.roles.writer == A
    assert not made.roles.given_up


def test_a_reader_that_lags_is_taken_out_and_back_in() -> None:
    made = a_cluster()
    made.answered(A, writer(lsn=200), 10.0)
    made.answered(A, writer(lsn=300), 16.0)
    assert not made.answered(B, reader(lsn=199), 19.9)
    entries = made.answered(B, reader(lsn=199), 20.1)
    assert changes(entries) == [(B, Change.READER_OUT)]
    # It has come to where the writer was at 16: 6 seconds behind, more than half.
    assert not made.answered(B, reader(lsn=200), 22.0)
    entries = made.answered(B, reader(lsn=300), 22.1)
    assert changes(entries) == [(B, Change.READER_IN)]


def test_a_reader_that_is_slow_to_answer_gets_its_time() -> None:
    made = a_cluster()
    made.failed(B, Trouble.SILENT, "no answer", 2.0)
    assert readers(made) == [B, C]
    made.judge(5.0)
    assert readers(made) == [C]
    made.failed(C, Trouble.UNREACHABLE, "refused", 5.0)
    assert readers(made) == []


def test_hosts_come_and_go() -> None:
    made = a_cluster()
    entries = made.set_hosts((B, C), 2.0)
    assert (A, Change.GONE) in changes(entries)
    assert made.roles.writer is None


def test_one_that_does_not_say_its_timeline_is_not_fenced_for_that() -> None:
    made = a_cluster()
    made.failed(A, Trouble.UNREACHABLE, "refused", 2.0)
    made.answered(B, Answer(False), 2.0)
    assert made.roles.writer == B
    made.answered(A, writer(timeline=1), 3.0)
    assert made.roles.writer == B
    assert made.hosts[A].fenced


ANSWERS = st.builds(
    Answer, st.booleans(), st.integers(0, 5), st.integers(0, 3), st.sampled_from(["", "s", "t"])
)
FACTS = st.tuples(st.sampled_from((A, B, C)), ANSWERS | st.sampled_from(Trouble), st.floats(0.0, 2.0))


@given(st.lists(FACTS, max_size=40))
def test_whatever_they_say(facts: list[tuple[Address, Answer | Trouble, float]]) -> None:
    made = judge()
    now = 0.0
    for address, said, later in facts:
        now += later
        before = made.roles
        if isinstance(said, Answer):
            made.answered(address, said, now)
        else:
            made.failed(address, said, said.value, now)
        roles = made.roles
        assert roles.writer not in roles.readers
        if roles.writer is not None:
            host = made.hosts[roles.writer]
            assert host.answer is not None
            assert not host.answer.in_recovery
            assert not host.fenced
            if roles.writer != before.writer:
                assert host.answers()
        for address_of in roles.readers:
            answer = made.hosts[address_of].answer
            assert answer is not None
            assert answer.in_recovery
        assert not made.judge(now)
