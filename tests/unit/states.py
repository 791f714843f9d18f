"""What an object holds, in a form that can be compared: two ways to the same end leave the same behind."""

from __future__ import annotations

from collections import deque

from pgproxy.session.completions import Completion
from pgproxy.session.statements import Copy, Statement

_FOR_THE_NEXT_TIME = frozenset({"_alone", "_known", "__weakref__"})
"""Slots of the way by one look: whoever goes another way need not fill them."""


def state(thing: object) -> dict[str, object]:
    """Give what all of an object's slots say, as far as that can be compared."""
    names = [name for cls in type(thing).__mro__ for name in getattr(cls, "__slots__", ())]
    return {name: plainly(getattr(thing, name)) for name in names if name not in _FOR_THE_NEXT_TIME}


def plainly(value: object) -> object:
    if isinstance(value, Completion):
        return (*value[:3], value.client_name)
    if isinstance(value, Statement):
        return value.body, value.verdict, value.whole, value.description
    if isinstance(value, Copy):
        return value.name, value.description
    if isinstance(value, (list, tuple, deque)):
        return [plainly(one) for one in value]
    if isinstance(value, dict):
        return [(plainly(key), plainly(one)) for key, one in value.items()]
    return value if isinstance(value, (int, bytes, str, frozenset, set, type(None))) else type(value).__name__
