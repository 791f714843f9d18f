"""Judgements of tokens while the configuration changes, and while STS does not answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
import structlog
from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from pgproxy.auth.secrets import Credentials
from pgproxy.aws import caller_identity
from pgproxy.aws.client import Answer
from pgproxy.aws.iam import PATIENCE, Bench, Judge
from pgproxy.aws.service import Aws
from pgproxy.config import Config
from pgproxy.config.aws import AwsIam
from pgproxy.link.vault import TokenRefused
from tests.signatures import Principal, presign

NOW = 1_800_000_000.0
REGION = "eu-central-1"
ROLE = "arn:aws:iam::123456789012:role/app"
APP = Principal("arn:aws:sts::123456789012:assumed-role/app/i-0", "AKIDAPP")
IAM = AwsIam(
    client_users=frozenset({"app"}),
    verifiers=("sts-caller-identity",),
    server_id="proxy.tests",
    identities={ROLE: frozenset({"app"})},
)


class World:
    """STS, and who asks it."""

    def __init__(self, endpoint: str = f"https://sts.{REGION}.amazonaws.com") -> None:
        self.clock = Clock()
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.waiting: list[Deferred[Answer]] = []
        self.hangs = False
        self.endpoint = endpoint
        client: Any = self
        threads: Any = self
        self.bench = Bench(self.clock, threads, lambda _name: pytest.fail("no server is asked"), 4)
        log: Any = structlog.wrap_logger(structlog.ReturnLogger())
        self.judge = Judge(client, threads, self.bench, lambda: NOW, log)
        self.judge.configure(Config(), IAM, {})

    def call(self, function: Any, *args: Any) -> Deferred[Any]:
        return succeed(None).addCallback(lambda _: function(*args))

    def sts(self) -> tuple[str, str]:
        return REGION, self.endpoint

    def get(self, url: str, headers: dict[str, str]) -> Any:
        self.asked.append((url, headers))
        if not self.hangs:
            return self.answer()
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def answer(self) -> Answer:
        result = {"Arn": APP.arn, "Account": "123456789012"}
        return Answer(
            200, json.dumps({"GetCallerIdentityResponse": {"GetCallerIdentityResult": result}}).encode()
        )

    def show(self, token: str) -> list[Any]:
        outcome: list[Any] = []
        Deferred.fromCoroutine(self.judge.judge("app", "db", token)).addBoth(outcome.append)
        return outcome


def token(host: str = f"sts.{REGION}.amazonaws.com", region: str = REGION) -> str:
    url = f"https://{host}/?Action=GetCallerIdentity&Version=2011-06-15"
    headers = {caller_identity.HEADER: "proxy.tests"}
    return caller_identity.wrap(presign(APP, url, region, "sts", headers=headers, made=NOW))


def test_what_is_judged_while_the_map_changes_is_not_remembered() -> None:
    world = World()
    world.hangs = True
    early = world.show(token())
    world.judge.configure(Config(), evolve(IAM, identities={}), {})
    world.waiting[0].callback(world.answer())
    # It is judged by the map of now,
    assert early[0].check(TokenRefused)
    # and so is what came before.
    world.judge.configure(Config(), IAM, {})
    first = world.show(token())
    world.waiting[1].callback(world.answer())
    assert first == [Credentials()] == world.show(token())
    again = World()
    again.hangs = True
    late = again.show(token())
    again.judge.configure(Config(), evolve(IAM, max_token_age=10.0), {})
    again.waiting[0].callback(again.answer())
    assert late == [Credentials()]
    assert again.show(token()) == [] and len(again.asked) == 2


def test_where_requests_go_to_is_never_the_clients_to_choose() -> None:
    """Each URL that is ever asked is of a host of AWS's, of ours by configuration, or of AWS_ENDPOINT_URL."""
    world = World()
    assert world.show(token()) == [Credentials()]
    for host in (
        "evil.example",
        "169.254.169.254",
        "localhost",
        f"sts.{REGION}.amazonaws.com.evil.example",
        f"evil.example#.sts.{REGION}.amazonaws.com",
        f"sts.{REGION}.amazonaws.com@evil.example",
        f"sts.{REGION}.amazonaws.com\\@evil.example",
        "sts.us-west-2.amazonaws.com",
        f"iam.{REGION}.amazonaws.com",
    ):
        (refused,) = world.show(token(host))
        assert refused.check(TokenRefused)
    ((url, headers),) = world.asked
    assert url.startswith(f"https://sts.{REGION}.amazonaws.com/?Action=GetCallerIdentity&")
    assert headers["Host"] == f"sts.{REGION}.amazonaws.com"
    assert headers[caller_identity.HEADER] == "proxy.tests"
    own = World("https://vpce-1.sts.example")
    assert own.show(token()) == [Credentials()]
    assert own.asked[0][0].startswith("https://vpce-1.sts.example/?")
    assert own.asked[0][1]["Host"] == f"sts.{REGION}.amazonaws.com"


def test_sts_that_does_not_answer() -> None:
    world = World()
    world.hangs = True
    outcome = world.show(token())
    world.clock.advance(PATIENCE)
    assert outcome[0].check(TokenRefused) and "has not answered" in outcome[0].value.detail
    world.hangs = False
    assert world.show(token()) == [Credentials()]


def test_tokens_of_clients_have_threads_of_their_own() -> None:
    """However many are shown, none stands before a token for a server, or a secret."""
    reactor: Any = Clock()
    log: Any = structlog.wrap_logger(structlog.ReturnLogger())
    world = World()
    aws = Aws(reactor, lambda: 0.5, log, world.bench, dict)
    threads = [aws._judge._threads, aws._tokens._threads, aws._secrets._reading._threads]
    assert len(set(map(id, threads))) == 3
