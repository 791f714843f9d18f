"""
What this machine knows about names: its name servers (resolv.conf) and its own list (/etc/hosts).

Documentation: resolv.conf(5), hosts(5). Of resolv.conf `nameserver`, `search`, `domain` and the options
`ndots` and `use-vc` are heeded; times are our own.
"""

from __future__ import annotations

from attrs import frozen

from pgproxy.watch.discovery.found import is_ip

_MOST_SERVERS = 3
"""As in the C library (MAXNS)."""
_MOST_SEARCHED = 6
_MOST_NDOTS = 15
DNS_PORT = 53


@frozen
class Resolv:
    """What resolv.conf says."""

    servers: tuple[tuple[str, int], ...] = (("127.0.0.1", DNS_PORT),)
    search: tuple[str, ...] = ()
    ndots: int = 1
    over_tcp: bool = False
    """Whether name servers are to be asked over TCP at once."""

    def candidates(self, name: str) -> list[str]:
        """Give the full names that a name may mean, the likeliest first."""
        if name.endswith("."):
            return [name[:-1]]
        searched = [f"{name}.{domain}" for domain in self.search]
        return [name, *searched] if name.count(".") >= self.ndots else [*searched, name]


def parse_resolv(text: str) -> Resolv:
    """Read resolv.conf; what can't be understood is passed over, as the C library does."""
    servers: list[tuple[str, int]] = []
    search: tuple[str, ...] = ()
    ndots, over_tcp = 1, False
    for line in text.splitlines():
        match line.split():
            case ["nameserver", address, *_] if is_ip(address) and len(servers) < _MOST_SERVERS:
                servers.append((address, DNS_PORT))
            case ["search" | "domain", *domains]:
                search = tuple(one.strip(".") for one in domains[:_MOST_SEARCHED] if one.strip("."))
            case ["options", *options]:
                for option in options:
                    word, _, value = option.partition(":")
                    if word == "ndots" and value.isascii() and value.isdigit():
                        ndots = min(int(value[:3]), _MOST_NDOTS)
                    over_tcp |= word == "use-vc"
    return Resolv(tuple(servers) or Resolv().servers, search, ndots, over_tcp)


def addresses_in_hosts(text: str, name: str) -> list[str]:
    """Give the IP addresses that /etc/hosts has for a name, in its order."""
    wanted = name.lower().rstrip(".")
    found: dict[str, None] = {}
    for line in text.splitlines():
        match line.partition("#")[0].lower().split():
            case [address, *names] if wanted in names and is_ip(address):
                found[address] = None
    return list(found)
