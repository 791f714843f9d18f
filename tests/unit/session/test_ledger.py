"""What a server owes, in the conversations that real drivers have."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.session.ledger import FAILED, IDLE, IN_TRANSACTION, Ledger


def play(script: str) -> Ledger:
    """
    Play a conversation: `<` and the client's tags, `>` and the server's.

    The server's are z (ready, idle), t (ready, in a transaction), e (ready, failed), E, G and W.
    """
    ledger = Ledger()
    status = {"z": IDLE, "t": IN_TRANSACTION, "e": FAILED}
    for word in script.split():
        for letter in word[1:]:
            if word[0] == "<":
                ledger.sent(ord(letter))
            elif letter in status:
                ledger.ready(status[letter])
            else:
                {"E": ledger.error, "G": ledger.copy_in, "W": ledger.copy_both}[letter]()
    return ledger


@pytest.mark.parametrize(
    "script",
    [
        "",
        "<Q >z",
        "<Q >t <Q >z",
        "<Q >Ez",
        "<F >z",
        "<QQQ >zzz",
        "<PBDES >z",
        "<PBDES >Ez",
        "<PBESPBES >zz",
        "<PH <BEH <S >z",
        "<S >z",
        "<H",  # a Flush asks for nothing
        "<PBDESH >z",
        "<Q >G <c >z",  # COPY by simple query
        "<Q >G <f >Ez",
        "<Qc >Gz",  # the same, all sent ahead
        "<PBDES >G <cS >z",  # COPY as libpq does it: a Sync that the server throws away
        "<PBDEScS >Gz",
        "<PBDES >G <SSHcS >z",
        "<PBDES >E <cS >zz",  # refused before it began: both Syncs are answered
        "<Q >GEz <c",  # data that comes after its statement has failed
        "<QcQ >Gzz",
        "<PBE >G <c <S >z",
    ],
)
def test_settled(script: str) -> None:
    ledger = play(script)
    assert ledger.settled
    assert ledger.awaited == 0
    assert not ledger.irregular and not ledger.doubtful


@pytest.mark.parametrize(
    "script",
    [
        "<Q",
        "<Q >t",
        "<Q >Ee",
        "<P",
        "<PBDE",
        "<PS >z <B",
        "<QQ >z",
        "<SS >z",
        "<Q >G",
        "<Q >G <c",
        "<PBES >G <c",
        "<PBES >G <cS",
        "<PBES >GE",
        "<Q >W",
        "<Q >Wz",
    ],
)
def test_not_settled(script: str) -> None:
    assert not play(script).settled


@pytest.mark.parametrize(
    "script",
    [
        "<QPBEcS >z >G >z",
        "<PSPBEcS >z >G >z",
        "<QPBEcS >z >Ez",
        "<QPBEcSPBEcS >z >G >z >G >z",
        "<QcPBEcS >Ez >G >z",
    ],
)
def test_data_that_is_said_behind_something_else_belongs_to_its_own_batch(script: str) -> None:
    ledger = play(script)
    assert ledger.settled and not ledger.doubtful


def test_an_error_in_an_extended_copy_leaves_a_doubt() -> None:
    ledger = play("<PBDES >G >E <cS >z")
    assert ledger.settled and ledger.doubtful


def test_an_error_in_a_simple_copy_leaves_none() -> None:
    assert not play("<Q >G >Ez <c").doubtful


def test_an_answer_that_nobody_asked_for_leaves_a_doubt() -> None:
    assert play(">z").doubtful


def test_a_query_behind_an_open_batch_is_irregular() -> None:
    ledger = play("<PBEQ >zz")
    assert ledger.irregular and not ledger.settled


def test_awaited_counts_answers_not_marks() -> None:
    assert play("<QcQ").awaited == 2


def test_data_that_ends_without_having_begun_is_not_remembered_without_bound() -> None:
    ledger = play("<P" + "cf" * 10_000)
    assert len(ledger.owed) <= 100
    for letter in "Sc" * 3:
        ledger.sent(ord(letter))
    assert ledger.awaited == 3


def test_many_copies_in_one_query_sent_ahead() -> None:
    assert play("<Q" + "c" * 50 + " >" + "G" * 50 + "z").settled


def test_an_account_that_is_full() -> None:
    ledger = play("<" + "S" * 10_000)
    assert ledger.full
    ledger.ready(IDLE)
    assert not ledger.full


@given(st.lists(st.sampled_from(["theirs", "ours", "answer", "begin"]), max_size=30))
def test_what_is_counted_never_becomes_less(steps: list[str]) -> None:
    # Ours goes to the server with what comes behind it: it is counted out when it is answered.
    ledger, answers, ended, status = Ledger(), 0, 0, IDLE
    for step in steps:
        if step == "theirs":
            ledger.sent(ord("Q"))
        elif step == "ours":
            ledger.sent_ours()
        elif ledger.owed:
            if not ledger.ours_next:
                answers, ended, status = answers + 1, ended + 1, IDLE
            ledger.ready(status)
        elif ledger.settled:
            ledger.sent(ord("Q"))
            answers, status = answers + 1, IN_TRANSACTION
            ledger.ready(status)
        assert (ledger.queries, ledger.transactions) == (answers, ended)


@pytest.mark.parametrize(
    ("script", "behind"),
    [
        ("<PS", False),
        ("<PSQ", True),
        ("<PSPSQ", True),
        ("<QPS", False),
        ("<QPS >z", False),
        ("<QQPS >z", False),
    ],
)
def test_a_query_behind_the_batch_that_is_answered(script: str, behind: bool) -> None:
    ledger = play(script)
    assert ledger.queried_behind(ledger.answered) is behind
    assert not ledger.queried_behind(ledger.asked)
