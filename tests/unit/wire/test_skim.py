"""Framing: any split of any stream gives the same runs and the same frames."""

from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.wire import tags
from pgproxy.wire.skim import Malformed, Skimmer

pytestmark = pytest.mark.usefixtures("ways")

Message = tuple[int, bytes]

LONG = st.builds(
    lambda piece, size: (piece * size)[:size], st.binary(min_size=1, max_size=9), st.integers(4000, 9000)
)
"""Bytes whose making costs little."""
from_server = st.lists(
    st.tuples(
        st.sampled_from([tags.DATA_ROW, tags.READY_FOR_QUERY, tags.COMMAND_COMPLETE, tags.ERROR_RESPONSE]),
        st.one_of(st.binary(max_size=40), LONG),
    ),
    max_size=12,
)


def wire(message: Message) -> bytes:
    tag, payload = message
    return bytes((tag,)) + pack(">I", len(payload) + 4) + payload


def skim(skimmer: Skimmer, chunks: list[bytes]) -> tuple[bytes, list[tuple[int, bytes]]]:
    stream, seen = b"", []
    for chunk in chunks:
        run, frames = skimmer.feed(chunk)
        stream += run
        seen += [(tag, run[start:stop]) for tag, start, stop in frames]
    return stream, seen


def expected(messages: list[Message]) -> list[tuple[int, bytes]]:
    looks = tags.FROM_SERVER.looks
    return [(m[0], wire(m)[: looks[m[0]]]) for m in messages if looks[m[0]]]


@given(from_server, st.data())
def test_any_split_gives_the_same_runs_and_frames(messages: list[Message], data: st.DataObject) -> None:
    stream = b"".join(map(wire, messages))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    skimmer = Skimmer(tags.FROM_SERVER)
    run, frames = skim(skimmer, chunks)
    assert run == stream
    assert frames == expected(messages)
    assert skimmer.at_boundary


@given(from_server)
def test_byte_by_byte(messages: list[Message]) -> None:
    small = [(tag, payload[:60]) for tag, payload in messages]
    stream = b"".join(map(wire, small))
    run, frames = skim(Skimmer(tags.FROM_SERVER), [stream[i : i + 1] for i in range(len(stream))])
    assert (run, frames) == (stream, expected(small))


def test_what_is_kept_back_is_bounded() -> None:
    skimmer = Skimmer(tags.FROM_SERVER)
    run, frames = skimmer.feed(b"E" + pack(">I", 10_000_000) + b"x" * 4000)
    assert (run, frames) == (b"", [])
    run, frames = skimmer.feed(b"x" * 200)
    assert len(run) == 4205 and len(frames) == 1
    assert skimmer.mid_message


def test_a_message_that_is_carried_is_not_kept_back() -> None:
    skimmer = Skimmer(tags.FROM_SERVER)
    row = b"D" + pack(">I", 1000) + b"x" * 10
    assert skimmer.feed(row) == (row, [])
    assert skimmer.mid_message and not skimmer.at_boundary


def test_an_unfinished_header_is_kept_back() -> None:
    skimmer = Skimmer(tags.FROM_SERVER)
    assert skimmer.feed(b"Z\0\0") == (b"", [])
    assert not skimmer.mid_message and not skimmer.at_boundary
    assert skimmer.feed(b"\0\5I") == (b"Z\0\0\0\5I", [(tags.READY_FOR_QUERY, 0, 6)])


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (b"Q\0\0\0\3", "invalid message length 3"),
        (b"Q\0\0\0\0", "invalid message length 0"),
        (b"Q\xff\xff\xff\xff", "invalid message length 4294967295"),
        (b"Q\x40\0\0\0", "invalid message length"),
        (b"E\0\0\x27\x11", "invalid message length 10001"),
        (b"p\0\0\0\4", "invalid frontend message type 112"),
        (b"\0", "invalid frontend message type 0"),
        (b"Z\0\0\0\5I", "invalid frontend message type 90"),
    ],
)
def test_what_a_client_may_not_send(stream: bytes, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        Skimmer(tags.FROM_CLIENT).feed(stream)


@given(st.binary(max_size=300))
def test_nothing_but_malformed_is_ever_raised(data: bytes) -> None:
    for direction in (tags.FROM_CLIENT, tags.FROM_SERVER):
        try:
            run, frames = Skimmer(direction).feed(data)
        except Malformed:
            continue
        assert data.startswith(run)
        assert all(0 <= start < stop <= len(run) for _tag, start, stop in frames)
