"""`pgproxy token`: what it makes is what pgproxy takes."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

import pytest

from pgproxy import command
from pgproxy.aws import caller_identity, rds_token
from tests.signatures import Principal, wrong_with

WHO = Principal("arn:aws:sts::123456789012:assumed-role/app/i-0", "AKIDAPP")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent/config")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent/credentials")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", WHO.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", WHO.secret_key)
    monkeypatch.setenv("AWS_REGION", "eu-central-1")


@pytest.mark.parametrize("session_token", ["", "/+a token of a role==" * 60])
def test_a_signed_request(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, session_token: str
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", session_token)
    assert command.main(["token", "sts", "--server-id", "proxy.tests"]) == 0
    token = capsys.readouterr().out.strip()
    request = caller_identity.parse(token, caller_identity.hosts(["eu-central-1"]), time.time(), 900.0)
    headers = {"Host": request.host, caller_identity.HEADER: "proxy.tests"}
    assert wrong_with("GET", request.query, headers, {WHO.access_key: WHO}) == WHO
    headers[caller_identity.HEADER] = "another"
    assert wrong_with("GET", request.query, headers, {WHO.access_key: WHO}) == "SignatureDoesNotMatch"


def test_a_token_for_rds(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["token", "rds", "--host", "db.example", "--user", "app", "--region", "eu-west-1"]
    assert command.main(arguments) == 0
    token = capsys.readouterr().out.strip()
    parsed = rds_token.parse(token)
    assert (parsed.host, parsed.port, parsed.user, parsed.region) == ("db.example", 5432, "app", "eu-west-1")
    parts = urlsplit(f"https://{token}")
    assert wrong_with("GET", parts.query, {"host": parts.netloc}, {WHO.access_key: WHO}) == WHO


def test_without_credentials_or_region(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_REGION")
    assert command.main(["token", "sts", "--server-id", "x"]) == 1
    assert "--region" in capsys.readouterr().err
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert command.main(["token", "sts", "--server-id", "x", "--region", "eu-west-1"]) == 1
    assert "no credentials" in capsys.readouterr().err


def test_aws_refuses(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert command.main(["token", "web", "--server-id", "x"]) == 1
    assert "AWS makes no token" in capsys.readouterr().err
