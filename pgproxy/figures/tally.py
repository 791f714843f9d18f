"""What was done for one database since the process began."""

from __future__ import annotations

from typing import Any

from attrs import define, field

from pgproxy.figures.histogram import Histogram


@define
class Tally:
    """Whole numbers are of what has ended; who asks adds what is still here."""

    links: int = 0
    """How often a client was given a server."""
    transactions: int = 0
    queries: int = 0
    queries_in_tls: int = 0
    """Those of clients in TLS."""
    aborted: int = 0
    """How often a client that waited for a server has left, or has had that cancelled."""
    received: int = 0
    """Bytes from clients."""
    sent: int = 0
    """Bytes to clients."""
    logins: int = 0
    wait: Histogram = field(factory=Histogram)
    """Of those who could not be given a server at once, whether they got one in the end or not."""
    in_vain: int = 0
    """How many of those did not: they are not among `links`."""
    query: Histogram = field(factory=Histogram)
    transaction: Histogram = field(factory=Histogram)
    """The last two are estimates: of a sample, each with its weight."""

    def figures(self) -> dict[str, Any]:
        """Give all of it, to be added up."""
        return {
            "links": self.links,
            "transactions": self.transactions,
            "queries": self.queries,
            "queries_in_tls": self.queries_in_tls,
            "aborted": self.aborted,
            "received": self.received,
            "sent": self.sent,
            "logins": self.logins,
            "wait": self.wait.figures(self.links - (self.wait.count - self.in_vain)),
            "query": self.query.figures(),
            "transaction": self.transaction.figures(),
        }
