"""When secrets are read: with a clock that is set, and AWS as a test wants it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import structlog
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock, deferLater

from pgproxy.auth.secrets import Credentials, Passwords
from pgproxy.aws.client import AwsError, Description, Entry, Value
from pgproxy.aws.secrets import PATIENCE, Secrets
from pgproxy.config.aws_kinds import SecretSource
from pgproxy.link.vault import VaultClosed


class World:
    """Secrets Manager, and what asks it."""

    def __init__(self, *sources: SecretSource, interval: float = 300.0) -> None:
        self.clock = Clock()
        self.stages: dict[str, dict[str, str]] = {}
        self.values: dict[str, str] = {}
        self.calls: list[str] = []
        self.error: AwsError | None = None
        self.hangs = False
        self.delay: float | None = None
        """Seconds that a call takes, None for no time at all."""
        self.under_way = self.most_under_way = 0
        self.denied: set[str] = set()
        """Calls that we may not make."""
        client: Any = self
        threads: Any = self
        log: Any = structlog.wrap_logger(structlog.ReturnLogger())
        self.secrets = Secrets(client, threads, self.clock, self.clock.seconds, lambda: 0.5, log)
        self.secrets.configure(sources or (SecretSource("name", "one"),), interval, 900.0, ["reserved"])

    # As the threads.

    def call(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        self.calls.append(function.__name__)
        if self.hangs:
            return Deferred()
        if self.error is not None:
            return fail(self.error)
        if function.__name__ in self.denied:
            return fail(AwsError("AccessDeniedException", "not yours", passing=False))
        if self.delay is not None:
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            return deferLater(self.clock, self.delay, self._late, function, *args)
        try:
            return succeed(function(*args))
        except AwsError as error:
            return fail(error)

    def _late(self, function: Callable[..., Any], *args: Any) -> Any:
        self.under_way -= 1
        return function(*args)

    # As the client.

    def describe_secret(self, name: str) -> Description:
        if name not in self.stages:
            raise AwsError("ResourceNotFoundException", "not there", passing=False)
        return Description(name, {id: frozenset({stage}) for stage, id in self.stages[name].items()})

    def list_secrets(self, _filters: object) -> list[Entry]:
        return [Entry(name, name, {}) for name in self.stages]

    def secret_value(self, _arn: str, version: str) -> Value:
        if version not in self.values:
            raise AwsError("AccessDeniedException", "Access to KMS is not allowed", passing=False)
        return Value(self.values[version], self.clock.seconds())

    # As the owner.

    def put(self, name: str, stage: str, version: str, user: str = "app") -> None:
        self.stages.setdefault(name, {})[stage] = version
        self.values[version] = json.dumps({"username": user, "password": f"password of {version}"})

    def go_on(self, seconds: float = 0.0) -> None:
        for _ in range(20):
            self.clock.advance(seconds / 20)

    def ask(self, coroutine: Any) -> list[Any]:
        outcome: list[Any] = []
        Deferred.fromCoroutine(coroutine).addBoth(outcome.append)
        return outcome


def password(version: str) -> Passwords:
    return Passwords((f"password of {version}",))


def test_read_at_the_start_and_again() -> None:
    world = World(interval=100.0)
    world.put("one", "AWSCURRENT", "v1")
    world.secrets.start()
    early = world.ask(world.secrets.known("app"))
    assert early == []
    world.go_on()
    assert early == [password("v1")]
    assert world.calls == ["describe_secret", "secret_value"]
    # What a version holds never changes: it is read once.
    world.go_on(99.0)
    assert world.calls == ["describe_secret", "secret_value"]
    world.go_on(3.0)
    assert world.calls == ["describe_secret", "secret_value", "describe_secret"]


def test_a_login_that_fails_has_it_read_anew_once() -> None:
    world = World()
    world.put("one", "AWSCURRENT", "v1")
    world.secrets.start()
    world.go_on(10.0)
    world.calls.clear()
    world.put("one", "AWSPENDING", "v2")
    asked = [world.ask(world.secrets.renewed("app")) for _ in range(10)]
    world.go_on()
    assert asked == [[Passwords(("password of v1", "password of v2"))]] * 10
    assert world.calls == ["describe_secret", "secret_value"]
    later = world.ask(world.secrets.renewed("app"))
    world.go_on(1.9)
    assert later == []
    world.go_on(0.2)
    assert len(later) == 1


def test_a_user_whom_nobody_knows_has_all_read_anew() -> None:
    world = World(SecretSource("prefix", "o"))
    world.put("one", "AWSCURRENT", "v1")
    world.secrets.start()
    world.go_on(10.0)
    world.put("other", "AWSCURRENT", "v2", "new")
    world.put("another", "AWSCURRENT", "v3", "stranger")
    found = world.ask(world.secrets.renewed("new"))
    nobody = world.ask(world.secrets.renewed("stranger"))
    world.go_on(1.0)
    assert found == [password("v2")] and nobody == [None]


def test_keys_for_servers() -> None:
    world = World()
    world.put("one", "AWSCURRENT", "v1")
    world.secrets.start()
    world.go_on(10.0)
    refused: list[Credentials] = []
    first = world.ask(world.secrets.key("app", refused))
    assert first == [Credentials(password="password of v1")]
    # Only where all that is known was refused is it read anew.
    world.put("one", "AWSPENDING", "v2")
    refused += first
    second = world.ask(world.secrets.key("app", refused))
    assert second == []
    world.go_on()
    assert second == [Credentials(password="password of v2")]
    world.secrets.fits("app", "password of v2")
    assert world.ask(world.secrets.key("app", [])) == second
    refused += second
    last = world.ask(world.secrets.key("app", refused))
    world.go_on(3.0)
    assert last == [None]


def test_without_aws() -> None:
    world = World(interval=10.0)
    world.put("one", "AWSCURRENT", "v1")
    world.secrets.start()
    world.go_on(1.0)
    world.error = AwsError("EndpointConnectionError", "no way", passing=True)
    world.go_on(100.0)
    assert world.secrets.failing == 1
    assert world.ask(world.secrets.known("app")) == [password("v1")]
    (closed,) = world.ask(world.secrets.known("other")) or [None]
    assert closed is None
    anew = world.ask(world.secrets.renewed("app"))
    world.go_on(PATIENCE)
    assert anew[0].check(VaultClosed)
    world.error = None
    world.go_on(60.0)
    assert world.secrets.failing == 0
    anew = world.ask(world.secrets.renewed("app"))
    world.go_on(5.0)
    assert anew == [password("v1")]


def test_an_aws_that_hangs() -> None:
    world = World()
    world.put("one", "AWSCURRENT", "v1")
    world.hangs = True
    world.secrets.start()
    asked = world.ask(world.secrets.known("app"))
    world.go_on(PATIENCE + 0.1)
    assert asked[0].check(VaultClosed)


def test_a_start_without_aws() -> None:
    world = World()
    world.put("one", "AWSCURRENT", "v1")
    world.error = AwsError("EndpointConnectionError", "no way", passing=True)
    world.secrets.start()
    asked = world.ask(world.secrets.known("app"))
    world.go_on(0.1)
    assert asked[0].check(VaultClosed) and "no way" in str(asked[0].value)
    world.error = None
    world.go_on(40.0)
    assert world.ask(world.secrets.known("app")) == [password("v1")]


def test_what_is_not_there_is_no_reason_to_wait() -> None:
    world = World()
    world.secrets.start()
    world.go_on(1.0)
    assert world.ask(world.secrets.known("app")) == [None]


def test_users_of_the_users_file() -> None:
    world = World()
    world.put("one", "AWSCURRENT", "v1", "reserved")
    world.secrets.start()
    world.go_on(1.0)
    assert not world.secrets.has("reserved")


def test_many_are_read_a_few_at_a_time() -> None:
    """All at once would be more than there may wait for a thread; the last ones would never be read."""
    world = World(SecretSource("prefix", ""))
    for number in range(800):
        world.put(f"s{number}", "AWSCURRENT", f"v{number}", f"user{number}")
    world.delay = 0.01
    world.secrets.start()
    for _ in range(1000):
        world.clock.advance(0.01)
    assert world.most_under_way <= 4
    assert world.secrets.count == 800 and world.secrets.failing == 0
    assert world.ask(world.secrets.known("user799")) == [password("v799")]


def test_a_pass_ends_and_what_it_has_not_reached_is_in_doubt() -> None:
    world = World(SecretSource("prefix", ""))
    for number in range(60):
        world.put(f"s{number}", "AWSCURRENT", f"v{number}", f"user{number}")
    world.delay = 10.0
    world.secrets.start()
    for _ in range(150):
        world.clock.advance(1.0)
    assert world.ask(world.secrets.known("user0")) == [password("v0")]
    (closed,) = world.ask(world.secrets.known("user59"))
    assert closed.check(VaultClosed)
    assert 0 < world.secrets.failing < 60
    world.delay = None
    for _ in range(60):
        world.clock.advance(1.0)
    assert world.ask(world.secrets.known("user59")) == [password("v59")]


def test_what_can_not_be_listed_keeps_nothing_else_from_being_read() -> None:
    world = World(SecretSource("prefix", "o"), SecretSource("name", "named"))
    world.put("named", "AWSCURRENT", "v1")
    world.put("other", "AWSCURRENT", "v2", "other")
    world.denied = {"list_secrets"}
    world.secrets.start()
    world.go_on(1.0)
    assert world.ask(world.secrets.known("app")) == [password("v1")]
    closed = world.ask(world.secrets.known("other"))
    world.go_on(10.0)
    assert closed[0].check(VaultClosed)
    world.denied = set()
    world.go_on(60.0)
    assert world.ask(world.secrets.known("other")) == [password("v2")]
    # Later on, what was listed before is there and is read.
    world.denied = {"list_secrets"}
    world.put("other", "AWSCURRENT", "v3", "other")
    world.go_on(400.0)
    assert world.ask(world.secrets.known("other")) == [password("v3")]


def test_a_secret_that_we_may_not_read_says_nothing_of_its_users() -> None:
    """A role's permissions come late, or go; whether a password is wrong then nobody knows."""
    world = World()
    world.put("one", "AWSCURRENT", "v1")
    world.denied = {"describe_secret"}
    world.secrets.start()
    world.go_on(1.0)
    (closed,) = world.ask(world.secrets.known("app"))
    assert closed.check(VaultClosed) and "not yours" in str(closed.value)
    world.denied = set()
    world.go_on(60.0)
    assert world.ask(world.secrets.known("app")) == [password("v1")]
    world.denied = {"describe_secret"}
    anew = world.ask(world.secrets.renewed("app"))
    key = world.ask(world.secrets.key("app", [Credentials(password="password of v1")]))
    world.go_on(10.0)
    assert anew[0].check(VaultClosed) and key[0].check(VaultClosed)
    assert world.ask(world.secrets.known("app")) == [password("v1")]


