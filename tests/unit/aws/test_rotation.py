"""Which versions of a secret let in, and which are tried: in every moment of every rotation."""

from __future__ import annotations

import json

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.aws.rotation import (
    Login,
    Secret,
    UnreadableSecret,
    Version,
    for_clients,
    for_servers,
    read_secret,
)
from pgproxy.aws.shelf import Shelf

GRACE = 900.0


def version(number: int, user: str = "app") -> Version:
    return Version(f"v{number}", Login(user, f"password {number}"), 1000.0 * number)


class World:
    """A database with two users, and a secret that is rotated as AWS's rotation functions do it."""

    def __init__(self, alternating: bool) -> None:
        self.alternating = alternating
        self.database = {"app": "password 1", "app_clone": "unknown"}
        self.secret = Secret(current=version(1))
        self.made = 1
        self.step = 0

    @property
    def now(self) -> float:
        return 1000.0 * self.made + 1

    def go_on(self) -> None:
        """Take the next step."""
        if self.step == 0:
            self.made += 1
            current = self.secret.current
            assert current is not None
            user = current.login.user
            if self.alternating:
                user = "app" if user == "app_clone" else "app_clone"
            self.secret = evolve(self.secret, pending=version(self.made, user))
        elif self.step == 1:
            pending = self.secret.pending
            assert pending is not None
            self.database[pending.login.user] = pending.login.password
        elif self.step == 2:
            # The pending label stays where it is, as Secrets Manager leaves it.
            self.secret = Secret(
                current=self.secret.pending, pending=self.secret.pending, previous=self.secret.current
            )
        self.step = (self.step + 1) % 3


@given(st.booleans(), st.integers(0, 30), st.integers(0, 30))
def test_no_moment_fails_a_login(alternating: bool, steps: int, stale: int) -> None:
    """Who has read the secret gets in, and one of what is tried is what the database has."""
    world = World(alternating)
    shelf = Shelf(GRACE)
    shelf.put("arn", world.secret, world.now)
    for number in range(steps):
        world.go_on()
        # What is known may be older than what is true: it is read anew where nothing of it fits.
        if number % (stale + 1) == 0:
            shelf.put("arn", world.secret, world.now)
        current = world.secret.current
        assert current is not None
        user, password = current.login.user, current.login.password
        if password not in shelf.for_clients(user, world.now):
            shelf.put("arn", world.secret, world.now)
        assert password in shelf.for_clients(user, world.now)
        if world.database[user] not in shelf.for_servers(user):
            shelf.put("arn", world.secret, world.now)
        assert world.database[user] in shelf.for_servers(user)
        shelf.worked(user, world.database[user])
        assert shelf.for_servers(user)[0] == world.database[user]


def test_the_likeliest_comes_first() -> None:
    secret = Secret(version(2), version(3), version(1))
    assert for_servers(secret, "app", None) == ("password 2", "password 3", "password 1")
    assert for_servers(secret, "app", "password 3") == ("password 3", "password 2", "password 1")
    assert for_servers(secret, "app", "password 9")[0] == "password 2"
    assert for_servers(secret, "other", None) == ()


def test_the_one_before_lets_in_for_a_time() -> None:
    secret = Secret(current=version(2), previous=version(1))
    assert for_clients(secret, "app", 2000.0 + GRACE - 1, GRACE, 0.0) == ("password 2", "password 1")
    assert for_clients(secret, "app", 2000.0 + GRACE, GRACE, 0.0) == ("password 2",)
    assert for_clients(secret, "app", 2000.0, 0.0, 0.0) == ("password 2",)
    # Of two users who alternate it is the other's, which the server still takes.
    secret = Secret(current=version(2, "app_clone"), previous=version(1))
    assert for_clients(secret, "app", 2000.0 + 10 * GRACE, GRACE, 0.0) == ("password 1",)


def test_one_version_of_two_stages_counts_once() -> None:
    secret = Secret(current=version(2), pending=version(2), previous=version(1))
    assert [one.id for one in secret.versions] == ["v2", "v1"]


def test_a_secret() -> None:
    text = json.dumps({"username": "app", "password": 'p"w', "host": 5, "port": "x"})
    assert read_secret(text) == Login("app", 'p"w')


@pytest.mark.parametrize(
    "text",
    [
        "hidden",
        "[]",
        '"hidden"',
        "{}",
        '{"username": "hidden"}',
        '{"password": "hidden"}',
        '{"username": "hidden", "password": ""}',
        '{"username": "hidden", "password": 5}',
        '{"username": "hidden", "password": "hidden\\u0000"}',
        '{"username": "hidden", "password": "\\ud800"}',
        json.dumps({"username": "hidden" * 30, "password": "x"}),
        "[" * 60_000,
        "hidden" * 20_000,
    ],
    ids=range(13),
)
def test_what_is_none_is_not_told(text: str) -> None:
    with pytest.raises(UnreadableSecret) as error:
        read_secret(text)
    assert "hidden" not in str(error.value)
    assert error.value.__cause__ is error.value.__context__ is None


def test_nothing_is_shown() -> None:
    secret = Secret(version(2), version(3), version(1))
    assert "password 2" not in repr(secret) and "v2" in repr(secret)


# The shelf.


def test_users_of_the_users_file_are_nobody_elses() -> None:
    shelf = Shelf(GRACE, reserved=["app"])
    shelf.put("arn", Secret(version(1)), 0.0)
    assert shelf.for_clients("app", 0.0) == shelf.for_servers("app") == () and not shelf.users


def test_what_could_not_be_read() -> None:
    shelf = Shelf(GRACE)
    shelf.doubt("arn")
    assert shelf.in_doubt
    shelf.put("arn", Secret(version(1)), 0.0)
    shelf.doubt("arn")
    assert not shelf.in_doubt and shelf.for_servers("app") == ("password 1",)
    shelf.drop("arn")
    assert not shelf.users


def test_a_rotation_that_took_hours_to_finish() -> None:
    """The new version was made long ago; that the one before is to go is known only since it finished."""
    shelf = Shelf(GRACE)
    shelf.put("arn", Secret(version(1), pending=version(2)), 2000.0)
    shelf.put("arn", Secret(version(2), previous=version(1)), 9000.0)
    shelf.put("arn", Secret(version(2), previous=version(1)), 9500.0)
    assert "password 1" in shelf.for_clients("app", 9000.0 + GRACE - 1)
    assert "password 1" not in shelf.for_clients("app", 9000.0 + GRACE)


def test_what_is_no_use_is_in_no_doubt() -> None:
    shelf = Shelf(GRACE)
    shelf.doubt("arn")
    shelf.settle("arn")
    assert not shelf.in_doubt and shelf.get("arn") is None


def test_two_secrets_of_one_user() -> None:
    shelf = Shelf(GRACE)
    shelf.put("b", Secret(version(2)), 0.0)
    shelf.put("a", Secret(version(1)), 0.0)
    assert shelf.for_clients("app", 0.0) == ("password 1", "password 2")
    shelf.worked("app", "password 2")
    assert shelf.for_servers("app") == ("password 2", "password 1")
    assert shelf.secrets_of("app") == ["a", "b"]
