"""
What Patroni's REST API says of a cluster: `Patroni`, a server of `GET /cluster` on loopback.

The document is the one that Patroni 3 and 4 give (patroni.utils.cluster_as_json): members by name, with role,
state, host, port and timeline; of those who do not lead also positions and lags, in bytes or `unknown`.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.web import resource, server

from tests.cluster import Cluster, Host
from tests.sidecar import Order, Sidecar, main

Document = dict[str, Any]
_WRITERS = "select ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int, false"
_STANDBYS = """
    select (select received_tli from pg_stat_wal_receiver),
           exists (select from pg_stat_wal_receiver where status = 'streaming')"""
"""The timeline, and whether it streams."""


class Patroni(Sidecar):
    """The API of a member; all tell the same. `cluster.observers.append(patroni.show)` has it follow one."""

    def __init__(self) -> None:
        super().__init__("tests.patroni")

    @property
    def url(self) -> str:
        """Where it is, without a path."""
        return f"http://127.0.0.1:{self.port}"

    def show(self, cluster: Cluster) -> None:
        """Tell of a cluster as it is now."""
        self.set(describe(cluster, self.url))

    def set(self, document: Document) -> None:
        """Tell this."""
        self.ask(do="set", document=document)

    def fail(self, status: int = 503) -> None:
        """Answer with an error, until the next `set`."""
        self.ask(do="fail", status=status)

    def silence(self) -> None:
        """Take requests and answer none, until the next `set`."""
        self.ask(do="silence")

    def requests(self) -> int:
        """Give how many requests there were so far."""
        return int(self.ask(do="count"))


def describe(cluster: Cluster, url: str = "http://127.0.0.1:8008") -> Document:
    """Write what Patroni would say of a cluster."""
    position = _position(cluster.writer, "pg_current_wal_lsn()") if cluster.writer.is_up else 0
    members = [
        _member(host, cluster, position, url) for host in sorted(cluster.hosts, key=lambda host: host.name)
    ]
    return {"members": members, "scope": "main"}


def _member(host: Host, cluster: Cluster, position: int, url: str) -> Document:
    leads = host is cluster.writer
    role = "leader" if leads else "sync_standby" if host is cluster.synchronous else "replica"
    member: Document = {"name": host.name, "role": role, "state": "stopped", "api_url": f"{url}/patroni"}
    member |= {"host": host.at[0], "port": host.at[1]}
    if host.is_up:
        [[timeline, streams]] = host.execute(_STANDBYS if host.in_recovery else _WRITERS)
        member["state"] = "streaming" if streams else "running"
        if timeline is not None:
            member["timeline"] = timeline
    if not leads:
        member |= _lags(host, position)
    return member


def _lags(host: Host, position: int) -> Document:
    if not host.is_up or not host.in_recovery:
        names = ("receive_lag", "receive_lsn", "replay_lag", "replay_lsn", "lag", "lsn")
        return dict.fromkeys(names, "unknown")
    received = _position(host, "pg_last_wal_receive_lsn()")
    replayed = _position(host, "pg_last_wal_replay_lsn()")
    found: Document = {}
    for prefix, place in {"receive_": received, "replay_": replayed, "": max(received, replayed)}.items():
        found[f"{prefix}lag"] = max(0, position - place)
        found[f"{prefix}lsn"] = f"{place >> 32:X}/{place & 0xFFFFFFFF:X}"
    return found


def _position(host: Host, function: str) -> int:
    [[position]] = host.execute(f"select coalesce({function} - '0/0', 0)::bigint")
    return int(position)


class _Api(resource.Resource):
    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self._order: Order = {"do": "set", "document": {"members": []}}
        self._count = 0

    def obey(self, order: Order) -> Any:
        """Do as a test says."""
        if order["do"] == "count":
            return self._count
        self._order = order
        return None

    def render_GET(self, request: server.Request) -> bytes | int:
        self._count += 1
        if self._order["do"] == "silence":
            return server.NOT_DONE_YET
        request.setHeader(b"content-type", b"application/json")
        if self._order["do"] == "fail" or request.path != b"/cluster":
            request.setResponseCode(self._order.get("status", 404))
            return b"{}"
        return json.dumps(self._order["document"]).encode()


def _listen(reactor: Any) -> tuple[int, Any]:
    api = _Api()
    port = reactor.listenTCP(0, server.Site(api), interface="127.0.0.1")
    return port.getHost().port, api.obey


if __name__ == "__main__":
    main(_listen)