def test_a_version_that_we_may_not_read_is_not_missed() -> None:
    """The one before may have been encrypted with a key that is gone."""
    world = World()
    world.put("one", "AWSPREVIOUS", "v1")
    world.put("one", "AWSCURRENT", "v2")
    del world.values["v1"]
    world.secrets.start()
    world.go_on(1.0)
    assert world.ask(world.secrets.known("app")) == [password("v2")]


def test_one_that_is_deleted() -> None:
    world = World(interval=10.0)
    world.put("one", "AWSCURRENT", "v1")
    world.secrets.start()
    world.go_on(1.0)
    del world.stages["one"]
    world.go_on(20.0)
    assert world.ask(world.secrets.known("app")) == [None]


def test_other_sources_wait_for_none_that_are_gone() -> None:
    """A reload while one of the old ones waits for its turn has the new ones read at once."""
    world = World(SecretSource("name", "one"), interval=1000.0)
    world.put("one", "AWSCURRENT", "v1")
    world.put("two", "AWSCURRENT", "v2", "other")
    world.secrets.start()
    world.go_on(4.0)
    first = world.ask(world.secrets.renewed("app"))
    world.go_on(0.1)
    all_anew = world.ask(world.secrets.renewed("nobody"))
    world.go_on(0.1)
    assert len(first) == 1 and all_anew == []
    world.secrets.configure((SecretSource("name", "two"),), 1000.0, 900.0, [])
    world.go_on(5.0)
    assert world.ask(world.secrets.known("other")) == [password("v2")]
    assert len(all_anew) == 1
