"""
Other projects' test suites, directly and through pgproxy: PostgreSQL's own, asyncpg's and psycopg's.

`python -m tests.compat --help` has the options, docs/compatibility.md what comes of it. Nothing of theirs is
kept here: it is fetched into .compat/.
"""
