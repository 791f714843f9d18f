"""Issuers' keys, read from where they publish them; and whether a JWT is signed with one of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import TimeoutError

from pgproxy.aws.client import AwsError, Client
from pgproxy.aws.presigned import TokenUnfit
from pgproxy.aws.renewal import Renewal, Stopped
from pgproxy.aws.threads import AwsThreads
from pgproxy.aws.web_identity import ALGORITHMS, Unverified

GAP = 3.0
"""Seconds between two times that an issuer's keys are read: anybody can ask for a key that there is not."""
FRESH = 3600.0
"""Seconds after which they are read again when one is needed, without anybody waiting for it."""
STALE = 86_400.0
"""Seconds after which they are not used any more: an issuer may have withdrawn one."""
PATIENCE = 5.0
"""Seconds that a login waits for them."""
_MOST_KEYS = 100


class KeySet:
    """The keys of one issuer. `wall` gives the seconds since 1970."""

    def __init__(
        self, issuer: str, client: Client, threads: AwsThreads, clock: Any, wall: Callable[[], float]
    ) -> None:
        self._url = f"{issuer}/.well-known/jwks.json"
        self._client = client
        self._threads = threads
        self._wall = wall
        self._keys: dict[str, Any] = {}
        self._read = -STALE
        self._renewal = Renewal(self._fetch, clock, GAP)

    async def claims(self, token: str, of: Unverified) -> dict[str, Any]:
        """Give the claims of a token whose signature is right. Raises `TokenUnfit` or `AwsError`."""
        age = self._wall() - self._read
        if of.key not in self._keys or age > STALE:
            try:
                await self._renewal.soon(PATIENCE)
            except TimeoutError:
                raise AwsError(
                    "Timeout", f"{self._url} has not answered within {PATIENCE:g} s", passing=True
                ) from None
            except Stopped:
                raise AwsError("Reloaded", "the configuration has just changed", passing=True) from None
        elif age > FRESH:
            self._renewal.soon(PATIENCE).addErrback(lambda _failure: None)
        key = self._keys.get(of.key)
        if key is None:
            raise TokenUnfit("it is signed with a key that its issuer doesn't publish")
        return _verified(token, key, of.algorithm)

    def stop(self) -> None:
        """Read no more."""
        self._renewal.stop()

    async def _fetch(self) -> None:
        answer = await self._threads.call(self._client.get, self._url, {"Accept": "application/json"})
        if answer.status != 200:
            raise AwsError("Keys", f"{self._url} answers with the status {answer.status}", passing=True)
        self._keys = _read_keys(self._url, answer.body)
        self._read = self._wall()


def _read_keys(url: str, body: bytes) -> dict[str, Any]:
    import jwt

    try:
        entries = json.loads(body)["keys"][:_MOST_KEYS]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise AwsError("Keys", f"{url} is no set of keys ({type(error).__name__})", passing=True) from None
    found = {}
    for entry in entries:
        try:
            if entry.get("kty") in ("RSA", "EC") and entry.get("use", "sig") == "sig":
                found[str(entry["kid"])] = jwt.PyJWK(entry, entry.get("alg") or _algorithm(entry))
        except (ValueError, KeyError, TypeError, AttributeError, jwt.PyJWTError):
            # Of a kind that isn't known here: the others are good all the same.
            continue
    return found


def _algorithm(entry: dict[str, Any]) -> str:
    return "RS256" if entry["kty"] == "RSA" else "ES384"


def _verified(token: str, key: Any, algorithm: str) -> dict[str, Any]:
    import jwt

    if algorithm not in ALGORITHMS or key.algorithm_name != algorithm:
        raise TokenUnfit("it is signed with another algorithm than its key is for")
    try:
        payload = jwt.PyJWS().decode(token, key.key, algorithms=[algorithm])
        claims = json.loads(payload)
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise TokenUnfit("its signature is wrong") from None
    if not isinstance(claims, dict):
        raise TokenUnfit("it is malformed")
    return claims
