"""
The benchmark: pgbench directly, through pgproxy and through PgBouncer, in turn in one run.

`python -m bench --help` has the options, docs/performance.md how to read the tables.
"""
