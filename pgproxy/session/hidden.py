"""
Whether statements of a database may call what changes the session although no text shows it.

Views, rules, triggers, defaults, policies, checks, operators and casts call functions. Where one of these
depends on a function whose source says something that outlives its transaction, or a trigger's function names
such a one, every statement that does work is a reason to ask.
"""

from __future__ import annotations

CHANGES_SESSION = (
    b"E'(set_config|advisory_(un)?lock|setseed|(^|;|\\\\mbegin|\\\\mthen|\\\\melse|\\\\mloop|[\\'$])\\\\s*"
    b"(set\\\\s+(?!local)|reset\\\\s|listen\\\\s|prepare\\\\s|load\\\\s|create\\\\s+temp))'"
)
"""A regular expression, as a literal: what a function's source says that changes its session."""

HIDDEN = (
    b"(WITH risky AS MATERIALIZED (SELECT oid, proname FROM pg_catalog.pg_proc"
    b" WHERE prolang OPERATOR(pg_catalog.>) 13 AND prosrc OPERATOR(pg_catalog.~*) "
    + CHANGES_SESSION
    + b") SELECT EXISTS (SELECT 1 FROM risky AS r JOIN pg_catalog.pg_depend AS d"
    b" ON d.refclassid OPERATOR(pg_catalog.=) 1255 AND d.refobjid OPERATOR(pg_catalog.=) r.oid"
    b" WHERE d.classid OPERATOR(pg_catalog.<>) 1255)"
    b" OR EXISTS (SELECT 1 FROM risky AS r, pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_proc AS p"
    b" ON p.oid OPERATOR(pg_catalog.=) t.tgfoid WHERE NOT t.tgisinternal"
    b" AND pg_catalog.strpos(p.prosrc, r.proname) OPERATOR(pg_catalog.>) 0))"
)
"""A scalar query of type boolean. 1255 is pg_proc; languages up to 13 are the internal one and C."""
