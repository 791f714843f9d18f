"""From the configuration of a target to what finds its hosts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pgproxy.config import Discovery
from pgproxy.config.kinds import Address
from pgproxy.link.threads import Threads
from pgproxy.watch.discovery.aurora import Ask, Aurora
from pgproxy.watch.discovery.fixed import Fixed
from pgproxy.watch.discovery.found import Found, is_ip
from pgproxy.watch.discovery.pacing import Paced

_BY_DEFAULT = Discovery(kind="dns")


class Source(Protocol):
    """Finds the hosts of a target; its text says where it looks."""

    async def look(self, fresh: bool = False) -> Found:
        """
        Find the hosts, in bounded time. Never blocks the reactor.

        What was found before is given again until it expires, unless it has to be `fresh`: then everything is
        asked anew, though not more often than the source can bear. Raises `DiscoveryFailed`.
        """

    def stop(self) -> None:
        """End what is under way; looks then fail with CancelledError."""


def source_for(
    addresses: Sequence[Address],
    discovery: Discovery | None,
    reactor: Any,
    threads: Threads,
    ask: Ask | None = None,
) -> Source:
    """
    Give what finds the hosts of a target: `addresses` are those that its `server` names.

    Without a `discovery` their names are looked up in DNS, and IP addresses are what they are. `ask` is for
    Aurora: it runs a query on one of the hosts. Raises ssl.SSLError or OSError where a file is unfit.
    """
    where = [(one.host, one.port) for one in addresses]
    settings = discovery or _BY_DEFAULT
    pause: dict[str, float] = {}
    if settings.kind == "dns" and all(is_ip(host) for host, _ in where):
        return Fixed(where)
    # What is not needed isn't imported.
    source: Any
    match settings.kind:
        case "dns":
            from pgproxy.watch.discovery.dns import Dns

            server = settings.dns_server
            source = Dns(
                reactor,
                where,
                (server.host, server.port) if server is not None else None,
                settings.dns_records,
            )
        case "aurora":
            if ask is None or settings.host_pattern is None:
                raise ValueError("aurora needs somebody to ask, and host_pattern")
            pattern = settings.host_pattern
            source = Aurora(ask, (pattern.host, pattern.port), settings.interval, _moves(settings))
        case "rds":
            from pgproxy.aws.rds import RdsApi
            from pgproxy.watch.discovery.rds import PAUSE, Rds

            api = RdsApi(settings.region or None, settings.endpoint_url or None, settings.timeout)
            source = Rds(
                reactor, api, settings.cluster, settings.instance, settings.interval, _moves(settings)
            )
            pause["pause"] = PAUSE
        case "patroni":
            from pgproxy.watch.discovery.http import tls_context
            from pgproxy.watch.discovery.patroni import Patroni

            secure = any(url.startswith("https:") for url in settings.urls)
            tls = tls_context(settings.ca) if secure else None
            source = Patroni(reactor, threads, settings.urls, tls, settings.interval, _moves(settings))
    return Paced(reactor, source.ask, str(source), settings.timeout, **pause)


def _moves(settings: Discovery) -> Mapping[str, tuple[str, int]]:
    return {name: (address.host, address.port) for name, address in settings.addresses.items()}
