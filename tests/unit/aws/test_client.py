"""What boto3 is asked, against a server that answers as a test wants it: nonsense, elsewhere, endlessly."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pgproxy.aws.client import AwsError, Client
from pgproxy.aws.rds import RdsApi, RdsUnavailable

ANSWER = {"ARN": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:one-abcdef"}
HIDDEN = "hidden-word"
VERSION = "0" * 32


class Server:
    """Answers everything in one way."""

    def __init__(self) -> None:
        self.reset()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                server.asked.append(self.path)
                self.send_response(server.status)
                for name, value in server.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(server.body)))
                self.end_headers()
                try:
                    self.wfile.write(server.body)
                except OSError:
                    pass

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def reset(self) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body = b"{}"
        self.asked: list[str] = []

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture(scope="module")
def server_of_module() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def server(server_of_module: Server) -> Server:
    server_of_module.reset()
    return server_of_module


@pytest.fixture(autouse=True)
def environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "AKIDTESTS",
        "AWS_SECRET_ACCESS_KEY": "tests-only",
        "AWS_CONFIG_FILE": "/nonexistent/config",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent/credentials",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def client() -> Client:
    """One for several tests, as boto3 takes its time to make what it needs, with the first call."""
    return Client()


CALLS: dict[str, Callable[[Client], Any]] = {
    "describe_secret": lambda client: client.describe_secret("one"),
    "secret_value": lambda client: client.secret_value("one", VERSION),
    "list_secrets": lambda client: client.list_secrets([]),
    "whoami": lambda client: client.whoami(),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "body",
    [
        HIDDEN.encode(),
        f'{{"{HIDDEN}'.encode(),
        b"",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        json.dumps(
            {"SecretString": HIDDEN, "CreatedDate": "x", "VersionIdsToStages": [1], "ARN": 5}
        ).encode(),
        json.dumps({"SecretList": [HIDDEN], "Arn": [HIDDEN]}).encode(),
    ],
    ids=range(8),
)
def test_an_answer_without_sense_is_an_error_that_may_pass(
    server: Server, client: Client, call: str, body: bytes
) -> None:
    """It is no word of AWS's that there is nothing, and none of it is told."""
    server.body = body
    with pytest.raises(AwsError) as error:
        CALLS[call](client)
    assert error.value.passing and error.value.says_nothing
    assert HIDDEN not in f"{error.value} {error.value!r}" and error.value.__suppress_context__


@pytest.mark.parametrize(
    ("status", "code", "passing", "says_nothing"),
    [
        (400, "ThrottlingException", True, True),
        (500, "InternalServiceError", True, True),
        (503, "Whatever", True, True),
        (400, "AccessDeniedException", False, True),
        (400, "UnrecognizedClientException", False, True),
        (400, "DecryptionFailure", False, True),
        (400, "ResourceNotFoundException", False, False),
        (400, "InvalidRequestException", False, False),
    ],
)
def test_errors(
    server: Server, client: Client, status: int, code: str, passing: bool, says_nothing: bool
) -> None:
    server.status, server.body = status, json.dumps({"__type": code, "message": "why"}).encode()
    with pytest.raises(AwsError, match=code) as error:
        client.describe_secret("one")
    assert (error.value.passing, error.value.says_nothing) == (passing, says_nothing)


def test_a_binary_secret(server: Server, client: Client) -> None:
    server.body = json.dumps({**ANSWER, "SecretBinary": "aGlkZGVu", "CreatedDate": 5}).encode()
    with pytest.raises(AwsError, match="binary") as error:
        client.secret_value("one", VERSION)
    assert not error.value.says_nothing


def test_a_secret_that_is_marked_for_deletion(server: Server, client: Client) -> None:
    server.body = json.dumps({**ANSWER, "DeletedDate": 5}).encode()
    with pytest.raises(AwsError) as error:
        client.describe_secret("one")
    assert error.value.is_missing


def test_credentials_that_come_later(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance may get its role after it has started; a client without credentials would keep none."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    client = Client()
    server.body = json.dumps(ANSWER).encode()
    for _ in range(2):
        with pytest.raises(AwsError, match="finds none") as error:
            client.describe_secret("one")
        assert error.value.passing
    # What is asked without a signature of ours needs none.
    assert client.sts() == ("eu-west-1", server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDTESTS")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "tests-only")
    assert client.describe_secret("one").arn == ANSWER["ARN"]


def test_an_endpoint_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "no endpoint")
    for call in (CALLS["describe_secret"], lambda client: client.sts()):
        with pytest.raises(AwsError, match="AWS_ENDPOINT_URL"):
            call(Client())


def test_the_rds_api_finds_credentials_that_come_later(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    api = RdsApi("eu-west-1", server.url, 2.0)
    with pytest.raises(RdsUnavailable, match="credentials"):
        api.instance("one")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDTESTS")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "tests-only")
    server.body = b"<DescribeDBInstancesResponse><DescribeDBInstancesResult/></DescribeDBInstancesResponse>"
    assert api.instance("one") == []


def test_what_holds_up_the_credentials_holds_up_no_token_of_a_client() -> None:
    """The metadata service may hang; to verify a token nothing of it is needed."""
    client = Client()
    known = client.sts()
    with client._lock:
        assert client.sts() == known


def test_a_reload_waits_for_no_thread() -> None:
    """Making a client may take long, where the metadata service hangs; the reactor doesn't wait for that."""
    client = Client()
    client.region()
    with client._lock:
        client.configure("eu-north-1")
    assert client.region() == "eu-north-1"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_where_an_answer_leads_on_to_is_not_asked(server: Server, status: int) -> None:
    other = Server()
    server.status, server.headers = status, {"Location": f"{other.url}/elsewhere"}
    try:
        answer = Client().get(f"{server.url}/?X-Amz-Signature=1", {"X-Header": "value"})
    finally:
        other.close()
    assert answer.status == status
    assert other.asked == [] and len(server.asked) == 1


def test_an_answer_without_an_end_is_cut(server: Server) -> None:
    server.body = b"x" * (1 << 20)
    with pytest.raises(AwsError, match="too great length"):
        Client().get(server.url, {})
