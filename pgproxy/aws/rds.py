"""
Asks the RDS API what a cluster or an instance consists of. Blocks: it is for a thread, one at a time.

Needs rds:DescribeDBClusters and rds:DescribeDBInstances, and credentials where boto3 looks for them.
Documentation: Amazon RDS API Reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_PAGE = 100
"""Entries of one answer; no cluster has as many."""
_REMEDIES = {
    "DBClusterNotFoundFault": "look at the cluster's identifier and the region",
    "DBInstanceNotFound": "look at the instance's identifier and the region",
    "AccessDenied": "allow rds:DescribeDBClusters and rds:DescribeDBInstances",
    "AccessDeniedException": "allow rds:DescribeDBClusters and rds:DescribeDBInstances",
    "UnauthorizedOperation": "allow rds:DescribeDBClusters and rds:DescribeDBInstances",
    "Throttling": "ask less often: raise `interval`",
    "ThrottlingException": "ask less often: raise `interval`",
    "ExpiredToken": "look at the credentials",
    "InvalidClientTokenId": "look at the credentials",
    "SignatureDoesNotMatch": "look at the credentials, and at this machine's clock",
    "NoCredentialsError": "give credentials: a role, a profile or AWS_ACCESS_KEY_ID",
    "NoRegionError": "set `region`",
    "EndpointConnectionError": "look whether the API can be reached from here, and at `region`",
    "ConnectTimeoutError": "look whether the API can be reached from here",
    "ReadTimeoutError": "look whether the API can be reached from here",
}

Answer = Mapping[str, Any]
"""As boto3 gives it."""


class RdsUnavailable(Exception):
    """The API did not say; the texts are what was wrong and what would help."""

    def __init__(self, why: str, remedy: str) -> None:
        super().__init__(why)
        self.remedy = remedy


class RdsApi:
    """
    The API of a region, None for boto3's own, at `endpoint_url` where it is not AWS's.

    `timeout` is in seconds, for a connection and again for an answer; nothing is tried twice.
    """

    def __init__(self, region: str | None, endpoint_url: str | None, timeout: float) -> None:
        self._region = region
        self._endpoint_url = endpoint_url
        self._timeout = timeout
        self._client: Any = None

    def cluster(self, identifier: str) -> tuple[list[Answer], list[Answer]]:
        """Give a cluster's description, alone in a list, and its instances'. Raises `RdsUnavailable`."""
        clusters = self._call("describe_db_clusters", DBClusterIdentifier=identifier)
        filters = [{"Name": "db-cluster-id", "Values": [identifier]}]
        instances = self._call("describe_db_instances", Filters=filters, MaxRecords=_PAGE)
        return clusters.get("DBClusters", []), instances.get("DBInstances", [])

    def instance(self, identifier: str) -> list[Answer]:
        """Give an instance's description, then those of its replicas here. Raises `RdsUnavailable`."""
        answer = self._call("describe_db_instances", DBInstanceIdentifier=identifier)
        instances: list[Answer] = list(answer.get("DBInstances", []))
        # In another region a replica has an ARN for its name: it is of no use from here.
        replicas = [
            name
            for one in instances
            for name in one.get("ReadReplicaDBInstanceIdentifiers", [])
            if not name.startswith("arn:")
        ]
        if replicas:
            filters = [{"Name": "db-instance-id", "Values": replicas}]
            more = self._call("describe_db_instances", Filters=filters, MaxRecords=_PAGE)
            instances += more.get("DBInstances", [])
        return instances

    def _call(self, operation: str, **parameters: Any) -> Answer:
        try:
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError as error:
            raise RdsUnavailable("boto3 is not installed", "pip install 'pgproxy[aws]'") from error
        try:
            if self._client is None:
                self._client = self._made()
            answer: Answer = getattr(self._client, operation)(**parameters)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            raise RdsUnavailable(str(error), _REMEDIES.get(code, "")) from error
        except (BotoCoreError, ValueError) as error:
            # One that was made without credentials never gets any.
            self._client = None
            raise RdsUnavailable(str(error), _REMEDIES.get(type(error).__name__, "")) from error
        return answer

    def _made(self) -> Any:
        import boto3
        from botocore.config import Config

        settings = Config(
            connect_timeout=self._timeout,
            read_timeout=self._timeout,
            retries={"mode": "standard", "total_max_attempts": 1},
        )
        # Not the default session: that belongs to nobody, and is not made for threads.
        return boto3.Session(region_name=self._region).client(
            "rds", endpoint_url=self._endpoint_url, config=settings
        )
