"""Issuers' keys: read when one is needed that is not known, not more often than that, and for a time."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from pgproxy.aws.client import Answer, AwsError
from pgproxy.aws.keys import FRESH, GAP, PATIENCE, STALE, KeySet
from pgproxy.aws.presigned import TokenUnfit
from pgproxy.aws.web_identity import whose

ISSUER = "https://abc.tokens.sts.global.api.aws"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP384R1())


def jwk(name: str, key: Any, **more: Any) -> dict[str, Any]:
    kind: Any = (
        jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    )
    return {**kind.to_jwk(key.public_key(), as_dict=True), "kid": name, "use": "sig", **more}


def token(kid: str = "RSA_0", key: Any = RSA, algorithm: str = "RS256", **claims: Any) -> str:
    return jwt.encode({"iss": ISSUER, **claims}, key, algorithm, headers={"kid": kid})


class World:
    def __init__(self) -> None:
        self.clock = Clock()
        self.keys: list[Any] = [jwk("RSA_0", RSA), jwk("EC_0", EC, alg="ES384")]
        self.error: AwsError | None = None
        self.hangs = False
        self.status = 200
        self.asked: list[tuple[float, str]] = []
        client: Any = self
        threads: Any = self
        # The clock on the wall is ahead of the other one, as that begins with the process.
        self.set = KeySet(ISSUER, client, threads, self.clock, lambda: self.clock.seconds() + 1e9)

    def call(self, function: Any, *args: Any) -> Deferred[Answer]:
        if self.hangs:
            return Deferred()
        return fail(self.error) if self.error is not None else succeed(function(*args))

    def get(self, url: str, _headers: object) -> Answer:
        self.asked.append((self.clock.seconds(), url))
        return Answer(self.status, json.dumps({"keys": self.keys}).encode())

    def show(self, token: str) -> list[Any]:
        outcome: list[Any] = []
        Deferred.fromCoroutine(self.set.claims(token, whose(token, [ISSUER]))).addBoth(outcome.append)
        return outcome

    def verdict(self, token: str, seconds: float = 0.0) -> Any:
        outcome = self.show(token)
        self.clock.advance(seconds)
        (verdict,) = outcome
        return verdict


def test_the_keys_are_read_once() -> None:
    world = World()
    assert world.verdict(token(sub="x"))["sub"] == "x"
    assert world.verdict(token("EC_0", EC, "ES384", sub="y"))["sub"] == "y"
    assert [url for _, url in world.asked] == [f"{ISSUER}/.well-known/jwks.json"]


def test_a_flood_of_unknown_keys_has_them_read_now_and_then() -> None:
    world = World()
    world.verdict(token())
    outcomes = []
    for number in range(200):
        outcomes.append(world.show(token(f"unknown {number}")))
        world.clock.advance(0.1)
        assert world.verdict(token(sub="x"))["sub"] == "x"
    world.clock.advance(GAP)
    assert all(outcome[0].check(TokenUnfit) for outcome in outcomes)
    times = [when for when, _ in world.asked]
    assert all(later - earlier >= GAP - 1e-6 for earlier, later in pairwise(times))
    assert len(times) <= 2 + 20 / GAP


def test_what_could_not_be_read_goes_on_for_a_day() -> None:
    world = World()
    world.verdict(token())
    world.error = AwsError("EndpointConnectionError", "no answer", passing=True)
    world.clock.advance(FRESH + 1)
    assert "iss" in world.verdict(token())
    assert world.verdict(token("unknown"), GAP).check(AwsError)
    world.clock.advance(STALE)
    assert world.verdict(token()).check(AwsError)


def test_a_key_that_is_withdrawn() -> None:
    world = World()
    world.verdict(token())
    world.keys = world.keys[1:]
    world.clock.advance(FRESH + 1)
    world.verdict(token())
    world.clock.advance(GAP)
    assert world.verdict(token(), GAP).check(TokenUnfit)


def test_an_issuer_that_hangs() -> None:
    world = World()
    world.hangs = True
    assert world.verdict(token(), PATIENCE).check(AwsError)


def test_one_that_is_not_the_issuers_any_more() -> None:
    world = World()
    world.verdict(token())
    late = world.show(token("unknown"))
    world.set.stop()
    assert late[0].check(AwsError)


@pytest.mark.parametrize(
    "odd", [None, 5, {}, {"kty": "RSA", "kid": "x"}, {"kty": "EC", "kid": "x", "crv": "new"}]
)
def test_one_key_that_is_odd_spoils_no_other(odd: object) -> None:
    world = World()
    world.keys.insert(0, odd)
    assert "iss" in world.verdict(token())


def test_keys_of_another_kind_sign_nothing() -> None:
    world = World()
    world.keys = [
        {"kty": "oct", "kid": "HS", "k": "c2VjcmV0", "alg": "HS256"},
        jwk("ENC", RSA, use="enc"),
        jwk("RSA_0", RSA),
    ]
    for kid in ("HS", "ENC"):
        assert world.verdict(token(kid), GAP).check(TokenUnfit)
        world.clock.advance(GAP)
    # The algorithm is the key's, not the token's to choose.
    assert world.verdict(token("RSA_0", EC, "ES384")).check(TokenUnfit)
    with pytest.raises(TokenUnfit, match="not signed with"):
        whose(jwt.encode({"iss": ISSUER}, "x" * 40, "HS256", headers={"kid": "RSA_0"}), [ISSUER])


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"keys": 5}', b"[" * 100_000, b"\xff"])
def test_what_is_no_set_of_keys(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    monkeypatch.setattr(world, "get", lambda _url, _headers: Answer(200, body))
    assert world.verdict(token()).check(AwsError)
