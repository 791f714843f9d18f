"""
A secret while it is being rotated: which of its versions to try, for whom, and in which order.

The law, for a rotation of one user (create, set, test, finish) and for one that alternates between two users:

1. The current version comes first, then the pending one (set, but not finished: the server has it already),
   then the previous one (finished here, but the server still has it, or it is the other of two users').
2. Which of them is right the server alone knows. What it took last comes first, while the secret has it.
3. Clients are let in by each of them; by a previous password of the same user only for a time after the
   rotation, as that is what a rotation is to put an end to. Where two users alternate, the previous version
   is the other user's, whom the server still lets in.

Documentation: AWS Secrets Manager User Guide, "Rotation", and the versions' staging labels.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from attrs import field, frozen

MAX_SECRET = 65_536
"""Bytes: Secrets Manager's."""
_MOST_OF_NAME = 128
"""Bytes of a user's name, as in the users file."""


_NOT_JSON = object()


class UnreadableSecret(ValueError):
    """A secret is not what it should be; the text says how, and tells nothing of it."""


@frozen
class Login:
    """What a version of a secret holds."""

    user: str
    password: str = field(repr=False)


@frozen
class Version:
    """One version. What it holds never changes."""

    id: str
    login: Login
    created: float
    """Seconds since 1970."""


@frozen
class Secret:
    """The versions of a secret that have a stage."""

    current: Version | None = None
    pending: Version | None = None
    previous: Version | None = None

    @property
    def versions(self) -> tuple[Version, ...]:
        """Each once, the likeliest first."""
        staged = (self.current, self.pending, self.previous)
        return tuple(dict.fromkeys(version for version in staged if version is not None))

    @property
    def users(self) -> frozenset[str]:
        """Whose passwords it has."""
        return frozenset(version.login.user for version in self.versions)


def read_secret(text: str) -> Login:
    """Read the JSON of a secret: `username` and `password`, no more. Raises `UnreadableSecret`."""
    if len(text) > MAX_SECRET:
        raise UnreadableSecret(f"the secret has more than {MAX_SECRET} bytes")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = _NOT_JSON
    if values is _NOT_JSON:
        # Here, as the error holds the text, and would be the context of what is raised there.
        raise UnreadableSecret("the secret is not JSON")
    if not isinstance(values, dict):
        raise UnreadableSecret("the secret is not a JSON object")
    for name in ("username", "password"):
        value = values.get(name)
        if not isinstance(value, str) or not value or not _is_clean(value):
            raise UnreadableSecret(f'the secret has no "{name}", or one that is no text, empty or with a NUL')
    if len(values["username"].encode()) > _MOST_OF_NAME:
        raise UnreadableSecret(f'the secret\'s "username" has more than {_MOST_OF_NAME} bytes')
    return Login(values["username"], values["password"])


def _is_clean(value: str) -> bool:
    return "\0" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)


def for_clients(secret: Secret, user: str, now: float, grace: float, since: float) -> tuple[str, ...]:
    """
    Give the passwords that let a client in as a user, the likeliest first.

    `grace` is for how many seconds after the current version was made, or has become that, the one before
    still does; `since` is when it has, as far as that was seen: a rotation may take hours to finish.
    """
    current, previous = secret.current, secret.previous
    over = (
        current is not None
        and previous is not None
        and current.login.user == previous.login.user
        and now >= max(current.created, since) + grace
    )
    return _passwords(
        version for version in secret.versions if not (over and version is previous) and _is_of(version, user)
    )


def for_servers(secret: Secret, user: str, last: str | None) -> tuple[str, ...]:
    """Give the passwords to log in to a server with, in order; `last` is the one that it took last."""
    passwords = _passwords(version for version in secret.versions if _is_of(version, user))
    if last in passwords:
        return tuple(dict.fromkeys((last, *passwords)))
    return passwords


def _is_of(version: Version, user: str) -> bool:
    return version.login.user == user


def _passwords(versions: Iterable[Version]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(version.login.password for version in versions))
