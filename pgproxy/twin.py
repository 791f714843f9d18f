"""
The compiled twin: whether it is there, and who uses it.

`compiled/` deals with what is said most, once more in C, on the same objects. It is optional: without a
compiler it isn't built, with PGPROXY_PURE=1 in the environment it isn't used. It does what the methods in
Python do that it stands in for, and leaves to them whatever is not plain.
"""

from __future__ import annotations

import os
from typing import Any, TypeVar

Class = TypeVar("Class", bound=type)

twin: Any = None
"""The extension module; None where it is not there, or not wanted."""

if os.environ.get("PGPROXY_PURE", "0") in ("", "0"):
    try:
        from pgproxy import _twin as twin  # type: ignore[no-redef, attr-defined]
    except ImportError:
        pass
    else:
        os.register_at_fork(after_in_child=twin.leave_ring)


def quicken(cls: Class) -> Class:
    """Give a class the compiled methods, where there are any, and have its slots known to the others."""
    if twin is not None:
        twin.quicken(cls)
    return cls


def know(**values: object) -> None:
    """Tell the twin what it has to compare with."""
    if twin is not None:
        twin.know(**values)
