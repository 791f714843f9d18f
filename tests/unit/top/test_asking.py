"""Where the console is, by the command line, a connection string, the environment, or by default."""

from __future__ import annotations

import pytest
from psycopg.conninfo import conninfo_to_dict

from pgproxy.top.asking import Refused, conninfo

OURS = {"host": "127.0.0.1", "port": "6432", "dbname": "pgproxy"}
SERVICE = {"service": "x", "dbname": "pgproxy"}


def made(dbname: str, **said: str) -> dict[str, object]:
    whole = conninfo_to_dict(conninfo(dbname, said.get("host"), said.get("port"), said.get("user")))
    return {
        name: value
        for name, value in whole.items()
        if name not in ("client_encoding", "application_name", "connect_timeout")
    }


@pytest.mark.parametrize(
    ("dbname", "said", "environ", "wanted"),
    [
        ("pgproxy", {}, {}, OURS),
        ("pgbouncer", {}, {}, OURS | {"dbname": "pgbouncer"}),
        ("pgproxy", {}, {"PGDATABASE": "app"}, OURS),
        (
            "pgproxy",
            {"host": "h", "port": "7", "user": "u"},
            {"PGHOST": "x"},
            OURS | {"host": "h", "port": "7", "user": "u"},
        ),
        ("pgproxy", {}, {"PGHOST": "x", "PGPORT": "1"}, {"dbname": "pgproxy"}),
        ("pgproxy", {}, {"PGSERVICE": "x"}, {"dbname": "pgproxy"}),
        ("host=h sslmode=require", {}, {}, OURS | {"host": "h", "sslmode": "require"}),
        ("hostaddr=::1", {"port": "7"}, {}, {"hostaddr": "::1", "port": "7", "dbname": "pgproxy"}),
        ("service=x", {}, {}, SERVICE),
        (
            "postgresql://u@h:7/pgbouncer",
            {},
            {},
            {"user": "u", "host": "h", "port": "7", "dbname": "pgbouncer"},
        ),
        ("postgresql://h", {"host": "other"}, {}, OURS | {"host": "other"}),
    ],
)
def test_where_it_is(
    dbname: str,
    said: dict[str, str],
    environ: dict[str, str],
    wanted: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("PGHOST", "PGHOSTADDR", "PGPORT", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert made(dbname, **said) == wanted


@pytest.mark.parametrize("dbname", ["nonsense=1", "postgresql://[", "host='"])
def test_what_is_no_connection_string(dbname: str) -> None:
    with pytest.raises(Refused):
        conninfo(dbname, None, None, None)
