"""Why a server could not be opened: whom that concerns, and whether waiting helps."""

from __future__ import annotations

import pytest

from pgproxy.pool.trouble import (
    Cause,
    Scope,
    Stage,
    judge,
    said_by_server,
    said_of_init_query,
    timed_out,
    trouble,
)
from pgproxy.wire import messages

TARGET, POOL, PARAMETERS = Scope
LOOK_UP, CONNECT, TLS, LOGIN, OPENING, INIT_QUERY = Stage


@pytest.mark.parametrize(
    ("stage", "cause", "scope", "passing"),
    [
        (LOOK_UP, Cause.NAME_UNKNOWN, TARGET, False),
        (LOOK_UP, Cause.NAME_UNANSWERED, TARGET, True),
        (LOOK_UP, Cause.TIMEOUT, TARGET, True),
        (CONNECT, Cause.UNREACHABLE, TARGET, True),
        (CONNECT, Cause.TIMEOUT, TARGET, True),
        (TLS, Cause.NO_TLS, TARGET, False),
        (TLS, Cause.TLS_REFUSED, TARGET, False),
        (TLS, Cause.UNTRUSTED, TARGET, True),
        (TLS, Cause.LOST, TARGET, True),
        (TLS, Cause.TIMEOUT, TARGET, True),
        (LOGIN, Cause.NONSENSE, TARGET, False),
        (LOGIN, Cause.NO_SECRET, POOL, False),
        (LOGIN, Cause.LOST, TARGET, True),
        (OPENING, Cause.TIMEOUT, TARGET, True),
        (OPENING, Cause.DEFECT, PARAMETERS, False),
        (INIT_QUERY, Cause.INIT_QUERY, PARAMETERS, False),
        (INIT_QUERY, Cause.TIMEOUT, PARAMETERS, True),
        (INIT_QUERY, Cause.LOST, PARAMETERS, True),
    ],
)
def test_causes(stage: Stage, cause: Cause, scope: Scope, passing: bool) -> None:
    assert judge(stage, cause) == (scope, passing)


def test_every_cause_is_judged() -> None:
    for cause in Cause:
        judge(LOGIN, cause)


# What PostgreSQL 15 says, by SQLSTATE and routine.
SAID = {
    "sorry, too many clients already": ("53300", "InitProcess", TARGET, True),
    "remaining connection slots are reserved": ("53300", "InitPostgres", TARGET, True),
    "too many clients, from a server without routines": ("53300", "", TARGET, True),
    "too many connections for role": ("53300", "InitializeSessionUserId", POOL, True),
    "too many connections for database": ("53300", "CheckMyDatabase", POOL, True),
    "out of memory": ("53200", "AllocSetAlloc", TARGET, True),
    "disk full": ("53100", "mdextend", TARGET, True),
    "the database system is starting up": ("57P03", "ProcessStartupPacket", TARGET, True),
    "terminating connection due to administrator command": ("57P01", "ProcessInterrupts", TARGET, True),
    "crash of another server process": ("57P02", "quickdie", TARGET, True),
    "database dropped": ("57P04", "ProcessInterrupts", POOL, False),
    "canceling authentication due to timeout": ("57014", "ProcessInterrupts", PARAMETERS, True),
    "password authentication failed": ("28P01", "auth_failed", POOL, False),
    "no pg_hba.conf entry": ("28000", "ClientAuthentication", POOL, False),
    "role does not exist": ("28000", "InitializeSessionUserId", POOL, False),
    "database does not exist": ("3D000", "InitPostgres", POOL, False),
    "database is not currently accepting connections": ("55000", "CheckMyDatabase", POOL, False),
    "permission denied for database": ("42501", "CheckMyDatabase", POOL, False),
    "permission denied to set parameter": ("42501", "set_config_option_ext", PARAMETERS, False),
    "permission denied to set role": ("42501", "call_string_check_hook", PARAMETERS, False),
    "parameter cannot be changed now": ("55P02", "set_config_option_ext", PARAMETERS, False),
    "unrecognized configuration parameter": ("42704", "find_option", PARAMETERS, False),
    "invalid command-line argument": ("42601", "process_postgres_switches", PARAMETERS, False),
    "invalid value for parameter": ("22023", "parse_and_validate_value", PARAMETERS, False),
    "could not access local_preload_libraries": ("58P01", "internal_load_library", PARAMETERS, False),
    "nothing that is known": ("ZZ999", "", PARAMETERS, False),
    "no SQLSTATE": ("", "", PARAMETERS, False),
}


