"""Users whose passwords are in Secrets Manager, and what a rotation does to them: nothing that they notice."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest

from pgproxy.demo.postgres import Postgres
from tests.fix_aws import Door, Vault
from tests.fix_pgproxy import Pgproxy, PgproxyFactory


def aws(*sources: str, **more: object) -> str:
    lines = ["[aws]", f"secrets = {json.dumps(sources)}"]
    return "\n".join([*lines, *(f"{name} = {json.dumps(value)}" for name, value in more.items()), ""])


def log_in(proxy: Pgproxy, user: str, password: str) -> str:
    with proxy.connect(user=user, password=password, dbname="postgres") as connection:
        return str(connection.execute("select current_user").fetchone()[0])  # type: ignore[index]


@pytest.mark.parametrize("auth", ["scram-sha-256", "md5"])
@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_a_user_of_a_secret(
    pgproxy: PgproxyFactory, postgres: Postgres, vault: Vault, auth: str, mode: str
) -> None:
    arn = vault.add("sm_plain", f"plain/{auth}/{mode}")
    proxy = pgproxy(users={}, auth=auth, pool_mode=mode, extra=aws(arn), env=vault.environment)
    assert log_in(proxy, "sm_plain", "first-password") == "sm_plain"
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        log_in(proxy, "sm_plain", "wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        log_in(proxy, "nobody", "first-password")
    assert "first-password" not in proxy.text()
