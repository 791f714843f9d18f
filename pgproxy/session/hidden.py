"""
Whether statements of a database may call what changes the session although no text shows it.

Views, rules, triggers, defaults, policies, checks, operators and casts call functions. Where one of these
depends on a function whose source says something that outlives its transaction, or a trigger's function names
such a one, every statement that does work is a reason to ask. It takes milliseconds to find out, so it is
asked when a server is opened, when something has been created, altered or dropped, and otherwise of an idle
server, once in a while (link/checking.py): others than the clients of the pool define things, too. Not all of
it is seen: not a trigger whose function calls one that calls one that does, nor what BEGIN ATOMIC says.
"""

from __future__ import annotations

_WORD = r"[^();'\"$\\/-]|-(?!-)|/(?!\*)|\$\d|'[^'\\]*'"
"""What may stand in a call so that its parentheses are what they look like: no comment, no other quotes."""
_FOR_TRANSACTION = rf"\s*\(({_WORD}|\(({_WORD}|\(({_WORD})*\))*\))*,\s*(is_local\s*[:=]+>?\s*)?true\s*\)"
"""What stands behind set_config where it says itself that it is for the transaction only."""
_CHANGES_SESSION = (
    rf"set_config(?!{_FOR_TRANSACTION})"
    r"|advisory_(un)?lock|setseed|update\s+(pg_catalog\.)?pg_settings"
    r"|(^|;|\mbegin|\mthen|\melse|\mloop|['$])(\s|--[^\n]*)*"
    r"(set\s+(?!local)|reset\s|listen\s|prepare\s|load\s|create\s+temp)"
)
CHANGES_SESSION = b"E'" + _CHANGES_SESSION.replace("\\", r"\\").replace("'", "''").encode() + b"'"
"""A regular expression, as a literal: what a function's source says that changes its session."""

HIDING_REMEDY = (
    "in the functions of triggers, views and defaults, SET LOCAL and set_config(..., true) leave nothing"
)
"""What the owner of the database can do about it."""

_OF_POSTGRESQL = (
    b"'{set_config,setseed,pg_advisory_lock,pg_advisory_lock_shared,pg_try_advisory_lock,"
    b"pg_try_advisory_lock_shared,pg_advisory_unlock,pg_advisory_unlock_shared,pg_advisory_unlock_all}'"
)
"""PostgreSQL's own functions that change the session; on these nothing is recorded to depend."""

HIDDEN = (
    b"(WITH risky AS MATERIALIZED (SELECT oid, proname FROM pg_catalog.pg_proc"
    b" WHERE CASE WHEN oid OPERATOR(pg_catalog.>=) 16384 AND prolang OPERATOR(pg_catalog.>) 13"
    b" THEN prosrc OPERATOR(pg_catalog.~*) "
    + CHANGES_SESSION
    + b" ELSE false END), builtin AS MATERIALIZED (SELECT pg_catalog.concat(':funcid ', oid, ' ') AS call"
    b" FROM pg_catalog.pg_proc WHERE pronamespace OPERATOR(pg_catalog.=) 11"
    b" AND proname OPERATOR(pg_catalog.=) ANY ("
    + _OF_POSTGRESQL
    + b"::pg_catalog.name[])) SELECT EXISTS (SELECT 1 FROM risky AS r JOIN pg_catalog.pg_depend AS d"
    b" ON d.refclassid OPERATOR(pg_catalog.=) 1255 AND d.refobjid OPERATOR(pg_catalog.=) r.oid"
    b" WHERE d.classid OPERATOR(pg_catalog.<>) 1255)"
    b" OR EXISTS (SELECT 1 FROM risky AS r, pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_proc AS p"
    b" ON p.oid OPERATOR(pg_catalog.=) t.tgfoid WHERE NOT t.tgisinternal"
    b" AND pg_catalog.strpos(p.prosrc, r.proname) OPERATOR(pg_catalog.>) 0)"
    b" OR EXISTS (SELECT 1 FROM builtin AS b, ("
    b"SELECT w.ev_action::pg_catalog.text AS said FROM pg_catalog.pg_rewrite AS w"
    b" WHERE w.oid OPERATOR(pg_catalog.>=) 16384"
    b" UNION ALL SELECT w.ev_qual::pg_catalog.text FROM pg_catalog.pg_rewrite AS w"
    b" WHERE w.oid OPERATOR(pg_catalog.>=) 16384"
    b" UNION ALL SELECT a.adbin::pg_catalog.text FROM pg_catalog.pg_attrdef AS a"
    b" UNION ALL SELECT c.conbin::pg_catalog.text FROM pg_catalog.pg_constraint AS c"
    b" WHERE c.conbin IS NOT NULL"
    b" UNION ALL SELECT t.tgqual::pg_catalog.text FROM pg_catalog.pg_trigger AS t"
    b" WHERE t.tgqual IS NOT NULL"
    b" UNION ALL SELECT pg_catalog.concat(y.polqual, y.polwithcheck) FROM pg_catalog.pg_policy AS y"
    b") AS e WHERE pg_catalog.strpos(e.said, b.call) OPERATOR(pg_catalog.>) 0))"
)
"""
A scalar query of type boolean. 1255 is pg_proc; languages up to 13 are the internal one and C; what initdb
has made has numbers below 16384.
"""