@pytest.mark.parametrize(("sqlstate", "routine", "scope", "passing"), SAID.values(), ids=SAID.keys())
def test_what_servers_say(sqlstate: str, routine: str, scope: Scope, passing: bool) -> None:
    assert judge(LOGIN, sqlstate, routine) == (scope, passing)


@pytest.mark.parametrize(
    ("sqlstate", "routine", "scope", "passing"),
    [
        ("53300", "InitProcess", PARAMETERS, True),
        ("28000", "ClientAuthentication", PARAMETERS, False),
        ("57P03", "ProcessStartupPacket", TARGET, True),
    ],
)
def test_walsenders_have_rules_of_their_own(sqlstate: str, routine: str, scope: Scope, passing: bool) -> None:
    assert judge(LOGIN, sqlstate, routine, replication=True) == (scope, passing)


@pytest.mark.parametrize(
    ("sqlstate", "scope", "passing"),
    [
        ("42704", PARAMETERS, False),
        ("28000", PARAMETERS, False),
        ("57014", PARAMETERS, False),
        ("53100", TARGET, True),
        ("57P01", TARGET, True),
    ],
)
def test_what_is_said_of_init_query(sqlstate: str, scope: Scope, passing: bool) -> None:
    assert judge(INIT_QUERY, sqlstate) == (scope, passing)


@pytest.mark.parametrize("stage", Stage)
def test_every_stage_has_an_error_of_its_own(stage: Stage) -> None:
    told = trouble(stage, Cause.LOST, "db:5432", "it is gone", "app").complaint
    assert told.severity == "FATAL" and told.sqlstate.startswith("08")
    assert told.detail == "db:5432: it is gone." and told.hint
    others = {trouble(other, Cause.LOST, "", "", "app").complaint.text for other in Stage if other != stage}
    assert told.text not in others and '"app"' in told.text


def test_a_timeout_says_what_was_awaited() -> None:
    told = {stage: timed_out(stage, "db:5432", 0.5, "app").complaint.detail for stage in Stage}
    assert told[TLS] == "db:5432: no answer within 0.5 s (connect_timeout) while waiting for TLS."
    assert len(set(told.values())) == len(Stage)


def error(**fields: str) -> bytes:
    return messages.error_response({"S": "FEHLER", "V": "FATAL", **fields})


def test_a_server_s_own_error_is_passed_on_as_it_is() -> None:
    message = error(C="53300", M="zu viele Verbindungen", D="in der Tat", R="InitializeSessionUserId")
    found = said_by_server(message[5:], message, replication=False)
    assert found.complaint.message() == message
    assert found.complaint.detail == "in der Tat"
    assert (found.stage, found.scope, found.passing) == (LOGIN, POOL, True)


def test_an_error_about_init_query_names_it() -> None:
    message = error(C="42704", M="no such thing", H="Try another.")
    found = said_of_init_query(message[5:])
    fields = messages.read_error_fields(found.complaint.message()[5:])
    assert (fields["S"], fields["C"], fields["M"]) == ("FATAL", "42704", "no such thing")
    assert "init_query" in fields["H"] and "Try another." in fields["H"]
    assert (found.stage, found.scope, found.passing) == (INIT_QUERY, PARAMETERS, False)


def test_an_error_about_init_query_that_says_nothing() -> None:
    fields = messages.read_error_fields(said_of_init_query(b"\0").complaint.message()[5:])
    assert (fields["C"], fields["M"]) == ("08001", "init_query has failed")
