"""How the hosts of a target are found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from attrs import field, frozen

from pgproxy.config.kinds import (
    Address,
    Choice,
    File,
    HostPattern,
    Identifier,
    OneAddress,
    Seconds,
    ServerIp,
    Url,
    Urls,
    option,
)

DiscoveryKind = Literal["dns", "aurora", "rds", "patroni"]
DnsRecords = Literal["any", "A", "AAAA"]


@frozen(kw_only=True)
class Discovery:
    """
    How the hosts of a target are found, where `server` doesn't say it all; docs/failover.md tells more.

    `server` is then where pgproxy begins. Each kind has options of its own: those of another are refused.
    """

    kind: DiscoveryKind = field(
        metadata=option(
            Choice(("dns", "aurora", "rds", "patroni")),
            "Who is asked: name servers, about the names in `server`; the cluster itself, by "
            "aurora_replica_status(); the RDS API; Patroni's REST API.",
        )
    )
    timeout: float = field(
        default=4.0,
        metadata=option(
            Seconds(60, positive=True),
            "How long it may take to find the hosts; until that works again the ones found before are used.",
        ),
    )
    interval: float = field(
        default=30.0,
        metadata=option(
            Seconds(3600, positive=True),
            "How often the hosts are looked for while all is well; at the first sign of trouble at once. "
            "Not for dns: there the records say it, and a minute is the most.",
        ),
    )
    dns_server: Address | None = field(
        default=None,
        metadata=option(
            ServerIp(),
            "dns: the name server that is asked, instead of those in /etc/resolv.conf; /etc/hosts is not "
            "heeded then.",
        ),
    )
    dns_records: DnsRecords = field(
        default="any",
        metadata=option(
            Choice(("any", "A", "AAAA")),
            "dns: whether the IPv4 addresses (A) or the IPv6 addresses (AAAA) of a name are its hosts. "
            "any: the IPv4 addresses, or where it has none the others.",
        ),
    )
    host_pattern: Address | None = field(
        default=None,
        metadata=option(
            HostPattern(),
            "aurora: an instance's endpoint, with ? for its identifier, like "
            "?.abc123.eu-west-1.rds.amazonaws.com:5432.",
        ),
    )
    cluster: str = field(
        default="",
        metadata=option(Identifier(), "rds: the identifier of a cluster, Aurora or Multi-AZ."),
    )
    instance: str = field(
        default="",
        metadata=option(
            Identifier(), "rds: the identifier of an instance that is in no cluster; with its replicas."
        ),
    )
    region: str = field(
        default="", metadata=option(Identifier(), "rds: the region; without it the one that boto3 finds.")
    )
    endpoint_url: str = field(
        default="",
        metadata=option(Url(), "rds: where the API is, if it is not AWS's own (a VPC endpoint, a test)."),
    )
    urls: tuple[str, ...] = field(
        default=(),
        metadata=option(
            Urls(), "patroni: where its REST API is, best on several members; the first that answers counts."
        ),
    )
    ca: Path | None = field(
        default=None,
        metadata=option(
            File(), "patroni: the authorities for https, PEM; without them the system's are taken."
        ),
    )
    addresses: Mapping[str, Address] = field(
        factory=dict,
        metadata=option(
            OneAddress(),
            "aurora, rds, patroni: where to connect to instead, by an instance's or member's name or by the "
            "host name that was found. verify-full goes on to check the name that was found.",
            entries="the names of instances, members or hosts",
        ),
    )

    OWN: ClassVar[Mapping[DiscoveryKind, tuple[str, ...]]] = {
        "dns": ("dns_server", "dns_records"),
        "aurora": ("interval", "host_pattern", "addresses"),
        "rds": ("interval", "cluster", "instance", "region", "endpoint_url", "addresses"),
        "patroni": ("interval", "urls", "ca", "addresses"),
    }
    """The options that each kind has, beside `kind` and `timeout`."""

    @property
    def foreign(self) -> list[str]:
        """The options that are set, but belong to other kinds."""
        others = {name for own in self.OWN.values() for name in own} - set(self.OWN[self.kind])
        defaults = Discovery(kind=self.kind)
        return sorted(name for name in others if getattr(self, name) != getattr(defaults, name))
