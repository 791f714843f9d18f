"""
What a statement text may leave behind in the server session that runs it, as flags and names.

A verdict is suspicion, never knowledge: triggers, views, operators, casts and defaults call functions that no
text shows.
"""

from __future__ import annotations

from attrs import frozen

from pgproxy.twin import know

ASK = 1 << 0
"""It may leave session state: the server has to be asked at the end of the transaction."""
LOCAL = 1 << 1
"""It sets something for the transaction only, which explains a tag SET that leaves nothing."""
OPAQUE = 1 << 2
"""It runs code that the text doesn't show. Comes with ASK."""
DYNAMIC = 1 << 3
"""It sets what the text doesn't name: the name may be among the parameters of a Bind. Comes with ASK."""
STATEMENTS = 1 << 4
"""The SQL names of prepared statements matter: PREPARE, EXECUTE, DEALLOCATE, pg_prepared_statements."""
SEQUENCE_READ = 1 << 5
"""It calls currval or lastval, which remember."""
SEQUENCE_WRITE = 1 << 6
"""It calls nextval or setval, or stores rows, whose defaults may."""
SEED = 1 << 7
"""It seeds random()."""
DATABASE = 1 << 8
"""It creates, alters or drops a database; all identifiers behind DATABASE are among the names."""
ROLE_DEFAULTS = 1 << 9
"""It changes what later logins start with."""
UNKNOWN = 1 << 10
"""Not all of the text was there, or it can be read in two ways. Comes with ASK, OPAQUE and DYNAMIC."""
UNDOES = 1 << 11
"""It ends what a session holds, if it holds anything: UNLISTEN, CLOSE, pg_advisory_unlock_all(). Where the
client has left nothing of that, there is nothing to ask about."""
RESETS = 1 << 12
"""It is, or has in it, RESET ALL. Where the client has set nothing, there is nothing to ask about."""
CALLS = 1 << 13
"""It calls functions that no list has; in no verdict: there ASK and OPAQUE stand for it."""

EVERYTHING = b""
"""Among what a text sets: all there is, which DISCARD ALL takes back. No setting is called so."""
ALL_SETTINGS = b"*"
"""The same for RESET ALL."""

FORESEEABLE = ASK | UNDOES | RESETS
"""What of a text that does nothing else may be known already (foreseen.py)."""

UNREADABLE = UNKNOWN | ASK | OPAQUE | DYNAMIC


@frozen
class Verdict:
    """What is suspected of one text."""

    flags: int
    names: tuple[bytes, ...]
    """With ASK, UNDOES or RESETS the dotted names in the text, as they are written: custom settings are
    called so. Before them, with DATABASE, what may be the database's name."""
    sets: tuple[bytes, ...] = ()
    """Where all the text does is to set or reset settings: their names in lower case, one for each of its
    statements. What it makes of them depends on nothing else. With UNDOES it may end what is held, too."""
    tags: tuple[bytes, ...] = ()
    """The command tags that tell that these statements are done: none for a SELECT."""
    value: bytes | None = None
    """What that is set to, where it is one custom setting, to a value that is the same however it is read."""
    calls: tuple[bytes, ...] = ()
    """Functions for which alone there is ASK: where these are known to leave nothing it is `otherwise`."""

    @property
    def otherwise(self) -> Verdict:
        """What is said of the text but for its `calls`."""
        return WRITES if self.flags & SEQUENCE_WRITE else HARMLESS


HARMLESS = Verdict(0, ())
"""The one verdict on all texts that leave nothing: `verdict is HARMLESS`."""

know(harmless=HARMLESS)

WRITES = Verdict(SEQUENCE_WRITE, ())
"""The one verdict on all texts of which only that is suspected."""
