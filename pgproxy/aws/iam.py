"""
Judges the tokens that clients log in with: read here, verified by who can, and then a question of the map.

What was found right is remembered, under a hash of all that was judged, until it expires: drivers show the
same token again and again, and neither STS nor RDS wants to be asked each time.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen
from structlog.typing import FilteringBoundLogger
from twisted.internet.defer import Deferred, DeferredSemaphore

from pgproxy.auth.secrets import Credentials, Secret, credentials_of
from pgproxy.aws import caller_identity, rds_token, web_identity
from pgproxy.aws.arn import Arn
from pgproxy.aws.client import AwsError, Client
from pgproxy.aws.identity import IdentityPattern
from pgproxy.aws.keys import KeySet
from pgproxy.aws.presigned import TokenUnfit
from pgproxy.aws.threads import AwsThreads, TooMany
from pgproxy.config import Config
from pgproxy.config.aws import AwsIam
from pgproxy.config.aws_kinds import Verifier
from pgproxy.link.server import Host
from pgproxy.link.threads import Threads
from pgproxy.link.vault import TokenRefused
from pgproxy.link.vouching import CannotVouch, NotVouched, vouch
from pgproxy.wire import errors
from pgproxy.wire.errors import Refusal, complaint

PATIENCE = 8.0
"""Seconds that a login waits for STS, and for those before it: fewer than `login_timeout` has by default."""
_KEPT = 10_000
"""Judgements that are remembered."""
_MOST_WAITING = 200
"""Tokens that wait to be shown to a server."""
_NOBODY = "Nobody can verify a token for pgproxy's own host name: AWS does so for hosts of its own alone. "
_INSTEAD: dict[Verifier, str] = {
    "rds-db": "sign the token for the host and port of the database itself, as if connecting directly",
    "sts-caller-identity": "send a presigned sts:GetCallerIdentity (pgproxy token sts)",
    "web-identity": "send a token of sts:GetWebIdentityToken (pgproxy token web)",
}


@frozen
class Bench:
    """Where and with what tokens are shown to servers."""

    reactor: Any
    threads: Threads
    writer: Callable[[str], Host]
    """Gives the host of a target that tokens are shown to."""
    at_once: int


class Judge:
    """All of a process. `wall` gives the seconds since 1970."""

    def __init__(
        self,
        client: Client,
        threads: AwsThreads,
        bench: Bench,
        wall: Callable[[], float],
        log: FilteringBoundLogger,
    ) -> None:
        self._client = client
        self._threads = threads
        self._bench = bench
        self._wall = wall
        self._log = log
        self._config = Config()
        self._iam = AwsIam()
        self._users: Mapping[str, Secret] = {}
        self._patterns: list[tuple[IdentityPattern, frozenset[str]]] = []
        self._keys: dict[str, KeySet] = {}
        self._right: OrderedDict[bytes, tuple[float, Credentials]] = OrderedDict()
        self._showing = DeferredSemaphore(bench.at_once)

    def configure(self, config: Config, iam: AwsIam, users: Mapping[str, Secret]) -> None:
        """Take other options; what was judged by the ones before is forgotten."""
        self._config, self._iam, self._users = config, iam, users
        self._patterns = [(IdentityPattern.parse(text), who) for text, who in iam.identities.items()]
        for issuer in set(self._keys) - set(iam.issuers):
            self._keys.pop(issuer).stop()
        for issuer in iam.issuers:
            if issuer not in self._keys:
                self._keys[issuer] = KeySet(
                    issuer, self._client, self._threads, self._bench.reactor, self._wall
                )
        # Another one, as what is being judged now is judged by the options before.
        self._right = OrderedDict()

    def stop(self) -> None:
        """Ask nobody any more."""
        for keys in self._keys.values():
            keys.stop()

    async def judge(self, user: str, database: str, token: str) -> Credentials:
        """Give what a right token is good for. Raises `TokenRefused`."""
        kind = _kind(token)
        try:
            if kind is None:
                raise TokenUnfit("it is no token of AWS's")
            if kind not in self._iam.verifiers:
                raise TokenUnfit(f"tokens of the kind {kind} are not taken here")
            what = hashlib.sha256(
                "\0".join((kind, user, database, token)).encode("utf-8", "replace")
            ).digest()
            right = self._right
            known = right.get(what)
            now = self._wall()
            if known is not None and now < known[0]:
                return known[1]
            expires, credentials = await self._verify(kind, user, database, token)
        except TokenUnfit as error:
            raise self._refused(user, str(error), kind) from None
        except NotVouched as error:
            raise self._refused(user, str(error), None) from None
        except TooMany as error:
            raise _impossible(errors.TOO_MANY_TOKENS, user, error) from None
        except (AwsError, CannotVouch) as error:
            raise _impossible(errors.TOKENS_UNVERIFIABLE, user, error) from None
        right[what] = expires, credentials
        if len(right) > _KEPT:
            right.popitem(last=False)
        return credentials

    def _refused(self, user: str, why: str, kind: Verifier | None) -> TokenRefused:
        """Refuse a token; a hint says what to send, to who sends something that can't be verified."""
        hint = ""
        if kind == "rds-db" or kind not in self._iam.verifiers:
            instead = " or ".join(_INSTEAD[verifier] for verifier in self._iam.verifiers)
            hint = f"{_NOBODY if kind == 'rds-db' else ''}Here you can {instead}."
        told = complaint(errors.TOKEN_WRONG, "", hint, user=user)
        return TokenRefused(told, f"the token is refused: {why}")

    async def _verify(
        self, kind: Verifier, user: str, database: str, token: str
    ) -> tuple[float, Credentials]:
        claims: Mapping[str, Any] = {}
        match kind:
            case "rds-db":
                return await self._shown_to_server(user, database, token)
            case "sts-caller-identity":
                arn, expires = await self._told_by_sts(token)
            case "web-identity":
                proven = await self._signed_by_issuer(token)
                arn, claims, expires = proven.arn, proven.claims, proven.expires
        if not any(user in users and pattern.matches(arn, claims) for pattern, users in self._patterns):
            raise TokenUnfit(f"{arn} may not be this user by aws.iam.identities")
        self._log.info("token_verified", kind=kind, user=user, arn=str(arn))
        return expires, credentials_of(self._users.get(user))

    # The three ways.

    async def _shown_to_server(self, user: str, database: str, token: str) -> tuple[float, Credentials]:
        entry = self._config.database(database)
        # Who asks for a database that there is not learns that after the login, as others do.
        target = entry.target if entry is not None else next(iter(self._config.targets))
        host = self._bench.writer(target)
        names = {(one.host, one.port) for one in self._config.targets[target].server}
        parsed = rds_token.parse(token)
        expires = rds_token.check(
            parsed,
            user,
            names | {(host.tls_name or host.name, host.port)},
            self._wall(),
            self._iam.max_token_age,
        )
        if len(self._showing.waiting) >= _MOST_WAITING:
            raise TooMany("Busy", "too many tokens wait to be shown to servers", passing=True)
        name = entry.name if entry is not None else "postgres"
        await self._showing.run(self._show, host, user, name, token)
        self._log.info("token_verified", kind="rds-db", user=user, host=str(host))
        return expires, Credentials(password=token)

    def _show(self, host: Host, user: str, database: str, token: str) -> Deferred[None]:
        seconds = self._config.proxy.connect_timeout
        bench = self._bench
        asked = Deferred.fromCoroutine(vouch(bench.reactor, bench.threads, host, user, database, token))

        def too_late(_result: object, seconds: float) -> None:
            raise CannotVouch(f"{host} has not answered within {seconds:g} s (connect_timeout)")

        return asked.addTimeout(seconds, bench.reactor, too_late)

    async def _told_by_sts(self, token: str) -> tuple[Arn, float]:
        region, endpoint = await self._call(self._client.sts)
        allowed = caller_identity.hosts(self._iam.sts_regions or (region,))
        request = caller_identity.parse(token, allowed, self._wall(), self._iam.max_token_age)
        headers = {
            "Host": request.host,
            caller_identity.HEADER: self._iam.server_id,
            "Accept": "application/json",
        }
        # Another one than AWS's is the owner's doing, by AWS_ENDPOINT_URL: a VPC's, a test's.
        # Ours is AWS's too where our region is none of `sts_regions`.
        known = {*allowed, *caller_identity.hosts((region,))}
        base = endpoint if _host_of(endpoint) not in known else f"https://{request.host}"
        answer = await self._call(self._client.get, f"{base}/?{request.query}", headers)
        try:
            return caller_identity.read_answer(answer.status, answer.body), request.expires
        except ValueError as error:
            raise AwsError("Sts", str(error), passing=True) from None

    async def _signed_by_issuer(self, token: str) -> web_identity.Proven:
        unverified = web_identity.whose(token, self._iam.issuers)
        claims = await self._keys[unverified.issuer].claims(token, unverified)
        return web_identity.check(
            claims, unverified.issuer, self._iam.server_id, self._wall(), self._iam.max_token_age
        )

    async def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        asked: Deferred[Any] = self._threads.call(function, *args)
        return await asked.addTimeout(PATIENCE, self._bench.reactor, _too_slow)


def _kind(token: str) -> Verifier | None:
    if caller_identity.is_caller_identity(token):
        return "sts-caller-identity"
    if web_identity.is_jwt(token):
        return "web-identity"
    if rds_token.is_rds_token(token):
        return "rds-db"
    return None


def _too_slow(_result: object, seconds: float) -> Any:
    raise AwsError("Timeout", f"STS has not answered within {seconds:g} s", passing=True)


def _host_of(url: str) -> str:
    return url.partition("://")[2].partition("/")[0]


def _impossible(refusal: Refusal, user: str, error: Exception) -> TokenRefused:
    return TokenRefused(complaint(refusal, user=user), str(error))
