"""AWS for tests: moto's server, behind a door that can be shut; and secrets that are rotated."""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import boto3
import pytest
from botocore.config import Config

from pgproxy.demo.ports import free_port, is_listening
from pgproxy.demo.postgres import Postgres
from pgproxy.demo.process import end, spawn, tail
from pgproxy.demo.rotation import Rotation
from tests.faults import Listener

REGION = "eu-central-1"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "tests-only"}
ENVIRONMENT = {
    **KEYS,
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nonexistent/config",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent/credentials",
}
_START_SECONDS = 60.0
_SLOW = 0.5
"""Seconds."""

Mood = Literal["open", "slow", "refuses", "hangs", "errs", "throttles", "denies", "babbles"]
_ANSWERS: dict[Mood, tuple[str, str]] = {
    "errs": ("503 Service Unavailable", ""),
    "throttles": ("400 Bad Request", '{"__type": "ThrottlingException", "message": "Rate exceeded"}'),
    "denies": ("400 Bad Request", '{"__type": "AccessDeniedException", "message": "not authorized"}'),
    "babbles": ("200 OK", "<html>Please log in to this network</html>"),
}


class Door(Listener):
    """Stands in front of an HTTP server, and lets through what it is in the mood for."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._mood: Mood = "open"
        self.asked = 0
        """Connections."""
        super().__init__()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def be(self, mood: Mood) -> None:
        """Be in another mood, towards those who are in as well."""
        self._mood = mood
        self.cut()

    def serve(self, peer: socket.socket) -> None:
        self.asked += 1
        match self._mood:
            case "open" | "slow":
                server = self.keep(socket.create_connection(("127.0.0.1", self._target)))
                threading.Thread(target=_pump, args=(server, peer), daemon=True).start()
                _pump(peer, server, _SLOW if self._mood == "slow" else 0.0)
            case "hangs":
                while peer.recv(65536):
                    pass
            case "refuses":
                pass
            case mood:
                peer.recv(65536)
                status, body = _ANSWERS[mood]
                head = f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
                peer.sendall((head + body).encode())


def _pump(source: socket.socket, target: socket.socket, wait: float = 0.0) -> None:
    try:
        while data := source.recv(65536):
            time.sleep(wait)
            target.sendall(data)
    except OSError:
        pass
    try:
        target.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


class Moto:
    """A moto server, in a process of its own."""

    def __init__(self, directory: Path) -> None:
        self.log = directory / "moto.log"
        self.port = free_port()
        self._clients: dict[str, Any] = {}
        self.process = spawn(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            log=self.log,
            env=ENVIRONMENT,
        )

    def await_start(self) -> None:
        limit = time.monotonic() + _START_SECONDS
        while not is_listening(self.port):
            if self.process.poll() is not None or time.monotonic() > limit:
                pytest.fail(f"moto does not listen:\n{tail(self.log)}")
            time.sleep(0.05)

    def client(self, service: str) -> Any:
        """Give the client of boto3's that goes past every door: to make one takes long."""
        if service not in self._clients:
            self._clients[service] = boto3.client(
                service,
                endpoint_url=f"http://127.0.0.1:{self.port}",
                region_name=REGION,
                aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
                config=Config(retries={"total_max_attempts": 3, "mode": "standard"}),
            )
        return self._clients[service]


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    """The moto of this test worker."""
    server = Moto(tmp_path_factory.mktemp("moto"))
    try:
        server.await_start()
        yield server
    finally:
        end(server.process, signal.SIGTERM, 5.0)


@pytest.fixture
def door(moto: Moto) -> Iterator[Door]:
    """The way to moto, for pgproxy."""
    with Door(moto.port) as door:
        yield door


class Vault:
    """Secrets in moto for users of a PostgreSQL."""

    def __init__(self, moto: Moto, door: Door, server: Postgres) -> None:
        self.client = moto.client("secretsmanager")
        self.environment = {**ENVIRONMENT, "AWS_ENDPOINT_URL": door.url}
        self._server = server
        self._roles: set[str] = set()

    def clear(self) -> None:
        """Leave the server as it was."""
        self._server.execute(*(f"drop role if exists {role}" for role in sorted(self._roles)))

    def add(self, user: str, name: str, password: str = "first-password", **more: Any) -> str:
        """Make a user with a password, and a secret with both; gives its ARN."""
        self.add_role(user, password)
        text = json.dumps({"username": user, "password": password, "host": "ignored", "port": 5432})
        arn: str = self.client.create_secret(Name=name, SecretString=text, **more)["ARN"]
        return arn

    def add_role(self, user: str, password: str) -> None:
        self._roles.add(user)
        self._server.execute(f"drop role if exists {user}", f"create role {user} login password '{password}'")

    def password(self, secret: str, stage: str = "AWSCURRENT") -> str:
        answer = self.client.get_secret_value(SecretId=secret, VersionStage=stage)
        return str(json.loads(answer["SecretString"])["password"])

    def rotation(self, secret: str, alternating: bool = False) -> Rotation:
        def login(user: str, password: str) -> None:
            with self._server.connect(user=user, password=password, dbname="postgres") as connection:
                connection.execute("select 1")

        return Rotation(self.client, secret, self._server.admin, login, alternating)


@pytest.fixture
def vault(moto: Moto, door: Door, postgres: Postgres) -> Iterator[Vault]:
    """Secrets for users of `postgres`."""
    vault = Vault(moto, door, postgres)
    yield vault
    vault.clear()
