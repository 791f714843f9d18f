"""What the two legs may ask of whoever knows more of users than the users file: AWS (`pgproxy.aws`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pgproxy.auth.secrets import Credentials, Known
from pgproxy.link.server import Host
from pgproxy.wire.errors import Complaint


class VaultClosed(Exception):
    """What is asked for cannot be had now, though it may be soon; the text says why, and holds no secret."""


class TokenRefused(Exception):
    """A token lets nobody in; `why` is for the client, `detail` for the log. Neither holds the token."""

    def __init__(self, why: Complaint, detail: str) -> None:
        super().__init__(detail)
        self.why = why
        self.detail = detail


class Vault(Protocol):
    """
    Knows users' passwords, which may change at any time, judges tokens, and makes some.

    Every answer comes within seconds, be it a failure.
    """

    def ages(self) -> list[tuple[str, float | None]]:
        """Name all secrets, each with when its password was made, since 1970; None: it could not be read."""

    # The clients' leg.

    def takes_tokens(self, user: str) -> bool:
        """Say whether a user logs in by a token, and by nothing else."""

    async def judge(self, user: str, database: str, token: str) -> Credentials:
        """Give what a right token is good for. Raises `TokenRefused`."""

    async def known(self, user: str) -> Known | None:
        """Give what is known of a user. Raises `VaultClosed` where it is not known whether there is any."""

    async def renewed(self, user: str) -> Known | None:
        """Give what is known of a user from now on: it is looked up anew. Raises `VaultClosed`."""

    # The servers' leg.

    def has_keys(self, user: str) -> bool:
        """Say whether what servers are logged in to with is to be asked for here, for this user."""

    async def key(self, user: str, host: Host, refused: Sequence[Credentials]) -> Credentials | None:
        """
        Give what to log in with that was not `refused` yet; None where there is nothing else.

        Raises `VaultClosed`.
        """

    def fits(self, user: str, key: Credentials) -> None:
        """Take the word that a server has been logged in to with it."""
