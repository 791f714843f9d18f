"""PostgreSQL's own parser as the judge: what is said to be harmless is, and tokens are what it sees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pgparse
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgproxy.session.lexer import tokens
from pgproxy.session.suspicion import Verdicts, classify
from pgproxy.session.verdict import ASK, LOCAL, OPAQUE, SEQUENCE_READ, SEQUENCE_WRITE
from pgproxy.session.vocabulary import FUNCTIONS
from tests.examples import examples

HARMLESS_KINDS = set(
    """
    SelectStmt InsertStmt UpdateStmt DeleteStmt MergeStmt CopyStmt ExplainStmt TransactionStmt FetchStmt
    VariableShowStmt LockStmt NotifyStmt ConstraintsSetStmt TruncateStmt VacuumStmt DeclareCursorStmt
    CheckPointStmt
    """.split()
)
FROM_GRAMMAR = {"like_escape", "similar_to_escape"}
SEQUENCES = {"nextval", "setval", "currval", "lastval"}

SPACE = st.sampled_from([" ", " ", " ", "\n", "/* ( /* */ */", " -- it's\n", "\t"])
NAMES = st.sampled_from(
    ["a", "t", "temp", "insert", '"a"', '"Into"', "s.t", 'x."y"', "set", "first", "caf\u00e9", "e"]
)
FUNCTION_NAMES = st.sampled_from(
    """
    lower count max LOWER "lower" pg_catalog.lower "pg_catalog".upper s.lower a.pg_catalog.lower f "F"
    "select" set filter over first next cube rollup zone by operator second stdin insert copy explain
    conflict repeatable sets partition values_ left right coalesce nullif exists row nextval currval
    pg_advisory_lock set_config date int4 varying materialized escape join like similar within columns key
    analyze ilike overlaps is collation force_quote
    """.split()
)
LITERALS = st.sampled_from(
    [
        "1",
        "1.5e3",
        "'x'",
        "'it''s('",
        "E'\\'f('",
        "$$ f( $$",
        "$q$ ' $$ $q$",
        "$1",
        "null",
        "true",
        "N'x'",
        "x'1f'",
        "U&'\\0061('",
        "'\\d'",
        ".5",
        "'/*'",
        "'--'",
        "0x1f",
    ]
)


@st.composite
def joined(draw: st.DrawFn, *parts: str | st.SearchStrategy[str]) -> str:
    return draw(SPACE).join(part if isinstance(part, str) else draw(part) for part in parts)


def more(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    several = st.lists(inner, min_size=1, max_size=3).map(", ".join)
    return st.one_of(
        joined(FUNCTION_NAMES, "(", several, ")"),
        joined(FUNCTION_NAMES, "(", inner, ") over (partition by (", inner, ") order by (", inner, "))"),
        joined(FUNCTION_NAMES, "(*) filter (where", inner, ")"),
        joined("(", inner, ")"),
        joined(inner, "in (", several, ")"),
        joined(inner, "+ -", inner),
        joined(inner, "operator(pg_catalog.+) (", inner, ")"),
        joined(inner, "::numeric(10, 2)"),
        joined("cast(", inner, "as varchar(3))"),
        joined(inner, "like (", inner, ") escape (", inner, ")"),
        joined(inner, "at time zone (", inner, ")"),
        joined(inner, "between (", inner, ") and (", inner, ")"),
        joined("case when (", inner, ") then (", inner, ") else (", inner, ") end"),
        joined("array[", several, "]"),
        joined("row (", several, ")"),
        joined("extract(year from", inner, ")"),
        joined("substring(", inner, "from", inner, "for 2)"),
        joined("(select", inner, ")"),
        joined("exists (select", inner, "from", NAMES, ")"),
        joined("set_config(", LITERALS, ",", inner, ",", LITERALS, ")"),
    )


EXPRESSIONS = st.recursive(st.one_of(LITERALS, NAMES), more, max_leaves=5)
QUERIES = st.one_of(
    joined("select", EXPRESSIONS),
    joined("select", EXPRESSIONS, "as", NAMES, ",", EXPRESSIONS, "from", NAMES, "where", EXPRESSIONS),
    joined("select distinct on (", EXPRESSIONS, ")", EXPRESSIONS, "from", NAMES),
    joined("select", EXPRESSIONS, "into", st.sampled_from(["temp t", "temporary t", "t", "unlogged t"])),
    joined("select", NAMES, "into", st.sampled_from(["temp t", "local temp t", "t"])),
    joined("select * from", FUNCTION_NAMES, "(", EXPRESSIONS, ") as x (a, b)"),
    joined("select * from", FUNCTION_NAMES, "(", EXPRESSIONS, ") x (a int, b", NAMES, ")"),
    joined("select * from t, ", FUNCTION_NAMES, "(", EXPRESSIONS, ") as (a int, b varchar(3))"),
    joined(
        "select * from (values (", EXPRESSIONS, ")) v (a), lateral", FUNCTION_NAMES, "(", EXPRESSIONS, ")"
    ),
    joined("select * from t join u using (a) where", EXPRESSIONS),
    joined(
        "with x (a) as (select", EXPRESSIONS, "), y (b) as materialized (values (", EXPRESSIONS, ")) table x"
    ),
    joined("select 1 group by rollup (", EXPRESSIONS, "), cube (", EXPRESSIONS, ")"),
    joined("values (", EXPRESSIONS, ")"),
)
STATEMENTS = st.one_of(
    QUERIES,
    joined("insert into", NAMES, "(a, b)", QUERIES),
    joined(
        "insert into", NAMES, "as x (a) values (", EXPRESSIONS, ") on conflict (a) do update set (a) = (1)"
    ),
    joined("with x as (insert into", NAMES, "values (", EXPRESSIONS, ") returning *) select * from x"),
    joined("update", NAMES, "set a = ", EXPRESSIONS, "where", EXPRESSIONS),
    joined("update only", NAMES, "as x set (a, b) = (", EXPRESSIONS, ", default)"),
    joined("delete from", NAMES, "using", NAMES, "where", EXPRESSIONS, "returning", EXPRESSIONS),
    joined(
        "merge into t using u on (",
        EXPRESSIONS,
        ") when not matched then insert (a) values (",
        EXPRESSIONS,
        ")",
    ),
    joined("copy t (a) from stdin (format csv) where", EXPRESSIONS),
    joined("copy (", QUERIES, ") to stdout"),
    joined("explain (analyze)", QUERIES),
    joined("explain", st.sampled_from(["", "analyze", "execute a", "create table x as"]), QUERIES),
    joined("declare c cursor", st.sampled_from(["", "with hold", "without hold"]), "for", QUERIES),
    joined("create temp table t as", QUERIES),
    joined("prepare p (int) as", QUERIES),
    joined(
        "set",
        st.sampled_from(["", "local", "session"]),
        st.sampled_from(["a.b", "local.x", "transaction.y", '"local"', "session.z", "seed"]),
        st.sampled_from(["to", "="]),
        st.sampled_from(["1", "'x'", "default", "on"]),
    ),
    st.sampled_from(
        [
            "begin",
            "commit",
            "rollback",
            "savepoint a",
            "set constraints all deferred",
            "listen a",
            "close c",
            "set transaction read only",
            "set local transaction read only",
            "prepare transaction 'x'",
            "do $$ $$",
            "commit prepared 'x'",
            "discard all",
            "call p(1)",
            "reset a",
            "load 'x'",
            "set time zone local",
        ]
    ),
)
TEXTS = st.lists(STATEMENTS, min_size=1, max_size=3).map(";".join)


def parse(text: str) -> list[dict[str, Any]]:
    try:
        statements: list[dict[str, Any]] = pgparse.parse(text)
    except pgparse.PGQueryError:
        return []
    return statements


def nodes(tree: object) -> Iterator[tuple[str, Any]]:
    """All that a tree has, by key."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield key, value
            yield from nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from nodes(value)


