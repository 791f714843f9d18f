"""What a text does to a transaction that has failed: only what is certain is said to end it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.session.exits import Exit, exit_of

TEXTS = {
    Exit.EMPTY: ["", " ", ";", " ; ;", "-- nothing", "/* /* */ */;"],
    Exit.ROLLBACK: [
        "rollback",
        "ROLLBACK;",
        " ; Rollback Work",
        "rollback transaction;;",
        "abort",
        "ABORT TRANSACTION",
        "/* why */ rollback -- now",
        "rollback and no chain",
        "abort work and no chain;",
    ],
    Exit.ROLLBACK_AND_MORE: [
        "rollback; select 1",
        "ROLLBACK;\nSELECT pg_advisory_unlock_all();\nCLOSE ALL;",
        "abort; rollback to a",
        "rollback; rollback",
    ],
    Exit.COMMIT: ["commit", "COMMIT WORK;", "end", "END TRANSACTION", "commit and no chain", "--\nend"],
    Exit.OTHER: [
        "select 1",
        "rollback and chain",
        "commit and chain",
        "rollback prepared 'a'",
        "commit prepared 'a'",
        "prepare transaction 'a'",
        "commit; select 1",
        "commit; commit",
        "rollbacks",
        '"rollback"',
        "rollback 1",
        "rollback to",
        "abort to a",
        "rollback to a; select 1",
        "begin",
        "select 1; rollback",
        "$$rollback$$",
        "end if",
    ],
}
ALL = [(kind, text) for kind, texts in TEXTS.items() for text in texts]


@pytest.mark.parametrize(("kind", "text"), ALL)
def test_texts(kind: Exit, text: str) -> None:
    assert exit_of(text.encode()) == (kind, b"")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("rollback to a", b"a"),
        ("ROLLBACK TO SAVEPOINT A;", b"a"),
        ('rollback work to "A b"', b"A b"),
        ("rollback transaction to savepoint a", b"a"),
    ],
)
def test_savepoints(text: str, name: bytes) -> None:
    assert exit_of(text.encode()) == (Exit.ROLLBACK_TO, name)


@pytest.mark.parametrize("text", TEXTS[Exit.ROLLBACK])
def test_a_text_that_is_not_all_there_may_go_on(text: str) -> None:
    assert exit_of(text.encode(), whole=False)[0] is Exit.ROLLBACK_AND_MORE


@pytest.mark.parametrize("kind", [Exit.EMPTY, Exit.COMMIT, Exit.ROLLBACK_TO])
def test_nor_is_it_anything_else(kind: Exit) -> None:
    for text in TEXTS.get(kind, ["rollback to a"]):
        assert exit_of(text.encode(), whole=False)[0] is Exit.OTHER


def test_many_semicolons_are_not_read_to_their_end() -> None:
    assert exit_of(b";" * 1_000_000)[0] is Exit.OTHER
    assert exit_of(b"rollback" + b";" * 1_000_000)[0] is Exit.ROLLBACK_AND_MORE


@given(st.binary(max_size=200), st.booleans())
def test_no_text_is_too_much(text: bytes, whole: bool) -> None:
    exit_of(text, whole)
