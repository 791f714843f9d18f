"""The console's end of the protocol, message by message."""

from __future__ import annotations

import struct

import pytest

from pgproxy.console.columns import SHOWN, VERSION
from pgproxy.console.commands import ACTIONS, Act, Right, Show
from pgproxy.console.parts import AT_ONCE
from pgproxy.console.tables import Table
from pgproxy.console.talk import Done, Talk
from pgproxy.wire import tags
from pgproxy.wire.errors import NO_CONSOLE, complaint
from pgproxy.wire.messages import MessageReader, read_error_fields
from pgproxy.wire.skim import Malformed

SAID_FOR = {
    verb: verb.replace("shutdown_", "shutdown ") + " 1" * action.needs_name
    for verb, action in ACTIONS.items()
}
ONE = Done("SHOW", Table(VERSION, (("pgproxy",),)))


def talk(right: Right = Right.ADMINISTER) -> Talk:
    return Talk("alice", "pgproxy", lambda: right)


def heard(said: bytes) -> str:
    """Give the tags of what was said; of errors the SQLSTATE, of ReadyForQuery the status."""
    reader, found = MessageReader(1 << 20), []
    reader.feed(said)
    while (message := reader.next()) is not None:
        tag, payload = message
        if tag == tags.ERROR_RESPONSE:
            found.append(read_error_fields(payload)["C"])
        else:
            found.append(chr(tag) + (payload.decode() if tag == tags.READY_FOR_QUERY else ""))
    return " ".join(found)


def query(one: Talk, text: str) -> bytes:
    return one.received(tags.QUERY, text.encode() + b"\0")


def parse(one: Talk, text: str, name: str = "") -> bytes:
    return one.received(tags.PARSE, f"{name}\0{text}\0".encode() + b"\0\0")


def bind(one: Talk, name: str = "", portal: str = "", formats: tuple[int, ...] = ()) -> bytes:
    codes = struct.pack(f">h{len(formats)}h", len(formats), *formats)
    return one.received(tags.BIND, f"{portal}\0{name}\0".encode() + bytes(4) + codes)


def execute(one: Talk, most: int = 0, portal: str = "") -> bytes:
    return one.received(tags.EXECUTE, portal.encode() + b"\0" + struct.pack(">I", most))


def test_a_query_of_several() -> None:
    one = talk()
    assert heard(query(one, "begin; show version; commit")) == "C" and one.due == Show("version")
    assert heard(b"".join(one.done(ONE))) == "T D C C ZI"


def test_an_error_ends_a_query() -> None:
    one = talk()
    assert heard(query(one, "show version; pause; reload")) == ""
    assert heard(b"".join(one.done(ONE))) == "T D C" and one.due == Act("pause")
    assert heard(b"".join(one.done(complaint(NO_CONSOLE, user="x")))) == "42501 ZI" and one.due is None


def test_a_transaction_that_has_failed() -> None:
    one = talk()
    assert heard(query(one, "begin")) == "C ZT"
    assert heard(query(one, "nonsense")) == "42601 ZE"
    assert heard(query(one, "show version")) == "25P02 ZE"
    assert heard(query(one, "rollback")) == "C ZI"


def test_an_empty_query() -> None:
    one = talk()
    assert heard(query(one, " -- nothing")) == "I ZI"
    assert heard(parse(one, "") + bind(one) + execute(one) + one.received(tags.SYNC, b"")) == "1 2 I ZI"


