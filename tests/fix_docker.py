"""A PostgreSQL of another version or build in a container, where a Docker engine answers."""

from collections.abc import Iterator

import attrs
import docker
import psycopg
import pytest
from docker.client import DockerClient
from docker.errors import DockerException
from psycopg.rows import TupleRow

from pgproxy.demo.ports import free_port
from pgproxy.demo.process import wait_until

_START_SECONDS = 60.0


@attrs.frozen
class DockerPostgres:
    """A server in a container that shares our loopback interface."""

    image: str
    port: int
    user: str = "postgres"
    password: str = attrs.field(default="docker-password", repr=False)

    def connect(self) -> psycopg.Connection[TupleRow]:
        """Connect as the superuser."""
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user=self.user, password=self.password, connect_timeout=5
        )

    def answers(self) -> bool:
        """Say whether a login succeeds by now."""
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True


@pytest.fixture(scope="session")
def docker_postgres() -> Iterator[DockerPostgres]:
    """A PostgreSQL from an image that is here already; skips, with the reason, where there is none."""
    try:
        client = docker.from_env()
    except DockerException as error:
        pytest.skip(f"no Docker engine answers: {error}")
    try:
        image = _local_image(client)
        port = free_port()
        server = DockerPostgres(image, port)
        # The host's network, and loopback alone of it: a published port would be open to everybody.
        container = client.containers.run(
            image,
            ["postgres", "-c", f"port={port}", "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"],
            environment={"POSTGRES_PASSWORD": server.password},
            network_mode="host",
            detach=True,
            auto_remove=True,
        )
        try:
            if not wait_until(server.answers, _START_SECONDS):
                pytest.fail(f"{image} did not start:\n{container.logs(tail=20).decode(errors='replace')}")
            yield server
        finally:
            container.kill()
    finally:
        client.close()


def _local_image(client: DockerClient) -> str:
    """Choose an image without a download; skips where there is none, or the engine doesn't answer."""
    try:
        tags = [tag for image in client.images.list() for tag in image.tags]
    except DockerException as error:
        pytest.skip(f"no Docker engine answers: {error}")
    images = sorted(tag for tag in tags if tag.startswith("postgres:"))
    if not images:
        pytest.skip("Docker has no image postgres:* here (docker pull postgres:18)")
    return images[-1]
