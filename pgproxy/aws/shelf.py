"""The secrets that were read, by their ARN, and whose they are."""

from __future__ import annotations

from collections.abc import Iterable

from pgproxy.aws.rotation import Secret, for_clients, for_servers


class Shelf:
    """
    What is known of all secrets.

    Where several secrets have a password of the same user, each counts: the one whose ARN sorts first comes
    first. `reserved` are users that are known from elsewhere, and whom no secret here concerns.
    """

    def __init__(self, grace: float, reserved: Iterable[str] = ()) -> None:
        self._grace = grace
        self._reserved = frozenset(reserved)
        self._secrets: dict[str, Secret] = {}
        self._in_doubt: set[str] = set()
        """The ones that nobody has been able to read yet."""
        self._since: dict[str, float] = {}
        """Since when, seconds since 1970, the current version is that, where we have seen it become so."""
        self._worked: dict[str, str] = {}
        """By user, the password that a server took last."""

    def configure(self, grace: float, reserved: Iterable[str]) -> None:
        """Go by other options."""
        self._grace = grace
        self._reserved = frozenset(reserved)

    def put(self, arn: str, secret: Secret, now: float) -> None:
        """Enter what a secret is by now, in seconds since 1970."""
        before = self._secrets.get(arn)
        if before is not None and before.current is not None and secret.current is not None:
            if before.current.id != secret.current.id:
                self._since[arn] = now
        self._secrets[arn] = secret
        self._in_doubt.discard(arn)

    def settle(self, arn: str) -> None:
        """Enter that what a secret has now is no use; what is known of it stays, and it is in no doubt."""
        self._in_doubt.discard(arn)

    def doubt(self, arn: str) -> None:
        """Enter that a secret could not be read now; what is known of it stays."""
        if arn not in self._secrets:
            self._in_doubt.add(arn)

    def drop(self, arn: str) -> None:
        """Forget a secret that is not there any more, or not ours."""
        self._secrets.pop(arn, None)
        self._since.pop(arn, None)
        self._in_doubt.discard(arn)

    def get(self, arn: str) -> Secret | None:
        """Give a secret, as last read."""
        return self._secrets.get(arn)

    def ages(self) -> list[tuple[str, float | None]]:
        """Give each ARN with when its current version was made, since 1970; None where that is not known."""
        known = {
            arn: secret.current.created if secret.current is not None else None
            for arn, secret in self._secrets.items()
        }
        return sorted({**dict.fromkeys(self._in_doubt), **known}.items())

    @property
    def in_doubt(self) -> bool:
        """Whether somebody who is not here may be in a secret that could not be read yet."""
        return bool(self._in_doubt)

    @property
    def users(self) -> frozenset[str]:
        """Everybody who is in a secret."""
        found = {user for secret in self._secrets.values() for user in secret.users}
        return frozenset(found) - self._reserved

    def secrets_of(self, user: str) -> list[str]:
        """Give the ARNs of the secrets that a user is in."""
        if user in self._reserved:
            return []
        return sorted(arn for arn, secret in self._secrets.items() if user in secret.users)

    def for_clients(self, user: str, now: float) -> tuple[str, ...]:
        """Give the passwords that let a client in, the likeliest first; `now` is in seconds since 1970."""
        found = (
            for_clients(self._secrets[arn], user, now, self._grace, self._since.get(arn, 0.0))
            for arn in self.secrets_of(user)
        )
        return tuple(dict.fromkeys(password for passwords in found for password in passwords))

    def for_servers(self, user: str) -> tuple[str, ...]:
        """Give the passwords to log in to servers with, in order."""
        last = self._worked.get(user)
        found = [for_servers(self._secrets[arn], user, last) for arn in self.secrets_of(user)]
        passwords = [password for passwords in found for password in passwords]
        if last in passwords:
            passwords.insert(0, last)
        return tuple(dict.fromkeys(passwords))

    def worked(self, user: str, password: str) -> None:
        """Take the word that a server has taken a password."""
        if self.secrets_of(user):
            self._worked[user] = password
