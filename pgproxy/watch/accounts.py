"""As whom the hosts of a target are asked for their roles, where the configuration says it."""

from __future__ import annotations

from collections.abc import Mapping

from pgproxy.auth.secrets import PlainPassword, Secret, credentials_of
from pgproxy.config import Config, ConfigError, Problem
from pgproxy.link.server import Account


def watchers_of(config: Config, users: Mapping[str, Secret]) -> dict[str, Account]:
    """Give the account for each target that names one. Raises `ConfigError` for one that can't log in."""
    accounts = {}
    for name, target in config.targets.items():
        if not target.watch_user:
            continue
        secret = users.get(target.watch_user)
        if secret is not None and not isinstance(secret, PlainPassword):
            problem = Problem(
                str(config.proxy.users_file or ""),
                f"targets.{name}.watch_user",
                f"{target.watch_user} has no plain password in the users file",
                "pgproxy logs in with it to ask which host is the writer: add one",
            )
            raise ConfigError([problem])
        accounts[name] = Account(target.watch_user, target.watch_database, credentials_of(secret))
    return accounts
