"""Debian's Chromium, driven by Playwright: for the tests of the status page, and for its pictures."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def missing() -> str:
    """Say what is not there that is needed; empty where nothing is missing."""
    if importlib.util.find_spec("playwright") is None:
        return "no browser: the package playwright is not installed (pip install 'pgproxy[browser]')"
    if _program() is None:
        return "no browser: there is no chromium (Debian: apt-get install chromium)"
    return ""


def _program() -> str | None:
    return next((found for name in _PROGRAMS if (found := shutil.which(name))), None)


@contextmanager
def browser() -> Iterator[Browser]:
    """Start one; it is gone afterwards."""
    from playwright.sync_api import sync_playwright

    # Root has no sandbox, and what is looked at is our own page.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        one = playwright.chromium.launch(
            executable_path=_program(), args=[*arguments, "--disable-gpu", "--disable-dev-shm-usage"]
        )
        try:
            yield one
        finally:
            one.close()
