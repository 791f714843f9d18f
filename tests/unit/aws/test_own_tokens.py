"""Tokens that pgproxy makes for itself: kept for a while, and made anew when one is refused."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from pgproxy.auth.secrets import Credentials
from pgproxy.aws.client import AwsError
from pgproxy.aws.tokens import RENEWED_AFTER, Tokens
from pgproxy.link.keepalive import Keepalive
from pgproxy.link.server import Host
from pgproxy.link.tls import ServerLegTls
from pgproxy.link.vault import VaultClosed

HOST = Host("db.abc.eu-west-1.rds.amazonaws.com", 5432, ServerLegTls("verify-full"), Keepalive(0, 0, 0, 0.0))


class World:
    def __init__(self) -> None:
        self.clock = Clock()
        self.made: list[tuple[str, int, str, str]] = []
        self.error: AwsError | None = None
        client: Any = self
        threads: Any = self
        self.tokens = Tokens(client, threads, self.clock.seconds)

    def call(self, function: Any, *args: Any) -> Deferred[str]:
        return fail(self.error) if self.error is not None else succeed(function(*args))

    def database_token(self, host: str, port: int, user: str, region: str) -> str:
        self.made.append((host, port, user, region))
        return f"token {len(self.made)}"

    def key(self, user: str = "app", refused: bool = False, host: Host = HOST) -> Credentials | None:
        outcome: list[Any] = []
        Deferred.fromCoroutine(self.tokens.key(user, host, refused)).addBoth(outcome.append)
        (key,) = outcome
        if hasattr(key, "raiseException"):
            key.raiseException()
        found: Credentials | None = key
        return found


def test_one_is_kept_for_a_while() -> None:
    world = World()
    first = world.key()
    assert first == Credentials(password="token 1")
    world.clock.advance(RENEWED_AFTER - 1)
    assert world.key() == first
    assert world.key("other") == Credentials(password="token 2")
    world.clock.advance(1)
    assert world.key() == Credentials(password="token 3")
    assert world.made[0] == ("db.abc.eu-west-1.rds.amazonaws.com", 5432, "app", "eu-west-1")


def test_one_that_is_refused() -> None:
    """The role's credentials may have changed since; a fresh one that is refused is no use trying again."""
    world = World()
    world.key()
    assert world.key(refused=True) is None
    world.clock.advance(60)
    assert world.key(refused=True) == Credentials(password="token 2")
    assert world.key(refused=True) is None


def test_without_credentials() -> None:
    world = World()
    world.error = AwsError("NoCredentialsError", "Unable to locate credentials", passing=True)
    with pytest.raises(VaultClosed, match="Unable to locate"):
        world.key()
    world.error = None
    assert world.key() is not None


def test_a_host_that_was_found_by_its_address() -> None:
    world = World()
    world.key(host=evolve(HOST, name="10.0.0.1", tls_name=HOST.name))
    world.key(host=evolve(HOST, name="10.0.0.2", tls_name=HOST.name))
    assert world.made == [(HOST.name, 5432, "app", "eu-west-1")]
