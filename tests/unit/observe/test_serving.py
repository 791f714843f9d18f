"""The token of what is served, when the configuration changes behind it."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from pgproxy.config import Address, Config, Http
from pgproxy.observe import http
from pgproxy.observe.serving import Serving


class Materials:
    """As far as they are asked for here."""

    def __init__(self, host: str, token: bytes) -> None:
        self.config = Config(http=Http(listen=(Address(host, 9127),), page=False))
        self.http_token = token


@pytest.mark.parametrize(("host", "kept"), [("192.0.2.1", b"new"), ("127.0.0.1", b"")])
def test_a_reload_does_not_open_to_others_what_had_a_token(
    monkeypatch: pytest.MonkeyPatch, host: str, kept: bytes
) -> None:
    sites: list[Any] = []

    def serve(_reactor: object, _addresses: object, site: object, _shared: bool) -> list[Any]:
        sites.append(site)
        return []

    monkeypatch.setattr(http, "serve", serve)
    now: Any = Materials(host, b"old")
    unused: Any = None
    Serving(Clock(), lambda: now, unused, unused, unused).start(shared=False)
    (site,) = sites
    assert site.resource._token() == b"old"
    now.http_token = b"new"
    assert site.resource._token() == b"new"
    # What is listened on stays as it is until a restart, whatever the configuration says then.
    now = Materials("127.0.0.1", b"")
    assert site.resource._token() == kept
