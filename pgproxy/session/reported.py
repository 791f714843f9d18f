"""
The settings that a server reports (ParameterStatus): what it has said, and what a client has been told.

Documentation: PostgreSQL manual, "Asynchronous Operations".
"""

from __future__ import annotations

from functools import lru_cache

from pgproxy.session.values import Interned, Values
from pgproxy.wire.messages import parameter_status, read_parameter_status
from pgproxy.wire.skim import Malformed

MOST = 1000
"""Settings that a server may report; PostgreSQL 18 reports 15."""

_KEPT = 100
"""Sets of settings whose messages are kept: all clients of a pool are greeted alike."""

Reported = Values[bytes]
_reported: Interned[bytes] = Interned()
NOTHING_REPORTED: Reported = _reported.none


def with_status(reported: Reported, payload: bytes) -> Reported:
    """Give what is reported after a ParameterStatus. Raises `Malformed`."""
    name, value = read_parameter_status(payload)
    if len(reported) >= MOST and name not in reported:
        raise Malformed("too many settings reported")
    return _reported.of({**reported, name: value})


def as_pairs(reported: Reported) -> list[tuple[str, str]]:
    """Give what is reported in a form for other processes."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in reported.items()]


def from_pairs(pairs: list[tuple[str, str]]) -> Reported:
    """Give what `as_pairs` was given, in another process."""
    return _reported.of({name.encode("latin-1"): value.encode("latin-1") for name, value in pairs})


@lru_cache(_KEPT)
def greeting(reported: Reported) -> bytes:
    """Build the ParameterStatus messages for a client that was told nothing yet."""
    return news(NOTHING_REPORTED, reported)


def news(told: Reported, reported: Reported) -> bytes:
    """Build the ParameterStatus messages for a client that was told `told`, now that `reported` holds."""
    return b"".join(
        parameter_status(name, value) for name, value in reported.items() if told.get(name) != value
    )
