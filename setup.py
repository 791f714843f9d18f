"""Builds the compiled twin (pgproxy/twin.py) where that can be done; setup.cfg carries the metadata."""

import sys
from glob import glob

from setuptools import Extension, setup

TWIN = Extension(
    "pgproxy._twin",
    sorted(glob("pgproxy/compiled/*.c")),
    depends=["pgproxy/compiled/twin.h", "pgproxy/compiled/ring.h"],
    extra_compile_args=["-std=gnu11", "-O3", "-fvisibility=hidden"],
    optional=True,
)

# It waits for events with Linux's epoll.
setup(ext_modules=[TWIN] if sys.platform == "linux" else [])
