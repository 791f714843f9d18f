"""
The hosts of a cluster or an instance, as the RDS API describes them.

The API is slow to learn of a failover (seconds to minutes): what it says about roles is old.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from pgproxy.aws.rds import Answer, RdsApi, RdsUnavailable
from pgproxy.watch.discovery.found import (
    DiscoveryFailed,
    Found,
    FoundHost,
    Role,
    as_address,
    as_name,
    as_port,
    found,
    moved,
    quoted,
)
from pgproxy.watch.discovery.threads import in_thread

PAUSE = 2.0
"""Seconds between two calls: AWS limits them for all of an account together, so others would suffer."""


class Rds:
    """
    Asks about a cluster, or where there is none about an instance and its replicas.

    `addresses` are those that go before the API's, by instance or by endpoint.
    """

    def __init__(
        self,
        reactor: Any,
        api: RdsApi,
        cluster: str,
        instance: str,
        expires: float,
        addresses: Mapping[str, tuple[str, int]],
    ) -> None:
        self._reactor = reactor
        self._api = api
        self._cluster = cluster
        self._instance = instance
        self._expires = expires
        self._addresses = addresses
        self._calling: Deferred[None] | None = None

    def __str__(self) -> str:
        kind, name = ("cluster", self._cluster) if self._cluster else ("instance", self._instance)
        return f"the RDS API for {kind} {name}"

    async def ask(self) -> Found:
        """Ask the API, in a thread. Raises `DiscoveryFailed`."""
        if self._calling is not None:
            raise DiscoveryFailed(f"{self} has not answered yet", "look whether it can be reached from here")
        finished: Deferred[None] = Deferred()
        self._calling = finished
        finished.addCallback(self._called)
        hosts = await in_thread(self._reactor, self._call, finished)
        return found(str(self), moved(hosts, self._addresses), self._expires)

    def _called(self, _result: None) -> None:
        self._calling = None

    def _call(self, finished: Deferred[None]) -> list[FoundHost]:
        try:
            if self._cluster:
                return of_cluster(*self._api.cluster(self._cluster))
            return of_instance(self._api.instance(self._instance))
        except RdsUnavailable as error:
            raise DiscoveryFailed(f"{self} failed: {quoted(str(error))}", error.remedy) from error
        finally:
            self._reactor.callFromThread(finished.callback, None)


def of_cluster(clusters: Sequence[Answer], instances: Sequence[Answer]) -> list[FoundHost]:
    """Read the descriptions of a cluster and its instances. Raises `DiscoveryFailed`."""
    roles: dict[object, Role] = {}
    for cluster in clusters:
        for member in _list(cluster.get("DBClusterMembers")):
            roles[member.get("DBInstanceIdentifier")] = (
                "writer" if member.get("IsClusterWriter") else "reader"
            )
    return _hosts(instances, lambda instance: roles.get(instance.get("DBInstanceIdentifier")))


def of_instance(instances: Sequence[Answer]) -> list[FoundHost]:
    """Read the descriptions of an instance and its replicas. Raises `DiscoveryFailed`."""
    return _hosts(
        instances,
        lambda instance: "reader" if instance.get("ReadReplicaSourceDBInstanceIdentifier") else "writer",
    )


def _hosts(instances: Sequence[Answer], role: Any) -> list[FoundHost]:
    hosts = []
    for instance in instances:
        endpoint = instance.get("Endpoint")
        if not endpoint:
            continue  # It is being made, and has no address yet.
        name = as_name(instance.get("DBInstanceIdentifier"))
        address, port = as_address(endpoint.get("Address")), as_port(endpoint.get("Port"))
        if name is None or address is None or port is None:
            what = f"the RDS API gave an instance {quoted(instance.get('DBInstanceIdentifier'))}"
            raise DiscoveryFailed(f"{what} at {quoted(endpoint)}", "look what is behind `endpoint_url`")
        hosts.append(FoundHost(name, address, port, role(instance), tls_name=address))
    return hosts


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
