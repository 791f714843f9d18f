"""TLS without a socket: what is sealed on one side is read on the other, however it is cut."""

from __future__ import annotations

import ssl
from itertools import islice
from pathlib import Path

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.link.records import FULL_RECORD, Records
from tests.key_updates import key_updates, logging_keys

DATA = st.lists(st.binary(max_size=100) | st.integers(1, 3 * FULL_RECORD).map(bytes), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext, Path]:
    """One for a client and one for a server, and the file with the client's keys."""
    authority = trustme.CA()
    ours, theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("localhost").configure_cert(ours)
    authority.configure_trust(theirs)
    place = tmp_path_factory.mktemp("keys") / "keys"
    return logging_keys(theirs, place), ours, place


Contexts = tuple[ssl.SSLContext, ssl.SSLContext, Path]


def agree(contexts: Contexts) -> tuple[Records, Records]:
    client, server = Records(contexts[0], False, "localhost"), Records(contexts[1], True, None)
    assert not client.shake_hands(b"")
    assert not server.shake_hands(client.outgoing.read())
    assert client.shake_hands(server.outgoing.read())
    assert server.shake_hands(client.outgoing.read())
    client.open(server.outgoing.read())
    return client, server


@given(pieces=DATA, cuts=st.lists(st.integers(1, 40_000), min_size=1, max_size=8))
def test_what_is_sealed_is_read(contexts: Contexts, pieces: list[bytes], cuts: list[int]) -> None:
    client, server = agree(contexts)
    sealed = b"".join(client.seal(piece) for piece in pieces)
    read, at = b"", 0
    while at < len(sealed):
        size = cuts[at % len(cuts)]
        read += server.open(sealed[at : at + size])
        at += size
    assert read == b"".join(pieces)
    assert not server.incoming.pending and not server.over


def test_data_comes_before_the_end_that_comes_with_it(contexts: Contexts) -> None:
    client, server = agree(contexts)
    sealed = client.seal(b"goodbye")
    assert not client.say_end()
    assert server.open(sealed + client.outgoing.read()) == b"goodbye"
    assert server.over and not server.lost
    assert server.say_end()


def test_what_is_no_tls_ends_it_behind_what_was(contexts: Contexts) -> None:
    client, server = agree(contexts)
    assert server.open(client.seal(b"data") + b"no record at all") == b"data"
    assert server.over and server.lost
    assert server.outgoing.pending, "the peer is told"


def test_a_handshake_that_is_none_is_an_error(contexts: Contexts) -> None:
    server = Records(contexts[1], True, None)
    with pytest.raises(ssl.SSLError):
        server.shake_hands(b"\x16\x03\x01\0\x09\x01\0\0\x05hello")
    assert server.outgoing.pending, "the peer is told"


def test_a_handshake_that_ends_is_an_error(contexts: Contexts) -> None:
    server = Records(contexts[1], True, None)
    server.incoming.write_eof()
    with pytest.raises(ssl.SSLEOFError):
        server.shake_hands(b"")


@pytest.mark.parametrize("answered", [False, True])
def test_who_says_nothing_but_new_keys_is_no_peer(contexts: Contexts, answered: bool) -> None:
    client, server = agree(contexts)
    updates = key_updates(client.session, contexts[2], answered)
    assert server.open(b"".join(islice(updates, 1000))) == b""
    assert not server.over and bool(server.outgoing.pending) == answered
    assert server.open(b"".join(islice(updates, 2000))) == b""
    assert server.over and server.lost
