"""Reads the files that a configuration names: users, certificates, the token of HTTP."""

from __future__ import annotations

import ssl
from importlib.util import find_spec

from pgproxy.auth.looks import Looks, commonest
from pgproxy.auth.users import UsersFileError, parse_users
from pgproxy.config import Config, ConfigError, Http, Problem
from pgproxy.link.auth_query import AuthQuery
from pgproxy.link.keepalive import Keepalive
from pgproxy.link.materials import Materials
from pgproxy.link.server import Host
from pgproxy.link.tls import client_leg, server_leg
from pgproxy.watch.accounts import watchers_of

WRONG = (ConfigError, UsersFileError, OSError, ssl.SSLError)
"""What is raised where a configuration, or a file that it names, can't be used."""


def gather(config: Config) -> Materials:
    """Read the files it names. Raises OSError, ssl.SSLError, UsersFileError or ConfigError."""
    proxy = config.proxy
    users = (
        parse_users(proxy.users_file.read_text(encoding="utf-8"), str(proxy.users_file))
        if proxy.users_file is not None
        else {}
    )
    tls = client_leg(
        proxy.tls.mode,
        proxy.tls.certificate,
        proxy.tls.key,
        proxy.tls.client_ca,
        proxy.tls.client_certificate == "require" or proxy.auth == "cert",
    )
    keepalive = Keepalive(proxy.tcp_keepidle, proxy.tcp_keepintvl, proxy.tcp_keepcnt, proxy.tcp_user_timeout)
    hosts = {
        name: Host(
            target.server[0].host,
            target.server[0].port,
            server_leg(target.tls, target.ca, target.certificate, target.key),
            keepalive,
        )
        for name, target in config.targets.items()
    }
    # Where there is an auth_query, the one who asks is none of those who are asked about.
    asks = proxy.auth_query.user if proxy.auth_query is not None else None
    looks = commonest(secret for name, secret in users.items() if name != asks)
    if config.aws is not None and config.aws.secrets and not users:
        # The passwords of secrets are plain.
        looks = Looks(scram=False)
    return Materials(
        config,
        users,
        looks,
        tls,
        hosts,
        keepalive,
        AuthQuery.for_targets(config, users),
        watchers_of(config, users),
        _http_token(config.http),
    )


def _http_token(http: Http) -> bytes:
    """Read the token of HTTP; see whether what is to be served can be."""
    if http.listen and find_spec("prometheus_client") is None:
        right = "install pgproxy[metrics], or take it out"
        raise ConfigError([Problem("", "http.listen", "needs the package prometheus-client", right)])
    if http.token_file is None:
        return b""
    token = http.token_file.read_text(encoding="utf-8").partition("\n")[0].strip().encode()
    if not token:
        raise ConfigError([Problem(str(http.token_file), "", "has no token in its first line")])
    return token
