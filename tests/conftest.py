"""Where the fixtures come from, and an environment in which a test means what it says."""

import os

pytest_plugins = [
    "tests.fix_postgres",
    "tests.fix_tls",
    "tests.fix_docker",
    "tests.fix_pgproxy",
    "tests.fix_twin",
]

# What libpq would read from the environment of whoever runs the tests: PGSSLMODE, PGOPTIONS and so on.
for name in [name for name in os.environ if name.startswith("PG") and not name.startswith("PGPROXY_")]:
    del os.environ[name]
os.environ["PGPASSFILE"] = "/nonexistent/pgpass"
