"""A name server on loopback (UDP and TCP) whose answers change at run time: `Zone`."""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.internet import defer
from twisted.names import dns, error, server

from pgproxy.demo.ports import free_port
from tests.sidecar import Order, Sidecar, main


class Zone(Sidecar):
    """Names and what they stand for; those that it was not told of do not exist (NXDOMAIN)."""

    def __init__(self) -> None:
        super().__init__("tests.zone")

    def set(self, name: str, *addresses: str, ttl: int = 5) -> None:
        """Have a name stand for IPv4 addresses, in this order. With none it exists, and has no address."""
        self.ask(do="set", name=name, addresses=addresses, ttl=ttl)

    def alias(self, name: str, other: str, ttl: int = 5) -> None:
        """Have a name be another's (CNAME), as the endpoint of an RDS cluster is its writer's."""
        self.ask(do="alias", name=name, other=other, ttl=ttl)

    def forget(self, name: str) -> None:
        """Have a name not exist."""
        self.ask(do="forget", name=name)

    def silence(self, name: str) -> None:
        """Have questions for a name go unanswered."""
        self.ask(do="silence", name=name)

    def fail(self, name: str) -> None:
        """Have questions for a name fail (SERVFAIL)."""
        self.ask(do="fail", name=name)

    def queries(self, name: str, kind: str = "A") -> int:
        """Give how many questions there were for a name so far."""
        return int(self.ask(do="count", name=name, kind=kind))


class _Broken(Exception):
    """SERVFAIL."""


class _Answers:
    """The zone, as `twisted.names` asks it."""

    def __init__(self) -> None:
        self._known: dict[str, Order] = {}
        self._counts: Counter[tuple[str, str]] = Counter()

    def obey(self, order: Order) -> Any:
        """Do as a test says."""
        name = order["name"].lower()
        if order["do"] == "count":
            return self._counts[name, order["kind"]]
        self._known[name] = order
        return None

    def query(self, query: dns.Query, timeout: object = None) -> defer.Deferred[Any]:
        """Answer a question: records, authority and more, or a failure; or never."""
        name = query.name.name.decode().lower()
        self._counts[name, dns.QUERY_TYPES.get(query.type, str(query.type))] += 1
        records: list[dns.RRHeader] = []
        while True:
            known = self._known.get(name, {"do": "forget"})
            match known["do"]:
                case "silence":
                    return defer.Deferred()
                case "fail":
                    return defer.fail(_Broken())
                case "forget":
                    return defer.fail(error.DomainError(name))
                case "alias":
                    ttl = known["ttl"]
                    payload = dns.Record_CNAME(known["other"], ttl)
                    records.append(dns.RRHeader(name, dns.CNAME, ttl=ttl, payload=payload, auth=True))
                    name = known["other"].lower()
                case _:
                    break
        if query.type in (dns.A, dns.ALL_RECORDS):
            ttl = known["ttl"]
            for address in known["addresses"]:
                address_record = dns.Record_A(address, ttl)
                records.append(dns.RRHeader(name, dns.A, ttl=ttl, payload=address_record, auth=True))
        return defer.succeed((records, [], []))


def _listen(reactor: Any) -> tuple[int, Any]:
    answers = _Answers()
    factory = server.DNSServerFactory(authorities=[answers])
    port = free_port()
    reactor.listenUDP(port, dns.DNSDatagramProtocol(factory), interface="127.0.0.1")
    reactor.listenTCP(port, factory, interface="127.0.0.1")
    return port, answers.obey


if __name__ == "__main__":
    main(_listen)
