"""A configuration with what was read from the files that it names."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from pgproxy.auth.looks import Looks
from pgproxy.auth.secrets import Secret
from pgproxy.config import Config
from pgproxy.link.auth_query import AuthQuery
from pgproxy.link.keepalive import Keepalive
from pgproxy.link.server import Account, Host
from pgproxy.link.tls import ClientLegTls


@frozen
class Materials:
    """A configuration, and what was read from the files that it names."""

    config: Config
    users: Mapping[str, Secret]
    looks: Looks
    """Of users who are not there."""
    tls: ClientLegTls
    hosts: Mapping[str, Host]
    """By target."""
    keepalive: Keepalive
    auth_queries: Mapping[str, AuthQuery]
    """By target; empty where there is no auth_query."""
    watchers: Mapping[str, Account]
    """By target, as whom its hosts are asked for their roles, where the configuration says it."""
    http_token: bytes = field(default=b"", repr=False)
    """What HTTP requests have to bear, if anything."""
