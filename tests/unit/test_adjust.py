"""Other values for options, while it runs."""

from __future__ import annotations

import attrs
import pytest

from pgproxy.config import Address, Config, ConfigError, Database, Proxy, Target
from pgproxy.config.adjust import adjusted, changeable

CONFIG = Config(
    proxy=Proxy(auth="trust"),
    targets={"main": Target(server=(Address("127.0.0.1", 5432),), tls="disable")},
    databases={"app": Database()},
)


@pytest.mark.parametrize(
    ("path", "value", "read"),
    [
        ("pool_size", "7", lambda config: config.proxy.pool_size == 7),
        ("proxy.query_timeout", "1.5", lambda config: config.proxy.query_timeout == 1.5),
        ("client_buffer", "128KiB", lambda config: config.proxy.client_buffer == 128 * 1024),
        (
            "session_pinning_filters",
            '["sequence"]',
            lambda config: "sequence" in config.proxy.session_pinning_filters,
        ),
        ("databases.app.pool_mode", "session", lambda config: config.databases["app"].pool_mode == "session"),
        (
            "targets.main.init_query",
            "set x = 1",
            lambda config: config.targets["main"].init_query == "set x = 1",
        ),
        ("statement_statistics", "false", lambda config: config.proxy.statement_statistics is False),
    ],
)
def test_what_can_be_changed(path: str, value: str, read: object) -> None:
    changed = adjusted(CONFIG, path, value)
    assert callable(read) and read(changed) and changed != CONFIG


@pytest.mark.parametrize(
    ("path", "value", "wrong"),
    [
        ("pool_size", "0", "pool_size: 0 is too small; it takes a whole number from 1 to 10000"),
        ("pool_sise", "3", "pool_sise: there is no such option; did you mean pool_size?"),
        ("listen", "127.0.0.1:1", "proxy.listen: cannot be changed while pgproxy runs"),
        ("proxy.tls.mode", "off", "proxy.tls.mode: cannot be changed while pgproxy runs"),
        ("targets.main.server", "127.0.0.1:1", "targets.main.server: cannot be changed while pgproxy runs"),
        ("proxy.tls", "x", "proxy.tls: there is no such option"),
        ("pool_size.x", "3", "pool_size.x: there is no"),
        ("databases.nowhere.pool_size", "3", 'there is no "nowhere" in the configuration'),
        ("targets.main.max_idle_connections_percent", "101", "101 is too large"),
        ("http.listen", "[]", "http.listen: cannot be changed"),
        ("databases", "3", "there is no such option"),
        ("", "3", "there is no such option"),
    ],
)
def test_what_cannot(path: str, value: str, wrong: str) -> None:
    with pytest.raises(ConfigError) as error:
        adjusted(CONFIG, path, value)
    assert wrong in str(error.value)


def test_options_are_checked_against_each_other() -> None:
    config = attrs.evolve(
        CONFIG, targets={"main": attrs.evolve(CONFIG.targets["main"], max_connections_percent=50)}
    )
    with pytest.raises(ConfigError, match="more than max_connections_percent"):
        adjusted(config, "targets.main.max_idle_connections_percent", "60")


def test_what_is_said_to_be_changeable_is() -> None:
    assert changeable("proxy.pool_size") and changeable("targets.main.max_connections_percent")
    for path in ("proxy.workers", "proxy.auth", "targets.main.ca", "proxy.admin_users", "http.token_file"):
        assert not changeable(path)
