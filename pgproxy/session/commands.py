"""What the tag of a CommandComplete tells of the session, where no text does."""

from __future__ import annotations

from pgproxy.twin import know

QUIET = frozenset(
    b"SEL INS UPD DEL BEG STA ROL SAV REL FET MOV COP MER SHO EXP NOT LOC TRU VAC ANA DEC CLO".split()
)
"""How the tags begin that leave nothing behind, and need no look."""
know(quiet=QUIET)
QUIET_IN_HIDING = frozenset(b"BEG STA SAV REL ROL".split())
"""The same where statements may do what no text shows."""
COMMITS = b"COM"
"""How COMMIT begins, and COMMENT, which leave nothing behind, either."""
COMMIT = b"COMMIT"
COMMIT_PREPARED = b"COMMIT PREPARED"
SET = b"SET"
RESET = b"RESET"
ROLLED_BACK = b"ROL"
"""How the tags begin of what undoes a transaction, or a part of it."""
DEFINES = frozenset(b"CRE ALT DRO".split())
"""How the tags begin of what may make statements do something in hiding."""
ALL_DISCARDED = b"DISCARD ALL"
STATEMENTS_GONE = frozenset({ALL_DISCARDED, b"DEALLOCATE ALL"})
SEQUENCES_FORGOTTEN = frozenset({ALL_DISCARDED, b"DISCARD SEQUENCES"})
UNDO = frozenset({RESET, b"UNLISTEN", b"DISCARD TEMP", b"DISCARD SEQUENCES", b"DISCARD PLANS"})
"""What leaves nothing where nothing was before."""
LIBRARY_LOADED = b"LOAD"
ALTERS_DEFAULTS = frozenset({b"ALTER ROLE", b"ALTER DATABASE"})
