"""A server's errors about statements, in the client's words."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pgproxy.wire import messages
from pgproxy.wire.skim import HEADER

CHANGED = b"changed"
"""Behind our prefix, a name that no server has: for a statement that gives something else than it did."""
_RESULT_HAS_CHANGED = messages.error_response(
    {
        "S": "ERROR",
        "V": "ERROR",
        "C": "0A000",
        "M": "cached plan must not change result type",
        "R": "RevalidateCachedQuery",
    }
)[HEADER:]
"""PostgreSQL's words, for a statement that another server describes otherwise than the client was told."""


def in_clients_words(payload: bytes, prefix: bytes, called: Mapping[bytes, bytes]) -> bytes:
    """Have an error speak of what the client calls its statements, not of our names, with the prefix."""
    if prefix not in payload:
        return payload
    if prefix + CHANGED in payload:
        return _RESULT_HAS_CHANGED
    return re.sub(re.escape(prefix) + rb"\d+", lambda found: called.get(found[0], found[0]), payload)
