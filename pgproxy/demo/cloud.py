"""
`make run AWS=1`: a stand-in for AWS (moto) with a secret, an application that uses it, and its rotation.

The application logs in again and again, each time to a new server, and another part of it stays connected and
asks its question over and over. The password is changed every few seconds; neither notices.
"""

import importlib.util
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

from pgproxy.demo.ports import free_port, is_listening
from pgproxy.demo.postgres import Postgres, url
from pgproxy.demo.process import DemoError, end, spawn, tail, wait_until
from pgproxy.demo.rotation import Rotation

SECRET = "demo/app"
USER = "app"
_FIRST_PASSWORD = "before the first rotation"
_REGION = "eu-central-1"
_START_SECONDS = 60.0
_BETWEEN_STEPS = 1.0
_BETWEEN_ROTATIONS = 5.0

Say = Callable[[str], None]


class Cloud:
    """A moto server with one secret, for a user of `server`; as a context manager it ends with everything."""

    def __init__(self, directory: Path, server: Postgres, database: str) -> None:
        missing = [name for name in ("boto3", "moto", "jwt") if importlib.util.find_spec(name) is None]
        if missing:
            raise DemoError(f"{', '.join(missing)}: not installed. pip install 'pgproxy[demo-aws]'")
        self._server = server
        self._database = database
        self._log = directory / "moto.log"
        self._log.write_bytes(b"")
        self._port = free_port()
        self._exits = ExitStack()
        self._over = threading.Event()
        self._client: Any = None
        self._moto: subprocess.Popen[bytes] | None = None
        self.queries = 0
        self.logins = 0
        self.failures: list[str] = []

    @property
    def environment(self) -> dict[str, str]:
        """What leads boto3 here, in pgproxy and in this process."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
            "AWS_DEFAULT_REGION": _REGION,
            "AWS_ACCESS_KEY_ID": "demonstration",
            "AWS_SECRET_ACCESS_KEY": "demonstration",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def config(self) -> str:
        """What pgproxy's configuration says about it."""
        return f'\n[aws]\nsecrets = ["name:{SECRET}"]\nrefresh_interval = 60\n'

    def __enter__(self) -> Self:
        moto = spawn(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self._port)],
            log=self._log,
            env=self.environment,
        )
        self._moto = moto
        self._exits.callback(end, moto, signal.SIGTERM, 3.0)
        self._exits.callback(self.hang, False)
        try:
            listens = wait_until(
                lambda: is_listening(self._port) or moto.poll() is not None, _START_SECONDS
            ) and is_listening(self._port)
            if not listens:
                raise DemoError(f"moto does not start; the end of {self._log}:\n{tail(self._log)}")
            self._make()
        except BaseException:
            self._exits.close()
            raise
        return self

    @property
    def password(self) -> str:
        """The password that the secret begins with."""
        return _FIRST_PASSWORD

    def hang(self, hangs: bool) -> None:
        """Have the stand-in answer nobody, or everybody again."""
        if self._moto is not None and self._moto.poll() is None:
            self._moto.send_signal(signal.SIGSTOP if hangs else signal.SIGCONT)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._exits.close()

    def _make(self) -> None:
        import boto3

        if not self._server.execute(f"select 1 from pg_roles where rolname = '{USER}'"):
            self._server.execute(f"create role {USER} login")
        self._server.execute(f"alter role {USER} password '{_FIRST_PASSWORD}'")
        self._client = boto3.client(
            "secretsmanager",
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            region_name=_REGION,
            aws_access_key_id="demonstration",
            aws_secret_access_key="demonstration",
        )
        text = json.dumps({"username": USER, "password": _FIRST_PASSWORD})
        self._client.create_secret(Name=SECRET, SecretString=text)

    # The application.

    def begin(self, port: int, say: Say) -> None:
        """Start the application, through pgproxy on this port, and the rotations."""
        for work in (self._stay, self._come_and_go):
            self._run(work, port)
        self._run(self._rotate, say)

    def _run(self, work: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        thread.start()
        self._exits.callback(thread.join, 5.0)

    def _connect(self, port: int, name: str) -> psycopg.Connection[Any]:
        value = self._client.get_secret_value(SecretId=SECRET, VersionStage="AWSCURRENT")
        password = json.loads(value["SecretString"])["password"]
        options = {"connect_timeout": "10", "application_name": name}
        return psycopg.connect(url(port, USER, password, self._database, **options), autocommit=True)

    def _stay(self, port: int) -> None:
        try:
            with self._connect(port, "stays") as connection:
                while not self._over.wait(0.02):
                    connection.execute("select count(*) from pg_class")
                    self.queries += 1
        except psycopg.Error as error:
            if not self._over.is_set():
                self.failures.append(str(error))

    def _come_and_go(self, port: int) -> None:
        while not self._over.wait(0.1):
            self.logins += 1
            try:
                # Another name is another set of startup parameters, and so a server of its own.
                with self._connect(port, f"login {self.logins}") as connection:
                    connection.execute("select 1")
            except psycopg.Error as error:
                if not self._over.is_set():
                    self.failures.append(str(error))

    def _rotate(self, say: Say) -> None:
        def log_in(user: str, password: str) -> None:
            with self._server.connect(user=user, password=password, dbname="postgres"):
                pass

        rotation = Rotation(self._client, SECRET, self._server.admin, log_in)
        number = 0
        while not self._over.wait(_BETWEEN_ROTATIONS):
            number += 1
            for name, step in zip(("create", "set", "test", "finish"), rotation.steps(), strict=True):
                step()
                say(f"rotation {number}: {name:6}  {self.figures()}")
                if self._over.wait(_BETWEEN_STEPS):
                    return

    def figures(self) -> str:
        """Say what the application has done so far."""
        failures = f"{len(self.failures)} failures" + "".join(f"\n    {one}" for one in self.failures[-3:])
        return f"the application: {self.queries} queries, {self.logins} logins, {failures}"
