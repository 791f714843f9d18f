"""
What a look for the hosts of a target gives, or says it can't give.

What others say is bounded here before it is kept: how many hosts, how long their names, what is in them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Literal

from attrs import evolve, frozen

Role = Literal["writer", "reader"]

MOST_HOSTS = 64
"""Aurora has 16 at most, a Multi-AZ cluster 3."""
LONGEST_NAME = 128
"""Characters of a member's name that are kept."""
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_.-]{1,253}")
_SHOWN = 80


class DiscoveryFailed(Exception):
    """
    A look came to nothing. What it would have said is not known: hosts known before are still to be asked.

    `what` went wrong, and the `remedy`: what would help.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}; {remedy}" if remedy else what)
        self.what = what
        self.remedy = remedy


@frozen
class FoundHost:
    """One host, as its source knows it."""

    name: str
    """The same at each look: the instance, the member, or the address. For logs."""
    address: str
    """Where to connect to: an IP address without brackets, or a name that has to be looked up."""
    port: int
    role: Role | None = None
    """A hint; None where the source doesn't know."""
    lag: float | None = None
    """Seconds that a reader is behind the writer, where the source knows."""
    tls_name: str = ""
    """What verify-full compares its certificate with."""
    may_lead: bool = True
    """Whether it may become the writer, as far as the source knows; a hint."""
    may_read: bool = True
    """Whether clients are to read from it, as far as the source knows; a hint."""


@frozen
class Found:
    """What a look has found."""

    hosts: tuple[FoundHost, ...]
    """Never none."""
    expires: float
    """Seconds from now after which this must not be relied on; 0: ask again for each decision."""


def found(where: str, hosts: Iterable[FoundHost], expires: float) -> Found:
    """Give what a look at `where` has found, each host once. Raises `DiscoveryFailed`: none, or too many."""
    each: dict[tuple[str, int], FoundHost] = {}
    for host in hosts:
        each.setdefault((host.address, host.port), host)
        if len(each) > MOST_HOSTS:
            raise DiscoveryFailed(
                f"{where} has more than {MOST_HOSTS} hosts",
                "take a name or an identifier of one cluster only",
            )
    if not each:
        raise DiscoveryFailed(f"{where} has no host", "look whether it is the right one, and whether it runs")
    return Found(tuple(each.values()), expires)


def moved(hosts: Iterable[FoundHost], addresses: Mapping[str, tuple[str, int]]) -> list[FoundHost]:
    """Give the hosts with the addresses that the configuration has for their names, or their addresses."""
    return [_moved(host, addresses) for host in hosts]


def _moved(host: FoundHost, addresses: Mapping[str, tuple[str, int]]) -> FoundHost:
    for key in (host.name, host.address):
        if key in addresses:
            address, port = addresses[key]
            return evolve(host, address=address, port=port)
    return host


def is_ip(text: str) -> bool:
    """Tell whether a text is an IP address, without brackets and without a zone."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def as_address(value: object) -> str | None:
    """Give a host's name or IP address from what a peer says; None if it is neither."""
    if not isinstance(value, str) or len(value) > 255:
        return None
    bare = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    return bare if is_ip(bare) or _HOST_NAME.fullmatch(bare) else None


def as_port(value: object) -> int | None:
    """Give a port from what a peer says; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535:
        return None
    return value


def as_name(value: object) -> str | None:
    """Give a member's name from what a peer says; None if it is none, or has what a log must not have."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_NAME or not value.isprintable():
        return None
    return value


def as_seconds(value: object, unit: float = 1.0) -> float | None:
    """Give a time in seconds from what a peer says in units of `unit` seconds; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        seconds = float(value) * unit
    except OverflowError:
        return None
    return seconds if isfinite(seconds) and seconds >= 0 else None


def quoted(value: object) -> str:
    """Write what a peer says so that it can be in a log: short, and without control characters."""
    text = ascii(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
