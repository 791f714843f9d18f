"""AWS as the two legs see it: a vault, made of secrets, tokens of clients and tokens for servers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from structlog.typing import FilteringBoundLogger
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from pgproxy.auth.secrets import Credentials, Known, Secret
from pgproxy.aws.client import AwsError, Client
from pgproxy.aws.cloudwatch import CloudWatch
from pgproxy.aws.iam import Bench, Judge
from pgproxy.aws.secrets import Secrets
from pgproxy.aws.threads import AwsThreads
from pgproxy.aws.tokens import Tokens
from pgproxy.config import Config
from pgproxy.config.aws import Aws as Options
from pgproxy.link.server import Host


class Aws:
    """All of it. `wall` gives the seconds since 1970, `chance` random numbers from 0 to 1."""

    def __init__(
        self,
        reactor: Any,
        chance: Callable[[], float],
        log: FilteringBoundLogger,
        bench: Bench,
        figures: Callable[[], Mapping[str, Any]],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._reactor = reactor
        self._chance = chance
        self._log = log
        self._wall = wall
        # Where Secrets Manager hangs, its threads do; tokens are verified and made all the same. Nor do many
        # clients with tokens, whoever they are, keep tokens for servers from being made.
        self._for_secrets = AwsThreads(reactor, "secrets")
        self._for_clients = AwsThreads(reactor, "clients")
        self._threads = AwsThreads(reactor, "aws")
        self._client = Client()
        self._secrets = Secrets(self._client, self._for_secrets, reactor, wall, chance, log)
        self._tokens = Tokens(self._client, self._threads, reactor.seconds)
        self._judge = Judge(self._client, self._for_clients, bench, wall, log)
        self._figures = figures
        self._cloudwatch = CloudWatch(self._client, self._threads, reactor, wall, self._all_figures, log)
        self._options = Options()

    def configure(self, config: Config, users: Mapping[str, Secret]) -> None:
        """Take a configuration; `users` are those of the users file, who are nobody's but its."""
        options = config.aws or Options()
        self._options = options
        self._client.configure(options.region)
        self._secrets.configure(
            options.secrets, options.refresh_interval, options.previous_password_time, users
        )
        self._judge.configure(config, options.iam, users)
        self._cloudwatch.configure(options.cloudwatch)

    def start(self) -> None:
        """Begin to ask AWS."""
        for threads in (self._for_secrets, self._for_clients, self._threads):
            threads.start()
        self._secrets.start()
        self._cloudwatch.start()
        Deferred.fromCoroutine(self._introduce()).addErrback(self._defect)

    async def _introduce(self) -> None:
        """Put on record as whom and where we are, and load what will be needed."""
        iam = self._options.iam
        needed = {
            "rds": bool(iam.server_users),
            "secretsmanager": bool(self._options.secrets),
            "cloudwatch": self._options.cloudwatch.send == "api",
        }
        try:
            await self._threads.call(self._client.warm, [name for name, wanted in needed.items() if wanted])
            arn, region = await self._threads.call(self._client.whoami)
            instance = await self._threads.call(self._client.instance)
        except AwsError as error:
            self._log.warning(
                "aws_identity_unknown",
                why=str(error),
                remedy="check region, role and way to STS; what needs no STS works all the same",
            )
        else:
            self._log.info(
                "aws_identity", arn=arn, region=region, instance=instance.id, account=arn.split(":")[4]
            )

    def _defect(self, failure: Failure) -> None:
        self._log.error("defect", failure=failure.getTraceback())

    def stop(self) -> None:
        """Ask no more."""
        self._secrets.stop()
        self._cloudwatch.stop()
        self._judge.stop()
        for threads in (self._for_secrets, self._for_clients, self._threads):
            threads.stop()

    def _all_figures(self) -> dict[str, Any]:
        return {
            **self._figures(),
            "secrets": self._secrets.count,
            "secrets_not_read": self._secrets.failing,
            "metrics_dropped": self._cloudwatch.dropped,
        }

    # The clients' leg, as a vault.

    def ages(self) -> list[tuple[str, float | None]]:
        """Name all secrets, each with when its current version was made."""
        return self._secrets.ages()

    def takes_tokens(self, user: str) -> bool:
        """Say whether a user logs in by a token, and by nothing else."""
        return user in self._options.iam.client_users

    async def judge(self, user: str, database: str, token: str) -> Credentials:
        """Give what a right token is good for. Raises `TokenRefused`."""
        return await self._judge.judge(user, database, token)

    async def known(self, user: str) -> Known | None:
        """Give what is known of a user. Raises `VaultClosed` where it is not known whether there is any."""
        return await self._secrets.known(user)

    async def renewed(self, user: str) -> Known | None:
        """Give what is known of a user from now on: it is looked up anew. Raises `VaultClosed`."""
        return await self._secrets.renewed(user)

    # The servers' leg.

    def has_keys(self, user: str) -> bool:
        """Say whether what servers are logged in to with is to be asked for here, for this user."""
        return user in self._options.iam.server_users or self._secrets.has(user)

    async def key(self, user: str, host: Host, refused: Sequence[Credentials]) -> Credentials | None:
        """Give what to log in with that was not `refused` yet. Raises `VaultClosed`."""
        if user in self._options.iam.server_users:
            return await self._tokens.key(user, host, bool(refused))
        return await self._secrets.key(user, refused)

    def fits(self, user: str, key: Credentials) -> None:
        """Take the word that a server has been logged in to with it."""
        if key.password is not None:
            self._secrets.fits(user, key.password)
