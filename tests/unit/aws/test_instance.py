"""What an instance tells of itself, by version 2 of its metadata service; and where there is none."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pgproxy.aws.client import AwsError, Client
from pgproxy.aws.instance import Instance

DOCUMENT = {"instanceId": "i-0123", "accountId": "123456789012", "region": "eu-north-1", "imageId": "ami-0"}


class Handler(BaseHTTPRequestHandler):
    def do_PUT(self) -> None:
        good = self.path == "/latest/api/token" and "x-aws-ec2-metadata-token-ttl-seconds" in self.headers
        self._answer(200 if good else 400, b"a token")

    def do_GET(self) -> None:
        good = self.headers.get("x-aws-ec2-metadata-token") == "a token"
        known = self.path == "/latest/dynamic/instance-identity/document"
        self._answer(200 if good and known else 401, json.dumps(DOCUMENT).encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def metadata_service() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent/config")
    # Nobody listens there.
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1/")


def test_an_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    with metadata_service() as url:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
        assert Instance.look_up() == Instance("i-0123", "123456789012", "eu-north-1")
        assert Client().region() == "eu-north-1"
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        assert Instance.look_up() == Instance()


def test_no_instance() -> None:
    assert Instance.look_up() == Instance()
    with pytest.raises(AwsError, match=r"set aws\.region"):
        Client().region()


def test_what_says_the_region(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client()
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-3")
    assert Client().region() == "eu-west-3"
    monkeypatch.setenv("AWS_REGION", "eu-west-2")
    assert client.region() == "eu-west-2"
    client.configure("eu-west-1")
    assert client.region() == "eu-west-1"


def test_where_nobody_answers_the_words_have_nothing_of_the_url_but_its_host() -> None:
    with pytest.raises(AwsError, match=r"no answer from 127\.0\.0\.1") as refused:
        Client().get("http://127.0.0.1:1/?X-Amz-Security-Token=very-secret", {})
    assert "very-secret" not in f"{refused.value!r} {refused.value}"
    assert refused.value.__suppress_context__
