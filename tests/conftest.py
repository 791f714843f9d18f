"""Where the fixtures come from, and an environment in which a test means what it says."""

import gc
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.examples import examples

pytest_plugins = [
    "tests.fix_postgres",
    "tests.fix_cluster",
    "tests.fix_tls",
    "tests.fix_aws",
    "tests.fix_docker",
    "tests.fix_pgproxy",
    "tests.fix_twin",
]

# What libpq would read from the environment of whoever runs the tests: PGSSLMODE, PGOPTIONS and so on.
for name in [name for name in os.environ if name.startswith("PG") and not name.startswith("PGPROXY_")]:
    del os.environ[name]
os.environ["PGPASSFILE"] = "/nonexistent/pgpass"

# A shell that starts the tests in the background has them ignore this, and with them whatever they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The data directory of a server has a thousand files: where there is room in memory, they are made there in a
# tenth of the time. What pytest keeps is left where it was.
_MEMORY, _ROOM = "/dev/shm", 8 << 30
if "TMPDIR" not in os.environ and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ROOM:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    os.environ["TMPDIR"] = tempfile.tempdir = _MEMORY

# Each worker, and each program that is started, would compile all that is not installed anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# The same examples in every run: who looks for new ones says how many, PGPROXY_EXAMPLES=1000. How long one
# takes is no defect: it tells more of what else the machine does.
settings.register_profile(
    "same",
    max_examples=examples(50),
    derandomize="PGPROXY_EXAMPLES" not in os.environ,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("same")


def pytest_collection_finish() -> None:
    """Have what was made so far, and stays, not looked at for garbage again and again."""
    gc.collect()
    gc.freeze()


_UNIT = Path(__file__).parent / "unit"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """
    Have what takes long begin first, and what is short come last, that nobody waits for one alone in the end.

    xdist cuts the list into as many parts as there are workers, and moves what is last in one part to who has
    nothing to do. So each part has some of the long ones, then of those with a PostgreSQL, which wait as much
    as they work, then of the unit tests. Neighbours stay together: they share what a module has.
    """
    parts = int(getattr(config, "workerinput", {}).get("workercount", 1))
    long, short, others = [], [], []
    for item in items:
        if item.get_closest_marker("long"):
            long.append(item)
        elif _UNIT in item.path.parents:
            short.append(item)
        else:
            others.append(item)
    ends = [len(items) * (part + 1) // parts for part in range(parts)]
    items.clear()
    for part, end in enumerate(ends):
        items += long[part::parts]
        items += others[len(others) * part // parts : len(others) * (part + 1) // parts]
        more = max(0, end - len(items)) if part < parts - 1 else len(short)
        items += short[:more]
        del short[:more]
