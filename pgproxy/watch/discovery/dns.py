"""
Hosts behind names: each address that a name has is a host.

The law:

1. What a name means is known for as long as its records say, and for `LONGEST` at most.
2. Where a name has addresses of both kinds its IPv4 addresses are its hosts: a host that has both would be
   two.
3. All names of a target are looked up at the same time. If one can't be, the look has failed: what is behind
   it is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from pgproxy.watch.discovery.exchange import ask
from pgproxy.watch.discovery.fixed import shown
from pgproxy.watch.discovery.found import DiscoveryFailed, Found, FoundHost, found, is_ip
from pgproxy.watch.discovery.records import (
    LONGEST_CHAIN,
    Addresses,
    RecordType,
    Trouble,
    Unanswered,
    can_be_asked,
)
from pgproxy.watch.discovery.system import Resolv, addresses_in_hosts, parse_resolv
from pgproxy.watch.discovery.threads import in_thread

Records = Literal["any", "A", "AAAA"]

LONGEST = 60.0
"""Seconds."""
_OF_FILE = 5.0
"""Seconds that what /etc/hosts says is taken to be true."""
_NONE = frozenset({Trouble.NO_SUCH_NAME, Trouble.NO_ADDRESS})
_WORDS = {
    Trouble.NO_SUCH_NAME: ("there is no such name", "look at the name, or wait for its record to be made"),
    Trouble.NO_ADDRESS: (
        "the name has no address",
        "look at the name's A and AAAA records, and at dns_records",
    ),
    Trouble.SERVER_FAILED: ("the name server can't find out (SERVFAIL)", "look at the name server's log"),
    Trouble.REFUSED: ("the name server refuses to say", "take a name server that serves this machine"),
    Trouble.UNREADABLE: ("the answer can't be read", "look whether that is a name server"),
    Trouble.SILENCE: ("there was no answer", "look whether the name servers are up and can be reached"),
    Trouble.UNREACHABLE: ("the name server can't be reached", "look whether it is up and can be reached"),
    Trouble.LONG_CHAIN: (
        f"there are more than {LONGEST_CHAIN} CNAMEs in a row",
        "look at the name's records",
    ),
}


class Dns:
    """
    Looks up the names of a target.

    `server` is the name server to ask; without one the system's are, and /etc/hosts goes before them.
    """

    def __init__(
        self,
        reactor: Any,
        addresses: Sequence[tuple[str, int]],
        server: tuple[str, int] | None = None,
        records: Records = "any",
        resolv_conf: Path = Path("/etc/resolv.conf"),
        hosts: Path = Path("/etc/hosts"),
    ) -> None:
        self._reactor = reactor
        self._addresses = tuple(addresses)
        self._server = server
        self._records = records
        self._resolv_conf = resolv_conf
        self._hosts = hosts

    def __str__(self) -> str:
        return "DNS for " + ", ".join(dict.fromkeys(host for host, _ in self._addresses if not is_ip(host)))

    async def ask(self) -> Found:
        """Look up all names. Raises `DiscoveryFailed`."""
        if self._server is not None:
            resolv, hosts = Resolv(servers=(self._server,)), ""
        else:
            resolv, hosts = await in_thread(self._reactor, self._read_files)
        names = dict.fromkeys(host for host, _ in self._addresses)
        looks = [Deferred.fromCoroutine(self._look_up(name, resolv, hosts)) for name in names]
        known: dict[str, Addresses] = {}
        for name, (_, result) in zip(names, await DeferredList(looks, consumeErrors=True), strict=True):
            known[name] = _or_raise(result)
        return found(
            str(self),
            [
                FoundHost(shown(address, port), address, port, tls_name=host.rstrip("."))
                for host, port in self._addresses
                for address in known[host].addresses
            ],
            min(LONGEST, *(one.ttl for one in known.values())),
        )

    def _read_files(self) -> tuple[Resolv, str]:
        return parse_resolv(_text(self._resolv_conf)), _text(self._hosts)

    async def _look_up(self, name: str, resolv: Resolv, hosts: str) -> Addresses:
        if is_ip(name):
            return Addresses((name,), LONGEST)
        if listed := self._of_our_kind(addresses_in_hosts(hosts, name)):
            return Addresses(tuple(listed), _OF_FILE)
        trouble = Unanswered(Trouble.NO_SUCH_NAME)
        for candidate in filter(can_be_asked, resolv.candidates(name)):
            try:
                return await self._addresses_of(candidate, resolv)
            except Unanswered as error:
                trouble = error
                if error.trouble not in _NONE:
                    break
        what, remedy = _WORDS[trouble.trouble]
        asked = f" (asked: {trouble.who})" if trouble.who else ""
        raise DiscoveryFailed(f"cannot look up {name}: {what}{asked}", remedy) from trouble

    def _of_our_kind(self, addresses: list[str]) -> list[str]:
        by_kind: dict[RecordType, list[str]] = {
            "A": [one for one in addresses if ":" not in one],
            "AAAA": [one for one in addresses if ":" in one],
        }
        return by_kind["A"] or by_kind["AAAA"] if self._records == "any" else by_kind[self._records]

    async def _addresses_of(self, name: str, resolv: Resolv) -> Addresses:
        if self._records != "any":
            return await self._follow(name, self._records, resolv)
        # Both are asked at once, but nobody waits for the second answer where the first will do.
        of_6 = Deferred.fromCoroutine(self._follow(name, "AAAA", resolv))
        try:
            of_4 = await self._follow(name, "A", resolv)
        except Unanswered as error:
            if error.trouble in _NONE:
                return await of_6
            _drop(of_6)
            raise
        _drop(of_6)
        return of_4

    async def _follow(self, name: str, kind: RecordType, resolv: Resolv) -> Addresses:
        """Follow CNAMEs to an address, also where each answer has one of them only."""
        ttl = LONGEST
        for _ in range(LONGEST_CHAIN + 1):
            answer = await ask(self._reactor, resolv.servers, name, kind, resolv.over_tcp)
            ttl = min(ttl, answer.ttl)
            if not answer.onward:
                return Addresses(answer.addresses, ttl)
            name = answer.onward
        raise Unanswered(Trouble.LONG_CHAIN)


def _drop(look_up: Deferred[Addresses]) -> None:
    look_up.addErrback(lambda _: None)
    look_up.cancel()


def _or_raise(result: Addresses | Failure) -> Addresses:
    if isinstance(result, Failure):
        result.raiseException()
    return result


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # As for the C library, a file that can't be read says nothing.
