"""What tests that run over both the methods in Python and the compiled ones ask for: `ways`."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

import pgproxy.link.client  # noqa: F401  the twin learns of what is there
from pgproxy.link.lender import ServerLender
from pgproxy.link.reactor import DirectReactor
from pgproxy.link.splice import Splice
from pgproxy.link.transport import Stream
from pgproxy.twin import twin
from pgproxy.wire.skim import Skimmer

IN_PYTHON, COMPILED = "python", "compiled"


@pytest.fixture(
    scope="module",
    params=[
        IN_PYTHON,
        pytest.param(COMPILED, marks=pytest.mark.skipif(twin is None, reason="there is no compiled twin")),
    ],
)
def ways(request: pytest.FixtureRequest) -> Iterator[str]:
    """Have every method that has a twin done in Python, or in C."""
    with pytest.MonkeyPatch.context() as patch:
        if twin is not None and request.param == IN_PYTHON:
            for owner, name, method in twin.look()["replaced"]:
                patch.setattr(CLASSES[owner], name, method)
        yield request.param


CLASSES = {
    "Skimmer": Skimmer,
    "Stream": Stream,
    "Splice": Splice,
    "ServerLender": ServerLender,
    "DirectReactor": DirectReactor,
}


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Undo what pytest-twisted wraps around the inside of a `given`: with it, that can be run only once."""
    given = getattr(pyfuncitem.obj, "hypothesis", None)
    inner = given.inner_test if given is not None else None
    try:
        return (yield)
    finally:
        if given is not None:
            given.inner_test = inner
