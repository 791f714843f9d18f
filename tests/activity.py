"""What a PostgreSQL says of those who work in it."""

from pgproxy.demo.postgres import Postgres
from pgproxy.demo.process import wait_until

_SECONDS = 30.0


def running(server: Postgres, what: str) -> int:
    """Wait until a statement runs that has this in its text; give the process that runs it."""
    found: list[int] = []

    def look() -> bool:
        rows = server.execute(
            "select pid from pg_stat_activity where state = 'active' and pid <> pg_backend_pid() "
            f"and query like '%{what}%'"
        )
        found[:] = [int(row[0]) for row in rows]
        return bool(found)

    assert wait_until(look, _SECONDS), f"nobody runs {what}"
    return found[0]
