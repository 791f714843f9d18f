"""Suspicion, the question, the answer, and the pins that follow."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pgproxy.session.conversation import AuditFound, Pinned, QuestionFailed, Unpinned
from pgproxy.session.hidden import HIDDEN
from pgproxy.session.inquiry import Inquiry
from pgproxy.session.pins import PinReason
from pgproxy.session.server import ServerSession
from pgproxy.session.settings import NOTHING_SET, setting, settings_of
from pgproxy.session.verdict import ASK, DYNAMIC, HARMLESS, LOCAL, OPAQUE, ROLE_DEFAULTS, SEED, Verdict
from pgproxy.wire import tags
from tests.unit.session.model import data_row
from tests.unit.sessions import new_session

ASKING = Verdict(ASK, ())
END = (tags.COMMAND_COMPLETE, b"SELECT 9\0")
LISTEN = [b"l", b"c", b"", b""]
LOCK = [b"a", b"", b"", b""]
SQL = [b"p", b"a", b"true", b""]
MEMORY = [b"s", b"work_mem", b"1MB", b"user"]
TENANT = [b"s", b"my.tenant", b"x", b"custom"]


def inquiry(*filters: str, audit: Callable[[], bool] | None = None) -> Inquiry:
    return Inquiry(frozenset(filters), audit)


def asked(one: Inquiry, server: ServerSession, *rows: list[bytes], text: bytes = b"why") -> bytes:
    """Have one ask, and the server answer with these rows; give the question."""
    one.client_spoke()
    one.suspect(ASKING, text)
    return answered(one, server, *rows)


def answered(one: Inquiry, server: ServerSession, *rows: list[bytes]) -> bytes:
    question = one.ask(server)
    one.answer([*((tags.DATA_ROW, data_row(row)) for row in rows), END], server)
    one.pin()
    return question


@pytest.mark.parametrize(
    ("verdict", "due"),
    [
        (HARMLESS, False),
        (Verdict(LOCAL, ()), False),
        (ASKING, True),
        (Verdict(ASK | OPAQUE | DYNAMIC, ()), True),
        (Verdict(SEED, ()), False),
    ],
)
def test_which_suspicion_leads_to_a_question(verdict: Verdict, due: bool) -> None:
    one = inquiry()
    one.suspect(verdict, b"text")
    assert one.due is due
    assert one.explained is bool(verdict.flags & (ASK | LOCAL))


def test_it_asks_once_until_the_client_speaks_again() -> None:
    one, server = inquiry(), new_session()
    asked(one, server)
    assert not one.due and one.clean and not one.events
    one.suspect(ASKING, b"late")
    assert not one.due
    one.client_spoke()
    assert one.due and not one.clean


def test_names_are_looked_up() -> None:
    one, server = inquiry(), new_session()
    server.settings = settings_of({b"on.server": setting(b"on.server", b"1", b"custom")})
    one.suspect(Verdict(ASK, (b"in.text",)), b"")
    one.look_up([b"in.parameter"])
    question = one.ask(server)
    assert all(b"E'%s'" % name in question for name in (b"in.text", b"in.parameter", b"on.server"))
    assert b"regexp_matches" not in question
    again = one.ask(server)
    assert b"in.text" not in again and b"on.server" in again


def test_only_so_many_names_are_looked_up() -> None:
    one = inquiry()
    one.look_up(b"my.n%d" % number for number in range(10_000))
    assert len(one._names) == 200


def test_functions_are_looked_into_only_where_code_cannot_be_seen() -> None:
    one, server = inquiry(), new_session()
    one.suspect(Verdict(ASK | OPAQUE, ()), b"")
    assert b"regexp_matches" in one.ask(server)
    assert not server.opaque
    one.answer([END], server)
    assert server.opaque


def test_what_is_hidden_is_looked_for_once_something_has_been_defined() -> None:
    one, server = inquiry(), new_session()
    assert HIDDEN not in one.ask(server)
    assert not one.heard(b"CREATE FUNCTION")
    assert HIDDEN in one.ask(server)
    assert HIDDEN not in one.ask(server)
    one.heard(b"DROP VIEW")
    one.parted()
    assert HIDDEN not in one.ask(server)


def test_defaults_are_changed_by_what_a_text_has_announced() -> None:
    one = inquiry()
    assert not one.heard(b"ALTER ROLE")
    one.suspect(Verdict(ASK | ROLE_DEFAULTS, ()), b"ALTER ROLE app SET work_mem TO '1MB'")
    assert one.heard(b"ALTER ROLE") and one.heard(b"ALTER DATABASE") and not one.heard(b"ALTER TABLE")


def test_a_setting_whose_name_is_computed_pins_until_all_is_discarded() -> None:
    one = inquiry()
    one.suspect(Verdict(ASK | DYNAMIC, ()), b"SELECT set_config($1, $2, false)", named=True)
    one.suspect(Verdict(ASK | DYNAMIC, (b"my.tenant",)), b"")
    one.pin()
    assert not one.reasons
    one.suspect(Verdict(ASK | DYNAMIC, ()), b"SELECT set_config($1, $2, false)")
    one.pin()
    assert one.reasons == {PinReason.COMPUTED_SETTING}
    one.heard(b"DISCARD SEQUENCES")
    one.pin()
    assert one.reasons
    one.heard(b"DISCARD ALL")
    one.pin()
    assert not one.reasons


def test_what_is_done_is_in_doubt_until_the_server_is_asked() -> None:
    one, server = inquiry(), new_session()
    one.done()
    assert not one.doubt
    one.suspect(ASKING, b"why")
    assert not one.doubt
    one.done()
    assert one.doubt
    one.ask(server)
    assert not one.doubt


def test_what_is_set_travels() -> None:
    one, server = inquiry(), new_session()
    asked(one, server, MEMORY, TENANT)
    assert one.settings is server.settings
    assert one.settings == settings_of(
        {
            b"work_mem": setting(b"work_mem", b"1MB", b"user"),
            b"my.tenant": setting(b"my.tenant", b"x", b"custom"),
        }
    )
    assert one.clean
    asked(one, server)
    assert one.settings is server.settings is NOTHING_SET


def test_a_setting_that_the_owner_excludes_stays_behind() -> None:
    one, server = inquiry("my.tenant"), new_session()
    asked(one, server, MEMORY, TENANT)
    assert set(one.settings) == {b"work_mem"} and set(server.settings) == {b"work_mem", b"my.tenant"}
    assert not one.reasons and one.clean


def test_what_cannot_travel_pins_until_it_is_gone() -> None:
    one, server = inquiry(), new_session()
    asked(one, server, LISTEN, LOCK, text=b"first")
    reasons = frozenset({PinReason.LISTEN, PinReason.ADVISORY_LOCK})
    assert one.reasons == reasons and not one.clean
    asked(one, server, LISTEN, SQL, text=b"second")
    asked(one, server, LISTEN, SQL, text=b"third")
    asked(one, server, text=b"fourth")
    assert one.clean and not one.lasting
    assert one.events == [
        Pinned(reasons, b"first"),
        Unpinned(frozenset({PinReason.ADVISORY_LOCK})),
        Pinned(frozenset({PinReason.SQL_STATEMENT}), b"second"),
        Unpinned(frozenset({PinReason.LISTEN, PinReason.SQL_STATEMENT})),
    ]


def test_a_reason_that_the_owner_excludes_does_not_pin_but_has_the_server_cleaned() -> None:
    one, server = inquiry("listen"), new_session()
    asked(one, server, LISTEN)
    assert not one.reasons and not one.clean and not one.events
    asked(one, server, LISTEN, LOCK)
    assert one.reasons == {PinReason.ADVISORY_LOCK}
    one.parted()
    assert one.clean


def test_what_no_question_finds_pins_as_soon_as_it_is_seen() -> None:
    one, server = inquiry(), new_session()
    one.suspect(Verdict(ASK | SEED, ()), b"select setseed(1)")
    one.certain(PinReason.SEQUENCE, b"select lastval()")
    answered(one, server)
    assert one.reasons == {PinReason.SEED, PinReason.SEQUENCE} and one.lasting
    one.no_longer(PinReason.SEQUENCE)
    one.no_longer(PinReason.LISTEN)
    one.pin()
    assert one.reasons == {PinReason.SEED} and one.lasting


def test_what_lasts_lasts_although_the_owner_excludes_it() -> None:
    one = inquiry("seed")
    one.certain(PinReason.SEED, b"")
    one.pin()
    assert not one.reasons and one.lasting and not one.clean


def test_a_question_that_fails_pins_until_one_is_answered() -> None:
    one, server = inquiry(), new_session()
    server.settings = settings_of({b"work_mem": setting(b"work_mem", b"1MB", b"user")})
    before = server.settings
    one.suspect(ASKING, b"text")
    one.ask(server)
    assert one.answer([], server) is None
    one.pin()
    assert one.reasons == {PinReason.UNKNOWN} and server.settings is before
    assert [type(event) for event in one.events] == [QuestionFailed, Pinned]
    assert not one.due, "it would ask for ever"
    one.client_spoke()
    assert one.due
    assert b"regexp_matches" in answered(one, server)
    assert not one.reasons and server.opaque and one.events[-1] == Unpinned(frozenset({PinReason.UNKNOWN}))


def test_an_audit_asks_where_nothing_is_suspected_and_says_what_was_missed() -> None:
    chance = [True, True, False]
    one, server = inquiry(audit=lambda: chance.pop(0)), new_session()
    assert one.due
    answered(one, server)
    assert not one.events and not server.opaque
    one.client_spoke()
    assert one.due
    answered(one, server, MEMORY, LISTEN)
    assert one.events[0] == AuditFound("setting work_mem, listen", b"")
    assert server.opaque and one.reasons == {PinReason.LISTEN}
    one.client_spoke()
    assert not one.due, "who is pinned is not audited"
    one.parted()
    one.client_spoke()
    assert not one.due and not chance


def test_an_audit_does_not_say_what_is_known() -> None:
    one, server = inquiry(audit=lambda: True), new_session()
    asked(one, server, MEMORY)
    one.client_spoke()
    answered(one, server, MEMORY)
    assert not [event for event in one.events if isinstance(event, AuditFound)]


def test_parted_it_suspects_nothing_and_keeps_the_settings() -> None:
    one, server = inquiry(), new_session()
    asked(one, server, MEMORY, LISTEN)
    one.certain(PinReason.SEED, b"")
    one.suspect(ASKING, b"")
    one.look_up([b"my.name"])
    one.parted()
    one.client_spoke()
    assert one.clean and not one.due and not one.lasting and not one.explained and not one._names
    assert set(one.settings) == {b"work_mem"}
    assert one.events[-1] == Unpinned(frozenset({PinReason.LISTEN}))
