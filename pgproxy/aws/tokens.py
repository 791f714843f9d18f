"""Tokens that pgproxy makes for its own logins at RDS: signed with its role, without a request to AWS."""

from __future__ import annotations

from collections.abc import Callable

from attrs import field, frozen
from twisted.internet.defer import Deferred

from pgproxy.auth.secrets import Credentials
from pgproxy.aws.client import AwsError, Client
from pgproxy.aws.rds_token import region_of
from pgproxy.aws.threads import AwsThreads
from pgproxy.link.server import Host
from pgproxy.link.vault import VaultClosed

RENEWED_AFTER = 300.0
"""Seconds: a third of what RDS takes them for."""
_ANEW = 10.0
"""Seconds: one that is refused and older than that is made anew, as the role's credentials may be others."""
_KEPT = 1000


@frozen
class _Token:
    text: str = field(repr=False)
    made: float


class Tokens:
    """All that are in use. `seconds` gives the time."""

    def __init__(self, client: Client, threads: AwsThreads, seconds: Callable[[], float]) -> None:
        self._client = client
        self._threads = threads
        self._seconds = seconds
        self._tokens: dict[tuple[str, str], _Token] = {}

    async def key(self, user: str, host: Host, refused: bool) -> Credentials | None:
        """Give a token for a login; None where a fresh one was refused. Raises `VaultClosed`."""
        what = f"{_name(host)}:{host.port}", user
        token = self._tokens.get(what)
        age = self._seconds() - token.made if token is not None else RENEWED_AFTER
        if refused and age < _ANEW:
            return None
        if token is None or age >= RENEWED_AFTER or refused:
            token = await self._mint(user, host)
            if len(self._tokens) >= _KEPT:
                self._tokens.pop(next(iter(self._tokens)))
            self._tokens[what] = token
        return Credentials(password=token.text)

    async def _mint(self, user: str, host: Host) -> _Token:
        made = self._seconds()
        # The credentials may have to be fetched from the instance first.
        minting: Deferred[str] = self._threads.call(
            self._client.database_token, _name(host), host.port, user, region_of(_name(host))
        )
        try:
            return _Token(await minting, made)
        except AwsError as error:
            raise VaultClosed(f"no IAM token can be made for the server: {error}") from None


def _name(host: Host) -> str:
    """Give the name that a token is signed for; a host that was found by its address is called otherwise."""
    return host.tls_name or host.name
