"""
The RDS API on loopback: moto's server, which boto3 speaks to as to AWS's.

Its failovers are instantaneous, and the names of its endpoints lead nowhere: whoever wants to connect needs
a map from them to addresses.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import boto3

from pgproxy.demo.ports import free_port, is_listening
from pgproxy.demo.process import DemoError, end, spawn, tail, wait_until

_REGION = "eu-central-1"
_START_SECONDS = 60.0


class Rds:
    """A region of its own, empty at first."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        log = directory / "moto.log"
        self._process = spawn(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)], log=log
        )
        wait_until(lambda: is_listening(self.port) or self._process.poll() is not None, _START_SECONDS)
        if not is_listening(self.port):
            self.close()
            raise DemoError(f"moto does not listen on {self.port}:\n{tail(log)}")
        self.client: Any = boto3.client(
            "rds",
            endpoint_url=self.url,
            region_name=_REGION,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process needs in its environment to have its boto3 come here."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": _REGION,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def make_aurora(self, cluster: str, instances: Sequence[str]) -> None:
        """Make a cluster of Aurora PostgreSQL: the first of its instances is the writer."""
        self.client.create_db_cluster(
            DBClusterIdentifier=cluster,
            Engine="aurora-postgresql",
            MasterUsername="boss",
            MasterUserPassword="boss-password",
        )
        for instance in instances:
            self.client.create_db_instance(
                DBInstanceIdentifier=instance,
                DBClusterIdentifier=cluster,
                DBInstanceClass="db.r6g.large",
                Engine="aurora-postgresql",
            )

    def make_instance(self, instance: str) -> None:
        """Make an instance that belongs to no cluster."""
        self.client.create_db_instance(
            DBInstanceIdentifier=instance,
            DBInstanceClass="db.r6g.large",
            Engine="postgres",
            AllocatedStorage=20,
            MasterUsername="boss",
            MasterUserPassword="boss-password",
        )

    def fail_over(self, cluster: str, to: str) -> None:
        """Have another instance be the writer, as far as the API tells."""
        self.client.failover_db_cluster(DBClusterIdentifier=cluster, TargetDBInstanceIdentifier=to)

    def writer(self, cluster: str) -> str:
        """Give the instance that the API calls the writer."""
        [found] = self.client.describe_db_clusters(DBClusterIdentifier=cluster)["DBClusters"]
        [writer] = [one for one in found["DBClusterMembers"] if one["IsClusterWriter"]]
        return str(writer["DBInstanceIdentifier"])

    def endpoint(self, instance: str) -> tuple[str, int]:
        """Give the name and port that the API tells for an instance."""
        [found] = self.client.describe_db_instances(DBInstanceIdentifier=instance)["DBInstances"]
        return str(found["Endpoint"]["Address"]), int(found["Endpoint"]["Port"])

    def close(self) -> None:
        """End it."""
        end(self._process, signal.SIGKILL, 5.0)  # it has nothing to keep

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
