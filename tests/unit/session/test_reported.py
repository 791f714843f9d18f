"""The settings that servers report, and what clients are told of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.session.reported import MOST, NOTHING_REPORTED, Reported, news, with_status
from pgproxy.wire import messages
from pgproxy.wire.skim import Malformed
from tests.unit.session.model import read

STATUSES = st.lists(
    st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.sampled_from([b"", b"1", b"2"])), max_size=6
)


def after(statuses: list[tuple[bytes, bytes]]) -> Reported:
    reported = NOTHING_REPORTED
    for name, value in statuses:
        reported = with_status(reported, name + b"\0" + value + b"\0")
    return reported


@given(STATUSES)
def test_the_last_word_counts(statuses: list[tuple[bytes, bytes]]) -> None:
    assert dict(after(statuses)) == dict(statuses)
    assert after(statuses) is after(list(dict(statuses).items()))


@given(STATUSES, STATUSES)
def test_news_bring_a_client_up_to_date_and_say_nothing_twice(
    told: list[tuple[bytes, bytes]], reported: list[tuple[bytes, bytes]]
) -> None:
    before, now = after(told), after(told + reported)
    said = [
        messages.read_parameter_status(payload) for tag, payload in read(news(before, now)) if tag == b"S"
    ]
    assert {**before, **dict(said)} == dict(now)
    assert all(before.get(name) != value for name, value in said)
    assert len(said) == len(dict(said))


def test_a_server_may_report_so_many() -> None:
    reported = after([(b"%d" % number, b"") for number in range(MOST)])
    assert with_status(reported, b"7\0x\0")[b"7"] == b"x"
    with pytest.raises(Malformed):
        with_status(reported, b"more\0x\0")


@pytest.mark.parametrize("payload", [b"", b"a", b"a\0b", b"a\0b\0c"])
def test_malformed(payload: bytes) -> None:
    with pytest.raises(Malformed):
        with_status(NOTHING_REPORTED, payload)