@pytest.mark.parametrize("count", [0, 1, AT_ONCE - 1, AT_ONCE, AT_ONCE + 1, 3 * AT_ONCE])
def test_a_long_table_comes_in_parts(count: int) -> None:
    one = talk()
    query(one, "show version; show lists")
    parts = list(one.done(Done("SHOW", Table(VERSION, (("pgproxy",),) * count))))
    assert heard(b"".join(parts)) == " ".join(["T", *"D" * count, "C"]) and one.due == Show("lists")
    assert len(parts) == max(1, -(-count // AT_ONCE))


def test_rows_that_are_not_taken_are_not_kept_without_end() -> None:
    one = talk()
    many = Done("SHOW", Table(VERSION, (("pgproxy",),) * 30_000))
    parse(one, "show version", "s")
    for portal, said in (("a", "D s"), ("b", "54000")):
        one.received(tags.BIND, portal.encode() + b"\0s\0" + bytes(6))
        execute(one, 1, portal)
        assert heard(b"".join(one.done(many))) == said
    assert heard(one.received(tags.SYNC, b"")) == "ZI"
    one.received(tags.BIND, b"c\0s\0" + bytes(6))
    execute(one, 1, "c")
    assert heard(b"".join(one.done(many))) == "D s"


def test_extended() -> None:
    one = talk()
    said = parse(one, "show lists", "s") + one.received(tags.DESCRIBE, b"Ss\0")
    assert heard(said + bind(one, "s", formats=(1,))) == "1 t T 2"
    assert heard(one.received(tags.DESCRIBE, b"P\0")) == "T"
    assert execute(one, 2) == b"" and one.due == Show("lists")
    from pgproxy.console.columns import LISTS

    rows = tuple((str(number), number) for number in range(5))
    assert heard(b"".join(one.done(Done("SHOW", Table(LISTS, rows))))) == "D D s"
    assert heard(execute(one, 2)) == "D D s" and heard(execute(one)) == "D C"
    assert heard(one.received(tags.CLOSE, b"Ss\0") + one.received(tags.SYNC, b"")) == "3 ZI"
    assert heard(bind(one, "s")) == "26000"


def test_after_an_error_all_is_skipped_up_to_the_sync() -> None:
    one = talk()
    said = parse(one, "nonsense") + bind(one) + execute(one) + one.received(tags.SYNC, b"")
    assert heard(said) == "42601 ZI" and one.due is None


@pytest.mark.parametrize(
    ("message", "sqlstate"),
    [
        ((tags.EXECUTE, b"nowhere\0\0\0\0\0"), "34000"),
        ((tags.PARSE, b"\0show pools; show lists\0\0\0"), "42601"),
        ((tags.PARSE, b"\0show pools\0\0\1\0\0\0\x17"), "0A000"),
        ((tags.FUNCTION_CALL, b""), "0A000"),
        ((tags.COPY_DATA, b""), "0A000"),
    ],
)
def test_what_it_does_not_do(message: tuple[int, bytes], sqlstate: str) -> None:
    assert heard(talk().received(*message)) == sqlstate


@pytest.mark.parametrize(
    "message", [(tags.QUERY, b"no end"), (tags.PARSE, b"\0x\0"), (tags.BIND, b"\0"), (tags.EXECUTE, b"\0")]
)
def test_messages_that_cannot_be_read(message: tuple[int, bytes]) -> None:
    one = talk()
    parse(one, "show pools")
    with pytest.raises(Malformed):
        one.received(*message)


def test_a_reader_may_only_look() -> None:
    one = talk(Right.READ)
    for command in ("pause", "set pool_size = 3", "shutdown", "kill_client 3", "disable app"):
        assert heard(query(one, command)) == "42501 ZI" and one.due is None
        assert heard(parse(one, command) + one.received(tags.SYNC, b"")) == "42501 ZI"
    query(one, "show clients")
    assert one.due == Show("clients")


def test_a_right_that_was_taken_away_is_gone() -> None:
    rights: list[Right | None] = [Right.ADMINISTER]
    one = Talk("alice", "pgproxy", lambda: rights[0])
    assert heard(parse(one, "pause") + bind(one)) == "1 2"
    rights[0] = Right.READ
    assert heard(execute(one) + one.received(tags.SYNC, b"")) == "42501 ZI"
    rights[0] = None
    assert heard(query(one, "show clients")) == "42501 ZI"


def test_statements_are_bounded() -> None:
    one = talk()
    said = b"".join(parse(one, "show pools", f"s{number}") for number in range(201))
    assert heard(said).endswith("54000")


SAYINGS = [*(f"show {what}" for what in SHOWN), *SAID_FOR.values(), "set a = 1"]


@pytest.mark.parametrize("text", SAYINGS)
@pytest.mark.parametrize("right", [*Right, None])
def test_each_command_takes_its_right(text: str, right: Right | None) -> None:
    """In a Query, in a Parse, and in an Execute of what was prepared before the right was taken away."""
    allowed = right is Right.ADMINISTER or (right is Right.READ and text.startswith("show"))
    one = Talk("alice", "pgproxy", lambda: right)
    said = heard(query(one, text))
    assert (one.due is not None) == allowed
    assert said == ("" if allowed else "42501 ZI")
    other = Talk("alice", "pgproxy", lambda: right)
    assert heard(parse(other, text)) == ("1" if allowed else "42501")
    had: list[Right | None] = [Right.ADMINISTER]
    third = Talk("alice", "pgproxy", lambda: had[0])
    parse(third, text)
    third.received(tags.BIND, b"\0\0" + b"\0\0" * 3)
    had[0] = right
    assert heard(third.received(tags.EXECUTE, b"\0" + b"\0\0\0\0")) == ("" if allowed else "42501")
    assert (third.due is not None) == allowed
