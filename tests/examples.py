"""How many examples hypothesis tries."""

from __future__ import annotations

import os


def examples(usual: int) -> int:
    """
    Give the number that `PGPROXY_EXAMPLES` says, else the usual one.

    The usual ones are the same in every run, and so few that the whole suite stays short. Who looks for what
    these don't find says more, which are others each time (tests/conftest.py).
    """
    return int(os.environ.get("PGPROXY_EXAMPLES", usual))
