"""
What a host says of itself when it is asked, and what its silence says.

Documentation: PostgreSQL manual, "Recovery Information Functions", "Control Data Functions".
"""

from __future__ import annotations

from enum import Enum

from attrs import frozen

_TIMELINE_DIGITS = 8
"""How many hexadecimal digits of a WAL file's name are its timeline."""

QUESTION = (
    "SELECT pg_catalog.pg_is_in_recovery(),"
    " CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()"
    " ELSE pg_catalog.pg_current_wal_lsn() END,"
    " CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL"
    " ELSE pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()) END,"
    " (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()),"
    " (SELECT system_identifier FROM pg_catalog.pg_control_system()),"
    " pg_catalog.current_setting('max_connections')"
)
"""
Asked of each host. The control file has a new timeline only after the first checkpoint, so a writer's is read
from the name of the file that it writes.
"""
NEWS_AT_ONCE = (
    "WITH RECURSIVE waiting (times) AS (SELECT 0 UNION ALL SELECT times OPERATOR(pg_catalog.+) 1 FROM waiting"
    " WHERE times OPERATOR(pg_catalog.<) 20 AND pg_catalog.pg_is_in_recovery()"
    " AND pg_catalog.pg_sleep(0.005)::pg_catalog.text IS NOT NULL) SELECT pg_catalog.count(*) FROM waiting; "
    + QUESTION
)
"""
The same, asked while there is no writer: a host in recovery waits with its answer until it is promoted, for a
tenth of a second at most. So a promotion is heard of within 5 ms, for ten questions a second.
"""
SHORT_QUESTION = "SELECT pg_catalog.pg_is_in_recovery(), NULL, NULL, NULL, NULL, NULL"
"""Asked where the other is refused: all that every PostgreSQL and its likes answer."""
COLUMNS = 6


@frozen(order=True)
class Address:
    """Where a host is: this names it everywhere."""

    name: str
    port: int

    def __str__(self) -> str:
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


@frozen
class Answer:
    """What a host says of itself."""

    in_recovery: bool
    lsn: int = 0
    """Bytes of WAL written, or replayed in recovery; 0 where it does not say."""
    timeline: int = 0
    """0 where it does not say."""
    system: str = ""
    """The cluster's system identifier, the same on all its hosts; empty where it does not say."""
    max_connections: int = 0


class Trouble(Enum):
    """Why a host has no answer: the same word in log, metric and console."""

    UNREACHABLE = "unreachable"
    """No connection comes about: refused, no route, no such name."""
    SILENT = "silent"
    """It does not answer, though nothing says that it is not there."""
    LOST = "lost"
    """The connection has ended."""
    STARTING = "starting"
    """It starts, stops or recovers from a crash (57P01, 57P02, 57P03)."""
    REFUSED = "refused"
    """It is there, and refuses the watcher: wrong password, no such database, too many connections."""


class NotAnAnswer(Exception):
    """What came does not answer the question."""


def read_answer(row: list[bytes]) -> Answer:
    """Read the row that answers `QUESTION`, empty where there is nothing. Raises `NotAnAnswer`."""
    if len(row) != COLUMNS or row[0] not in (b"t", b"f"):
        raise NotAnAnswer("not the columns that were asked for")
    _recovery, lsn, file, control, system, most = row
    try:
        return Answer(
            in_recovery=row[0] == b"t",
            lsn=_lsn(lsn),
            timeline=int(file[:_TIMELINE_DIGITS], 16) if file else int(control or 0),
            system=system.decode("ascii"),
            max_connections=int(most or 0),
        )
    except ValueError as error:
        raise NotAnAnswer(str(error)) from error


def _lsn(text: bytes) -> int:
    """Read a pg_lsn: two hexadecimal numbers of 32 bits."""
    if not text:
        return 0
    high, _slash, low = text.partition(b"/")
    return (int(high, 16) << 32) + int(low, 16)
