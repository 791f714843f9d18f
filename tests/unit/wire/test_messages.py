"""The messages that the proxy speaks itself, and the errors it says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.wire import errors, messages, tags
from pgproxy.wire.errors import Refusal, complaint
from pgproxy.wire.skim import Malformed


def test_a_reader_gives_whole_messages() -> None:
    reader = messages.MessageReader(100)
    stream = messages.query("select 1") + messages.SYNC
    seen = []
    for index in range(len(stream)):
        reader.feed(stream[index : index + 1])
        while (came := reader.next()) is not None:
            seen.append(came)
    assert seen == [(tags.QUERY, b"select 1\0"), (tags.SYNC, b"")]
    reader.feed(b"abc")
    assert reader.rest() == b"abc" and reader.rest() == b""


@pytest.mark.parametrize("length", [b"\0\0\0\3", b"\0\0\0\x65", b"\xff\xff\xff\xff"])
def test_a_reader_checks_the_length_first(length: bytes) -> None:
    reader = messages.MessageReader(100)
    reader.feed(b"p" + length)
    with pytest.raises(Malformed):
        reader.next()


@given(st.binary(max_size=60))
def test_error_fields_of_anything(payload: bytes) -> None:
    messages.read_error_fields(payload)
    told = errors.from_server(payload, messages.message(tags.ERROR_RESPONSE, payload))
    assert len(told.sqlstate) > 0 or told.verbatim


def test_a_servers_error_is_passed_on_as_it_is() -> None:
    message = messages.error_response({"S": "FATALE", "V": "FATAL", "C": "57P01", "M": "fin", "D": "tout"})
    told = errors.from_server(message[5:], message)
    assert told.message() == message
    assert (told.severity, told.sqlstate, told.text) == ("FATAL", "57P01", "fin")


def test_a_servers_error_without_sqlstate_is_told_in_our_words() -> None:
    message = messages.error_response({"S": "FATAL", "M": "no code"})
    fields = messages.read_error_fields(errors.from_server(message[5:], message).message()[5:])
    assert fields["C"] == "08P01" and fields["S"] == "FATAL"


def test_names_of_peers_are_bounded_and_printable() -> None:
    told = complaint(errors.UNKNOWN_DATABASE, database="a\nb\0" + "x" * 5000)
    assert told.text.startswith('database "a?b?xxx') and len(told.text) < 200


def test_braces_in_a_name_are_not_filled_in() -> None:
    assert "{user}" in complaint(errors.WRONG_PASSWORD, user="{user}").text


@pytest.mark.parametrize("refusal", [r for r in vars(errors).values() if isinstance(r, Refusal)])
def test_every_refusal_has_what_drivers_and_people_need(refusal: Refusal) -> None:
    assert len(refusal.sqlstate) == 5 and refusal.text
    assert refusal.severity in ("FATAL", "ERROR", "NOTICE")


def test_a_notice_is_no_error() -> None:
    assert complaint(errors.WAITING, "All are in use.").message() == messages.error_response(
        {
            "S": "NOTICE",
            "V": "NOTICE",
            "C": "00000",
            "M": "waiting for a server connection",
            "D": "All are in use.",
            "H": "pgproxy's connection_borrow_timeout ends the wait.",
        },
        tags.NOTICE_RESPONSE,
    )


def test_parameter_status_and_key_data() -> None:
    status = messages.parameter_status(b"TimeZone", b"UTC")
    assert messages.read_parameter_status(status[5:]) == (b"TimeZone", b"UTC")
    key = messages.backend_key_data(77, b"abcd")
    assert messages.read_backend_key_data(key[5:]) == (77, b"abcd")


@pytest.mark.parametrize("payload", [b"", b"a", b"a\0", b"a\0b", b"a\0b\0c\0"])
def test_malformed_parameter_status(payload: bytes) -> None:
    with pytest.raises(Malformed):
        messages.read_parameter_status(payload)


def test_malformed_key_data_and_authentication() -> None:
    for payload in (b"", b"abcd", b"x" * 300):
        with pytest.raises(Malformed):
            messages.read_backend_key_data(payload)
    with pytest.raises(Malformed):
        messages.read_authentication(b"abc")
