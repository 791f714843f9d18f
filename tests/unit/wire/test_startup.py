"""The packets that come before login."""

from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.wire.skim import Malformed
from pgproxy.wire.startup import (
    CancelRequest,
    GSSENCRequest,
    SSLRequest,
    StartupMessage,
    UnsupportedProtocol,
    cancel_request,
    packet_length,
    read_packet,
    ssl_request,
    startup_message,
)

names = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20
).filter(lambda name: name not in ("user", "database") and not name.startswith("_pq_."))
values = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@given(names, values, st.dictionaries(names, values))
def test_a_startup_message_reads_as_it_was_built(user: str, database: str, settings: dict[str, str]) -> None:
    parameters = tuple(sorted(settings.items()))
    packet = startup_message(user, database, parameters)
    assert packet_length(packet) == len(packet)
    assert read_packet(packet) == StartupMessage(user, database or user, parameters, 0, ())


def test_bytes_that_are_not_utf8_survive() -> None:
    packet = startup_message("a", "b", ())
    packet = packet.replace(b"\0a\0", b"\0\xff\0")
    startup = read_packet(packet)
    assert isinstance(startup, StartupMessage)
    assert startup_message(startup.user, startup.database, ()) == packet


def test_protocol_options_and_newer_minors_are_told_apart() -> None:
    body = b"user\0a\0_pq_.wish\0x\0\0"
    startup = read_packet(pack(">II", len(body) + 8, 3 << 16 | 2) + body)
    assert startup == StartupMessage("a", "a", (), 2, ("_pq_.wish",))


@pytest.mark.parametrize(
    ("value", "replication"),
    [
        ("true", True),
        ("database", True),
        ("1", True),
        ("on", True),
        ("false", False),
        ("off", False),
        ("0", False),
    ],
)
def test_replication(value: str, replication: bool) -> None:
    startup = read_packet(startup_message("a", "b", (("replication", value),)))
    assert isinstance(startup, StartupMessage)
    assert startup.replication is replication


def test_requests() -> None:
    assert read_packet(ssl_request()) == SSLRequest()
    assert read_packet(pack(">II", 8, 80877104)) == GSSENCRequest()
    assert read_packet(cancel_request(7, b"1234")) == CancelRequest(7, b"1234")


@pytest.mark.parametrize("length", [0, 1, 7, 10_001, 0x7FFFFFFF, 0xFFFFFFFF])
def test_lengths_out_of_bounds(length: int) -> None:
    with pytest.raises(Malformed, match="invalid length of startup packet"):
        packet_length(pack(">I", length))


def test_a_length_that_is_not_there_yet() -> None:
    assert packet_length(b"\0\0\0") is None


@pytest.mark.parametrize("code", [2 << 16, 4 << 16, 1234 << 16 | 1])
def test_other_major_versions(code: int) -> None:
    with pytest.raises(UnsupportedProtocol):
        read_packet(pack(">II", 8, code))


@given(st.binary(max_size=100), st.sampled_from([3 << 16, 80877102, 80877103, 80877104]))
def test_nothing_undocumented_is_raised(body: bytes, code: int) -> None:
    try:
        read_packet(pack(">II", len(body) + 8, code) + body)
    except (Malformed, UnsupportedProtocol):
        pass


@pytest.mark.parametrize("body", [b"", b"user\0a\0", b"user\0a", b"user\0\0", b"\0a\0\0", b"user\0a\0x\0\0"])
def test_layouts_that_do_not_pair(body: bytes) -> None:
    with pytest.raises(Malformed):
        read_packet(pack(">II", len(body) + 8, 3 << 16) + body)
