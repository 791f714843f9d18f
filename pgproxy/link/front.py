"""What all clients share: who is here, who may come in, and which lender has servers for whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from structlog.typing import FilteringBoundLogger

from pgproxy.auth.secrets import Secret
from pgproxy.config import Config
from pgproxy.link.auth_query import AuthQuery
from pgproxy.link.lender import Limits, ServerLender
from pgproxy.link.server import Host
from pgproxy.link.splice import Terms
from pgproxy.link.threads import Threads
from pgproxy.link.tls import ClientLegTls, ServerLegTls
from pgproxy.pool.cancel import CancelKeys
from pgproxy.wire.errors import SHUTTING_DOWN, TERMINATED, TOO_MANY_CLIENTS, Refusal, complaint
from pgproxy.wire.startup import StartupMessage

if TYPE_CHECKING:
    from pgproxy.link.client import ClientConnection

_BEFORE_LOGIN = 100
"""Connections taken in beyond the limit of clients, to tell them so, before they are only closed."""


class UsersUnavailable(Exception):
    """A user's secret cannot be looked up now; the text says why, for the log."""


class NotAdmitted(Exception):
    """A client may not come in; `refusal` says why, with `names` to fill in."""


class Front:
    """The clients' side of the proxy; `configure` may be called again at any time."""

    def __init__(
        self,
        reactor: Any,
        threads: Threads,
        random_bytes: Callable[[int], bytes],
        log: FilteringBoundLogger,
    ) -> None:
        self.reactor = reactor
        self.threads = threads
        self.keys: CancelKeys[ClientConnection] = CancelKeys(random_bytes)
        self.mock_key = random_bytes(32)
        self.clients: set[ClientConnection] = set()
        self._log = log
        self._lenders: dict[tuple[str, str, str], ServerLender] = {}
        self._config: Config
        self._users: Mapping[str, Secret] = {}
        self._targets: Mapping[str, ServerLegTls] = {}
        self._auth_query: AuthQuery | None = None
        self.tls = ClientLegTls("off")
        self._stopping = False

    def configure(
        self,
        config: Config,
        users: Mapping[str, Secret],
        tls: ClientLegTls,
        targets: Mapping[str, ServerLegTls],
    ) -> None:
        """Take a configuration, with what was read from the files that it names."""
        self._config = config
        self._users = users
        self.tls = tls
        self._targets = targets
        settings = config.proxy.auth_query
        self._auth_query = AuthQuery(self.threads, config, users) if settings is not None else None
        for (_target, database, user), lender in self._lenders.items():
            lender.resize(self._limits(lender.asked_as, user))
            del database