def called(tree: object) -> Iterator[str]:
    """The functions that a tree calls, but for those that stand for syntax; of pg_catalog's the bare name."""
    for key, value in nodes(tree):
        if key == "FuncCall" and value.get("funcformat") != "COERCE_SQL_SYNTAX":
            names = [part["String"]["sval"] for part in value["funcname"]]
            yield names[-1] if len(names) == 1 or names[:-1] == ["pg_catalog"] else ".".join(names)


@settings(max_examples=examples(200))
@given(TEXTS)
def test_harmless_is_harmless(text: str) -> None:
    statements = parse(text)
    flags = classify(text.encode()).flags
    assert Verdicts().of(text.encode()) == classify(text.encode())
    kinds = [next(iter(statement["stmt"])) for statement in statements if "stmt" in statement]
    functions = set(called(statements))
    keys = {key for key, _ in nodes(statements)}
    others = [one for one in statements if "CopyStmt" not in one.get("stmt", ())]
    if not flags & OPAQUE and set(kinds) <= HARMLESS_KINDS:
        locks = {"pg_advisory_lock", "set_config"}
        assert functions <= {name.decode() for name in FUNCTIONS} | FROM_GRAMMAR | SEQUENCES | locks
    if not flags & ASK:
        assert "pg_advisory_lock" not in functions
        # COPY (SELECT INTO) is refused.
        assert "intoClause" not in {key for key, _ in nodes(others)}
        for kind, statement in zip(kinds, statements, strict=True):
            if kind == "VariableSetStmt":
                assert flags & LOCAL
                said = statement["stmt"][kind]
                assert said.get("is_local") or said["name"] == "TRANSACTION"
            else:
                assert kind in HARMLESS_KINDS
                assert "HOLD" not in str(statement["stmt"])
    if {"nextval", "setval"} & functions and set(kinds) <= HARMLESS_KINDS - {"ExplainStmt"}:
        assert flags & SEQUENCE_WRITE
    if {"currval", "lastval"} & functions and set(kinds) <= HARMLESS_KINDS - {"ExplainStmt"}:
        assert flags & SEQUENCE_READ
    if {"InsertStmt", "MergeStmt"} & keys or ("SetToDefault" in keys and not flags & ASK):
        assert flags & SEQUENCE_WRITE


@settings(max_examples=examples(100))
@given(TEXTS)
def test_tokens_are_what_the_parser_sees(text: str) -> None:
    if not parse(text):
        return
    data = text.encode()
    again = b"\n".join(data[start:end] for _, _, start, end in tokens(data)).decode()
    assert pgparse.fingerprint(again) == pgparse.fingerprint(text)
    assert str(list(called(parse(again)))) == str(list(called(parse(text))))


@pytest.mark.parametrize(
    "text",
    [
        "select f(1)",
        "select s.lower(1)",
        'select "select"(1)',
        "select set(a)",
        "select distinct on (a) f(b) from t",
        "select insert into temp t",
        "set local.a = 1",
        "select first(a), filter(b)",
    ],
)
def test_the_judge_understands(text: str) -> None:
    assert parse(text)
