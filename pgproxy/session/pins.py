"""Why a client keeps its server between two transactions: the reasons, when each begins and ends."""

from __future__ import annotations

from enum import Enum


class PinReason(Enum):
    """What a server holds that cannot follow the client: the same word in log, metric, console and docs."""

    TEMPORARY_OBJECT = "temporary_object"
    """A temporary table, view, sequence, function or type."""
    HELD_CURSOR = "held_cursor"
    """A cursor WITH HOLD."""
    ADVISORY_LOCK = "advisory_lock"
    """An advisory lock of the session."""
    LISTEN = "listen"
    SQL_STATEMENT = "sql_statement"
    """A statement prepared by SQL's PREPARE."""
    UNKNOWN = "unknown"
    """The server could not be asked, or its answer could not be read; it is asked again."""
    LIBRARY_LOADED = "library_loaded"
    """LOAD cannot be undone; the server is closed when the client goes."""
    SEED = "seed"
    """setseed() cannot be undone; the server is closed when the client goes."""
    SEQUENCE = "sequence"
    """The client asks for currval() or lastval(); ends with DISCARD SEQUENCES or DISCARD ALL."""
    COMPUTED_SETTING = "computed_setting"
    """set_config() of a name that no text and no parameter shows; ends with DISCARD ALL."""
    STATEMENT_MEMORY = "statement_memory"
    """The client has prepared more than may be kept for it; ends when it has closed enough."""


LASTING = frozenset({PinReason.LIBRARY_LOADED, PinReason.SEED})
"""What no cleaning undoes."""

Reasons = frozenset[PinReason]
NO_REASON: Reasons = frozenset()


def words(reasons: Reasons) -> list[str]:
    """Give the reasons' words, in the order of the table."""
    return [reason.value for reason in PinReason if reason in reasons]
