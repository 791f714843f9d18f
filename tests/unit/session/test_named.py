"""A client's book of statements."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from pgproxy.session.named import NamedStatements
from pgproxy.session.settings import NOTHING_SET
from pgproxy.session.statements import MOST_OF_A_CLIENT, Statement
from pgproxy.session.verdict import HARMLESS

NAMES = st.sampled_from([b"a", b"b", b"c"])
STEP = st.tuples(st.sampled_from(["add", "remove"]), NAMES)


def statement(size: int = 10, whole: bool = True) -> Statement:
    return Statement(b"x" * size if whole else b"", HARMLESS, NOTHING_SET, whole, 0)


def entered(book: NamedStatements, steps: list[tuple[str, bytes]]) -> list[Callable[[], None]]:
    return [book.add(name, statement()) if what == "add" else book.remove(name) for what, name in steps]


@given(st.lists(STEP, max_size=8), st.lists(STEP, max_size=8))
def test_undone_latest_first_all_is_as_before(
    done: list[tuple[str, bytes]], then: list[tuple[str, bytes]]
) -> None:
    book = NamedStatements()
    entered(book, done)
    before = dict(book.items())
    for undo in reversed(entered(book, then)):
        undo()
    assert dict(book.items()) == before and len(book) == len(before)
    assert all(name in book and book.get(name) is one for name, one in before.items())


def test_what_has_been_replaced_since_is_not_undone() -> None:
    book = NamedStatements()
    undo = book.add(b"a", statement())
    later = statement()
    book.add(b"a", later)
    undo()
    assert book.get(b"a") is later


@given(
    st.lists(st.tuples(STEP, st.sampled_from([10, MOST_OF_A_CLIENT, -1])), max_size=8), st.frozensets(NAMES)
)
def test_it_is_too_heavy_exactly_while_something_in_it_is(
    steps: list[tuple[tuple[str, bytes], int]], kept: frozenset[bytes]
) -> None:
    book = NamedStatements()
    sizes: dict[bytes, int] = {}

    def check() -> None:
        assert book.too_heavy == (-1 in sizes.values() or sum(sizes.values()) > MOST_OF_A_CLIENT)

    for (what, name), size in steps:
        if what == "add":
            # Of what is that large, only the size is of interest.
            book.add(name, SIZED[size])
            sizes[name] = size if size < 0 else SIZED[size].size
        else:
            book.remove(name)
            sizes.pop(name, None)
        check()
    book.keep(kept)
    sizes = {name: size for name, size in sizes.items() if name in kept}
    assert dict(book.items()).keys() == sizes.keys()
    check()


SIZED = {10: statement(), MOST_OF_A_CLIENT: statement(MOST_OF_A_CLIENT), -1: statement(whole=False)}
