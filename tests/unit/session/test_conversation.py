"""Session mode: nothing is changed on the way, and what is passed is entered."""

from __future__ import annotations

import gc

import pytest

from pgproxy.session.conversation import Conversation, WriteRefused, is_fatal
from pgproxy.session.following import Following
from pgproxy.session.suspicion import Verdicts
from pgproxy.wire import tags
from pgproxy.wire.messages import error_response, parameter_status, ready_for_query
from pgproxy.wire.skim import Skimmer
from tests.unit.session.model import SYNC, TERMINATE, message, query, whole
from tests.unit.sessions import new_session


def talk() -> Conversation:
    one = Conversation()
    one.begin(new_session())
    return one


def from_server(one: Conversation, data: bytes) -> bytes:
    return one.from_server(*Skimmer(tags.FROM_SERVER).feed(data))


def from_client(one: Conversation, data: bytes) -> bytes:
    return one.from_client(*Skimmer(one.direction).feed(data))


def test_both_directions_are_passed_on_as_they_are() -> None:
    one = talk()
    said = query(b"SET a TO 'b'") + whole(b"SELECT 1")
    assert from_client(one, said) == said
    assert one.ledger.awaited == 2 and not one.ledger.settled
    heard = parameter_status(b"TimeZone", b"CET") + message(b"C", b"SET\0") + ready_for_query(b"I") * 2
    assert from_server(one, heard) == heard
    assert one.ledger.settled and one.rest() == b""
    assert one.server is not None and dict(one.server.reported) == {b"TimeZone": b"CET"}


@pytest.mark.parametrize("pinned", [False, True])
def test_one_that_is_over_leaves_nothing_to_the_garbage_collector(pinned: bool) -> None:
    one, server = Following(Verdicts(), frozenset(), None), new_session()
    one.begin(server)
    from_client(one, (query(b"SELECT nextval('s')") if pinned else query(b"SELECT 1")) + whole(b"SELECT 2"))
    one.gone()
    one.end()
    server.owner = None
    one.apart()
    gc.collect()
    gc.disable()
    try:
        del one
        assert not gc.collect()
    finally:
        gc.enable()


def test_behind_terminate_nothing_is_read() -> None:
    one = talk()
    assert from_client(one, SYNC + TERMINATE + query(b"x")) == SYNC
    assert one.terminated and one.ledger.awaited == 1


def test_the_client_is_told_what_is_new_at_a_server() -> None:
    one, server = Conversation(), new_session()
    assert one.begin(server).to_client == b""
    server.status(b"TimeZone\0CET\0")
    one.part()
    assert one.server is None
    assert one.begin(server).to_client == parameter_status(b"TimeZone", b"CET")
    assert one.begin(server).to_client == b"" and one.told is server.reported


def test_a_library_lasts_and_a_server_is_never_clean() -> None:
    one = talk()
    assert not one.lasting and not one.clean and not one.waits and not one.swallows and not one.describing
    from_client(one, query(b"LOAD 'auto_explain'"))
    from_server(one, message(b"C", b"LOAD\0") + ready_for_query(b"I"))
    assert one.lasting and not one.clean


def test_the_ledger_goes_with_the_server() -> None:
    one = talk()
    from_client(one, query(b"SELECT 1"))
    ledger = one.end()
    assert ledger.awaited == 1 and one.ledger is not ledger and one.ledger.settled and one.server is None


@pytest.mark.parametrize(
    ("fields", "fatal"),
    [
        ({"S": "ERROR", "V": "ERROR"}, False),
        ({"S": "FATALE", "V": "FATAL"}, True),
        ({"S": "PANIC"}, True),
        ({"S": "FATAL", "V": "ERROR"}, False),
        ({}, False),
    ],
)
def test_a_servers_last_word(fields: dict[str, str], fatal: bool) -> None:
    assert is_fatal(error_response(fields)[5:]) is fatal
    one = talk()
    from_server(one, error_response(fields))
    assert one.fatal is fatal


def test_what_a_notice_says_is_no_last_word() -> None:
    one = talk()
    from_server(one, error_response({"S": "FATAL"}, tags.NOTICE_RESPONSE))
    assert not one.fatal


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_a_write_that_is_refused_may_mean_that_the_writer_is_another(mode: str) -> None:
    one = Conversation() if mode == "session" else Following(Verdicts(), frozenset(), None)
    one.begin(new_session())
    from_client(one, query(b"insert into t values (1)"))
    refused = error_response({"S": "ERROR", "V": "ERROR", "C": "25006", "M": "read-only"})
    assert from_server(one, refused + ready_for_query(b"I")) == refused + ready_for_query(b"I")
    assert one.events == [WriteRefused()]
    assert not one.plain
