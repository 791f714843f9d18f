"""What a client may ask currval() about, and what has to be forgotten before."""

from __future__ import annotations

import pytest

from pgproxy.session.asides import Aside, Asides
from pgproxy.session.ledger import Ledger
from pgproxy.session.sequences import Apart, Sequences
from pgproxy.session.server import ServerSession
from pgproxy.session.verdict import SEQUENCE_READ, SEQUENCE_WRITE
from pgproxy.wire import tags
from tests.unit.sessions import new_session

SELECT = b"SELECT currval('s')"


def used_by_another() -> ServerSession:
    """Give a server in which another client has used sequences, and of which somebody has asked."""
    server = new_session()
    Sequences().used(server, SEQUENCE_WRITE, b"SELECT nextval('s')")
    server.habits.sequences_matter = True
    return server


def after(*said: int, status: bytes = b"") -> Ledger:
    ledger = Ledger()
    for tag in said:
        ledger.sent(tag)
    if status:
        ledger.ready(status[0])
    return ledger


def apart(
    server: ServerSession,
    ledger: Ledger,
    *,
    flags: int = SEQUENCE_READ,
    text: bytes = SELECT,
    asides: Asides | None = None,
    executes: bool = True,
    by: Sequences | None = None,
) -> Apart:
    return (by or Sequences()).keep_apart(server, ledger, asides or Asides(), flags, text, executes)


def test_what_nobody_asks_about_costs_nothing() -> None:
    server = used_by_another()
    server.habits.sequences_matter = False
    assert apart(server, after(), flags=SEQUENCE_WRITE) is Apart.NOTHING
    assert apart(server, after()) is Apart.FORGET
    assert apart(server, after(), flags=SEQUENCE_WRITE) is Apart.FORGET


def test_ones_own_need_not_be_forgotten() -> None:
    server, client = new_session(), Sequences()
    client.used(server, SEQUENCE_WRITE, b"SELECT nextval('s')")
    assert apart(server, after(), by=client) is Apart.NOTHING
    assert not client.may_be_asked(server, SELECT)
    assert Sequences().may_be_asked(server, SELECT)
    assert not Sequences().may_be_asked(server, b"SELECT 1")


@pytest.mark.parametrize(("executes", "what"), [(True, Apart.REFUSE), (False, Apart.NOTHING)])
def test_in_an_open_batch_it_is_too_late(executes: bool, what: Apart) -> None:
    assert apart(used_by_another(), after(tags.PARSE), executes=executes) is what
    assert apart(used_by_another(), after(tags.PARSE), flags=0, executes=executes) is Apart.NOTHING


def test_what_was_said_before_is_awaited() -> None:
    assert apart(used_by_another(), after(tags.QUERY)) is Apart.WAIT
    asides = Asides()
    asides.said(Aside.FORGET)
    assert apart(used_by_another(), after(), asides=asides) is Apart.WAIT


@pytest.mark.parametrize(("text", "what"), [(SELECT, Apart.NOTHING), (b"ROLLBACK; " + SELECT, Apart.REFUSE)])
def test_in_a_failed_transaction(text: bytes, what: Apart) -> None:
    assert apart(used_by_another(), after(tags.QUERY, status=b"E"), text=text) is what


def test_what_a_server_has_not_forgotten_is_refused_as_long_as_the_link_lasts() -> None:
    server, client = used_by_another(), Sequences()
    client.not_forgotten(server)
    assert apart(server, after(), by=client) is Apart.REFUSE
    assert apart(server, after(), by=client, flags=SEQUENCE_WRITE) is Apart.NOTHING
    client.parted()
    assert apart(server, after(), by=client) is Apart.FORGET
